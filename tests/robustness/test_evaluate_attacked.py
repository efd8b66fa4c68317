"""`gradspike evaluate attack=...` and `corrupt=...`: accuracy, record and figure, and what is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from PIL import Image

from gradspike.config.schema import ExperimentConfig
from gradspike.robustness.options import fraction
from helpers.command import IMPORT_TIMES, command, here, imported
from helpers.runs import train


@pytest.fixture
def run(compared_runs: Path, tmp_path: Path) -> Path:
    """A copy of a run of fixed_sg on digits."""
    source = next(compared_runs.glob("*_fixed_sg_*_s0_*"))
    return Path(shutil.copytree(source, tmp_path / "run"))


def evaluated(run: Path, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    """The record that a command writes."""
    code, printed, error = here(["evaluate", f"run={run}", "accelerator=cpu", *words], capsys)
    assert code == 0, error
    (line,) = (one for one in printed.splitlines() if one.startswith("written:") and one.endswith(".json"))
    content: dict[str, Any] = json.loads((run / "robustness" / Path(line.split()[1]).name).read_text())
    return content


def accuracies(record: dict[str, Any], checkpoint: str = "last") -> list[float]:
    return [level["accuracy"] for level in record["checkpoints"][checkpoint]["levels"]]


def test_an_attack_lowers_accuracy_and_leaves_the_results_of_the_run_alone(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in run.rglob("*") if path.is_file()}
    summary = json.loads((run / "summary.json").read_text())
    fgsm = evaluated(run, capsys, "attack=fgsm", "epsilon=0.02,64/255")
    assert {path: path.read_bytes() for path in before} == before
    assert fgsm["settings"]["epsilon"] == [0.02, 64 / 255]
    for name in ("last", "best"):
        clean, weak, strong = accuracies(fgsm, name)
        assert clean == pytest.approx(summary["test"][name]["accuracy"]), "that of an ordinary evaluation"
        assert clean >= weak > strong
    level = fgsm["checkpoints"]["last"]["levels"][2]
    assert level["samples"] == 359
    assert level["correct"] == round(359 * level["accuracy"])
    assert level["interval"][0] < level["accuracy"] < level["interval"][1]
    added = {path.name for path in run.rglob("*") if path.is_file()} - {path.name for path in before}
    assert added == {"test_fgsm_0.02-0.25098.json", "test_fgsm_0.02-0.25098.png"}
    with Image.open(run / "robustness" / "test_fgsm_0.02-0.25098.png") as picture:
        assert picture.size == (768, 528)

    words = ["attack=pgd", "epsilon=64/255", "steps=4", "checkpoint=last", "samples=60"]
    pgd = evaluated(run, capsys, *words, "batch_size=7")
    assert pgd["settings"] == {
        **{"attack": "pgd", "epsilon": [64 / 255], "steps": 4, "step_size": None, "restarts": 1, "seed": 0},
        **{"surrogate": None, "width": None, "samples": 60},
    }
    assert accuracies(pgd)[1] < accuracies(pgd)[0]
    assert pgd == evaluated(run, capsys, *words), "whatever the batches"
    worse = evaluated(run, capsys, *words, "restarts=4")
    assert accuracies(worse)[1] <= accuracies(pgd)[1]


def test_a_narrow_surrogate_masks_the_gradient_and_is_reported(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["attack=fgsm", "epsilon=64/255", "checkpoint=last"]
    plain = evaluated(run, capsys, *words)
    masked = evaluated(run, capsys, *words, "width=0.001")
    assert plain["checkpoints"]["last"]["without_gradient"] == 0
    assert masked["checkpoints"]["last"]["without_gradient"] > 0
    assert accuracies(masked)[1] > accuracies(plain)[1]
    code, printed, _ = here(["evaluate", f"run={run}", "accelerator=cpu", *words, "width=0.001"], capsys)
    assert code == 0
    assert "of 359 samples is 0 in every pixel. The attack finds no direction for them" in printed
    assert "fgsm, the run's surrogate, width 0.001" in printed
    other = evaluated(run, capsys, *words, "surrogate=fast_sigmoid")
    assert accuracies(other)[0] == accuracies(plain)[0]


def test_the_relu_twin_is_attacked_through_its_own_gradient(
    compared_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    twin = Path(shutil.copytree(next(compared_runs.glob("*_relu_*")), tmp_path / "twin"))
    clean, attacked = accuracies(evaluated(twin, capsys, "attack=fgsm", "epsilon=0.2", "checkpoint=last"))
    assert attacked < clean
    code, _, error = here(["evaluate", f"run={twin}", "attack=fgsm", "surrogate=arctan"], capsys)
    assert code == 2
    assert "surrogate: the run is an ANN twin (model.activation=relu), which has no surrogate" in error


def test_noise_is_the_same_for_every_batch_and_another_for_every_seed(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["corrupt=noise", "levels=0,0.1,0.6", "checkpoint=last"]
    first = evaluated(run, capsys, *words)
    clean, _, strong = accuracies(first)
    assert strong < clean - 0.2
    assert first == evaluated(run, capsys, *words, "batch_size=50")
    assert (run / "robustness" / "test_noise_0.1-0.6_last.png").is_file()
    assert accuracies(evaluated(run, capsys, *words, "seed=1"))[2] != strong


EVENTS = """\
import numpy as np
from gradspike.data.options.events import EventsConfig
from gradspike.data.source import Samples, Source, stratified_split

class SidesConfig(EventsConfig):
    image_size: int = 8
    classes: int = 2

class Sides(Source):
    Config = SidesConfig

    def load(self):
        labels = np.arange(300) % 2
        counts = np.random.default_rng(0).poisson(0.3, (300, self.time_steps, 2, 8, 8)).astype(np.uint8)
        counts[labels == 1, ..., :4] += 2
        return Samples(counts, labels, stratified_split(labels, val=0.2, test=0.4, seed=1))
"""


def test_dropped_events(
    tiny_config: Callable[..., ExperimentConfig],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    (tmp_path / "sides.py").write_text(EVENTS)
    monkeypatch.syspath_prepend(str(tmp_path))
    words = ["~dataset", "+dataset.name=sides:Sides", "time_steps=2", "method=fixed_sg", "norm.momentum=0.5"]
    words += ["+dataset.batch_size=16", "trainer.max_epochs=3"]
    run = train(tiny_config(*words)).path
    words = ["corrupt=event_drop", "levels=0.3,1", "checkpoint=last"]
    record = evaluated(run, capsys, *words)
    summary = json.loads((run / "summary.json").read_text())
    clean, _, empty = accuracies(record)
    assert clean == pytest.approx(summary["test"]["last"]["accuracy"])
    assert clean > 0.9
    assert empty == 0.5, "without any event, all samples look the same"
    assert record == evaluated(run, capsys, *words, "batch_size=33")
    for words, said in (
        (["attack=fgsm"], "attack=fgsm: the run's data set 'sides:Sides' has event frames. Their values are counts"),
        (["corrupt=noise"], "corrupt=noise: the run's data set 'sides:Sides' has event frames."),
    ):
        code, _, error = here(["evaluate", f"run={run}", *words], capsys)
        assert (code, said in error) == (2, True), error


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["attack=fgms"], "attack=fgms: must be one of fgsm, pgd. Did you mean 'fgsm'?"),
        (["attack=fgsm", "epsilon=8"], "epsilon=8: 8 is outside 0 to 1, the range of a pixel before normalisation"),
        (["attack=fgsm", "epsilon=8"], "Did you mean 8/255?"),
        (["attack=fgsm", "epsilon=-0.1"], "epsilon=-0.1: -0.1 is outside 0 to 1"),
        (["attack=fgsm", "epsilon=0"], "epsilon=0: changes nothing"),
        (["attack=fgsm", "epsilon=1/0"], "epsilon=1/0: '1/0' is not a number; write 0.03 or 8/255"),
        (["attack=fgsm", "epsilon=nan"], "epsilon=nan: 'nan' must be finite"),
        (["attack=fgsm", "surrogate=arctn"], "Did you mean 'arctan'?"),
        (["attack=fgsm", "width=0"], "width=0: must be greater than or equal to 0.001"),
        (["attack=fgsm", "steps=5"], "steps: has an effect only with attack=pgd."),
        (["attack=pgd", "levels=0.1"], "levels: has an effect only with corrupt=noise"),
        (["epsilon=0.1"], "epsilon: has an effect only with attack=fgsm or attack=pgd."),
        (["attack=fgsm", "samples=999"], "samples=999: the split test has 359 samples."),
        (["samples=9"], "samples: has an effect only with attack=... or corrupt=..."),
        (["corrupt=noise", "levels=0.1,2"], "levels=0.1,2: 2 is outside 0 to 1"),
        (["corrupt=nose"], "Did you mean 'noise'?"),
        (["attack=pgd", "corrupt=noise"], "attack and corrupt: choose one of them."),
        (["attack=pgd", "engine=compiled"], "engine=compiled: attacks are computed with engine=eager."),
        (["corrupt=event_drop"], "has still images, which consist of no events. Use corrupt=noise."),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes(run: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    code, printed, error = here(["evaluate", f"run={run}", *words], capsys)
    assert (code, printed) == (2, "")
    assert said in error
    assert not (run / "robustness").exists()


@pytest.mark.parametrize(
    ("section", "key", "value", "words", "said"),
    [
        ("model", "encoder", "poisson", ["attack=pgd"], "the run's encoder (model.encoder=poisson) turns pixels into"),
        ("dataset", "resize", "tet", ["corrupt=event_drop"], "frames of dataset.resize=tet are interpolated"),
    ],
)
def test_inputs_that_cannot_be_changed(
    run: Path, capsys: pytest.CaptureFixture[str], section: str, key: str, value: str, words: list[str], said: str
) -> None:
    config = yaml.safe_load((run / "config.yaml").read_text())
    if section == "dataset":
        config["dataset"] = {"name": "nmnist"}
    config[section] |= {key: value}
    if value == "poisson":
        config["dataset"]["normalize"] = "unit"
    (run / "config.yaml").write_text(yaml.safe_dump(config))
    code, _, error = here(["evaluate", f"run={run}", *words], capsys)
    assert (code, said in error) == (2, True), error


def test_mistakes_are_reported_before_torch_is_imported(run: Path) -> None:
    result = command("evaluate", f"run={run}", "corrupt=event_drop", python=IMPORT_TIMES)
    assert result.returncode == 2
    assert "torch" not in imported(result.stderr)


def test_a_read_only_run_is_measured_and_not_recorded(
    run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    mkdir = Path.mkdir

    def refuse(self: Path, *given: Any, **named: Any) -> None:
        if self.parent == run.resolve():
            raise PermissionError(13, "Permission denied")
        mkdir(self, *given, **named)

    monkeypatch.setattr(Path, "mkdir", refuse)
    words = ["attack=fgsm", "samples=20", "checkpoint=last", "accelerator=cpu"]
    code, printed, error = here(["evaluate", f"run={run}", *words], capsys)
    assert code == 0
    assert "0 (clean)" in printed
    assert "written" not in printed
    assert "Note: the run folder is read-only, so the result is not recorded" in error


def test_fractions() -> None:
    assert fraction("8/255") == 8 / 255
    assert fraction(" 0.5 ") == 0.5
    assert torch.equal(torch.arange(256).float() / 255 * 255, torch.arange(256).float()), "stored pixels stay exact"
