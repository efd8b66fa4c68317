"""trainer.compile: the same numbers and checkpoints; probed steps are not compiled."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
import torch._inductor.config

from gradspike.config.schema import ExperimentConfig
from gradspike.errors import UserError
from gradspike.runs.folder import RunFolder
from gradspike.training.module import SpikingClassifier
from helpers.networks import config_for
from helpers.runs import assert_same_run, at_batch, epoch_records, train

Compose = Callable[..., ExperimentConfig]


def step(config: ExperimentConfig, hooked: bool = False) -> tuple[SpikingClassifier, torch.Tensor]:
    """A module after the forward and backward pass of a first training step, and its loss."""
    torch.manual_seed(0)
    module = SpikingClassifier(config).train()
    if hooked:
        module.model.neurons[0].register_forward_hook(lambda *args: None)
    frames = torch.rand(2, 6, 2, 4, 4, generator=torch.Generator().manual_seed(1))
    logits = module(frames)
    loss = module.criterion(logits, torch.tensor([0, 1, 2, 3, 4, 5]))
    loss.backward()
    return module, loss.detach()


def assert_same_step(tiny_config: Compose, *more: str, graphs: int) -> None:
    """`assert_same` for a small network of convolutions."""
    words = ["dataset=digits_events", "time_steps=2", "model.width=2", "model.depth=1", *more]
    assert_same(tiny_config(*words), tiny_config(*words, "trainer.compile=true"), graphs)


def assert_same(config: ExperimentConfig, with_compile: ExperimentConfig, graphs: int) -> None:
    """The loss, gradients and state of a compiled step are those of a plain one; it compiles so many graphs or more."""
    plain, loss = step(config)
    torch._dynamo.utils.counters.clear()
    compiled, compiled_loss = step(with_compile)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] >= graphs
    torch.testing.assert_close(compiled_loss, loss)
    assert compiled.state_dict().keys() == plain.state_dict().keys()
    for name, value in plain.state_dict().items():
        torch.testing.assert_close(compiled.state_dict()[name], value)
    for (name, one), (_, other) in zip(plain.named_parameters(), compiled.named_parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, msg=name)


def test_a_step_has_the_numbers_of_the_uncompiled_one(tiny_config: Compose) -> None:
    # DS-ATGO's measured layers stay out of the graph, so that its breaks are among what is tested.
    assert_same_step(tiny_config, "method=ds_atgo", graphs=2)


@pytest.mark.slow
@pytest.mark.parametrize("norm", ["tebn", "tab", "mpbn"])
def test_norms_without_kernels(tiny_config: Compose, norm: str) -> None:
    """Of the engines; a network compiled as a whole includes them."""
    assert_same_step(tiny_config, "method=fixed_sg", f"norm={norm}", graphs=1)


@pytest.mark.slow
def test_layers_with_feedback() -> None:
    words = ("model.hidden=[6,5]", "dataset.image_size=4", "time_steps=2", "method=fixed_sg")
    plain, compiled = (
        config_for("spiking_rnn", *words, *more, kind="frames") for more in ((), ("trainer.compile=true",))
    )
    assert_same(plain, compiled, graphs=1)


def test_probed_steps_are_not_compiled(tiny_config: Compose) -> None:
    words = ["dataset=digits_events", "time_steps=2", "model.depth=1"]
    torch._dynamo.utils.counters.clear()
    plain, loss = step(tiny_config(*words))
    watched, watched_loss = step(tiny_config(*words, "trainer.compile=true"), hooked=True)
    with torch.no_grad():
        module = SpikingClassifier(tiny_config(*words, "trainer.compile=true")).eval()
        module(torch.zeros(2, 1, 2, 4, 4))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 0
    assert torch.equal(loss, watched_loss)
    assert all(torch.equal(one, other) for one, other in zip(plain.parameters(), watched.parameters(), strict=True))


def test_a_missing_compiler_is_reported(tiny_config: Compose) -> None:
    torch._dynamo.reset()
    missing = {"cpp.cxx": (None, "/no/such/compiler"), "force_disable_caches": True}
    with torch._inductor.config.patch(missing), pytest.raises(UserError) as error:
        step(tiny_config("dataset=digits_events", "time_steps=2", "model.depth=1", "trainer.compile=true"))
    assert "trainer.compile=true: torch.compile cannot compile this network on this machine" in str(error.value)
    assert "/no/such/compiler" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["mpd_agl", "psg_pda", "ds_atgo"])
def test_a_compiled_run_resumes_bit_for_bit(tiny_config: Compose, method: str) -> None:
    words = ["trainer.compile=true", f"method={method}", "trainer.max_epochs=3", "checkpoint.every_n_steps=7"]
    unbroken = train(tiny_config(*words))
    plain = train(tiny_config(*words[1:]))
    for one, other in zip(epoch_records(unbroken), epoch_records(plain), strict=True):
        assert one["train/loss"] == pytest.approx(other["train/loss"], rel=0.02)

    def fail() -> None:
        raise OSError("the disk is gone")

    with pytest.MonkeyPatch.context() as patch:
        at_batch(patch, 19 + 12, fail)
        with pytest.raises(OSError, match="the disk is gone"):
            train(tiny_config(*words, f"runs_dir={unbroken.path.parent / 'crashed'}"))
    run = RunFolder(next((unbroken.path.parent / "crashed").glob("2*")))
    torch._dynamo.reset()
    train(run.config(), run)
    assert_same_run(unbroken, run)
    assert json.loads((run.path / "status.json").read_text())["state"] == "finished"
