"""`gradspike export`: other programs compute what the network computes, and what they cannot describe is refused."""

from __future__ import annotations

import json
from pathlib import Path

import nir
import numpy as np
import pytest
import torch
from torch import Tensor, nn

import gradspike
from gradspike.errors import ConfigError, UserError
from gradspike.library.load import TrainedModel, load
from gradspike.runs.folder import RunFolder
from gradspike.tools.export.eight_bit import use_eight_bits
from gradspike.tools.export.graph import nir_graph
from gradspike.tools.export.program import exported_program
from gradspike.tools.export.written import write_export
from helpers.command import TINY, here
from helpers.layer_spikes import spikes_of
from helpers.nir_network import NirNetwork
from helpers.runs import train

SAMPLES = 1000


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> RunFolder:
    places = [f"data_dir={data_dir}", f"runs_dir={tmp_path_factory.mktemp('runs')}"]
    return train(gradspike.load_config([*TINY, *places, "neuron=lif", "trainer.max_epochs=2"]))


@pytest.fixture(scope="module")
def net(run: RunFolder) -> TrainedModel:
    return gradspike.load(run.path, device="cpu")


@pytest.fixture(scope="module")
def stored(net: TrainedModel) -> Tensor:
    """Samples as the data set stores them."""
    data = gradspike.build_data(net.config)
    data.setup()
    return torch.from_numpy(data.samples.inputs[:SAMPLES].copy())


def exported(run: RunFolder, form: str, out: Path, capsys: pytest.CaptureFixture[str], *words: str) -> Path:
    path = out / f"net.{form}"
    code, said, errors = here(["export", f"run={run.path}", f"format={form}", f"out={path}", *words], capsys)
    assert code == 0, errors
    assert f"net.{form}" in said
    assert sorted(file.name for file in out.iterdir()) == [path.name, f"{path.name}.json"]
    return path


def test_nir_file_of_a_run(
    run: RunFolder, net: TrainedModel, stored: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = exported(run, "nir", tmp_path, capsys)
    graph = nir.read(path)
    described = json.loads(path.with_suffix(".nir.json").read_text())
    assert json.loads(graph.metadata["gradspike"]) == described
    assert described["time_steps"] == 4
    assert described["input"]["fed"] == "the image at every step"
    mean, std = net.statistics
    assert f"mean = [{mean[0]:.9g}], std = [{std[0]:.9g}]" in described["input"]["values"]
    inputs = net.transform(stored)
    seen = NirNetwork(graph)(inputs.expand(4, *inputs.shape))
    expected = spikes_of(net.model, inputs, 4)
    # Folded weights are rounded, which may move a potential over a threshold that it all but meets.
    for name, spikes in expected.items():
        if name != "output":
            assert (seen[name] != spikes).float().mean() < 1e-5, name
    same = seen["output"].mean(0).argmax(1) == expected["output"].mean(0).argmax(1)
    assert same.float().mean() > 0.998


def test_spikingjelly_reads_the_file_and_fires_the_same_spikes(
    run: RunFolder, net: TrainedModel, stored: Tensor, tmp_path: Path
) -> None:
    reader = pytest.importorskip(
        "spikingjelly.activation_based.nir_exchange.from_nir", reason="needs spikingjelly, nirtorch and loguru"
    )
    # In float64, in which no rounding moves a potential over a threshold.
    model = gradspike.load(
        net.config.runs_dir + "/" + next(Path(net.config.runs_dir).glob("2*")).name, device="cpu"
    ).model.double()
    inputs = net.transform(stored).double()
    nir.write(tmp_path / "net.nir", nir_graph(model, inputs[:1], {}))
    theirs = reader.import_from_nir(nir.read(tmp_path / "net.nir"), dtype=torch.float64)
    seen: dict[str, list[Tensor]] = {}
    for name, layer in theirs.named_modules():
        layer.register_forward_hook(lambda _, __, out, name=name: seen.setdefault(name, []).append(out[0]))
    state, logits = None, []
    for _ in range(4):
        output, state = theirs(inputs, state)
        logits.append(output)
    expected = spikes_of(model, inputs, 4)
    torch.testing.assert_close(torch.stack(logits).detach(), expected.pop("output"))
    for name, spikes in expected.items():
        assert torch.equal(torch.stack(seen[name.replace(".", "_")]), spikes), name


def test_pt2_file_of_a_run_loads_without_gradspike_and_is_equal(
    run: RunFolder, net: TrainedModel, stored: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = exported(run, "pt2", tmp_path, capsys)
    extra = {"gradspike.json": ""}
    program = torch.export.load(path, extra_files=extra)
    assert json.loads(extra["gradspike.json"]) == json.loads(path.with_suffix(".pt2.json").read_text())
    assert not [node for node in program.graph.nodes if "gradspike" in str(node.target)]
    for batch in (stored[:1], stored[:7]):
        assert torch.equal(program.module()(batch), net.predict(batch).logits)


def test_a_program_has_no_operation_without_effect_on_the_logits(net: TrainedModel) -> None:
    """The time of the ONNX export follows their number."""
    nodes = list(exported_program(net).graph.nodes)
    assert [node.name for node in nodes if node.op == "call_function" and not node.users and node.is_impure()]
    assert not [node.name for node in nodes if node.op == "call_function" and not node.users and not node.is_impure()]
    assert not [node.name for node in nodes if "detach" in str(node.target)]
    casts = [node for node in nodes if node.target is torch.ops.aten.to.dtype]
    assert casts
    assert not [node.name for node in casts if node.args[0].meta["val"].dtype == node.args[1]]


def test_onnx_file_of_8_bits_is_equal_in_onnx_runtime(
    run: RunFolder, stored: Tensor, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    path = exported(run, "onnx", tmp_path, capsys, "bits=8")
    net = gradspike.load(run.path, device="cpu")
    use_eight_bits(net.model)
    session = onnxruntime.InferenceSession(path)
    described = session.get_modelmeta().custom_metadata_map["gradspike.json"]
    assert json.loads(described) == json.loads(path.with_suffix(".onnx.json").read_text())
    for batch in (stored[:1], stored[:200]):
        (logits,) = session.run(["logits"], {"samples": batch.numpy()})
        torch.testing.assert_close(torch.from_numpy(logits), net.predict(batch).logits, rtol=0, atol=1e-5)


def test_weights_of_8_bits_are_the_nearest_of_255_per_channel() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 5), nn.BatchNorm1d(5))
    with torch.no_grad():
        model[0].weight[1] = 0
    before = {name: layer.weight.detach().clone() for name, layer in (("0", model[0]), ("2", model[2]))}
    bias = model[0].bias.detach().clone()
    assert use_eight_bits(model) == 2
    for name, weight in before.items():
        layer = model.get_submodule(name)
        scale = weight.flatten(1).abs().amax(1).view(-1, *[1] * (weight.ndim - 1)) / 127
        assert ((layer.weight - weight).abs() <= scale * 0.5001).all()
        integers = layer.weight / scale.clamp_min(1e-30)
        torch.testing.assert_close(integers, integers.round(), atol=1e-4, rtol=0)
        assert {integer.dtype for key, integer in layer.state_dict().items() if key.endswith("original0")} == {
            torch.int8
        }
    assert torch.equal(model[0].bias, bias)
    assert model(torch.randn(2, 3, 4, 4)).shape == (2, 5)


def test_the_accuracy_of_8_bits_is_that_of_the_file(
    run: RunFolder, net: TrainedModel, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = exported(run, "nir", tmp_path, capsys, "bits=8", "checkpoint=last")
    described = json.loads(path.with_suffix(".nir.json").read_text())
    measured = described["accuracy"]
    last = [json.loads(line) for line in run.metrics.read_text().splitlines() if "val/accuracy" in line][-1]
    assert measured["split"] == "val"
    assert measured["before"] == pytest.approx(last["val/accuracy"])
    assert described["weights"] == "8 bits per output channel, symmetric, in 3 layers"
    graph = nir.read(path)
    for node in graph.nodes.values():
        if isinstance(node, nir.Conv2d | nir.Affine):
            weight = node.weight.reshape(len(node.weight), -1)
            integers = weight / np.abs(weight).max(1, keepdims=True) * 127
            np.testing.assert_allclose(integers, integers.round(), atol=1e-3)
    data = gradspike.build_data(net.config)
    data.setup()
    val = data.samples.indices("val")
    inputs = net.transform(torch.from_numpy(data.samples.inputs[val]))
    logits = NirNetwork(graph)(inputs.expand(4, *inputs.shape))["output"].mean(0)
    right = (logits.argmax(1).numpy() == data.samples.labels[val]).mean()
    assert measured["after"] == pytest.approx(right, abs=0.006)  # two samples, because folded weights are rounded


def test_mistakes_are_one_sentence(run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = f"run={run.path}"
    there = tmp_path / "there.nir"
    there.write_text("mine")
    for words, code, said in (
        ([given, "format=onxx"], 2, "format=onxx: "),
        ([given], 2, "format: "),
        ([given, "format=nir", f"out={tmp_path}/net.onnx"], 2, "must end in one of .nir"),
        ([given, "format=nir", f"out={there}"], 2, "there.nir exists. Delete it, or choose another out=."),
        ([given, "format=nir", f"out={tmp_path}/no/net.nir"], 2, "unknown folder"),
        ([f"run={tmp_path}", "format=nir"], 2, "is not a run folder"),
        ([given, "format=nir", "bit=8"], 2, "unknown key 'bit'"),
        ([given, "format=nir", "bits=4"], 2, "bits=4: "),
        ([given, "format=nir", "split=val"], 2, "split=val: data are read only with bits=8 or thresholds=mean."),
        ([given, "format=pt2", "thresholds=mean"], 2, "thresholds=mean: pt2 keeps the thresholds of all steps"),
    ):
        got, _, errors = here(["export", *words], capsys)
        assert (got, errors.startswith("Error: ")) == (code, True), (words, errors)
        assert said in errors
    assert there.read_text() == "mine"
    assert [file.name for file in tmp_path.iterdir()] == ["there.nir"]


def test_a_file_whose_description_cannot_be_written_does_not_stay(run: RunFolder, tmp_path: Path) -> None:
    """The next export would refuse it."""
    (tmp_path / "net.nir.json").mkdir()
    with pytest.raises(UserError, match=r"net.nir.json: cannot be written"):
        write_export(load(run.best, device="cpu", engine="eager"), tmp_path / "net.nir", "nir", {})
    assert [file.name for file in tmp_path.iterdir()] == ["net.nir.json"]


def test_of_two_exports_to_one_file_the_second_changes_nothing(run: RunFolder, tmp_path: Path) -> None:
    """Both may have found that it does not exist; one network with the description of the other would be wrong."""
    net = load(run.best, device="cpu", engine="eager")
    written = write_export(net, tmp_path / "net.nir", "nir", {"first": 1})
    before = [file.read_bytes() for file in written]
    for lost in ([], written[:1]):
        for file in lost:
            file.unlink()
        with pytest.raises(ConfigError, match="exists by now"):
            write_export(net, tmp_path / "net.nir", "nir", {"second": 2})
        assert [file.read_bytes() for file in written if file.exists()] == before[len(lost) :]


def test_a_run_without_checkpoint_is_refused(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("config.yaml", "status.json"):
        (tmp_path / name).write_bytes((run.path / name).read_bytes())
    code, _, errors = here(["export", f"run={tmp_path}", "format=pt2"], capsys)
    assert code == 1
    assert "unknown checkpoint" in errors
    assert "best.ckpt" in errors


def test_a_missing_package_names_the_extra(
    run: RunFolder, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "nir" else object())
    code, _, errors = here(["export", f"run={run.path}", "format=nir", f"out={tmp_path}/net.nir"], capsys)
    assert code == 1
    assert errors.endswith("format=nir needs the package nir: pip install 'gradspike[export]'\n")
