"""docs/fine_tuning.md, followed literally: every command typed on small runs, and what it says about each."""

from __future__ import annotations

import json
import re
import shlex
from pathlib import Path

import pytest

from gradspike.runs.folder import RunFolder
from helpers.command import ROOT, TINY, here
from helpers.data_samples import write_class_folders

PAGE = (ROOT / "docs/fine_tuning.md").read_text(encoding="utf-8")


class Reader:
    """A reader in an empty folder, who trains small networks for an epoch."""

    def __init__(self, folder: Path, data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.capsys = folder, capsys
        self.short = [*(word for word in TINY if not word.startswith("model.")), f"data_dir={data_dir}"]

    def lines(self, section: str) -> list[str]:
        part = PAGE.partition(f"## {section}\n")[2].partition("\n## ")[0]
        text = "".join(re.findall(r"^```bash\n(.*?)^```$", part, flags=re.MULTILINE | re.DOTALL))
        return text.replace("\\\n", " ").splitlines()

    def type(self, line: str, *more: str, replaced: str = "") -> tuple[RunFolder, str]:
        """Type a line with the run in place of `<...>`. Returns its run and what run.log says about the start."""
        before = set((self.folder / "runs").glob("2*"))
        program, *words = shlex.split(re.sub(r"<[^>]+>", replaced, line), comments=True)
        assert (program, words[0]) == ("gradspike", "train")
        code, _, error = here([*words, *more], self.capsys)
        assert code == 0, error
        (made,) = set((self.folder / "runs").glob("2*")) - before or {self.folder / "runs" / replaced}
        run = RunFolder(made)
        assert run.state() == "finished"
        return run, run.log.read_text(encoding="utf-8")


@pytest.fixture
def reader(
    tmp_path: Path, data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Reader:
    monkeypatch.chdir(tmp_path)
    return Reader(tmp_path, data_dir, capsys)


def test_weights_of_a_run_a_checkpoint_and_a_file_then_more_epochs(reader: Reader) -> None:
    short = [*reader.short, "trainer.max_epochs=1", "model.width=4", "model.depth=2", "dataset.batch_size=512"]
    first, _ = reader.type("gradspike train dataset=digits", *short)
    (code,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    exec(code.replace("<run>", first.path.name), {})
    lines = reader.lines("Start from given weights")
    names = ("best.ckpt", "last.ckpt", "weights.safetensors")
    assert len(lines) == len(names)
    for line, name in zip(lines, names, strict=True):
        run, said = reader.type(line, *short, replaced=first.path.name)
        assert run.config().init_from is not None
        assert re.search(rf"start: weights of \S*{re.escape(name)}.*, sha256 [0-9a-f]{{12}}", said)
    (line,) = reader.lines("More epochs for a run")
    run, said = reader.type(line.replace("=40", "=2"), replaced=first.path.name)
    assert run.path.name == first.path.name
    assert run.config().trainer.max_epochs == 2
    assert "changed: trainer.max_epochs=2 instead of 1" in said
    assert "differs from one that was started with 2 epochs" in said
    assert "max_epochs" in (run.path / "environment.json").read_text()


def test_another_data_set(reader: Reader) -> None:
    """Images of five classes, with the weights of a run on three; the first layers are those of the run."""
    for name, classes in (("first", 3), ("my_images", 5)):
        write_class_folders(reader.folder / name, classes="abcde"[:classes])
    short = [*reader.short, "trainer.max_epochs=1", "model.width=0.03", "time_steps=1", "dataset.batch_size=4"]
    words = "dataset=image_folder dataset.source=first dataset.classes=3 dataset.image_size=32 model=resnet19"
    first, _ = reader.type(f"gradspike train {words}", *short)
    (line,) = reader.lines("Fine-tune on another data set")
    run, said = reader.type(line, *short, replaced=first.path.name)
    assert run.config().dataset.classes == 5
    assert run.config().optimizer.lr == 0.01
    assert "another shape, stays as it starts: 1 value, head.weight [3, 8] instead of [5, 8]" in said
    assert json.loads((run.path / "summary.json").read_text())["epochs"] == 1
