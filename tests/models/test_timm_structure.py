"""What a timm network may do in its forward pass: shared activations, functional calls, other layouts."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from timm.layers import BatchNormAct2d, GroupNormAct
from torch import Tensor, nn
from torch.nn import functional as F

from gradspike.models.timm.convert import Conversion, convert
from gradspike.models.timm.trace import NotTraceable, trace
from gradspike.spiking_norm import SpikingNorm
from helpers.method_checks import method_config
from helpers.timm_networks import B, T, build, context_for, images, original


def converted(network: nn.Module, gates: bool = False) -> tuple[nn.Module, Conversion]:
    """Convert a small network for 3-channel images of 8 pixels."""
    graph = trace(network, 3, 8)
    return graph, convert(graph, context_for(), gates, trained=False, residual="auto")


class Shared(nn.Module):
    """One ReLU called three times: after a norm, after a sum, and in place with the input read again."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 10)
        self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.conv2(x)) + x)
        z = self.conv2(y)
        self.relu(z)
        return self.fc((z + y).mean((2, 3)))


def test_each_call_of_a_shared_activation_has_a_layer_of_its_own() -> None:
    torch.manual_seed(0)
    network, done = converted(Shared())
    assert (done.pairs, done.neurons, done.norms) == (("bn1",), ("relu_1", "relu_2"), ("bn2",))
    layers = [layer for layer in network.modules() if isinstance(layer, SpikingNorm)]
    assert len({id(layer.method) for layer in layers}) == len({id(layer.neuron) for layer in layers}) == 3
    seen: list[Tensor] = []
    network.fc.register_forward_hook(lambda _m, inputs, _out: seen.append(inputs[0]))
    network(torch.randn(T * B, 3, 8, 8), False)
    assert torch.equal(seen[0] * 36, (seen[0] * 36).round())  # sums of spikes, because the third call was in place


class Functional(nn.Module):
    """Functional activations, a norm that is read twice, and a hand-written gate."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 10)
        self.squeeze, self.excite = nn.Linear(4, 2), nn.Linear(2, 4)
        self.bn1, self.bn2 = nn.BatchNorm2d(4), nn.BatchNorm2d(4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(x))
        x = F.leaky_relu(y, 0.1) + y
        gate = torch.sigmoid(self.excite(F.relu(self.squeeze(x.mean((2, 3))))))
        x = F.dropout(x * gate[:, :, None, None], 0.5, training=self.training)
        return self.fc(x.flatten(2).mean(2))


def test_functional_activations_norms_read_twice_gates_and_dropout() -> None:
    torch.manual_seed(0)
    network, done = converted(Functional())
    assert (done.pairs, done.neurons, done.norms, done.gates) == (("bn1",), ("leaky_relu",), ("bn2",), ("relu_1",))
    x = torch.randn(B, 3, 8, 8)
    network.eval()
    assert torch.equal(network(x, True), network(x, True))
    network.train()
    assert not torch.equal(network(x, True), network(x, True))
    _, spiking = converted(Functional(), gates=True)
    assert (spiking.neurons, spiking.gates) == (("leaky_relu", "relu_1"), ())


class PreActivation(nn.Module):
    """A norm whose activation goes to branch and shortcut, a norm-act of another kind, and outputs of the still part
    that do not go to a spiking layer: a batch norm, a split, a sum."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 10)
        self.pre, self.plain, self.group = BatchNormAct2d(4), nn.BatchNorm2d(4), GroupNormAct(4, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        left, right = x.chunk(2, 1)
        pre = self.pre(x)
        x = self.conv(pre) + pre + self.plain(x) + torch.cat([right, left], 1) + x
        return self.fc(self.group(x).mean((2, 3)))


def test_what_leaves_the_still_part_elsewhere_is_repeated() -> None:
    torch.manual_seed(0)
    still, done = converted(PreActivation())
    assert (done.pairs, done.neurons, done.norms) == (("pre",), ("group.neuron",), ("plain",))
    assert (done.other_norms, done.still) == (("group",), ("pre",))
    repeated = copy.deepcopy(still)
    x = torch.randn(B, 3, 8, 8)
    for training in (True, False):
        a, b = still.train(training)(x, True), repeated.train(training)(torch.cat([x] * T), False)
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)
    for key, value in repeated.state_dict().items():
        torch.testing.assert_close(still.state_dict()[key], value, rtol=1e-5, atol=1e-6, msg=key)


class ReadsBatchSize(nn.Module):
    """Its batch size comes from the image and is used after the first spiking layer."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.conv, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4 * 36, 10)
        self.act = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        batch = x.shape[0]
        return self.fc(self.conv(self.act(self.stem(x))).reshape(batch, -1))


def test_a_still_image_is_repeated_at_the_input_where_its_batch_size_is_used_later() -> None:
    torch.manual_seed(0)
    network, done = converted(ReadsBatchSize())
    assert done.still == ()
    x = torch.randn(B, 3, 8, 8)
    assert torch.equal(network(x, True), network(torch.cat([x] * T), False))


def test_channels_last_features_have_their_channels_found() -> None:
    """ConvNeXt's activations see [B, H, W, C]; a width per channel is one per C."""
    model = build("test_convnext", replace(context_for(), method=method_config("psg", width_per="channel")))
    layers = {name: layer for name, layer in model.named_modules() if isinstance(layer, SpikingNorm)}
    shapes: dict[str, tuple[int, ...]] = {}
    for name, layer in layers.items():
        layer.register_forward_hook(lambda _m, _in, out, name=name: shapes.update({name: tuple(out.shape)}))
    model(images()).sum().backward()
    assert all(shapes[name][1] == layer.channels == len(layer.method.width_raw) for name, layer in layers.items())
    blocks = original("test_convnext").modules()
    hidden = {block.fc1.out_features for block in blocks if hasattr(block, "fc1")}
    assert {layer.channels for name, layer in layers.items() if "mlp" in name} == hidden


class MixesSamples(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2, self.fc = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 1), nn.Linear(4, 10)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv1(x).transpose(0, 1).relu()
        return self.fc(self.conv2(x.transpose(0, 1)).mean((2, 3)))


class Branches(Shared):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) if x.sum() > float(x[0, 0, 0, 0]) else self.fc(x[:, 0, 0, :4])


def test_forwards_that_cannot_be_followed() -> None:
    with pytest.raises(Exception, match="mixes samples"):
        converted(MixesSamples())
    with pytest.raises(NotTraceable, match="cannot be traced"):
        trace(Branches(), 3, 8)
