from __future__ import annotations

import copy
import importlib
import json
import math
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from timm.optim import create_optimizer_v2

from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig, SchedulerConfig
from gradspike.errors import ConfigError
from gradspike.training import run as training
from gradspike.training.build import build_model
from gradspike.training.losses import TimeMeanCrossEntropy
from gradspike.training.metrics import Meter
from gradspike.training.optim import build_optimizer, parameter_groups, rate_fraction, rate_of


def names_by_decay(*words: str) -> dict[float, set[str]]:
    config = load_config(["method=psg", "model.width=4", *words])
    model = build_model(config)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups: dict[float, set[str]] = {}
    for group in parameter_groups(model, config.optimizer):
        groups.setdefault(group["weight_decay"], set()).update(names[id(parameter)] for parameter in group["params"])
    return groups


def test_weight_decay_spares_norm_decay_and_width() -> None:
    groups = names_by_decay()
    assert all(name.startswith(("convs.", "head.")) for name in groups[1e-4])
    assert {"neurons.0.norm.weight", "neurons.0.norm.bias", "neurons.0.neuron.decay_logit"} <= groups[0.0]
    assert any("neurons.0.method." in name for name in groups[0.0])
    assert set(names_by_decay("optimizer.decay_all=true")) == {1e-4}


def test_a_width_learns_at_its_own_rate() -> None:
    config = load_config(["method=psg", "model.width=4", "method.width_lr_multiplier=10"])
    model = build_model(config)
    optimizer = build_optimizer(config.optimizer, model)
    width = next(parameter for name, parameter in model.named_parameters() if ".method." in name)
    rates = {id(parameter): group["lr"] for group in optimizer.param_groups for parameter in group["params"]}
    assert rates[id(width)] == pytest.approx(1.0)
    assert rates[id(next(model.parameters()))] == pytest.approx(0.1)


def test_asgl_has_an_adam_of_its_own() -> None:
    """As in its released code: widths, thresholds and decays at a constant rate, without weight decay."""
    words = ["method=asgl", "method.learn_threshold=true", "model.width=4", "optimizer.lr=0.1", "scheduler=cosine"]
    found = rates_and_decays(*words, "+optimizer.groups={neurons.1.method.*:{lr:2}}")
    own = {name for name in found if ".method." in name or ".neuron." in name}
    assert {"neurons.0.method.alpha_raw", "neurons.0.method.threshold_raw", "neurons.0.neuron.decay_logit"} <= own
    assert {found[name] for name in own if ".1.method." not in name} == {(3e-4, 0.0)}
    assert found["neurons.1.method.alpha_raw"] == pytest.approx((6e-4, 0.0))
    assert {found[name][0] for name in found.keys() - own} == {0.1}
    config = load_config(words)
    for group in build_optimizer(config.optimizer, build_model(config)).param_groups:
        rate = rate_of(group, config.scheduler, warmup=0, total=10)
        assert [rate(0), rate(10)] == ([1.0, 1.0] if "adam" in group else [1.0, 0.0])
    other = load_config([*words, "method.adam_lr=null"])
    assert isinstance(build_optimizer(other.optimizer, build_model(other)), torch.optim.SGD)


@pytest.mark.parametrize("optimizer", ["sgd", "adamw", "lamb"])
def test_two_rules_step_as_two_optimisers(optimizer: str) -> None:
    """Also after the state was saved and loaded in between."""
    config = load_config(["method=asgl", "model.width=4", f"optimizer={optimizer}"])
    model = build_model(config)
    twin = copy.deepcopy(model)
    both = build_optimizer(config.optimizer, model, gradient_clip=1.0)
    groups = parameter_groups(twin, config.optimizer)
    kind = getattr(importlib.import_module(config.optimizer.module), config.optimizer.class_name)
    apart = [
        kind([group for group in groups if "adam" not in group], lr=1.0, **config.optimizer.arguments()),
        torch.optim.Adam([group for group in groups if "adam" in group]),
    ]
    for step in range(4):
        if step == 2:
            saved = copy.deepcopy(both.state_dict())
            both = build_optimizer(config.optimizer, model, gradient_clip=1.0)
            both.load_state_dict(saved)
        generator = torch.Generator().manual_seed(step)
        for one, other in zip(model.parameters(), twin.parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        assert both.step(lambda: 7) == 7
        for rule in apart:
            rule.step()
        for (name, one), other in zip(model.named_parameters(), twin.parameters(), strict=True):
            assert torch.equal(one, other), (step, name)


@pytest.mark.parametrize("norm", [1.0, None])
def test_lamb_is_the_one_that_timm_builds(norm: float | None) -> None:
    """Which, as gradspike, spares norms and neurons the weight decay; timm also spares biases."""
    words = ["optimizer=lamb", "optimizer.weight_decay=0.1", "+optimizer.groups={head.bias:{weight_decay:0}}"]
    config = load_config([*words, "model.width=4", f"optimizer.max_grad_norm={json.dumps(norm)}"])
    model = build_model(config)
    twin = copy.deepcopy(model)
    ours = build_optimizer(config.optimizer, model)
    theirs = create_optimizer_v2(twin, opt="lamb", lr=config.optimizer.lr, weight_decay=0.1, max_grad_norm=norm)
    start = [parameter.detach().clone() for parameter in model.parameters()]
    for step in range(3):
        generator = torch.Generator().manual_seed(step)
        for one, other in zip(model.parameters(), twin.parameters(), strict=True):
            one.grad = torch.randn(one.shape, generator=generator)
            other.grad = one.grad.clone()
        ours.step()
        theirs.step()
    for (name, one), other, first in zip(model.named_parameters(), twin.parameters(), start, strict=True):
        # The norm over all parameters sums them in the order of their groups, which is another one.
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)
        assert not torch.equal(one, first), name


def rates_and_decays(*words: str) -> dict[str, tuple[float, float]]:
    """Learning rate and weight decay of every parameter by its name."""
    config = load_config(["method=psg", "model.width=4", "optimizer.lr=0.1", "optimizer.weight_decay=1e-4", *words])
    model = build_model(config)
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = build_optimizer(config.optimizer, model).param_groups
    assert sum(len(group["params"]) for group in groups) == len(names)
    return {names[id(p)]: (group["lr"], group["weight_decay"]) for group in groups for p in group["params"]}


@pytest.mark.parametrize("optimizer", ["sgd", "adamw"])
def test_groups_by_name_the_last_pattern_counts(optimizer: str) -> None:
    groups = "+optimizer.groups={convs.*:{lr:0.5,weight_decay:0.01},*.1.*:{lr:3},head.weight:{lr:10}}"
    found = rates_and_decays(f"optimizer={optimizer}", groups)
    assert found["convs.0.weight"] == pytest.approx((0.05, 0.01))
    assert found["convs.1.weight"] == pytest.approx((0.3, 1e-4))
    assert found["neurons.1.norm.weight"] == pytest.approx((0.3, 0))
    assert found["head.weight"] == pytest.approx((1.0, 1e-4))
    assert found["head.bias"] == pytest.approx((0.1, 1e-4))


def test_groups_come_on_top_of_methods_and_of_what_is_not_decayed() -> None:
    words = ["method.width_lr_multiplier=4", "+optimizer.groups={*.method.*:{lr:0.5},*.norm.weight:{weight_decay:0.2}}"]
    found = rates_and_decays(*words)
    width = next(name for name in found if ".method." in name)
    assert found[width] == pytest.approx((0.2, 0))
    assert found["neurons.0.norm.weight"] == pytest.approx((0.1, 0.2))
    assert found["neurons.0.norm.bias"] == pytest.approx((0.1, 0))
    assert rates_and_decays("optimizer.decay_all=true", *words)[width] == pytest.approx((0.2, 1e-4))


@pytest.mark.parametrize(
    ("pattern", "said"),
    [
        ("hed.*", r"'hed\.\*'\. Did you mean 'head\.\*'\?.*network: convs\.\*, neurons\.\*, head\.\*"),
        ("head.wieght", r"Did you mean 'head\.weight'"),
        ("model.head.*", "Parts of the network"),
    ],
)
def test_a_pattern_that_matches_nothing_is_reported_before_the_run_starts(
    tiny_config: Callable[..., ExperimentConfig], tmp_path: Path, pattern: str, said: str
) -> None:
    config = tiny_config(f"+optimizer.groups={{{pattern}:{{lr:2}}}}", f"data_dir={tmp_path / 'data'}")
    with pytest.raises(ConfigError, match=said):
        training.train(config, None, ["test"])
    assert list(tmp_path.iterdir()) == []


def test_a_key_of_a_group_that_does_not_exist() -> None:
    said = r"unknown key 'optimizer\.groups\.head\.\*\.lrr'\. Did you mean .*\.lr'\? Allowed: .*\.lr, .*\.weight_decay"
    with pytest.raises(ConfigError, match=said):
        load_config(["+optimizer.groups={head.*:{lrr:2}}"])


@pytest.mark.parametrize("word", ["optimizer.groups={head.*:{lr:2}}", '+optimizer.groups={"head.*":{lr:2}}'])
def test_the_message_shows_how_to_type_groups(word: str) -> None:
    with pytest.raises(ConfigError, match=r"'\+key=\{name:value\}'"):
        load_config([word])


def test_the_logged_rate_is_that_of_no_group(tiny_config: Callable[..., ExperimentConfig]) -> None:
    config = tiny_config("+optimizer.groups={convs.*:{lr:0.5}}", "scheduler=constant", "trainer.max_epochs=1")
    run, _ = training.train(config, None, ["test"])
    epoch = json.loads(run.metrics.read_text().splitlines()[-1])
    assert epoch["lr"] == config.optimizer.lr


SGD = "optimizer=sgd"


@pytest.mark.parametrize("words", [[SGD], [SGD, "optimizer.nesterov=true"], ["optimizer=adamw"]])
def test_one_kernel_for_all_parameters_steps_as_torchs_own(words: list[str]) -> None:
    """Also where a parameter gets its first gradient later than the others of its group."""
    config = load_config([*words, "model.width=4", "engine=eager"])
    results = []
    for clip in (None, 1.0):
        torch.manual_seed(0)
        model = build_model(config)
        optimizer = build_optimizer(config.optimizer, model, gradient_clip=clip)
        assert bool(optimizer.param_groups[0]["fused"]) == (clip is None)
        for step in range(3):
            generator = torch.Generator().manual_seed(step)
            for index, parameter in enumerate(model.parameters()):
                gradient = torch.randn(parameter.shape, generator=generator)
                parameter.grad = None if index % 3 == 0 and step == 0 else gradient
            optimizer.step()
        results.append(list(model.parameters()))
    for fused, own in zip(*results, strict=True):
        torch.testing.assert_close(fused, own, rtol=1e-5, atol=1e-6)


def test_cosine_with_warm_up() -> None:
    schedule = SchedulerConfig(name="cosine", warmup_epochs=1, final_fraction=0.1)
    rates = [rate_fraction(schedule, now, warmup=4, total=24) for now in range(25)]
    assert rates[:4] == pytest.approx([0.2, 0.4, 0.6, 0.8])
    assert rates[4] == 1.0
    assert rates[14] == pytest.approx(0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi / 2)))
    assert rates[24] == pytest.approx(0.1)
    assert all(a > b for a, b in pairwise(rates[4:]))


def test_constant() -> None:
    assert rate_fraction(SchedulerConfig(name="constant"), 17, warmup=0, total=20) == 1.0


def test_label_smoothing_against_its_formula() -> None:
    logits, labels = torch.randn(4, 5, 3), torch.tensor([0, 1, 2, 0, 1])
    log_p = logits.mean(0).log_softmax(1)
    expected = -(0.9 * log_p[range(5), labels] + 0.1 * log_p.mean(1)).mean()
    torch.testing.assert_close(TimeMeanCrossEntropy(0.1)(logits, labels), expected)


def test_meter_weights_batches_by_their_size_and_restores() -> None:
    meter = Meter(classes=3)
    first = torch.eye(3)[None] * 5
    meter.update(torch.tensor(1.0), first, torch.tensor([0, 1, 2]))
    other = Meter(classes=3)
    other.restore(meter.state())
    for one in (meter, other):
        one.update(torch.tensor(5.0), first[:, :1], torch.tensor([2]))
        assert one.running() == pytest.approx((2.0, 0.75))
        assert one.results("val") == pytest.approx({"val/loss": 2.0, "val/accuracy": 0.75})
    assert meter.running() == (0.0, 0.0)
