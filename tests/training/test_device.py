"""The device of a run: supported GPUs, refused operations, and the engine for evaluation on another machine."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError
from gradspike.models.determinism import nondeterministic_operations
from gradspike.training.build import build_model, check_deterministic
from gradspike.training.device import runs_on
from gradspike.training.evaluate import as_evaluated, evaluate
from gradspike.training.trainer import build_trainer
from helpers.networks import build, config_for
from helpers.runs import train

Compose = Callable[..., ExperimentConfig]

BUILT_FOR = ["sm_75", "sm_80", "sm_90a", "sm_120", "compute_120"]


@pytest.mark.parametrize(
    ("capability", "runs"),
    [
        *[((6, 1), False), ((7, 0), False), ((7, 5), True), ((8, 9), True), ((9, 0), True), ((10, 0), False)],
        *[((12, 0), True), ((12, 1), True), ((13, 0), True)],
    ],
)
def test_code_runs_on_later_cards_of_the_same_generation(capability: tuple[int, int], runs: bool) -> None:
    assert runs_on(capability, BUILT_FOR) is runs


def test_a_network_with_an_operation_that_is_not_deterministic_is_refused_for_cuda() -> None:
    config = config_for("timm", "+model.options={global_pool: avgmax}")
    model = build(config)
    assert nondeterministic_operations(model, (2, 3, 32, 32)) == ["adaptive_max_pool2d_backward"]
    with pytest.raises(ConfigError, match=r"adaptive max pooling \(adaptive_max_pool2d_backward\)\. Use trainer\.det"):
        check_deterministic(config, model, "cuda")
    check_deterministic(config, model, "cpu")
    free = config_for("timm", "+model.options={global_pool: avgmax}", "trainer.deterministic=false")
    check_deterministic(free, model, "cuda")


@pytest.mark.parametrize("encoder", ["direct", "poisson"])
def test_looking_for_operations_changes_nothing(encoder: str) -> None:
    """An encoder with a random generator runs on the CPU."""
    config = config_for("spiking_cnn", f"model.encoder={encoder}", "dataset.normalize=unit")
    model = build(config)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    generator = torch.get_rng_state()
    torch.use_deterministic_algorithms(False)
    check_deterministic(config, model, "cuda")
    assert torch.equal(torch.get_rng_state(), generator)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.mark.parametrize("tf32", [True, False])
def test_tf32_is_for_convolutions(tiny_config: Compose, tf32: bool) -> None:
    before = torch.backends.cudnn.allow_tf32
    try:
        build_trainer(tiny_config(f"trainer.tf32={str(tf32).lower()}"), loggers=[], callbacks=[])
        assert torch.backends.cudnn.allow_tf32 is tf32
        assert torch.backends.cuda.matmul.allow_tf32 is False
    finally:
        torch.backends.cudnn.allow_tf32 = before
        torch.use_deterministic_algorithms(False)


def test_training_does_not_fill_new_tensors(tiny_config: Compose) -> None:
    before = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        build_trainer(tiny_config("trainer.deterministic=true"), loggers=[], callbacks=[])
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.utils.deterministic.fill_uninitialized_memory is False  # type: ignore[attr-defined]
    finally:
        torch.utils.deterministic.fill_uninitialized_memory = before  # type: ignore[attr-defined]
        torch.use_deterministic_algorithms(False)


def test_a_run_of_an_engine_that_is_not_here_is_evaluated_with_another(tiny_config: Compose) -> None:
    run = train(tiny_config("trainer.max_epochs=1"))
    here = run.config().plain()
    run_config = run.config().model_copy(update={"engine": "triton"})
    evaluated = as_evaluated(run_config, None, "cpu")
    assert evaluated.engine == "auto"
    assert as_evaluated(run.config(), None, "cpu").engine == here["engine"]
    assert build_model(evaluated) is not None
    text = (run.path / "config.yaml").read_text()
    (run.path / "config.yaml").write_text(text.replace("engine: eager", "engine: triton"))
    assert run.config().engine == "triton"
    results = evaluate(run, [run.last], "test", None, "cpu")
    assert results["last"]["accuracy"] == pytest.approx(run.summary()["test"]["last"]["accuracy"], abs=0.02)
