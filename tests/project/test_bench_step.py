"""The training step benchmark: all candidates compute the same, and the tables contain the measured values."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

import backbones
import peers
import step
import step_worker
from gradspike.errors import UserError
from helpers.command import ROOT
from helpers.warm import warm_python
from step_profile import MEASURED, allocations, highest_sum
from step_table import TABLES_END, Measured, best_twin, markdown, spread, table, updated, write_page
from step_worker import Candidate, Network, Setting, Training, configuration

TINY = Network("ResNet-19", ("dataset=cifar10", "model=resnet19"), 3, 2, 0.03)
FP32 = Setting("fp32", "contiguous")
OURS = Candidate("ours", "ours")


def loss_and_gradients(candidate: Candidate, setting: Setting = FP32, network: Network = TINY) -> dict[str, Tensor]:
    """In float64, so that a difference is one of what is computed, not of rounding."""
    training = Training(network, candidate, setting, "cpu")
    training.plain.double()
    training.inputs = training.inputs.double()
    loss = training.criterion(training.model(training.inputs), training.labels)
    loss.backward()
    found = {"loss": loss.detach()}
    for name, parameter in training.plain.named_parameters():
        assert parameter.grad is not None
        found[name.removeprefix("network.")] = parameter.grad
    return found


def assert_same(ours: dict[str, Tensor], theirs: dict[str, Tensor]) -> None:
    assert ours.keys() == theirs.keys()
    for name, value in ours.items():
        assert value.abs().max() > 0, name
        torch.testing.assert_close(theirs[name], value, rtol=1e-5, atol=1e-7, msg=name)


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_research_code_computes_what_ours_computes(layout: str) -> None:
    setting = Setting("fp32", layout)
    ours = loss_and_gradients(OURS, setting)
    assert_same(ours, loss_and_gradients(Candidate("research", "research_code"), setting))


def test_spikingjelly_computes_what_ours_computes_with_its_surrogate() -> None:
    pytest.importorskip("spikingjelly")
    triangular = replace(TINY, words=(*TINY.words, "method.surrogate=triangular"))
    # Its operator computes in float32 whatever it is given.
    ours = Training(triangular, OURS, FP32, "cpu")
    theirs = Training(TINY, Candidate("peer", "spikingjelly", backend="torch"), FP32, "cpu")
    assert_close_steps(ours, theirs)


TINY_BACKBONES = {
    "spikformer": ("model.dim=32", "model.depth=1", "model.heads=2"),
    "sdt": ("model.dim=32", "model.depth=1", "model.heads=2"),
    "qkformer": ("model.dim=64", "model.depth=3", "model.heads=4"),
    "ms_resnet18": ("model.width=0.06", "model.zero_gain=false"),
    "vgg9": ("model.width=0.06",),
}


@pytest.mark.parametrize("name", backbones.NETWORKS)
def test_backbones_in_spikingjelly_compute_what_ours_compute(name: str) -> None:
    pytest.importorskip("spikingjelly")
    words = (*backbones.RELEASED, f"model={name}", *TINY_BACKBONES[name], "dataset.image_size=8")
    network = Network(name, words, 3, 2)
    both = [Training(network, one, FP32, "cpu") for one in (replace(backbones.OURS, engine="eager"), backbones.PEER)]
    for training in both:
        for key, parameter in training.plain.named_parameters():
            if key.endswith("norm.bias"):
                parameter.data += 1.2  # every layer fires
    assert_close_steps(*both)


def test_snntorch_computes_what_ours_computes_without_gradient_through_the_reset() -> None:
    pytest.importorskip("snntorch")
    detached = replace(TINY, words=(*TINY.words, "neuron.detach_reset=true"))
    ours = Training(detached, OURS, FP32, "cpu")
    assert_close_steps(ours, Training(TINY, Candidate("peer", "snntorch"), FP32, "cpu"))


def assert_close_steps(ours: Training, theirs: Training) -> None:
    """One step of each, in float32: loss, and gradient of each weight."""
    assert float(ours.step()) == pytest.approx(float(theirs.step()), rel=1e-5)
    mine = {name: one.grad for name, one in ours.plain.named_parameters()}
    its = {name: one.grad for name, one in theirs.plain.named_parameters()}
    assert mine.keys() == its.keys()
    for name, value in mine.items():
        assert value is not None
        assert value.abs().max() > 0, name
        torch.testing.assert_close(its[name], value, rtol=1e-3, atol=1e-5, msg=name)


@pytest.mark.parametrize("kind", ["relu", "ours", "research_code", *peers.SPIKINGJELLY_BACKENDS["cpu"], "snntorch"])
def test_peak_memory_is_the_same_each_time_and_more_than_what_lives(kind: str) -> None:
    candidate = Candidate(kind, "spikingjelly" if kind == "torch" else kind, backend=kind)
    if candidate.kind in ("spikingjelly", "snntorch"):
        pytest.importorskip(candidate.kind)
    peaks = []
    for _ in range(2):
        training = Training(TINY, candidate, FP32, "cpu")
        training.step()
        peaks.append(training.peak_bytes())
    assert peaks[0] == peaks[1]
    gradients = sum(one.numel() * 4 for one in training.plain.parameters())
    assert peaks[0] > training.living_bytes() + gradients


def test_allocations_are_those_made_while_it_looked_on() -> None:
    known = [torch.empty(77)]
    with torch.profiler.profile(profile_memory=True) as profiler:
        first = torch.empty(1000)
        known.clear()
        with torch.profiler.record_function(MEASURED):
            second = torch.empty(500)
            del first
            third = torch.empty(100)
    assert (second.numel(), third.numel()) == (500, 100)
    before, changes = allocations(profiler)
    assert before == [4000]
    assert changes == [2000, -4000, 400]
    assert highest_sum(before, changes) == 6000


def test_peak_is_the_highest_point_after_the_step_before() -> None:
    assert highest_sum([5, -2], [4, -6, 3, 1]) == 7
    assert highest_sum([5], [-2, 1]) == 5


def test_twin_and_ours_have_the_same_inputs_and_the_still_picture_is_one_step() -> None:
    twin, ours = (Training(TINY, Candidate(kind, kind), FP32, "cpu") for kind in ("relu", "ours"))
    research = Training(TINY, Candidate("r", "research_code"), FP32, "cpu")
    assert torch.equal(twin.inputs, ours.inputs)
    assert torch.equal(research.inputs, ours.inputs)
    assert research.inputs.transpose(0, 1).is_contiguous()
    assert ours.inputs.shape == (3, 2, 3, 32, 32)
    assert Training(TINY, Candidate("s", "ours", still=True), FP32, "cpu").inputs.shape == (2, 3, 32, 32)
    last = Training(TINY, OURS, Setting("fp32", "channels_last"), "cpu")
    assert last.inputs.flatten(0, 1).is_contiguous(memory_format=torch.channels_last)


def test_fixed_sg_has_the_peers_neuron_and_the_other_methods_the_default() -> None:
    assert configuration(TINY, OURS).neuron.name == "lif"
    assert configuration(TINY, Candidate("m", "ours", method="mpd_agl")).neuron.name == "plif"


@pytest.mark.parametrize("values", [[1.0], [1.0, 2.0], [3.0, 1.0, 2.0]])
def test_spread_stays_within_what_was_measured(values: list[float]) -> None:
    middle, low, high = spread(values)
    assert min(values) <= low <= middle <= high <= max(values)


def test_spread_by_hand() -> None:
    assert spread([float(value) for value in range(11)]) == (5.0, 1.0, 9.0)


def rows_by_hand() -> dict[str, dict[str, Measured]]:
    return {
        "fp32-contiguous": {
            "plain": Measured([1.0, 2.0, 4.0], 200),
            "compiled": Measured([0.5, 1.0, 2.0], 100),
            "ours": Measured([1.0, 1.0, 2.0], 150),
            "absent": Measured(failure="not installed"),
        }
    }


def test_ratios_are_of_one_round_and_to_the_faster_twin() -> None:
    results = rows_by_hand()
    assert best_twin(results["fp32-contiguous"], ["plain", "compiled"]) == "compiled"
    head, rows, notes = table(results, ["plain", "compiled"])
    assert head == ["candidate", "fp32-contiguous: time", "memory"]
    assert rows == [
        ["plain", "2.00 (2.00 to 2.00)", "2.00"],
        ["compiled", "1.00", "1.00"],
        ["ours", "1.00 (1.00 to 1.80)", "1.50"],
        ["absent", "-", "-"],
    ]
    assert "1.00 is compiled, 1,000.0 ms per step" in notes[0]
    assert notes[1] == "fp32-contiguous: absent: not installed"
    assert markdown(head, rows, notes).splitlines()[1] == "| --- | ---: | ---: |"


def test_no_twin_no_table() -> None:
    with pytest.raises(UserError, match="broken"):
        best_twin({"plain": Measured(failure="broken")}, ["plain"])


def test_page_keeps_what_is_not_its_own(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"# By hand\n\n{TABLES_END}\n\nafter\n")
    write_page(page, "A, machine 1", "first")
    write_page(page, "A, machine 2", "second")
    write_page(page, "A, machine 1", "third")
    text = page.read_text()
    assert "first" not in text
    assert text.index("# By hand") < text.index("third") < text.index("second") < text.index(TABLES_END)
    assert text.endswith("\n\nafter\n")
    assert list(tmp_path.iterdir()) == [page]
    with pytest.raises(UserError, match="without"):
        updated("<!-- step table: x -->", "x", "body")
    with pytest.raises(UserError, match="no line"):
        updated("nothing", "x", "body")


def test_whole_command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Its processes are forks that need not import everything."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    command = step_worker.command
    monkeypatch.setattr(step_worker, "command", lambda *words: command(*words[:4], warm_python()))
    page = tmp_path / "performance.md"
    page.write_text(f"by hand\n{TABLES_END}\n")
    words = "--networks resnet19 --methods fixed_sg --engines eager --settings fp32-channels_last --rounds 2 --steps 1"
    words += f" --width 0.02 --batch 2 --threads 1 --device cpu --no-twin-compile --write {page}"
    assert step.run(step.options_of(words.split())) == 0
    text = page.read_text()
    rows = [line for line in text.splitlines() if line.startswith("|")]
    assert [row.split("|")[1].strip() for row in rows] == [
        "candidate",
        "---",
        "ReLU twin",
        "ours, eager, fixed_sg",
        "ours, eager, fixed_sg, still image",
        "one autograd function a step",
        "SpikingJelly, torch",
        "snnTorch",
    ]
    number = r"\d+\.\d\d"
    assert re.fullmatch(r"\| ReLU twin \| 1\.00 \| 1\.00 \|", rows[2])
    for row in rows[3:]:
        peer = {"SpikingJelly, torch": "spikingjelly", "snnTorch": "snntorch"}.get(row.split("|")[1].strip())
        if peer is not None and peers.version(peer) is None:
            assert row.endswith("| - | - |")
            assert f"{peer}: not installed" in text.lower().replace("spikingjelly, torch", "spikingjelly")
        else:
            assert re.fullmatch(rf"\| .* \| {number} \({number} to {number}\) \| {number} \|", row), row
    assert f"torch {torch.__version__}" in text
    assert "1 thread; " in text
    assert "still image" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("--networks resnet20", "Did you mean 'resnet19'?"),
        ("--methods fixed", "Did you mean 'fixed_sg'?"),
        ("--settings fp16-contiguous", "Allowed: fp32-contiguous"),
        ("--engines egar", "Did you mean 'eager'?"),
        ("--rounds 0", "must be greater than 0"),
        ("--batch 1", "two samples"),
        ("--width -1", "must be greater than 0"),
        ("--write nowhere/page.md", "no such file"),
        (f"--write {ROOT / 'LICENSE'}", "has no line"),
        ("--graphs --device cpu", "--graphs: needs --device cuda, not cpu."),
        ("--rounds many", "invalid int value"),
        ("--round 3", "unrecognized arguments"),
    ],
)
def test_mistakes_are_reported_before_any_measurement(
    words: str, message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    from gradspike.cli.reporting import reporting_errors

    try:
        code = reporting_errors(lambda: step.run(step.options_of(words.split())))
    except SystemExit as stop:
        code = int(str(stop.code))
    out, err = capsys.readouterr()
    assert code != 0
    assert message in err
    assert "starting" not in out
