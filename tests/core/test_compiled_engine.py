"""The compiled engine: which kernels it compiles, what it keeps, and what happens without a compiler."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch
import torch._dynamo
import torch._inductor.config

from gradspike.config.schema import ExperimentConfig
from gradspike.engine import compiled, registry
from gradspike.engine.fused import FusedEngine
from gradspike.engine.norm_formulas import MOST_RECOMPUTED
from gradspike.errors import UserError
from gradspike.runs.folder import RunFolder
from gradspike.runs.run_log import RunLog
from gradspike.spiking_norm import LayerContext, SpikingNorm
from gradspike.terminal.printer import speak
from helpers.engine_pairs import both
from helpers.method_checks import SIDE, B, C, T, make_input, make_layer, method_config
from helpers.part_options import neuron_config, norm_config
from helpers.runs import assert_same_run, at_batch, epoch_records, train

Compose = Callable[..., ExperimentConfig]


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


@contextmanager
def no_compiler(found: str = "/no/such/compiler") -> Iterator[None]:
    missing = {"cpp.cxx": (None, found), "force_disable_caches": True}
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


def test_a_compiler_whose_disk_is_full_is_there(tmp_path: Path) -> None:
    """Its output names the disk, the error does not."""
    compiler = tmp_path / "g++"
    says = "echo 'g++ 12.2.0'\n[ \"$1\" = --version ] && exit\necho '/tmp/cc.s: No space left on device' >&2\nexit 1\n"
    compiler.write_text(f"#!/bin/sh\n{says}")
    compiler.chmod(0o700)
    with no_compiler(str(compiler)), pytest.raises(UserError) as error:
        registry.choose_engine("compiled", "cpu")
    assert "(no space left: free some in " in str(error.value)
    assert "C++" not in str(error.value)


def test_a_kernel_that_cannot_be_compiled_later_is_an_error() -> None:
    layer = make_layer(method_config("mpd_agl", surrogate="gaussian"), time_steps=3)
    layer._run = FusedEngine(compiled.CompiledKernels())
    said = r"'forward, T = 3.*/no/such/compiler.*Use engine=eager"
    with no_compiler(), pytest.raises(UserError, match=said):
        layer(make_input(time_steps=3))


def test_a_run_on_compiled_neurons_resumes_bit_for_bit(tiny_config: Compose) -> None:
    """Stopped within an epoch and continued by an engine that has compiled nothing. The kernels are those of the tests
    above."""
    words = ["engine=compiled", "method=mpd_agl", "neuron=plif", "dataset=digits_events", f"time_steps={T}"]
    words += ["trainer.channels_last=true", "trainer.max_epochs=2", "dataset.batch_size=400"]
    words += ["checkpoint.every_n_steps=2"]
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
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(compiled.KERNELS, "_compiled", {})
        patch.setattr(compiled.KERNELS, "_direct", {})
        train(run.config(), run)
    assert_same_run(unbroken, run)
    assert json.loads((run.path / "status.json").read_text())["state"] == "finished"


@pytest.mark.slow
def test_kernels_that_recompute_agree() -> None:
    """Of a neuron that charges two steps at once, with every value learned."""
    assert MOST_RECOMPUTED >= 2
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
