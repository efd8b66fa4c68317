"""Engines compared with each other over steps, layouts and whole runs."""

from __future__ import annotations

import copy
import itertools
import pickle
from collections.abc import Callable

import pytest
import torch
import torch._dynamo
import torch._inductor.config
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gradspike.collected import collect_losses
from gradspike.config.schema import ExperimentConfig
from gradspike.engine import compiled
from gradspike.engine.arrangement import arranged, arrangement, restored
from gradspike.engine.base import Engine
from gradspike.training.module import SpikingClassifier
from helpers.engine_pairs import both
from helpers.engines import ENGINES, every_engine
from helpers.method_checks import B, C, T, make_input, make_layer, method_config

Compose = Callable[..., ExperimentConfig]


@pytest.mark.parametrize(
    "x",
    [
        torch.randn(T, B, C),
        torch.randn(T, B, C, 7),
        torch.randn(T, B, C, 5, 6),
        torch.randn(T * B, C, 5, 6).contiguous(memory_format=torch.channels_last).unflatten(0, (T, B)),
        torch.randn(T * 2, 33, 32, 32).contiguous(memory_format=torch.channels_last).unflatten(0, (T, 2)),
        torch.randn(1, B, C, 4, 4),
        torch.randn(T, B, 1, 4, 4),
        torch.randn(T, B, C, 1, 1),
    ],
    ids=lambda x: "x".join(map(str, x.shape)) + ("" if x.is_contiguous() else "-channels_last"),
)
def test_values_are_arranged_without_a_copy(x: Tensor) -> None:
    how = arrangement(x)
    values = arranged(x, how)
    assert values.ndim == 4
    assert values.data_ptr() == x.data_ptr()
    assert torch.equal(restored(values, x, how), x)
    channel = values.select(3 if how == "rows" else 2, 0)
    assert torch.equal(channel.flatten().sort()[0], x[:, :, 0].flatten().sort()[0])


PASSES = ("psg_pda", "ds_atgo", "evaluation")
STEPS = list(itertools.product(PASSES, ("contiguous", "channels_last"), ("moving", "still")))
# Of each pass, layout and kind of input; compiling the kernels of all takes minutes.
COMPILED = [("psg_pda", "channels_last", "moving"), ("ds_atgo", "contiguous", "still")]
COMPILED += [("evaluation", "channels_last", "still")]
SLOW = [pytest.param("compiled", *step, marks=pytest.mark.slow) for step in STEPS if step not in COMPILED]


@pytest.mark.parametrize(
    ("engine", "passed", "layout", "kind"),
    [*(("formulas", *step) for step in STEPS), *(("compiled", *step) for step in COMPILED), *SLOW],
    indirect=["engine"],
)
def test_a_step_has_the_numbers_of_the_reference(engine: Engine, passed: str, layout: str, kind: str) -> None:
    """With the two methods that use everything: learned widths and moments, and the measured threshold."""
    static = kind == "still"
    y = make_input()[: B if static else None]
    if layout == "channels_last":
        y = y.contiguous(memory_format=torch.channels_last)
    training = passed != "evaluation"
    layer = make_layer(method_config(passed if training else "ds_atgo")).train(training)
    for expected, actual in zip(*both(engine, layer, y, static), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@every_engine
def test_statistics_are_safe_beside_a_large_mean(engine: Engine) -> None:
    """In float32, standard deviation 1 next to a mean of 3000: the current is still normalised, and DS-ATGO still
    measures the standard deviation.
    """
    y = make_input(batch=32).contiguous(memory_format=torch.channels_last)
    near, far = (make_layer(method_config("ds_atgo")) for _ in range(2))
    expected, actual = near(y), far(y + 3000)
    assert (expected != actual).float().mean() < 2e-3
    torch.testing.assert_close(far.norm.running_var, near.norm.running_var, rtol=1e-3, atol=0)
    torch.testing.assert_close(far.method.running_threshold, near.method.running_threshold, rtol=1e-3, atol=1e-3)


def test_nothing_of_the_inputs_size_is_kept_but_the_input() -> None:
    """The reference keeps the potential; here the backward pass recomputes it."""
    kept: dict[str, int] = {}
    for name in ("eager", "compiled"):
        layer = make_layer(method_config("mpd_agl"))
        layer._run = ENGINES[name]
        y = make_input().contiguous(memory_format=torch.channels_last).requires_grad_()
        seen: dict[int, int] = {}

        def keep(tensor: Tensor, seen: dict[int, int] = seen) -> Tensor:
            seen[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            layer(y)
        kept[name] = sum(size for size in seen.values() if size >= y.nbytes // T)
    assert kept["compiled"] == y.nbytes
    assert kept["eager"] >= 2 * y.nbytes


def test_under_autocast_the_recursion_is_float32() -> None:
    """Unlike in the reference, the current is not rounded to bfloat16 between norm and neuron."""
    layer = make_layer(method_config("mpd_agl"))
    y = make_input(batch=64).bfloat16()
    exact = copy.deepcopy(layer)(y.float())
    layer._run = compiled.run
    with torch.autocast("cpu", torch.bfloat16):
        spikes = layer(y)
    assert spikes.dtype == torch.bfloat16
    assert torch.equal(spikes.float(), exact)


def test_gradients_under_bfloat16_are_rounded_at_most_twice() -> None:
    """While they wait for the norm's sums, and at the end. One rounding has an error of 0.0017 (root mean square)."""
    layer, found = make_layer(method_config("mpd_agl")), {}
    y = make_input(batch=64).bfloat16().to(memory_format=torch.channels_last)
    weights = torch.randn(y.shape, generator=torch.Generator().manual_seed(2)).bfloat16()
    for name, dtype in (("eager", torch.float64), ("formulas", torch.bfloat16)):
        own = copy.deepcopy(layer).double() if name == "eager" else copy.deepcopy(layer)
        own._run = ENGINES[name]
        x = y.to(dtype).detach().requires_grad_()
        own(x).backward(weights.to(dtype))
        assert x.grad is not None
        found[name] = x.grad.double()
    error = (found["formulas"] - found["eager"]).square().mean() / found["eager"].square().mean()
    assert 0.0010 < error.sqrt() < 0.0025


@pytest.mark.parametrize("engine", ["eager", "compiled"], indirect=True)
def test_a_layer_that_has_run_can_be_copied_and_pickled(engine: Engine) -> None:
    layer = make_layer(method_config("mpd_agl"))
    y = make_input().contiguous(memory_format=torch.channels_last)
    layer(y)
    layer.eval()
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(y), layer(y))


@pytest.mark.parametrize("engine", ["eager", "formulas"], indirect=True)
@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("static", [False, True], ids=["moving", "still"])
def test_layouts_give_the_same_gradients(engine: Engine, static: bool, samples: int) -> None:
    """Also for a single sample, whose batch axis may have any stride."""
    y = make_input(batch=samples)[: samples if static else None].double()
    grads = []
    for layout in (torch.contiguous_format, torch.channels_last):
        layer = make_layer(method_config("mpd_agl")).double()
        x = y.clone(memory_format=layout).requires_grad_()
        conv = F.conv2d(x, torch.eye(C, dtype=torch.float64)[:, :, None, None])
        spikes = layer(conv.contiguous(memory_format=layout), static=static)
        weights = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
        (spikes * weights).sum().backward()
        grads.append([x.grad, *(p.grad for p in layer.parameters())])
    for contiguous, channels_last in zip(*grads, strict=True):
        torch.testing.assert_close(channels_last, contiguous)


class Curve(nn.Module):
    """conv - layer - conv - layer - linear over frames: a small network with all parts of a training step."""

    def __init__(self, method: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.a, self.na = nn.Conv2d(2, 8, 3, padding=1, bias=False), make_layer(method_config(method), channels=8)
        self.b, self.nb = nn.Conv2d(8, 8, 3, padding=1, bias=False), make_layer(method_config(method), channels=8)
        self.f = nn.Linear(8 * 16, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.nb(F.avg_pool2d(self.b(self.na(self.a(x))), 2))
        return self.f(x.flatten(1)).unflatten(0, (T, -1)).mean(0)


def losses_of_training(method: str, engine: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> Tensor:
    """Those of 200 steps."""
    monkeypatch.setattr("gradspike.spiking_norm.load_engine", lambda _: ENGINES[engine])
    model = Curve(method).to(dtype).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    generator = torch.Generator().manual_seed(1)
    centres = torch.randn(5, 2, 8, 8, generator=generator)
    losses = []
    for _ in range(200):
        labels = torch.randint(5, (16,), generator=generator)
        frames = centres[labels] + 1.5 * torch.randn(T, 16, 2, 8, 8, generator=generator)
        optimizer.zero_grad()
        with collect_losses() as extra:
            loss = F.cross_entropy(model(frames.flatten(0, 1).to(dtype)), labels) + extra.mean()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    return torch.tensor(losses, dtype=torch.float64)


# The kernels of each pair take a quarter of a minute to compile.
@pytest.mark.parametrize("method", ["ds_atgo", pytest.param("mpd_agl", marks=pytest.mark.slow)])
def test_200_steps_of_training_in_float64_are_equal_to_rounding(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected, actual = (losses_of_training(method, name, torch.float64, monkeypatch) for name in ("eager", "compiled"))
    torch.testing.assert_close(actual, expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("method", ["mpd_agl", pytest.param("ds_atgo", marks=pytest.mark.slow)])
def test_200_steps_of_training_in_float32_reach_the_same_loss(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The orders of summation diverge over time."""
    expected, actual = (losses_of_training(method, name, torch.float32, monkeypatch) for name in ("eager", "compiled"))
    torch.testing.assert_close(actual[:5], expected[:5], rtol=1e-3, atol=1e-4)
    assert expected[-50:].mean() < 0.7 * expected[:5].mean()
    torch.testing.assert_close(actual[-50:].mean(), expected[-50:].mean(), rtol=0.15, atol=0.03)


class NoWaiting(TorchDispatchMode):
    """Refuses every operation that makes the host wait for a device."""

    WAITS = ("_local_scalar_dense", "nonzero", "masked_select", "is_nonzero", "unique", "equal.default")

    def __init__(self) -> None:
        super().__init__()
        self.waits: list[str] = []
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]
        self.count += 1
        if any(name in str(func) for name in self.WAITS):
            self.waits.append(str(func))
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("method", ["mpd_agl", "psg_pda", "ds_atgo"])
@pytest.mark.parametrize("engine", ["eager", "formulas"], indirect=True)
def test_a_training_step_waits_for_no_device(
    engine: Engine, method: str, tiny_config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward, loss, metrics, the check of the loss, backward and optimiser, as on a device other than a CPU."""
    monkeypatch.setattr("gradspike.training.module.STEPS_BETWEEN_CHECKS", {})
    monkeypatch.setattr("gradspike.engine.fused.is_watched", lambda: False)
    module = SpikingClassifier(tiny_config(f"method={method}", "dataset=digits_events", "loss.label_smoothing=0.1"))
    module.train()
    options = module.config
    from gradspike.training.optim import build_optimizer

    optimizer = build_optimizer(options.optimizer, module.model)
    size = options.dataset.image_size
    batch = {
        "input": torch.rand(options.time_steps, 6, 2, size, size),
        "label": torch.arange(6),
        "index": torch.arange(6),
    }
    with NoWaiting() as mode:
        for index in range(2):
            loss = module.training_step(batch, index)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
    assert mode.count > 100
    assert not mode.waits


@pytest.mark.gpu
@pytest.mark.parametrize("method", ["mpd_agl", "psg_pda", "ds_atgo"])
def test_a_training_step_on_a_gpu_waits_for_nothing(method: str, tiny_config: Compose) -> None:
    from gradspike.training.optim import build_optimizer

    words = [f"method={method}", "dataset=digits_events", "trainer.accelerator=gpu", "engine=auto"]
    module = SpikingClassifier(tiny_config(*words)).cuda().train()
    optimizer = build_optimizer(module.config.optimizer, module.model)
    size = module.config.dataset.image_size
    batch = {
        "input": torch.rand(module.config.time_steps, 6, 2, size, size, device="cuda"),
        "label": torch.arange(6, device="cuda"),
        "index": torch.arange(6, device="cuda"),
    }
    for index in range(4):
        torch.cuda.set_sync_debug_mode("error" if index else "default")
        try:
            module.training_step(batch, index).backward()
            optimizer.step()
            optimizer.zero_grad()
        finally:
            torch.cuda.set_sync_debug_mode("default")
