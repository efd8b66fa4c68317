"""`gradspike claims`: its arguments and steps. Imports nothing heavy before the arguments are checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from gradspike.cli.arguments import Command, checked_file
from gradspike.errors import UserError
from gradspike.runs.files import write_output
from gradspike.shown import expanded
from gradspike.tools.claims.claim import read_claims
from gradspike.tools.claims.summary import Summary, read_summary, summary_text

OUT = {".md": "Markdown, with its figures in a folder of the same name", ".html": "the page, with its figures"}

USAGE = """\
Compare what papers claim with our own runs: a verdict for each claim, from stored summaries of runs.

  gradspike claims                                                  print the verdicts
  gradspike claims --out docs/claims.md --out claims.html           write them, with figures
  gradspike claims runs/sweeps/main                                 with this sweep instead of its stored runs
  gradspike claims runs/sweeps/main --store docs/results/claims     store the numbers of these runs

Arguments:
  FOLDER ...         folders of sweeps (sweeps/claims/*.yaml); each replaces the stored summary of its name. Folders of
                     the same name are parts of one sweep, as from two machines
  --claims DIR       the claim files, *.yaml                                              (claims)
  --summaries DIR    the stored summaries, *.json                                         (docs/results/claims)
  --add              add the runs of each FOLDER to the stored summary of its name; both must have run the same code
                     (on another processor only with other seeds)
  --store DIR        write a summary of each FOLDER to DIR/<its name>.json
  --out FILE         .md or .html; repeatable

A claim holds here if the 95 % interval of every number lies inside the range that the claim states, and does not hold
here if one lies outside. docs/claims.md is the result for the runs of this repository.
"""

COMMAND = Command(
    "claims", USAGE, valued=("--claims", "--summaries", "--store", "--out"), switches=("--add",), words=True
)


def claims(words: Sequence[str]) -> int:
    """Print or write all claims with their verdicts. Returns the exit code."""
    typed = COMMAND.parse(words)
    outs = [checked_file("--out ", word, OUT) for word in typed.flags.get("--out", [])]
    store = typed.last("--store")
    if store is not None and not typed.words:
        raise COMMAND.error("--store needs the folder of a sweep, as in  gradspike claims runs/sweeps/main --store DIR")
    add = "--add" in typed.flags
    if add and not typed.words:
        raise COMMAND.error("--add needs the folder of a sweep, as in  gradspike claims runs/sweeps/main --add")
    if store is not None and not expanded(store).is_dir():
        raise UserError(f"--store {store}: is not a folder.")
    known = read_claims(expanded(typed.last("--claims") or "claims"))
    summaries = stored(expanded(typed.last("--summaries") or "docs/results/claims"))
    for name, summary in _of_sweeps([expanded(word) for word in typed.words], summaries if add else {}).items():
        summaries[name] = summary
        if store is not None:
            path = expanded(store) / f"{name}.json"
            write_output(path, summary_text(summary), "--store ")
            print(f"written: {path}")

    from gradspike.tools.claims.report import report

    result = report(known, summaries, "gradspike claims")
    if not outs:
        from gradspike.terminal.tables import console
        from gradspike.tools.claims.table import print_claims

        print_claims(result, console())
    for path in outs:
        from gradspike.tools.claims.write import write

        for file in write(result, path):
            print(f"written: {file}")
    return 0


def stored(folder: Path) -> dict[str, Summary]:
    """The stored summaries by name; none if the folder does not exist."""
    return {path.stem: read_summary(path) for path in sorted(folder.glob("*.json"))}


def _of_sweeps(folders: Sequence[Path], earlier: Mapping[str, Summary]) -> dict[str, Summary]:
    """The summaries of sweeps by name; folders of the same name, and the earlier summary, are parts of one sweep."""
    from gradspike.tools.claims.collect import collect, merge

    found: dict[str, Summary] = {}
    for folder in folders:
        name, summary = folder.resolve().name, collect(folder)
        parts = found if name in found else earlier
        found[name] = merge(parts[name], summary, name) if name in parts else summary
    return found
