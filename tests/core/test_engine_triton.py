"""The Triton engine: interpreted on a CPU, compiled without a GPU, and, on a GPU, compared and timed.

Triton reads TRITON_INTERPRET when it is imported, and torch.compile imports it too. So interpreted tests run in a
process of their own.
"""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from gradspike.engine import registry
from gradspike.engine.registry import choose_engine, load_engine
from gradspike.errors import UserError
from helpers.command import ROOT, execute
from helpers.method_checks import make_input, make_layer, method_config

pytest.importorskip("triton")

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
alone = pytest.mark.skipif(INTERPRETED, reason="TRITON_INTERPRET=1 is set for the whole of this process")


@alone
def test_interpreted_kernels() -> None:
    """`triton_checks.py`, and numbers of the released code."""
    parity = "tests/core/test_parity.py"
    words = ["-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/core/triton_checks.py"]
    words += [f"{parity}::test_mpd_agl_layer", f"{parity}::test_ds_atgo_neuron"]
    done = execute(sys.executable, *words, timeout=600, TRITON_INTERPRET="1", OMP_NUM_THREADS="1")
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout


@alone
@pytest.mark.parametrize("words", [[], pytest.param(["shapes"], marks=pytest.mark.slow)])
def test_kernels_compile_for_cuda_without_a_gpu(words: list[str], tmp_path: Path) -> None:
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT / "tests")])
    script = "tests/helpers/triton_codegen.py"
    done = execute(sys.executable, script, *words, timeout=600, TRITON_CACHE_DIR=str(tmp_path), PYTHONPATH=path)
    assert done.returncode == 0, done.stderr[-4000:]
    kernels = [line.split() for line in done.stdout.splitlines()]
    steps = set() if words else {"advance_step", "finish_step"}
    assert {name for name, _, _ in kernels} == {"channel_statistics", "pool", "fire_steps", "backward_steps", *steps}
    for name, _, spilled in kernels:
        assert int(spilled) <= 16, f"{name} keeps {spilled} bytes of each thread in slow memory"


@alone
def test_engine_triton_without_cuda_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match=r"engine=triton: its kernels run on CUDA.*TRITON_INTERPRET=1"):
        choose_engine("triton", "cpu")
    layer = make_layer(method_config("fixed_sg"))
    layer._run = load_engine("triton")
    with pytest.raises(UserError, match="engine=triton: its kernels run on CUDA"):
        layer(make_input())
    monkeypatch.setattr(registry.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="the package triton is not installed"):
        choose_engine("triton", "cuda")


def test_engine_triton_is_chosen_where_it_can_run(monkeypatch: pytest.MonkeyPatch) -> None:
    assert choose_engine("triton", "cuda") == "triton"
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert choose_engine("triton", "cpu") == "triton"


@pytest.mark.gpu
@pytest.mark.parametrize("channels_last", [False, True])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("name", ["mpd_agl", "ds_atgo", "psg"])
def test_on_a_gpu(name: str, dtype: torch.dtype, channels_last: bool, capsys: pytest.CaptureFixture[str]) -> None:
    """Results equal the reference and repeat bit for bit; prints the bandwidth over tensors of the layer's size."""
    y = torch.randn(4 * 32, 128, 32, 32, device="cuda", generator=torch.Generator("cuda").manual_seed(0)).to(dtype)
    if channels_last:
        y = y.contiguous(memory_format=torch.channels_last)
    weights = torch.randn_like(y)

    def results(engine: str) -> tuple[Any, dict[str, torch.Tensor]]:
        layer = make_layer(method_config(name), channels=128).cuda()
        layer._run = load_engine(engine)
        leaf = y.detach().requires_grad_()
        spikes = layer(leaf)
        (spikes * weights).float().sum().backward()
        assert leaf.grad is not None
        grads = {key: p.grad for key, p in layer.named_parameters() if p.grad is not None}
        return layer, {"spikes": spikes.detach(), "y": leaf.grad, **grads}

    _, expected = results("eager")
    layer, actual = results("triton")
    _, again = results("triton")
    for key, value in actual.items():
        assert torch.equal(value, again[key]), key
    # With another order of summation, a spike at its threshold may differ.
    assert (actual["spikes"] != expected["spikes"]).float().mean() < 1e-4
    for key in expected.keys() - {"spikes"}:
        error = (actual[key].double() - expected[key].double()).norm() / expected[key].double().norm()
        assert error < 0.02, key

    leaf = y.detach().requires_grad_()
    for repeat in range(13):
        if repeat == 3:
            torch.cuda.synchronize()
            start = time.perf_counter()
        layer(leaf).backward(weights)
        leaf.grad = None
    torch.cuda.synchronize()
    seconds = (time.perf_counter() - start) / 10
    size = y.numel() * y.element_size()
    with capsys.disabled():
        print(f"\n{name}, {dtype}, channels_last={channels_last}: {8 * size / seconds / 1e9:.0f} GB/s of 8 tensors")
