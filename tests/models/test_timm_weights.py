"""Weights of timm networks: pretrained files, and layers that timm starts silent or closed."""

from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn
from torch.nn import functional as F

from gradspike.config.compose import load_config
from gradspike.errors import ConfigError, UserError
from gradspike.models.parameters import undecayed_parameters
from gradspike.models.timm.network import TimmConfig
from gradspike.norms.base import ChannelNorm
from gradspike.training.evaluate import as_evaluated
from helpers.timm_networks import B, build, context_for, images, original


def test_undecayed_parameters_hold_all_norms() -> None:
    model = build("test_convnext")
    assert {"network.stem.1.weight", "network.stages.0.blocks.0.norm.bias"} <= undecayed_parameters(model)
    assert "network.stem.0.weight" not in undecayed_parameters(model)
    assert "network.layer1.0.bn2.weight" in undecayed_parameters(build("resnet18d"))
    assert "network.layer1.0.bn1.weight" in undecayed_parameters(build("resnet18d", activation="relu"))


@pytest.mark.parametrize("suffix", ["pth", "pt", "safetensors"])
def test_pretrained_weights_go_to_their_places(suffix: str, tmp_path: Path) -> None:
    source = original("resnet18d", seed=5)
    with torch.no_grad():
        for module in source.modules():
            if isinstance(module, nn.BatchNorm2d):
                for value in (module.weight, module.bias, module.running_mean, module.running_var):
                    value.uniform_(0.5, 1.5)
    path = tmp_path / f"weights.{suffix}"
    if suffix == "safetensors":
        save_file(source.state_dict(), path)
    else:
        torch.save({"state_dict": source.state_dict()} if suffix == "pth" else source.state_dict(), path)
    twin = build("resnet18d", pretrained=str(path), activation="relu").eval()
    assert torch.equal(twin(images())[0], source.eval()(images()))

    model = build("resnet18d", context_for(alpha=1.5), pretrained=str(path)).eval()
    assert torch.equal(model.network.conv1.get_submodule("0").weight, source.conv1[0].weight)
    layer, y = model.network.layer1.get_submodule("0").bn1, torch.randn(2, 8, 4, 4)
    assert isinstance(layer.norm, ChannelNorm)
    torch.testing.assert_close(layer.norm(y), 1.5 * layer.v_threshold * source.layer1[0].bn1(y))
    assert str(path) in "\n".join(model.report.lines())


def test_pretrained_for_other_classes_and_channels(tmp_path: Path) -> None:
    torch.manual_seed(5)
    source = timm.create_model("resnet18d", num_classes=7, in_chans=3, channels=[8, 8, 16, 16])
    torch.save(source.state_dict(), tmp_path / "w.pt")
    twin = build("resnet18d", pretrained=str(tmp_path / "w.pt"), activation="relu", dataset="cifar10dvs")
    assert torch.equal(twin.network.fc.weight, original("resnet18d", channels=2).fc.weight)
    torch.testing.assert_close(twin.network.conv1[0].weight, source.conv1[0].weight[:, :2] * 1.5)
    notes = "\n".join(twin.report.lines())
    assert "fc.weight: [7, 16] in the file, stays random with [10, 16]" in notes
    assert "conv1.0.weight: adapted from 3 to 2 input channels" in notes


def test_a_run_is_evaluated_without_the_file_it_began_with() -> None:
    config = load_config(["model=timm", "model.pretrained=gone.pt", "recipe=none"])
    assert isinstance(config.model, TimmConfig)
    assert config.model.pretrained == "gone.pt"
    assert as_evaluated(config, None, "cpu").plain()["model"] == {
        **config.plain()["model"],
        "pretrained": None,
        "residual": "as_is",
    }


def test_pretrained_files_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "w.pt"
    with pytest.raises(ConfigError, match=r"model\.pretrained: unknown file '.*w\.pt'"):
        build("resnet18d", pretrained=str(path))
    path.write_bytes(b"no weights")
    with pytest.raises(UserError, match=r"w\.pt: cannot be read as weights"):
        build("resnet18d", pretrained=str(path))
    torch.save({"epoch": 3}, path)
    with pytest.raises(UserError, match="no dictionary of weights"):
        build("resnet18d", pretrained=str(path))
    torch.save(original("vgg11_bn").state_dict(), path)
    with pytest.raises(ConfigError, match=r"missing: conv1.*not in the network: features\.0.*more"):
        build("resnet18d", pretrained=str(path))
    torch.save(timm.create_model("resnet18d", num_classes=10).state_dict(), path)
    with pytest.raises(ConfigError, match=r"with another shape: .*layer1\.0\.conv1\.weight"):
        build("resnet18d", pretrained=str(path))
    torch.save(nn.Linear(1, 1), path)
    with pytest.raises(UserError, match="contains more than tensors, and reading it could run code; save its state_"):
        build("resnet18d", pretrained=str(path))


@pytest.mark.parametrize(("name", "woken"), [("darknet17", True), ("densenet121", False)])
def test_layers_that_timm_starts_silent_are_woken(name: str, woken: bool) -> None:
    """With a gain of 0, or a norm over max-pooled spikes, a new layer does not fire, nor does any later one."""
    model = build(name)
    done = model.report.conversion
    assert done is not None
    assert (bool(done.woken), bool(done.relays)) == (woken, not woken)
    rates: dict[str, float] = {}
    for layer in (*done.woken, *done.relays):
        model.network.get_submodule(layer).register_forward_hook(
            lambda _m, _in, out, layer=layer: rates.update({layer: float(out.mean())})
        )
    with torch.no_grad():
        model(images(batch=8))
    assert all(rate > 0.02 for rate in rates.values()), rates


@pytest.mark.parametrize("norm", ["tdbn", "tdbn_gain"])
@pytest.mark.parametrize("method", ["mpd_agl", "ds_atgo", "psg"])
def test_gradients_pass_blocks_whose_branch_timm_starts_closed(method: str, norm: str, tmp_path: Path) -> None:
    """With timm's 0 as the last gain of a branch, the neuron after the sum sees only spikes; with psg and ds_atgo no
    gradient passes it. Loaded gains stay unchanged.
    """
    context = context_for(method, name=norm, alpha=1.5)
    model = build("resnet18d", context, residual="as_is")
    done = model.report.conversion
    assert done is not None
    closed = [name for name, value in original("resnet18d").named_parameters() if "bn" in name and not value.any()]
    assert [f"{name}.weight" for name in done.opened] == [name for name in closed if name.endswith("weight")]
    assert len(done.opened) == 8
    for name in done.opened:
        gain = model.network.get_submodule(name).weight.detach()
        torch.testing.assert_close(gain, torch.full_like(gain, 1.5 * context.method.v_threshold / 2**0.5))
    F.cross_entropy(model(images()).mean(0), torch.arange(B)).backward()
    for name, parameter in model.named_parameters():
        assert parameter.ndim != 4 or (parameter.grad is not None and parameter.grad.any()), name

    torch.save(original("resnet18d").state_dict(), tmp_path / "w.pt")
    loaded = build("resnet18d", context, pretrained=str(tmp_path / "w.pt"))
    assert loaded.report.conversion is not None
    assert loaded.report.conversion.opened == ()
    assert not loaded.network.get_submodule(done.opened[0]).weight.any()
