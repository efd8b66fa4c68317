"""docs/tutorial.md, followed literally in an empty folder: files written, commands typed, with small networks."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

from helpers.command import ROOT, TINY
from helpers.forks import fork_server

PAGE = (ROOT / "docs/tutorial.md").read_text(encoding="utf-8")
SEEDS = "[0, 1, 2, 3, 4, 5]"


class Reader:
    """A reader in an empty folder."""

    def __init__(self, folder: Path, data_dir: Path) -> None:
        self.folder = folder
        self.short = [*(word for word in TINY if "max_epochs" not in word), "trainer.max_epochs=1"]
        self.short += [f"data_dir={data_dir}", "dataset.batch_size=256"]

    def follow(self, section: str) -> str:
        """Write the files of a section and type its commands. Returns what these print."""
        part = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
        said = ""
        for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", part, flags=re.MULTILINE | re.DOTALL):
            marker, _, content = text.partition("\n")
            if language == "bash":
                said += "".join(map(self.type, text.splitlines()))
            else:
                path = self.folder / marker.removeprefix("# file: ")
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_text(content.replace(SEEDS, "[0, 1]"))
        return said

    def type(self, line: str) -> str:
        program, *words = shlex.split(line.replace("<run>", self.run()))
        variables = {}
        if program.startswith("PYTHONPATH="):
            variables["PYTHONPATH"] = program.partition("=")[2]
            program, *words = words
        if program == "mkdir":
            (self.folder / words[-1]).mkdir()
            return ""
        assert program == "gradspike"
        short = self.short if words[0] in ("train", "sweep") and "--help" not in words else []
        process = fork_server().start(*words, *short, cwd=self.folder, **variables)
        said, _ = process.communicate()
        assert process.returncode == 0, f"{line}\n{said}"
        return said

    def run(self) -> str:
        return next((path.name for path in (self.folder / "runs").glob("2*")), "")


def test_from_nothing_to_a_papers_table(tmp_path: Path, data_dir: Path) -> None:
    assert SEEDS in PAGE
    reader = Reader(tmp_path, data_dir)
    said = reader.follow("First training")
    assert "  method.v_threshold=" in said
    assert (tmp_path / "runs" / reader.run() / "evaluation_test.json").is_file()
    said = reader.follow("Your own method")
    assert "  method.first=2.0  number at least 0.001\n      width at the first time step\n" in said
    said = reader.follow("A sweep over seeds")
    assert "narrowing: 4 trials: 4 finished" in said
    assert "Over seeds: mean ± standard deviation" in said
    said = reader.follow("The page and the table")
    assert "fixed_sg" in said
    assert (tmp_path / "narrowing.html").is_file()
    assert r"\toprule" in (tmp_path / "narrowing.tex").read_text()
    reader.follow("The claim")
    assert "N1" in (tmp_path / "claims.md").read_text()
    assert json.loads((tmp_path / "summaries" / "narrowing.json").read_text())
