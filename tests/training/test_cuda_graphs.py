"""`trainer.cuda_graphs`: steps that are repeated without Python have the numbers of plain ones. `test_null_gpu.py` has
the real capture."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from gradspike.collected import FirstLayerWatch, collect_losses, watch_first_layer
from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError, UserError
from gradspike.methods.base import set_progress
from gradspike.methods.registry import METHODS
from gradspike.packed_spikes import packing
from gradspike.training.build import check_cuda_graphs
from gradspike.training.graphed import GraphedNetwork
from helpers import replayed
from helpers.networks import build, config_for

HOST = {"asgl"}
"""Methods whose noise has a seed of the host."""
CASES = [
    *((f"method={name}",) for name in METHODS.names() if name not in HOST),
    ("norm=tebn",),
    ("neuron=psn", "method=fixed_sg"),
    ("neuron=glif", "method=fixed_sg"),
    ("model.activation=relu",),
]


@pytest.fixture(autouse=True)
def _on_a_cpu(monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    if request.node.get_closest_marker("gpu") is None:
        monkeypatch.setattr(torch.cuda, "make_graphed_callables", replayed.make_graphed_callables)


def network(*words: str, model: str = "spiking_cnn") -> tuple[nn.Module, nn.Module, ExperimentConfig]:
    """The same network in training twice, with inputs for which all of its layers fire."""
    config = config_for(model, *words)
    return build(config).train(), build(config).train(), config


def images(count: int = 4, seed: int = 0) -> Tensor:
    return torch.randn(count, 3, 8, 8, generator=torch.Generator().manual_seed(seed)) * 2


def step(
    model: nn.Module, call: Callable[[Tensor], Tensor], inputs: Tensor, *, bf16: bool = False, packed: bool = False
) -> FirstLayerWatch:
    """A step of training."""
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    optimizer.zero_grad()
    with (
        torch.autocast(inputs.device.type, torch.bfloat16, enabled=bf16),
        collect_losses() as extra,
        watch_first_layer() as watch,
    ):
        with packing(packed):
            logits = call(inputs)
        loss = logits.float().square().mean() + extra.mean()
    loss.backward()
    optimizer.step()
    return watch


def assert_same(one: nn.Module, other: nn.Module) -> None:
    state = other.state_dict()
    for name, value in one.state_dict().items():
        assert torch.equal(value, state[name]), name


@pytest.mark.parametrize("words", CASES, ids=" ".join)
def test_repeated_steps_are_plain_ones(words: tuple[str, ...]) -> None:
    """Of every method, with its running statistics, its losses and its progress."""
    plain, own, _ = network(*words)
    graphed = GraphedNetwork(own, own)
    for number in range(5):
        set_progress(plain, number / 5)
        set_progress(own, number / 5)
        sums = [step(model, call, images(seed=number)).sums for model, call in ((plain, plain), (own, graphed))]
        if sums[0] is not None:
            assert torch.equal(*sums)  # type: ignore[arg-type]
        assert_same(plain, own)
    assert graphed._graphs is not None


@pytest.mark.gpu
@pytest.mark.parametrize("engine", ["eager", "compiled", "triton"])
@pytest.mark.parametrize("method", ["mpd_agl", "ds_atgo", "psg_pda"])
def test_on_a_gpu(method: str, engine: str) -> None:
    """Graphs of CUDA itself, in bf16."""
    models = [build(config_for("spiking_cnn", f"method={method}", f"engine={engine}")).cuda().train() for _ in range(2)]
    graphed = GraphedNetwork(models[1], models[1])
    deterministic = torch.are_deterministic_algorithms_enabled()
    torch.use_deterministic_algorithms(True)
    try:
        for number in range(5):
            for model, call in ((models[0], models[0]), (models[1], graphed)):
                step(model, call, images(seed=number).cuda(), bf16=True)
            assert_same(*models)
    finally:
        torch.use_deterministic_algorithms(deterministic)
    assert graphed._graphs is not None


@pytest.mark.parametrize(("bf16", "packed"), [(True, False), (False, True)])
def test_bf16_and_packed_spikes(bf16: bool, packed: bool) -> None:
    plain, own, _ = network("method=mpd_agl")
    graphed = GraphedNetwork(own, own)
    for number in range(4):
        for model, call in ((plain, plain), (own, graphed)):
            step(model, call, images(seed=number), bf16=bf16, packed=packed)
        assert_same(plain, own)
    assert graphed._graphs is not None


def test_random_numbers_of_torch_go_on_as_in_plain_steps() -> None:
    """The trial passes of a capture draw some, which training then draws again."""
    models = [nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(192, 5)).train() for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    graphed = GraphedNetwork(models[1], models[1])
    for model, call in ((models[0], models[0]), (models[1], graphed)):
        torch.manual_seed(3)
        for number in range(5):
            step(model, call, images(seed=number))
    assert graphed._graphs is not None
    assert_same(*models)


def test_other_batches_hooks_and_evaluation_run_without_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, own, _ = network("method=ds_atgo")
    graphed = GraphedNetwork(own, own)
    calls = []
    for number in range(8):
        hook = own.neurons[0].register_forward_hook(lambda *_: None) if number == 4 else None  # type: ignore[index,union-attr]
        inputs = images(3 if number in (1, 5, 6) else 4, seed=number)
        before = graphed._graphs
        if before is not None:
            graphed._graphs = lambda inputs: (calls.append(number), before(inputs))[1]  # noqa: B023
        for model, call in ((plain, plain), (own, graphed)):
            step(model, call, inputs)
        if before is not None:
            graphed._graphs = before
        if hook is not None:
            hook.remove()
        own.eval()
        plain.eval()
        with torch.no_grad():
            assert torch.equal(graphed(images()), plain(images()))
        own.train()
        plain.train()
        assert_same(plain, own)
    assert calls == [3, 7]  # captured at 2; 4 has a hook; 1, 5 and 6 are smaller


def test_a_step_that_cannot_be_captured_is_one_sentence() -> None:
    class Reads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.head = nn.Linear(192, 5)

        def forward(self, inputs: Tensor) -> Tensor:
            logits: Tensor = self.head(inputs.flatten(1))
            return logits * float(logits.detach().sum() > 0)

    own = Reads().train()
    graphed = GraphedNetwork(own, own)
    step(own, graphed, images())
    said = r"trainer\.cuda_graphs=true: the training step cannot be captured \(operation not permitted when stream is"
    with pytest.raises(UserError, match=said):
        step(own, graphed, images())


@pytest.mark.parametrize(
    "words",
    [
        ("method=asgl",),
        ("method=fixed_sg", "model.encoder=poisson", "dataset.normalize=unit"),
        ("method=fixed_sg", "model.moderate_dropout=0.2"),
    ],
    ids=" ".join,
)
def test_what_the_host_draws_or_reads_is_refused_before_training(words: tuple[str, ...]) -> None:
    config = graphs(config_for("spiking_cnn", *words))
    with pytest.raises(ConfigError, match=r"the host reads a value of a tensor, or draws the seed"):
        check_cuda_graphs(config, build(config), "cuda")


def test_a_network_without_the_host_is_accepted_on_cuda_only() -> None:
    config = graphs(config_for("spiking_cnn", "method=ds_atgo"))
    check_cuda_graphs(config, build(config), "cuda")
    with pytest.raises(
        ConfigError, match=r"trainer\.cuda_graphs=true: needs a CUDA device, but this training runs on cpu"
    ):
        check_cuda_graphs(config, build(config), "cpu")


def graphs(config: ExperimentConfig) -> ExperimentConfig:
    return config.model_copy(update={"trainer": config.trainer.model_copy(update={"cuda_graphs": True})})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trainer.devices=2"], "for one process"),
        (["trainer.accumulate=2"], "not with trainer.accumulate=2"),
    ],
)
def test_refused_keys(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        load_config(["trainer.cuda_graphs=true", *words])
