"""Attacks and corruptions on tensors: against closed forms, within their bounds, the same for every batch."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from gradspike.config.compose import load_config
from gradspike.errors import ConfigError
from gradspike.robustness.attacks import fgsm, pgd, uniform
from gradspike.robustness.corruptions import event_drop, noise
from gradspike.robustness.surrogate import use_surrogate
from gradspike.spiking_norm import SpikingNorm
from gradspike.statistics import interval_of_share
from gradspike.surrogate import SURROGATES
from gradspike.training.build import build_model

WEIGHTS = torch.tensor([[[[0.5, -1.0], [2.0, 0.0]]]])
OPTIONS = {"steps": 5, "step_size": None, "restarts": 2, "seed": 0}


def linear(images: Tensor) -> Tensor:
    """The gradient of a loss that is linear in the pixels."""
    return WEIGHTS.expand_as(images)


def test_a_linear_loss_is_attacked_at_its_corner() -> None:
    pixels = torch.tensor([[[[0.5, 0.5], [0.95, 0.5]]]])
    corner = torch.tensor([[[[0.6, 0.4], [1.0, 0.5]]]])  # clipped at 1; no direction where the gradient is 0
    assert torch.allclose(fgsm(pixels, linear, 0.1), corner)
    for attacked in pgd(pixels, linear, 0.1, **OPTIONS, index=torch.tensor([7])):
        moved = WEIGHTS != 0
        assert torch.allclose(attacked[moved], corner[moved])


def test_pgd_beats_fgsm_where_the_gradient_turns() -> None:
    """The loss -(x - 0.52)^2 has its maximum inside the ball, which a full step overshoots."""

    def gradient(images: Tensor) -> Tensor:
        return -2 * (images - 0.52)

    pixels = torch.full((1, 1, 1, 1), 0.5)
    assert fgsm(pixels, gradient, 0.1).item() == pytest.approx(0.6)
    found = list(pgd(pixels, gradient, 0.1, steps=40, step_size=0.005, restarts=2, seed=0, index=torch.tensor([0])))
    assert [one.item() for one in found] == pytest.approx([0.52, 0.52], abs=0.006)


def test_pgd_stays_in_the_ball_and_does_not_depend_on_the_batch() -> None:
    torch.manual_seed(0)
    pixels, index = torch.rand(6, 3, 4, 4), torch.tensor([3, 9, 4, 0, 8, 1])

    def gradient(images: Tensor) -> Tensor:
        return torch.sin(40 * images)

    together = list(pgd(pixels, gradient, 0.2, **OPTIONS, index=index))
    assert len(together) == 2
    assert not torch.equal(*together)
    for attacked in together:
        assert (attacked - pixels).abs().max() <= 0.2 + 1e-6
        assert (attacked.min(), attacked.max()) >= (0, 0)
        assert attacked.max() <= 1
    alone = list(pgd(pixels[4:5], gradient, 0.2, **OPTIONS, index=index[4:5]))
    assert all(torch.equal(one[4:5], other) for one, other in zip(together, alone, strict=True))
    other_seed = next(pgd(pixels, gradient, 0.2, **{**OPTIONS, "seed": 1}, index=index))
    assert not torch.equal(together[0], other_seed)


def test_uniform_numbers_fill_the_range() -> None:
    numbers = uniform(torch.empty(20, 1, 50, 50), 0, 0, torch.arange(20))
    assert 0 <= numbers.min() < 1e-3
    assert 1 - 1e-3 < numbers.max() < 1
    assert numbers.mean().item() == pytest.approx(0.5, abs=0.01)
    assert len(numbers.unique()) > 49_000, "every element draws its own"


def test_noise_has_its_level_and_its_clipping() -> None:
    grey, index = torch.full((40, 1, 50, 50), 0.5), torch.arange(40)
    noisy = noise(grey, 0.1, 0, index)
    assert (noisy - grey).mean().item() == pytest.approx(0, abs=2e-3)
    assert (noisy - grey).std().item() == pytest.approx(0.1, rel=0.02)
    within = ((noisy - grey).abs() < 0.1).float().mean().item()
    assert within == pytest.approx(0.6827, abs=0.005), "a Gaussian"
    assert torch.equal(noisy[3:4], noise(grey[3:4], 0.1, 0, index[3:4]))
    assert not torch.equal(noisy, noise(grey, 0.1, 1, index))
    strong = noise(grey, 1.0, 0, index)
    assert (strong.min(), strong.max()) == (0, 1)


@pytest.mark.parametrize("kind", [torch.uint8, torch.int16])
def test_dropped_events_are_a_share_of_all_and_grow_with_the_level(kind: torch.dtype) -> None:
    torch.manual_seed(0)
    counts, index = torch.randint(0, 6, (8, 3, 2, 20, 20)).to(kind), torch.arange(8)
    left = [event_drop(counts, level, 0, index) for level in (0.0, 0.25, 0.75, 1.0)]
    assert torch.equal(left[0], counts)
    assert left[1].dtype == kind
    assert all((more >= less).all() for more, less in pairwise(left)), "the same events are lost"
    shares = [one.sum().item() / counts.sum().item() for one in left]
    assert shares == pytest.approx([1, 0.75, 0.25, 0], abs=0.01)
    assert torch.equal(left[1][5:6], event_drop(counts[5:6], 0.25, 0, index[5:6]))
    assert not torch.equal(left[1], event_drop(counts, 0.25, 1, index))


def test_wilsons_interval() -> None:
    # Agresti and Coull, The American Statistician 1998: no success in 10 has the upper bound z^2 / (n + z^2).
    low, high = interval_of_share(0, 10)
    assert (low, high) == (pytest.approx(0, abs=1e-12), pytest.approx(3.8414588 / 13.8414588))
    assert interval_of_share(10, 10) == (pytest.approx(1 - high), pytest.approx(1))
    assert interval_of_share(90, 100) == (pytest.approx(0.82563, abs=1e-4), pytest.approx(0.94477, abs=1e-4))
    with pytest.raises(ValueError, match="no samples"):
        interval_of_share(0, 0)


def gradient_of(model: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    images = images.clone().requires_grad_()
    logits = model(images)
    return logits.detach(), torch.autograd.grad(logits[..., 0].sum(), images)[0]


@pytest.mark.parametrize("method", ["fixed_sg", "ds_atgo", "dspike", "psg"])
def test_another_surrogate_changes_the_gradient_and_not_the_spikes(method: str) -> None:
    words = ["dataset=digits", "model.width=4", "model.depth=2", "time_steps=3", "engine=eager", f"method={method}"]
    torch.manual_seed(0)
    model, images = build_model(load_config(words)).requires_grad_(False), torch.rand(16, 1, 8, 8)
    for _ in range(20):
        model.train()(images)  # until the running statistics are those of the potentials
    model.eval()
    logits, own = gradient_of(model, images)
    found = {}
    for name, width in (("arctan", None), ("arctan", 0.2), (None, 5.0)):
        for layer in model.modules():
            if isinstance(layer, SpikingNorm):
                layer.surrogate = layer.method.shape
        use_surrogate(model, name, width)
        with_other, found[name, width] = gradient_of(model, images)
        assert torch.equal(with_other, logits)
    gradients = [own, *found.values()]
    assert all(gradient.abs().sum() > 0 for gradient in gradients)
    assert all(not torch.equal(one, other) for n, one in enumerate(gradients) for other in gradients[:n])


def test_the_width_of_an_attack_is_that_of_the_shape() -> None:
    """Also for dspike, whose method gives a temperature in place of a width."""
    gradients = []
    for method in ("fixed_sg", "dspike"):
        torch.manual_seed(0)
        words = ["dataset=digits", "model.width=4", "model.depth=2", "method.v_threshold=0.5", f"method={method}"]
        model = build_model(load_config([*words, "engine=eager"])).eval().requires_grad_(False)
        use_surrogate(model, "triangular", 0.7)
        (layer, *_) = (one for one in model.modules() if isinstance(one, SpikingNorm))
        v = torch.linspace(-1, 1, 9)
        expected = SURROGATES["triangular"].derivative(v, torch.tensor(0.7))
        assert torch.equal(layer.surrogate.derivative(v, torch.tensor(3.0)), expected)
        gradients.append(gradient_of(model, torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(1)))[1])
    assert torch.allclose(*gradients)


def test_a_neuron_with_a_gradient_of_its_own_has_no_surrogate() -> None:
    words = ["dataset=digits", "model.width=4", "model.depth=2", "neuron=ilif", "method=fixed_sg", "engine=eager"]
    model = build_model(load_config(words))
    with pytest.raises(ConfigError, match=r"surrogate: the neurons of the run \(ilif\) have a gradient of their own"):
        use_surrogate(model, "arctan", None)
