"""`trainer.pack_spikes` changes what waits for the backward pass, and no bit of the result."""

from __future__ import annotations

import weakref
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from gradspike import packed_spikes
from gradspike.collected import collect_losses
from gradspike.config.schema import ExperimentConfig
from gradspike.engine.base import Engine
from gradspike.models.pooling import AvgPool2x2, MaxPool2d
from gradspike.models.residual import combined
from gradspike.packed_spikes import LARGEST, largest_of, mark, packing
from gradspike.spiking_norm import SpikingNorm
from helpers.networks import build, config_for
from helpers.runs import train, weights

Compose = Callable[..., ExperimentConfig]

CASES = [
    ("resnet19",),
    ("resnet19", "model.residual=and"),
    ("resnet19", "model.residual=iand"),
    ("resnet19", "model.residual=basic", "model.pool=max"),
    ("vggsnn",),
    ("vggsnn", "model.pool=max", "model.dropout=0.5"),
    ("spikformer",),
    ("qkformer",),
    ("spiking_rnn", "model.hidden=[6,5]"),
    ("resnet19", "method=ds_atgo"),
    ("resnet19", "method=asgl"),
    ("resnet19", "method=fixed_sg", "neuron=ilif"),
]


def network(*case: str) -> tuple[nn.Module, Tensor]:
    """A network in training, and two images."""
    config = config_for(*case)
    size = config.dataset.image_size
    return build(config).train(), torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(1))


def gradients(model: nn.Module, inputs: Tensor, *, packed: bool, bf16: bool) -> list[Tensor]:
    """Of a pass that leaves the network as it was."""
    state = {name: value.clone() for name, value in model.state_dict().items()}
    model.zero_grad()
    torch.manual_seed(2)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16), collect_losses() as extra, packing(packed):
        loss = model(inputs).float().square().mean() + extra.mean()
    loss.backward()
    model.load_state_dict(state)
    return [parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None]


@pytest.mark.parametrize("bf16", [False, True], ids=["fp32", "bf16"])
@pytest.mark.parametrize("case", CASES, ids=" ".join)
def test_gradients_are_the_same_bits(case: tuple[str, ...], bf16: bool) -> None:
    model, inputs = network(*case)
    if bf16:
        model, inputs = (one.to(memory_format=torch.channels_last) for one in (model, inputs))
    plain = gradients(model, inputs, packed=False, bf16=bf16)
    packed = gradients(model, inputs, packed=True, bf16=bf16)
    assert len(plain) == len(packed) > 4
    assert all(torch.equal(a, b) for a, b in zip(plain, packed, strict=True))


@pytest.mark.parametrize("engine", ["eager", "formulas"], indirect=True)
@pytest.mark.parametrize(
    ("case", "binary"),
    [
        (("vggsnn",), True),
        (("resnet19",), True),
        (("vggsnn", "method=asgl"), False),
        (("vggsnn", "method=fixed_sg", "neuron=ilif"), False),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_the_memory_of_spikes_is_released_in_the_forward_pass(
    engine: Engine, case: tuple[str, ...], binary: bool
) -> None:
    """Not that of values other than 0 and 1, which are kept as they are."""
    model, inputs = network(*case)
    kept: list[StorageWeakRef] = []
    for layer in model.modules():
        if isinstance(layer, SpikingNorm):
            layer.register_forward_hook(lambda _layer, _in, out: kept.append(StorageWeakRef(out.untyped_storage())))
    with packing(False):
        loss = model(inputs).sum()
    assert not all(one.expired() for one in kept)
    del loss
    kept.clear()
    with packing():
        loss = model(inputs).sum()
    assert all(one.expired() for one in kept) == binary
    loss.backward()


@pytest.mark.parametrize("largest", [1, 2, 3, 4, 15, 16, LARGEST])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
def test_whole_numbers_keep_values_and_strides(largest: int, dtype: torch.dtype) -> None:
    counts = torch.arange(3 * 5 * 7 * 9).remainder(largest + 1).to(dtype).view(3, 5, 7, 9)
    counts = counts.to(memory_format=torch.channels_last)
    factor = torch.ones_like(counts, requires_grad=True)
    with packing():
        saved = mark(counts, largest)
        out = (factor * saved)[1:].sum() + (factor[0] * saved[0]).sum()
        rows = saved.transpose(2, 3)[:, 1:] * factor.transpose(2, 3)[:, 1:]
    node = rows.grad_fn
    assert node is not None
    read = node._saved_self  # type: ignore[attr-defined]
    original = counts.transpose(2, 3)[:, 1:]
    assert torch.equal(read, original)
    assert (read.stride(), read.dtype, read.storage_offset()) == (original.stride(), dtype, original.storage_offset())
    assert read.data_ptr() != original.data_ptr()
    out.backward()
    assert factor.grad is not None
    assert torch.equal(factor.grad, counts)


def test_counts_follow_sums_and_pooling() -> None:
    spikes, more = torch.ones(1, 1, 4, 4), torch.zeros(1, 1, 4, 4)
    with packing():
        one, three = mark(spikes), mark(more, 3)
        assert largest_of(combined("add", one, three)) == 4
        assert largest_of(combined("and", one, three)) == 3
        assert largest_of(combined("iand", one, three)) == 3
        assert largest_of(combined("iand", three, one)) is None  # below 0
        assert largest_of(combined("add", one, torch.ones(1, 1, 4, 4))) is None
        assert largest_of(MaxPool2d(2)(three)) == 3
        assert largest_of(AvgPool2x2()(three)) is None  # quarters
        assert largest_of(mark(torch.ones(2), LARGEST + 1)) is None
        assert largest_of(mark(torch.ones(2, 2)[0])) is None  # a part of another tensor
    assert largest_of(one) is None


def test_a_tensor_written_to_after_it_was_marked_is_kept_as_it_is() -> None:
    factor = torch.ones(64, requires_grad=True)
    with packing():
        spikes = mark(torch.ones(64))
        spikes += 0.5
        (factor * spikes).sum().backward()
    assert torch.equal(factor.grad, torch.full((64,), 1.5))  # type: ignore[arg-type]


def test_a_new_tensor_in_the_memory_of_a_marked_one_is_kept_as_it_is() -> None:
    factor = torch.ones(4096, requires_grad=True)
    reused = False
    with packing():
        for _ in range(20):
            spikes = mark(torch.ones(4096))
            address = spikes.data_ptr()
            del spikes
            values = torch.full((4096,), 0.5)
            reused |= values.data_ptr() == address
            factor.grad = None
            (factor * values).sum().backward()
            assert torch.equal(factor.grad, values)  # type: ignore[arg-type]
    assert reused


def test_an_in_place_change_between_the_passes_is_an_error_as_in_torch() -> None:
    factor, values = torch.ones(4, requires_grad=True), torch.ones(4)
    with packing():
        out = (factor * values).sum()
    values += 1
    with pytest.raises(RuntimeError, match=r"shape \[4\].*modified by an in-place operation"):
        out.backward()


def test_nothing_of_a_step_stays_when_it_has_ended() -> None:
    """Not even a result that its own operation keeps and no backward pass reaches, such as a detached decay."""
    model, inputs = network("spiking_cnn")
    kept: list[weakref.ref[object]] = []
    for _ in range(2):
        with packing():
            own = packed_spikes._pass.get()
            kept.append(weakref.ref(own))
            del own
            loss = model(inputs).sum()
        loss.backward()
        del loss
    assert [one() for one in kept] == [None, None]


@pytest.mark.parametrize("accumulate", [1, 2])
def test_a_run_is_the_same_bytes(tiny_config: Compose, accumulate: int) -> None:
    words = ("trainer.max_epochs=1", "engine=eager", f"trainer.accumulate={accumulate}")
    plain, packed = (train(tiny_config(*words, f"trainer.pack_spikes={on}")) for on in ("false", "true"))
    assert plain.metrics.read_bytes() == packed.metrics.read_bytes()
    one, other = weights(plain), weights(packed)
    assert all(torch.equal(one[key], other[key]) for key in one)
