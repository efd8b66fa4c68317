"""Runs of the networks for spike trains: exported, streamed and probed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch

import gradspike
from gradspike.runs.folder import RunFolder
from gradspike.tools.export.graph import nir_graph
from gradspike.tools.export.program import exported_program
from helpers.command import here
from helpers.nir_network import NirNetwork
from helpers.runs import train
from helpers.spike_samples import write_spikes

MODELS = ("spiking_mlp", "spiking_rnn")
T = 4


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, RunFolder]:
    folder = tmp_path_factory.mktemp("spikes")
    write_spikes(folder / "files")
    words = ["dataset=shd", f"dataset.source={folder / 'files'}", "dataset.classes=3", "dataset.pool_channels=50"]
    words += [
        "engine=eager",
        f"time_steps={T}",
        "dataset.window_s=1.0",
        "dataset.batch_size=3",
        "model.hidden=[8,6]",
        "recipe=none",
    ]
    words += ["trainer.max_epochs=2", "trainer.accelerator=cpu", "trainer.progress=none", "probe.every_n_steps=1"]
    words += [f"data_dir={folder}", "neuron=lif", "method=fixed_sg", "optimizer.lr=0.1"]
    return {
        name: train(gradspike.load_config([*words, f"model={name}", f"runs_dir={folder / name}"])) for name in MODELS
    }


@pytest.mark.parametrize("name", MODELS)
def test_programs_graphs_and_streams_compute_the_network(runs: dict[str, RunFolder], name: str) -> None:
    net = gradspike.load(runs[name].path, device="cpu")
    stored = torch.randint(0, 4, (5, T, 14, 1, 1), dtype=torch.int16, generator=torch.Generator().manual_seed(0))
    frames = net.transform(stored)
    with torch.no_grad():
        for layer in net.model.neurons:
            layer.norm.bias.add_(1.0)  # so that they fire, after so few steps of training
        expected = net.model(frames)
        stream, state, logits = gradspike.Stream(net.model), None, []
        for frame in frames:
            one, state = stream(frame, state)
            logits.append(one)
    torch.testing.assert_close(torch.stack(logits), expected)
    assert len({step.sum().item() for step in expected}) > 1
    torch.testing.assert_close(NirNetwork(nir_graph(net.model, frames[0, :1], {}))(frames)["output"], expected)
    torch.testing.assert_close(exported_program(net).module()(stored), expected)


@pytest.mark.parametrize("name", MODELS)
def test_the_probe_measures_every_layer(runs: dict[str, RunFolder], name: str) -> None:
    records = [json.loads(line) for line in runs[name].metrics.read_text().splitlines()]
    probed = {key for record in records for key in record if key.startswith("probe/neurons.1/")}
    assert {"probe/neurons.1/firing_rate", "probe/neurons.1/grad_input", f"probe/neurons.1/u_mean/t{T - 1}"} <= probed


@pytest.mark.slow  # the program that becomes ONNX is tested above
def test_onnx_runtime_computes_feedback(
    runs: dict[str, RunFolder], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    onnxruntime = pytest.importorskip("onnxruntime")
    run, path = runs["spiking_rnn"].path, tmp_path / "net.onnx"
    code, _, errors = here(["export", f"run={run}", "format=onnx", f"out={path}"], capsys)
    assert code == 0, errors
    stored = np.random.default_rng(0).integers(0, 4, (3, T, 14, 1, 1)).astype(np.int16)
    (logits,) = onnxruntime.InferenceSession(path).run(["logits"], {"samples": stored})
    net = gradspike.load(run, device="cpu")
    with torch.no_grad():
        expected = net.model(net.transform(torch.from_numpy(stored)))
    np.testing.assert_allclose(logits, expected.numpy(), rtol=1e-5, atol=1e-5)
