"""NeuroBench's metrics: by hand, and against the neurobench package on one network, whose figures are stored here.

The package compares where it is installed: pip install neurobench snntorch. Its numbers, from neurobench 2.3.0 and
snntorch 1.0.0, are in STORED.
"""

from __future__ import annotations

import csv
import importlib.util
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from gradspike.config.compose import load_config
from gradspike.cost.neurobench import measure_neurobench
from gradspike.cost.neurobench_metrics import METRICS
from gradspike.models.vgg9 import VotingHead
from gradspike.spiking_norm import ActivationLayer, SpikingNorm
from gradspike.training.build import build_model
from helpers.command import here
from helpers.networks import build, config_for

STEPS, SAMPLES = 4, 6


def network() -> tuple[nn.Module, Tensor]:
    """A convolutional network on event frames [T, B, 2, 24, 24], with potentials that fire and a tenth of its weights
    at zero."""
    words = ["dataset=digits_events", f"time_steps={STEPS}", "method=fixed_sg", "neuron=lif", "model.pool=max"]
    config = load_config([*words, "model.width=4", "model.depth=2", "engine=eager"])
    torch.manual_seed(0)
    model = build_model(config)
    frames = torch.poisson(torch.full((STEPS, SAMPLES, 2, 24, 24), 0.2))
    for _ in range(20):
        model(frames)  # running statistics
    with torch.no_grad():
        for layer in model.modules():
            if isinstance(layer, nn.Conv2d | nn.Linear):
                layer.weight[torch.rand_like(layer.weight) < 0.1] = 0
    return model.eval(), frames


STORED = {
    "footprint": 2992,
    "connection_sparsity": 0.1,
    "activation_sparsity": 0.8891661844,
    "dense_synops": 306048,
    "effective_macs": 26792.666667,
    "effective_acs": 50553.5,
    "membrane_updates": 13670.333333,
}


def test_figures_of_the_package() -> None:
    found = measure_neurobench(*network())
    assert list(found) == [metric.name for metric in METRICS]
    assert found == pytest.approx(STORED, rel=2e-3)  # a potential at the threshold may fall to the other side elsewhere


needs_neurobench = pytest.mark.skipif(
    importlib.util.find_spec("neurobench") is None or importlib.util.find_spec("snntorch") is None,
    reason="needs the packages neurobench and snntorch",
)


@needs_neurobench
def test_the_package_counts_the_same_on_our_network() -> None:
    from neurobench.metrics.static import ConnectionSparsity, Footprint
    from neurobench.metrics.workload import ActivationSparsity, SynapticOperations
    from neurobench.models import TorchModel

    model, frames = network()
    theirs = TorchModel(model)
    theirs.add_activation_module(ActivationLayer)
    theirs.register_hooks()
    data = (frames.transpose(0, 1), None)
    logits = theirs(frames)
    operations = SynapticOperations()(theirs, logits, data)
    expected = {
        "footprint": Footprint()(theirs),
        "connection_sparsity": ConnectionSparsity()(theirs),
        "activation_sparsity": ActivationSparsity()(theirs, logits, data),
        "dense_synops": operations["Dense"],
        "effective_macs": operations["Effective_MACs"],
        "effective_acs": operations["Effective_ACs"],
    }
    theirs.cleanup_hooks()
    found = measure_neurobench(model, frames)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-6)


@needs_neurobench
def test_the_package_counts_the_same_on_snntorchs_twin() -> None:
    """Step by step, with snntorch's neuron: all that depends on inputs, membrane updates included."""
    import snntorch
    from neurobench.metrics.workload import ActivationSparsity, MembraneUpdates, SynapticOperations
    from neurobench.models import SNNTorchModel

    model, frames = network()

    def leaky(layer: SpikingNorm) -> nn.Module:
        decay = layer.neuron.decay
        assert decay is not None
        options: dict[str, Any] = {"reset_mechanism": "zero", "reset_delay": False, "init_hidden": True}
        return snntorch.Leaky(beta=float(decay), threshold=layer.v_threshold, **options)

    class Twin(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convs, self.head, self.pool, self.grid = model.convs, model.head, model.pool, model.grid
            self.norms = nn.ModuleList(layer.norm for layer in model.neurons)
            self.neurons = nn.ModuleList(leaky(layer) for layer in model.neurons)

        def forward(self, x: Tensor) -> tuple[Tensor, None]:
            for place, (conv, norm, neuron) in enumerate(zip(self.convs, self.norms, self.neurons, strict=True)):
                x = neuron(norm(conv(self.pool(x) if place else x)))
            return self.head(self.grid(x).flatten(1)), None

    with torch.no_grad():
        ours = model(frames)
    theirs = SNNTorchModel(Twin().eval())  # its hooks count in the shared layers
    theirs.register_hooks()
    data = (frames.transpose(0, 1), None)
    with torch.no_grad():
        logits = theirs(data[0])
    assert torch.allclose(logits.transpose(0, 1), ours, atol=1e-5)
    operations = SynapticOperations()(theirs, logits, data)
    expected = {
        "activation_sparsity": ActivationSparsity()(theirs, logits, data),
        "dense_synops": operations["Dense"],
        "effective_macs": operations["Effective_MACs"],
        "effective_acs": operations["Effective_ACs"],
        "membrane_updates": MembraneUpdates()(theirs, logits, data),
    }
    theirs.cleanup_hooks()
    found = measure_neurobench(model, frames)
    assert {name: found[name] for name in expected} == pytest.approx(expected, rel=1e-4)


class Known(nn.Module):
    """A padded convolution in two groups and a linear layer, with known zeros."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 4, 3, padding=1, groups=2)
        self.relu = nn.ReLU()
        self.head = nn.Linear(4, 3, bias=False)
        with torch.no_grad():
            self.conv.weight.fill_(0.5)
            self.conv.bias.zero_()
            self.conv.weight[0] = 0
            self.head.weight.fill_(-1)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.relu(self.conv(images)).mean((2, 3))).unsqueeze(0)


def test_by_hand() -> None:
    model = Known().train()
    images = torch.zeros(20, 2, 3, 3)
    images[:, :, 1, 1] = 1  # one spike of each channel, in the middle: it reaches all 9 places
    found = measure_neurobench(model, images)
    # A 3x3 kernel over 3x3 places with zero padding meets 49 pixels.
    assert found["dense_synops"] == 4 * 49 + 12
    assert found["effective_acs"] == 3 * 9, "one of the four kernels is zero"
    assert found["effective_macs"] == 3 * 3, "a mean is none of -1, 0, 1"
    assert found["connection_sparsity"] == round(9 / 48, 4)
    assert found["activation_sparsity"] == 0.25
    assert found["footprint"] == 4 * (36 + 4 + 12)
    assert found["membrane_updates"] == 0
    assert model.training
    assert not model.conv._forward_pre_hooks


def test_potentials_that_stay_are_no_updates() -> None:
    """Without any input and without bias, potentials stay 0 from the first step on; PSN has no state to keep."""
    for neuron, expected in (("lif", 16 * 64), ("psn", STEPS * 16 * 64)):
        words = ["dataset=digits", f"time_steps={STEPS}", "method=fixed_sg", f"neuron={neuron}", "engine=eager"]
        model = build_model(load_config([*words, "model.width=16", "model.depth=1", "dataset.normalize=unit"]))
        found = measure_neurobench(model, torch.zeros(3, 1, 8, 8))
        assert found["membrane_updates"] == expected, neuron


def test_runs_record_the_metrics_and_describe_repeats_them(
    compared_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = next(compared_runs.glob("*_mpd_agl_*_s0_*"))
    recorded = json.loads((source / "neurobench.json").read_text())
    assert recorded["samples"] == 64
    assert list(recorded["last"]) == list(recorded["best"]) == [metric.name for metric in METRICS]

    run = Path(shutil.copytree(source, tmp_path / "run"))
    words = ["describe", f"run={run}", f"out={tmp_path / 'cost.json'}"]
    code, printed, error = here(words, capsys)
    assert code == 0, error
    assert f"{run}/neurobench.json" not in printed, "the record of the test stays"
    written = json.loads((tmp_path / "cost.json").read_text())["neurobench"]
    assert written["samples"] == 64
    fixed = ("footprint", "connection_sparsity", "dense_synops")
    assert [written[name] for name in fixed] == [recorded["last"][name] for name in fixed]
    assert written["activation_sparsity"] == pytest.approx(recorded["last"]["activation_sparsity"], abs=0.02)
    assert f"{written['dense_synops']:,.0f}" in printed

    (run / "neurobench.json").unlink()
    code, printed, _ = here([*words, "samples=20"], capsys)
    assert (code, "neurobench.json" in printed) == (0, True)
    older = json.loads((run / "neurobench.json").read_text())
    assert (older["samples"], list(older)) == (20, ["samples", "last"])


def test_a_record_of_the_twin_has_no_potentials(compared_runs: Path) -> None:
    twin = json.loads((next(compared_runs.glob("*_relu_*")) / "neurobench.json").read_text())["last"]
    assert twin["membrane_updates"] == 0
    assert 0 < twin["activation_sparsity"] < 1
    assert 0 < twin["effective_macs"] <= twin["dense_synops"]


def test_compare_shows_them_if_asked(compared_runs: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "table.csv"
    page = tmp_path / "page.html"
    code, printed, error = here(["compare", str(compared_runs), "--out", str(out)], capsys)
    assert code == 0, error
    assert "effective ACs" not in printed
    rows = {row["group"]: row for row in csv.DictReader(out.open())}
    values = [
        json.loads((run / "neurobench.json").read_text())["last"]["effective_acs"]
        for run in compared_runs.glob("*_fixed_sg_*")
    ]
    assert float(rows["fixed_sg"]["effective_acs_mean"]) == pytest.approx(sum(values) / len(values))
    chosen = ["--columns", "test,acs,footprint,activations"]
    code, printed, error = here(["compare", str(compared_runs), *chosen, "--out", str(page)], capsys)
    assert code == 0, error
    for part in ("effective ACs", "footprint (KiB)", "activation sparsity (%)", f"{sum(values) / len(values):,.0f}"):
        assert part in printed
    assert '"columns":["test","acs","footprint","activations"]' in page.read_text()


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run=RUN", "samples=9999"], "samples=9999: the split test has 359 samples."),
        (["samples=3"], "samples: has an effect only with run=..."),
        (["checkpoint=best"], "checkpoint: has an effect only with run=..."),
        (["run=RUN", "model.width=8"], "model.width: a run has its own configuration."),
        (["run=RUN", "checkpoint=bset"], "Did you mean 'best'?"),
        (["run=nowhere"], "nowhere: is not a run folder"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes(compared_runs: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    run = next(compared_runs.glob("*_mpd_agl_*_s0_*"))
    code, _, error = here(["describe", *(word.replace("RUN", str(run)) for word in words)], capsys)
    assert (code, said in error) == (2, True), error


class OneByOne(nn.Module):
    """Its layers get samples without a batch axis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(1, 2, 3), nn.Linear(2, 5)

    def forward(self, images: Tensor) -> Tensor:
        return torch.stack([self.head(self.conv(image).flatten()) for image in images]).unsqueeze(0)


def test_layers_without_a_batch_axis() -> None:
    images = torch.ones(3, 1, 3, 3)
    images[:, :, 0] = 0
    found = measure_neurobench(OneByOne(), images)
    assert (found["dense_synops"], found["effective_acs"], found["effective_macs"]) == (18 + 10, 12, 10)


def test_voters_count_before_their_mean() -> None:
    head = VotingHead(3, 2, voters=2)
    nn.init.ones_(head.weight)
    found = measure_neurobench(head, torch.tensor([[1.0, 0.0, 1.0]]))
    assert (found["dense_synops"], found["effective_acs"]) == (12, 8)


def test_a_network_with_voters() -> None:
    assert measure_neurobench(build(config_for("vgg9")), torch.rand(2, 3, 8, 8))["dense_synops"] > 0
