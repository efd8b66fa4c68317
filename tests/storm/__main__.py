"""`python -m storm kills | faults | ranks`, with the folder tests on PYTHONPATH. Exit code 1 if anything went wrong."""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

from gradspike.cli.reporting import reporting_errors
from gradspike.errors import UserError


def main(words: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="storm", description=__doc__, allow_abbrev=False)
    commands = parser.add_subparsers(dest="command", required=True)
    kills = commands.add_parser("kills", help="kill trainings at random, resume them, compare with unbroken ones")
    kills.add_argument("--kills", type=int, default=40)
    kills.add_argument("--seed", type=int, default=0)
    kills.add_argument("--forked", action="store_true", help="fork processes that have imported everything: faster")
    faults = commands.add_parser("faults", help="full disks, flipped bits, lost files")
    faults.add_argument("--flips", type=int, default=300, help="flipped bits in each checkpoint")
    faults.add_argument("--seed", type=int, default=0)
    ranks = commands.add_parser("ranks", help="the same training on 1, 2 and 4 processes, in float64")
    ranks.add_argument("--compiled", action="store_true", help="instead with compiled neurons, in float32")
    for command in (kills, faults, ranks):
        command.add_argument("--keep", type=Path, help="work in this new folder and keep it")
    options = parser.parse_args(words)
    if sys.platform != "linux":
        raise UserError("The storm runs on Linux only: it finds processes in /proc.")
    if options.keep is not None:
        if options.keep.exists():
            raise UserError(f"--keep {options.keep}: exists already.")
        options.keep.mkdir(parents=True)
        return run(options, options.keep.resolve())
    with tempfile.TemporaryDirectory(prefix="storm.") as folder:
        return run(options, Path(folder))


def run(options: argparse.Namespace, folder: Path) -> int:
    started = time.monotonic()
    if options.command == "kills":
        from storm import kills

        storm = kills.Storm(folder, options.seed, say, options.forked)
        storm.go(options.kills)
        say(f"\n{kills.report(storm)}")
        failed = storm.failed
    elif options.command == "faults":
        from storm import faults

        failed = faults.run(folder, options.flips, options.seed, say)
    else:
        from storm import equality

        failed = (equality.run_compiled if options.compiled else equality.run)(folder, say)
    say(f"\n{'FAILED' if failed else 'passed'}, {time.monotonic() - started:.0f} s")
    return int(failed)


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(reporting_errors(lambda: main(sys.argv[1:])))
