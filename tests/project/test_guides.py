"""The guides to a method and a norm of one's own work as written."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from gradspike.surrogate import SURROGATES
from helpers.command import ROOT
from helpers.pages import DOCS, blocks
from helpers.warm import warm_python

GUIDE = (DOCS / "add_a_method.md").read_text(encoding="utf-8")


NORM_GUIDE = (DOCS / "add_a_norm.md").read_text(encoding="utf-8")


def patch(text: str, diff: str) -> str:
    """`text` with a diff without line numbers applied; its old lines must stand there exactly once."""
    lines = [(line[:1], line[1:]) for line in diff.splitlines(keepends=True)]
    old = "".join(line for sign, line in lines if sign in "- \n")
    new = "".join(line for sign, line in lines if sign in "+ \n")
    assert text.count(old) == 1, f"the lines to be changed are not there once:\n{old}"
    return text.replace(old, new)


class Reader:
    """A user who follows the guide in a fresh checkout."""

    def __init__(self, folder: Path, shrunk: list[str]) -> None:
        self.root = folder / "gradspike"
        self.shrunk = shrunk
        ignore = shutil.ignore_patterns("*.egg-info")
        for part in ("src", "conf", "tests"):
            shutil.copytree(ROOT / part, self.root / part, ignore=ignore, symlinks=True)
        shutil.copy(ROOT / "pyproject.toml", self.root)

    def follow(self, section: str, guide: str = GUIDE) -> str:
        """Do what one section of a guide says; gives what its commands printed."""
        steps = [block for block in blocks(guide) if block.section == section]
        assert steps, f"no section {section}"
        said = ""
        for block in steps:
            if block.language == "bash":
                said += self.type(block.text)
            elif block.path is not None:
                file = self.root / block.path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(patch(file.read_text(), block.text) if block.language == "diff" else block.text)
        return said

    def type(self, commands: str) -> str:
        """Run the lines of a block in a shell, with overrides that shorten the training."""
        lines = commands.replace("\\\n", " ").splitlines()
        lines = [" ".join([line, *self.shrunk]) if "gradspike train" in line else line for line in lines]
        # Functions, since what is on the PATH need not be of the Python and the checkout that are tested.
        python = f'python() {{ PYTHONPATH="$THIS_SOURCE:$PYTHONPATH" {shlex.join(warm_python())} "$@"; }}'
        script = "\n".join(["set -e", python, 'gradspike() { python -m gradspike "$@"; }', *lines])
        result = subprocess.run(
            ["bash", "-c", script],
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=240,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "THIS_SOURCE": str(self.root / "src"),
            },
        )
        assert result.returncode == 0, f"{commands}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def package(self) -> dict[Path, bytes]:
        """Every source and configuration file."""
        files = [*(self.root / "src").rglob("*.py"), *(self.root / "conf").rglob("*.yaml")]
        return {file: file.read_bytes() for file in files}

    def summaries(self, folder: str) -> list[dict[str, Any]]:
        return [json.loads(file.read_text()) for file in (self.root / folder).glob("*/summary.json")]


@pytest.fixture
def reader(tmp_path: Path, data_dir: Path) -> Reader:
    """A reader with a clone, and with the folder `my_work` beside it."""
    tiny = [
        "model.width=4",
        "model.depth=2",
        "trainer.max_epochs=1",
        "trainer.progress=none",
        "trainer.accelerator=cpu",
        "engine=eager",
    ]
    clone = tmp_path / "clone"
    clone.mkdir()
    return Reader(clone, [*tiny, f"data_dir={data_dir}"])


def passed(said: str) -> int:
    found = re.search(r"(\d+) passed", said)
    assert found
    assert not re.search(r"failed|error|no tests", said)
    return int(found[1])


def test_a_method_in_a_folder_of_its_own(reader: Reader) -> None:
    """File, YAML, contract, a comparison over two seeds; no line of the package changes."""
    before = reader.package()
    reader.follow("The file")
    reader.follow("The YAML")
    assert passed(reader.follow("Test it")) > len(SURROGATES)
    printed = reader.follow("Train it and the baseline")
    summaries = reader.summaries("runs/annealed")
    assert {(one["method"], one["seed"]) for one in summaries} == {
        (method, seed) for method in ("fixed_sg", "annealed") for seed in (0, 1)
    }
    assert "4 trials" in printed
    for method in ("fixed_sg", "annealed"):
        accuracies = [one["test"]["last"]["accuracy"] for one in summaries if one["method"] == method]
        assert re.search(rf"{method}\W+{100 * sum(accuracies) / 2:.2f} ±", printed)
    assert (reader.root / "annealed.html").is_file()
    assert reader.package() == before


def test_a_method_inside_the_package(reader: Reader) -> None:
    """The same method registered: found by the contract tests and trained by its name."""
    reader.follow("The file")
    reader.follow("The YAML")
    printed = reader.follow("Inside the package")
    assert passed(printed) > len(SURROGATES) + 1
    assert [one["method"] for one in reader.summaries("runs")] == ["annealed"]


def test_the_method_of_the_guide_does_what_it_says(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    from helpers.method_checks import make_input, make_layer, method_config

    reader.follow("The file")
    monkeypatch.syspath_prepend(str(reader.root / "../my_work"))
    layer = make_layer(method_config("my_lab.annealed:Annealed", start=2.0, end=0.5, half_life=2.0))
    widths = []
    for seed in range(5):
        widths.append(layer.inspect(make_input()).widths[0].item())
        layer(make_input(seed))
    assert widths == pytest.approx([0.5 + 1.5 * 2 ** (-n / 2) for n in range(5)])
    assert layer.state_dict()["method.batches"] == 5


def test_a_norm_from_outside_then_inside_the_package(reader: Reader) -> None:
    """File, YAML, contract, a comparison over two seeds without a changed line of the package; then registered."""
    before = reader.package()
    for section in ("The file", "The YAML"):
        reader.follow(section, NORM_GUIDE)
    assert passed(reader.follow("Test it", NORM_GUIDE)) > 8
    assert "4 trials" in reader.follow("Train it and the default", NORM_GUIDE)
    configs = [yaml.safe_load(file.read_text()) for file in (reader.root / "runs/clipped").glob("*/config.yaml")]
    assert sorted((one["norm"]["name"], one["seed"]) for one in configs) == [
        (norm, seed) for norm in ("my_lab.clipped:Clipped", "tdbn") for seed in (0, 1)
    ]
    assert (reader.root / "clipped.html").is_file()
    assert reader.package() == before
    assert passed(reader.follow("Inside the package", NORM_GUIDE)) > 8


def test_a_diff_that_does_not_fit_is_noticed() -> None:
    assert patch("a\nb\nc\n", " a\n-b\n+x\n") == "a\nx\nc\n"
    with pytest.raises(AssertionError, match="not there once"):
        patch("a\nb\n", "-c\n+d\n")
