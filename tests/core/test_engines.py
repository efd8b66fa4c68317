"""Engines compared with each other, and the compiled one: kernels shared by layers, memory, fallback."""

from __future__ import annotations

import copy
import json
import logging
import pickle
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch._dynamo
import torch._inductor.config
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from gradspike.collected import collect_losses
from gradspike.config.schema import ExperimentConfig
from gradspike.engine import compiled, registry
from gradspike.engine.arrangement import arranged, arrangement, restored
from gradspike.engine.base import Engine
from gradspike.engine.fused import FusedEngine
from gradspike.errors import UserError
from gradspike.runs.folder import RunFolder
from gradspike.runs.run_log import RunLog
from gradspike.spiking_norm import LayerContext, SpikingNorm
from gradspike.terminal.printer import speak
from gradspike.training.module import SpikingClassifier
from helpers.engines import ENGINES, every_engine
from helpers.method_checks import SIDE, B, C, T, make_input, make_layer, method_config
from helpers.part_options import neuron_config, norm_config
from helpers.runs import assert_same_run, at_batch, epoch_records, train

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


def both(engine: Engine, layer: SpikingNorm, y: Tensor, static: bool) -> tuple[list[Tensor], list[Tensor]]:
    """Spikes, all gradients and buffers after one step of the reference and of the engine."""
    results: list[list[Tensor]] = []
    for run in (ENGINES["eager"], engine):
        own, x = copy.deepcopy(layer), y.detach().clone(memory_format=torch.preserve_format).requires_grad_()
        own._run = run
        with collect_losses() as extra:
            spikes = own(x, static=static)
        assert spikes.dtype == y.dtype
        weights = torch.randn(spikes.shape, generator=torch.Generator().manual_seed(2)).to(spikes.dtype)
        ((spikes * weights).sum() + extra.mean()).backward()
        assert x.grad is not None
        assert spikes.is_contiguous() == x.grad.is_contiguous() == y.is_contiguous()
        grads = [p.grad for p in own.parameters() if p.grad is not None]
        results.append([spikes.detach(), x.grad, *grads, *(b for _, b in sorted(own.named_buffers()))])
    return results[0], results[1]


INPUTS = [("formulas", layout, kind) for layout in ("contiguous", "channels_last") for kind in ("moving", "still")]
# Kernels of both layouts and of both kinds of input; compiling those of each pair takes a quarter of a minute.
INPUTS += [("compiled", "contiguous", "still"), ("compiled", "channels_last", "moving")]


@pytest.mark.parametrize(("engine", "layout", "kind"), INPUTS, indirect=["engine"])
@pytest.mark.parametrize(
    ("method", "training"),
    [("psg_pda", True), ("ds_atgo", True), ("ds_atgo", False)],
    ids=["psg_pda", "ds_atgo", "evaluation"],
)
def test_a_step_has_the_numbers_of_the_reference(
    engine: Engine, method: str, training: bool, layout: str, kind: str
) -> None:
    """With the two methods that use everything: learned widths and moments, and the measured threshold."""
    static = kind == "still"
    y = make_input()[: B if static else None]
    if layout == "channels_last":
        y = y.contiguous(memory_format=torch.channels_last)
    layer = make_layer(method_config(method)).train(training)
    for expected, actual in zip(*both(engine, layer, y, static), strict=True):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-5)


@every_engine
def test_statistics_are_safe_beside_a_large_mean(engine: Engine) -> None:
    """In float32, standard deviation 1 next to a mean of 3000: the current is still normalised, and DS-ATGO still
    measures the standard deviation.
    """
    y = make_input(batch=32)
    near, far = (make_layer(method_config("ds_atgo")) for _ in range(2))
    expected, actual = near(y), far(y + 3000)
    assert (expected != actual).float().mean() < 2e-3
    torch.testing.assert_close(far.norm.running_var, near.norm.running_var, rtol=1e-3, atol=0)
    torch.testing.assert_close(far.method.running_threshold, near.method.running_threshold, rtol=1e-3, atol=1e-3)


def test_other_sizes_compile_nothing() -> None:
    """Other widths, batches, image sizes and a smaller last batch share the kernels."""

    def passes(channels: int, batch: int, side: int) -> None:
        layer = make_layer(method_config("mpd_agl"), channels=channels)
        layer._run = compiled.run
        y = torch.randn(T * batch, channels, side, side).contiguous(memory_format=torch.channels_last).requires_grad_()
        layer(y).sum().backward()
        layer.eval()
        with torch.no_grad():
            layer(y)
        with torch.inference_mode():
            layer(y.detach().clone())

    passes(C, B, SIDE)
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    for channels, batch, side in ((C, B - 1, SIDE), (16, 2, 9), (64, 64, 2), (33, 3, 33), (16, 16, 16)):
        passes(channels, batch, side)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == before


def test_a_threshold_of_the_neurons_own_compiles_each_kernel_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Expanded over the steps, it once compiled every kernel for a second time. The terminal has one line about it, the
    log file one for each kernel as well."""
    context = LayerContext(2, neuron_config("mpr"), method_config("fixed_sg"), norm_config(), engine="compiled")
    layer, kernels = context.layer(C).eval(), compiled.CompiledKernels()
    layer._run = FusedEngine(kernels)
    speak()
    file, package = RunLog(tmp_path / "run.log"), logging.getLogger("gradspike")
    package.addHandler(file)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    with torch.no_grad():
        layer(make_input(time_steps=2))
    package.removeHandler(file)
    file.close()
    assert len(kernels._compiled) == 1
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - graphs == 1
    (said,) = capsys.readouterr().out.splitlines()
    assert said.startswith("Compiling norms and neurons for this machine")
    first, kernel = (tmp_path / "run.log").read_text().splitlines()
    assert first.endswith(said)
    assert re.search(r" DEBUG compiled in [\d.]+ s: ", kernel)


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


@contextmanager
def no_compiler() -> Iterator[None]:
    missing = {"cpp.cxx": (None, "/no/such/compiler"), "force_disable_caches": True}
    compiled.compiler_problem.cache_clear()
    try:
        with torch._inductor.config.patch(missing):
            yield
    finally:
        compiled.compiler_problem.cache_clear()


def test_without_a_compiler_auto_falls_back_and_says_why(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(registry.log, "propagate", True)
    assert registry.choose_engine("compiled", "cpu") == "compiled"
    with no_compiler():
        assert registry.choose_engine("auto", "cpu") == "eager"
        assert registry.choose_engine("auto", "cpu") == "eager"
        with pytest.raises(UserError, match=r"engine=compiled: .*/no/such/compiler.*Use engine=eager"):
            registry.choose_engine("compiled", "cpu")
        assert registry.choose_engine("eager", "cpu") == "eager"
    (warning,) = [record for record in caplog.records if "engine=auto" in record.message]
    assert "/no/such/compiler" in warning.getMessage()
    assert registry.choose_engine("auto", "cpu") == "compiled"


def test_a_kernel_that_cannot_be_compiled_later_is_an_error() -> None:
    layer = make_layer(method_config("mpd_agl", surrogate="gaussian"), time_steps=3)
    layer._run = FusedEngine(compiled.CompiledKernels())
    said = r"'forward, T = 3.*/no/such/compiler.*Use engine=eager"
    with no_compiler(), pytest.raises(UserError, match=said):
        layer(make_input(time_steps=3))


@pytest.mark.parametrize("engine", ["eager", "compiled"], indirect=True)
def test_a_layer_that_has_run_can_be_copied_and_pickled(engine: Engine) -> None:
    layer = make_layer(method_config("mpd_agl"))
    layer(make_input())
    layer.eval()
    for twin in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert torch.equal(twin(make_input()), layer(make_input()))


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


@pytest.mark.parametrize("method", ["mpd_agl", "ds_atgo"])
def test_200_steps_of_training_agree(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """In float64, equal to rounding. In float32, the orders of summation diverge over time, without a worse loss."""
    curves: dict[tuple[str, torch.dtype], list[float]] = {}
    for name in ("eager", "compiled"):
        run = ENGINES[name]
        monkeypatch.setattr("gradspike.spiking_norm.load_engine", lambda _, run=run: run)
        for dtype in (torch.float32, torch.float64):
            model = Curve(method).to(dtype).to(memory_format=torch.channels_last)
            optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
            generator = torch.Generator().manual_seed(1)
            centres = torch.randn(5, 2, 8, 8, generator=generator)
            losses = curves[name, dtype] = []
            for _ in range(200):
                labels = torch.randint(5, (16,), generator=generator)
                frames = centres[labels] + 1.5 * torch.randn(T, 16, 2, 8, 8, generator=generator)
                optimizer.zero_grad()
                with collect_losses() as extra:
                    loss = F.cross_entropy(model(frames.flatten(0, 1).to(dtype)), labels) + extra.mean()
                loss.backward()
                optimizer.step()
                losses.append(loss.item())
    torch.testing.assert_close(curves["compiled", torch.float64], curves["eager", torch.float64], rtol=1e-6, atol=1e-8)
    tails = [torch.tensor(curves[name, torch.float32][-50:]).mean() for name in ("eager", "compiled")]
    starts = [torch.tensor(curves[name, torch.float32][:5]) for name in ("eager", "compiled")]
    torch.testing.assert_close(starts[1], starts[0], rtol=1e-3, atol=1e-4)
    assert tails[0] < 0.7 * starts[0].mean()
    torch.testing.assert_close(tails[1], tails[0], rtol=0.15, atol=0.03)


def test_a_run_on_compiled_neurons_resumes_bit_for_bit(tiny_config: Compose) -> None:
    """Stopped within an epoch and continued in a process that has compiled nothing."""
    words = ["engine=compiled", "method=ds_atgo", "dataset=digits_events", "time_steps=2", "trainer.max_epochs=2"]
    words += ["dataset.batch_size=400", "checkpoint.every_n_steps=2"]
    unbroken = train(tiny_config(*words))
    eager = train(tiny_config(*words, "engine=eager"))
    for one, other in zip(epoch_records(unbroken), epoch_records(eager), strict=True):
        assert one["train/loss"] == pytest.approx(other["train/loss"], rel=0.02)

    def fail() -> None:
        raise OSError("the disk is gone")

    with pytest.MonkeyPatch.context() as patch:
        at_batch(patch, 3 + 2, fail)
        with pytest.raises(OSError, match="the disk is gone"):
            train(tiny_config(*words, f"runs_dir={unbroken.path.parent / 'crashed'}"))
    run = RunFolder(next((unbroken.path.parent / "crashed").glob("2*")))
    compiled.run.kernels._compiled.clear()
    torch._dynamo.reset()
    train(run.config(), run)
    assert_same_run(unbroken, run)
    assert json.loads((run.path / "status.json").read_text())["state"] == "finished"


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


@pytest.mark.slow
def test_kernels_that_recompute_agree() -> None:
    """Of a neuron that charges two steps at once, with every value learned."""
    assert compiled.MOST_RECOMPUTED >= 2
    context = LayerContext(2, neuron_config("psn"), method_config("fixed_sg"), norm_config("bn"))
    expected, actual = both(compiled.run, SpikingNorm(C, context).double(), make_input(time_steps=2).double(), False)
    for value, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(value, other, rtol=1e-9, atol=1e-11)


def test_cuda_kernels_write_each_step_in_place() -> None:
    """Inductor's limits of the kernels that stack, which would keep the potentials of all steps in memory."""
    limits = {"max_pointwise_cat_inputs", "max_complex_pointwise_cat_inputs"} & set(torch._inductor.list_options())
    assert "max_pointwise_cat_inputs" in limits
    options = compiled.kernel_options("cuda")
    assert {name: options[name] for name in limits} == dict.fromkeys(limits, 0)
    assert not limits & compiled.kernel_options("cpu").keys()
    assert not limits & compiled.compile_options("cuda").keys()  # those of other networks stay torch's
