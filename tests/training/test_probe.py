"""The probe: each number equals a plain computation, and probing changes nothing."""

from __future__ import annotations

import copy
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from gradspike.config.schema import ExperimentConfig, ProbeConfig
from gradspike.errors import ConfigError
from gradspike.loggers.wandb import WandbLogger
from gradspike.runs.folder import RunFolder
from gradspike.runs.probe_records import histogram_edges
from gradspike.spiking_norm import LayerTrace, SpikingNorm
from gradspike.training import run as training
from gradspike.training.callbacks.interrupt import Interrupted
from gradspike.training.checkpoint import load_checkpoint
from gradspike.training.module import SpikingClassifier
from gradspike.training.probe.quantities import distance_histogram, gradient_norms, layer_statistics
from helpers.probed import (
    BATCH,
    METHOD_OPTIONS,
    STEPS,
    TRAIN,
    VAL,
    Fit,
    fit,
    new_net,
    read,
)

Compose = Callable[..., ExperimentConfig]


Record = dict[str, Any]


def plain(layer: SpikingNorm, y: Tensor, count: int) -> dict[str, Any]:
    """What the record of a layer with input y [T, B, C] must say of the first `count` samples, number by number.

    Norm and recursion are written out, thresholds and widths follow the methods' formulas.
    """
    y = y.detach().double()
    norm, method = layer.norm, layer.method
    mean = y.mean((0, 1)) if layer.training else norm.running_mean
    var = y.var((0, 1), correction=0) if layer.training else norm.running_var
    x = (norm.scale * (y - mean) / (var + norm.eps).sqrt() * norm.weight + norm.bias).detach()
    tau, base = float(layer.neuron.decay.detach()), layer.v_threshold
    gain = float(norm.weight.detach().mean())
    u, s = torch.zeros_like(x[0]), torch.zeros_like(x[0])
    potentials, spikes, thetas, kappas = [], [], [], []
    for t in range(STEPS):
        u = tau * u * (1 - s) + x[t]
        theta, kappa = torch.tensor([base] * u.shape[1]), torch.ones(u.shape[1])
        if method.config.name == "mpd_agl":
            kappa = kappa * 2 * gain * base * (1 if t == 0 else (1 + tau**2) ** 0.5)
        elif method.config.name == "ds_atgo":
            spread = u.std() if layer.training else u[:count].std()
            theta = theta * 0 + (u.mean() + u.std() if layer.training else method.running_threshold[t])
            kappa = kappa * (1 + torch.tanh(spread - base))
        elif method.config.name == "psg":
            kappa = method.width.detach()
        s = (u >= theta).double()
        for values, value in zip((potentials, spikes, thetas, kappas), (u, s, theta, kappa), strict=True):
            values.append(value)

    numbers: dict[str, Any] = {name: [] for name in ("firing_rate", "gradient_available", "u_mean", "u_std")}
    numbers |= {"theta": [], "kappa": []}
    distances = []
    for t in range(STEPS):
        fired = available = 0
        elements = []
        for b in range(count):
            for c in range(y.shape[2]):
                v = float(potentials[t][b, c] - thetas[t][c])
                fired += int(spikes[t][b, c])
                available += abs(v) < float(kappas[t][c]) / 2
                elements.append(float(potentials[t][b, c]))
                distances.append(v / float(kappas[t][c]))
        average = sum(elements) / len(elements)
        numbers["firing_rate"].append(fired / len(elements))
        numbers["gradient_available"].append(available / len(elements))
        numbers["u_mean"].append(average)
        numbers["u_std"].append((sum((e - average) ** 2 for e in elements) / (len(elements) - 1)) ** 0.5)
        numbers["theta"].append(float(thetas[t].mean()))
        numbers["kappa"].append(float(kappas[t].mean()))
    if method.config.name == "psg":
        numbers["kappa_std"] = [float(kappa.double().std(correction=0)) for kappa in kappas]
    totals = [sum(int(spikes[t][b, c]) for t in range(STEPS) for b in range(count)) for c in range(y.shape[2])]
    numbers["silent"] = totals.count(0) / len(totals)
    numbers["always_firing"] = totals.count(STEPS * count) / len(totals)
    bins = [0] * 4
    for distance in distances:
        bins[0 if distance < -1 else 1 if distance < 0 else 2 if distance < 1 else 3] += 1
    numbers["distance"] = [number / len(distances) for number in bins]
    return numbers


def expect(layers: dict[str, dict[str, Any]], prefix: str) -> Record:
    """The flat record of these numbers, network-wide ones included."""
    record: Record = {}
    single: dict[str, list[float]] = {}
    over_steps: dict[str, list[float]] = {}
    for layer, numbers in layers.items():
        for name, value in numbers.items():
            key = f"{prefix}/{layer}/{name}"
            if name == "distance":
                record[key] = value
                continue
            if isinstance(value, list):
                record |= {f"{key}/t{t}": step for t, step in enumerate(value)}
                over_steps.setdefault(name, []).append(float(torch.tensor(value).std(correction=0)))
                norm = sum(step**2 for step in value) ** 0.5
                value = norm if name.startswith("grad_") else sum(value) / len(value)
            record[key] = value
            single.setdefault(name, []).append(value)
    for name, values in single.items():
        record[f"{prefix}/mean/{name}"] = sum(values) / len(values)
        record[f"{prefix}/spread_layers/{name}"] = float(torch.tensor(values).std(correction=0))
    for name, values in over_steps.items():
        record[f"{prefix}/spread_steps/{name}"] = sum(values) / len(values)
    return record


def assert_equal(record: Record, expected: Record) -> None:
    assert record.keys() == expected.keys()
    for key, value in expected.items():
        assert record[key] == pytest.approx(value, rel=2e-5, abs=2e-6), key


@pytest.mark.parametrize("neuron", ["lif", "plif"])
@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_every_number_of_a_probed_step(method: str, neuron: str, tmp_path: Path) -> None:
    """Step 0 of a training, all names and no other: statistics of the first four of six samples, gradients of all."""
    net = new_net(method, neuron)
    with torch.no_grad():
        # A neuron that never fires, and one that always does (unless the threshold follows it).
        net.first.norm.bias += torch.tensor([0.3, -3.0, 0.0, 0.1] if method == "ds_atgo" else [0.3, -9.0, 9.0, 0.1])
    before = copy.deepcopy(net)
    record = fit(net, tmp_path, samples=4, histogram_bins=4)[0]

    module = Fit(before)
    loss = module.loss([TRAIN[:BATCH]])
    wanted = [tensor for pair in before.kept.values() for tensor in pair]
    gradients = iter(torch.autograd.grad(loss, wanted))
    layers = {}
    for name, (y, _) in before.kept.items():
        numbers = layers[name] = plain(getattr(before, name), y.unflatten(0, (STEPS, -1)), count=4)
        for quantity in ("grad_input", "grad_spikes"):
            gradient = next(gradients).unflatten(0, (STEPS, -1))
            numbers[quantity] = [float(step.norm()) for step in gradient]
    assert 0.25 <= layers["first"]["silent"] < 1
    assert layers["first"]["always_firing"] >= (0 if method == "ds_atgo" else 0.25)
    assert layers["second"]["grad_input"][0] > 0
    assert_equal(record, {"step": 0} | expect(layers, "probe"))


@pytest.mark.parametrize("method", METHOD_OPTIONS)
def test_every_number_of_a_validation(method: str, tmp_path: Path) -> None:
    """Samples are spread over the batches: 2 of the first, 2 of the second, 3 of the third; evaluation mode."""
    net = new_net(method)
    records = fit(net, tmp_path, samples=7, histogram_bins=4)
    net.eval()
    chosen = torch.cat([VAL[:2], VAL[BATCH : BATCH + 2], VAL[2 * BATCH : 2 * BATCH + 3]])
    with torch.no_grad():
        net(chosen.transpose(0, 1))
    layers = {
        name: plain(getattr(net, name), y.unflatten(0, (STEPS, -1)), count=7) for name, (y, _) in net.kept.items()
    }
    assert_equal(records[-1], {"step": 5} | expect(layers, "probe_val"))


@pytest.mark.parametrize("shape", [(2, 3, 4), (2, 3, 4, 5), (2, 3, 4, 5, 5)])
def test_statistics_take_any_number_of_space_dimensions(shape: tuple[int, ...]) -> None:
    u = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    theta, kappa = torch.tensor([0.1, 0.2]), torch.rand(2, 4, generator=torch.Generator().manual_seed(1)) + 0.5
    statistics = layer_statistics(LayerTrace(u, (u >= 0.1).bfloat16(), theta, kappa))
    per_channel = kappa.view(2, 1, 4, *[1] * (u.ndim - 3))
    inside = (u - theta.view(2, *[1] * (u.ndim - 1))).abs() < per_channel / 2
    assert torch.allclose(statistics["gradient_available"], inside.float().flatten(1).mean(1))
    assert torch.allclose(statistics["u_std"], u.flatten(1).std(1))
    assert torch.allclose(statistics["kappa_std"], kappa.std(1, correction=0))
    assert "theta_std" not in statistics
    fired = (u >= 0.1).flatten(0, 1).float().sum(0)
    assert float(statistics["silent"]) == pytest.approx(float((fired == 0).float().mean()))
    assert float(statistics["always_firing"]) == pytest.approx(float((fired == 6).float().mean()))


def test_histogram_edges_belong_to_the_upper_bin_and_the_outer_bins_are_open() -> None:
    u = torch.tensor([-1e30, -2.0, -1.0, -1e-6, 0.0, 0.5, 1.0, 1.99, 2.0, 1e30]).view(1, 1, -1)
    trace = LayerTrace(u, torch.zeros_like(u), torch.zeros(1), torch.ones(1))
    assert histogram_edges(4) == [-2, -1, 0, 1, 2]
    assert distance_histogram(trace, 4).tolist() == pytest.approx([0.2, 0.2, 0.2, 0.4])
    broken = LayerTrace(u * float("nan"), u, torch.zeros(1), torch.ones(1))
    assert distance_histogram(broken, 256).shape == (256,)


def test_gradient_norms_of_half_precision_do_not_overflow() -> None:
    gradient = torch.full((4, 3), 1e4, dtype=torch.float16)
    assert gradient_norms(gradient, 2).tolist() == pytest.approx([1e4 * 6**0.5] * 2, rel=1e-3)


def train(config: ExperimentConfig, resumed: RunFolder | None = None) -> RunFolder:
    return training.train(config, resumed, ["test"])[0]


@pytest.mark.parametrize("extra", [["method=ds_atgo"], ["method=psg_pda", "trainer.precision=bf16"]])
def test_probing_changes_nothing_and_keeps_its_cadence(tiny_config: Compose, extra: list[str]) -> None:
    """Weights, optimiser, random state and epoch numbers are the same without it, bit for bit; 19 steps per epoch."""
    probed = train(tiny_config("probe.every_n_steps=3", *extra))
    free = train(tiny_config("probe.enabled=false", *extra))
    for name in ("last.ckpt", "best.ckpt"):
        one, other = (load_checkpoint(run.checkpoints / name) for run in (probed, free))
        for key in ("state_dict", "optimizer_states", "ranks"):
            assert same(one[key], other[key]), key
    records, alone = read(probed.metrics), read(free.metrics)
    assert [record for record in records if "val/accuracy" in record] == alone
    assert probed.summary() == free.summary()

    steps = [record["step"] for record in records if "probe/mean/firing_rate" in record]
    assert steps == list(range(0, 38, 3))
    assert [record["step"] for record in records if "probe_val/mean/firing_rate" in record] == [19, 38]
    # The first layer sees a still image: one input for all steps.
    assert "probe/neurons.0/grad_input" in records[0]
    assert "probe/neurons.0/grad_input/t0" not in records[0]
    assert "probe/neurons.1/grad_input/t3" in records[0]


def same(one: Any, other: Any) -> bool:
    if isinstance(one, Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


@pytest.mark.gpu
def test_probing_on_a_gpu(tiny_config: Compose) -> None:
    """With deterministic algorithms required, which torch lacks for some counting operations."""
    options = ["trainer.accelerator=gpu", "probe.every_n_steps=3"]
    runs = [train(tiny_config(*options)) for _ in range(2)]
    assert runs[0].metrics.read_bytes() == runs[1].metrics.read_bytes()


def test_relu_twin_is_left_alone(tiny_config: Compose) -> None:
    run = train(tiny_config("model.activation=relu", "probe.every_n_steps=1"))
    assert ["val/accuracy" in record for record in read(run.metrics)] == [True, True]


def test_no_hook_stays_behind(tmp_path: Path) -> None:
    net = new_net()
    fit(net, tmp_path, every_n_steps=1)
    assert not any(layer._forward_hooks for layer in net.modules())
    broken = new_net()
    broken.second.v_threshold = 1e6  # never fires, so it stays under watch
    broken.outlet.register_forward_hook(lambda *_: (_ for _ in ()).throw(OSError("the disk is gone")))
    with pytest.raises(OSError, match="the disk is gone"):
        fit(broken, tmp_path, every_n_steps=1)
    assert not broken.first._forward_hooks
    assert not broken.second._forward_hooks


@pytest.mark.parametrize("way", ["crash", "signal"])
def test_a_resumed_run_has_the_same_records(tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, way: str) -> None:
    """Stopped in the second epoch: by an error, resumed from step 28; by a signal, at a probed step."""
    options = ["method=ds_atgo", "probe.every_n_steps=2", "checkpoint.every_n_steps=7"]
    unbroken = train(tiny_config(*options))
    original = SpikingClassifier.training_step

    def ending(self: Any, batch: Any, batch_idx: int) -> Any:
        if self.global_step == 30:
            if way == "crash":
                raise OSError("the disk is gone")
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self, batch, batch_idx)

    monkeypatch.setattr(SpikingClassifier, "training_step", ending)
    config = tiny_config(*options, f"runs_dir={unbroken.path.parent / way}")
    with pytest.raises(OSError if way == "crash" else Interrupted):
        train(config)
    monkeypatch.undo()
    run = RunFolder(next((unbroken.path.parent / way).glob("2*")))
    assert load_checkpoint(run.last)["global_step"] == (28 if way == "crash" else 31)
    train(run.config(), run)
    assert run.metrics.read_bytes() == unbroken.metrics.read_bytes()
    assert same(*(load_checkpoint(each.last)["state_dict"] for each in (run, unbroken)))


def test_wandb_gets_scalars_and_histograms(tiny_config: Compose, tmp_path: Path) -> None:
    import wandb

    written: list[Record] = []

    class Recorder:
        def log(self, metrics: Record, step: int) -> None:
            written.append({"step": step} | metrics)

        def attempt(self, action: Callable[[Recorder], object]) -> None:
            action(self)

    logger = WandbLogger(tiny_config("logger=wandb"), RunFolder(tmp_path))
    logger._connection = Recorder()
    records = fit(new_net(), tmp_path, every_n_steps=2, histogram_bins=4, loggers=[logger])
    assert [record["step"] for record in written] == [0, 2, 4, 5]
    for record, to_wandb in zip(records, written, strict=True):
        assert record.keys() == to_wandb.keys()
        for key, value in record.items():
            shown = to_wandb[key].histogram if isinstance(to_wandb[key], wandb.Histogram) else to_wandb[key]
            assert shown == value
            assert isinstance(value, list) == key.endswith("/distance")


def test_configuration(tiny_config: Compose) -> None:
    assert tiny_config().probe == ProbeConfig()
    with pytest.raises(ConfigError, match=r"unknown key 'probe\.every_n_step'\. Did you mean 'probe\.every_n_steps'\?"):
        tiny_config("+probe.every_n_step=3")
    with pytest.raises(ConfigError, match=r"probe\.samples=0"):
        tiny_config("probe.samples=0")
    run = RunFolder.create(tiny_config())
    saved = (run.path / "config.yaml").read_text()
    (run.path / "config.yaml").write_text(saved.partition("probe:")[0])
    assert run.config() == tiny_config()
