"""Surrogate-gradient training against STDP: accuracy and time of the same network. Claim S1.

    OMP_NUM_THREADS=1 python benchmarks/claims/stdp.py

The network: ON and OFF contrasts of an image as latencies over T steps, one convolution, norm and leaky neurons, mean
spikes over time on a 2 x 2 grid, a linear read-out (logistic regression). Only the training of the convolution differs:
none (random weights), STDP after Kheradpisheh et al., Neural Networks 2018, or surrogate gradients through the network
with a linear head. The data are scikit-learn's digits (8 x 8). Seconds are CPU time of one thread, read-out included.
"""

from __future__ import annotations

import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from store import store
from torch import Tensor, nn

from gradspike.config.compose import load_config
from gradspike.models.encoder import latency
from gradspike.spiking_norm import LayerContext, SpikingNorm
from gradspike.tools.claims.summary import Record

SEEDS, STEPS, MAPS, KERNEL = 5, 8, 32, 5
# Of Kheradpisheh et al.: changes of a weight w by A w (1 - w), weights from N(0.8, 0.05) in [0, 1], competing maps.
PLUS, MINUS, MOST_PLUS, DOUBLES_EVERY = 0.004, -0.003, 0.15, 400
WINNERS, THRESHOLD, STDP_PASSES = 3, 5.0, 2
EPOCHS, BATCH, RATE = 15, 50, 0.1


class Network(nn.Module):
    """Spikes [T, B, 2, 8, 8] -> features [B, 4 MAPS], the mean spikes over time on a 2 x 2 grid."""

    def __init__(self) -> None:
        super().__init__()
        config = load_config(["method=fixed_sg", "neuron=lif", f"time_steps={STEPS}", "recipe=none"])
        self.conv = nn.Conv2d(2, MAPS, KERNEL, padding=KERNEL // 2, bias=False)
        self.layer = SpikingNorm(MAPS, LayerContext(STEPS, config.neuron, config.method, config.norm))
        self.head = nn.Linear(4 * MAPS, 10)

    def forward(self, spikes: Tensor) -> Tensor:
        """The features."""
        fired = self.layer(self.conv(spikes.flatten(0, 1)))
        return F.adaptive_avg_pool2d(fired, 2).unflatten(0, (STEPS, -1)).mean(0).flatten(1)


def contrasts(images: Tensor) -> Tensor:
    """Images [B, 1, H, W] of 0 to 1 as spikes [T, B, 2, H, W]: ON and OFF differences from the neighbourhood's mean."""
    difference = images - F.avg_pool2d(F.pad(images, (1, 1, 1, 1), mode="replicate"), 3, stride=1)
    both = torch.cat([difference, -difference], dim=1).clamp(min=0)
    strongest = both.amax((1, 2, 3), keepdim=True).clamp(min=1e-6)
    weak = both / strongest
    return latency(torch.where(weak > 0.1, weak, 0.0), STEPS)


def train_stdp(network: Network, spikes: Tensor, generator: torch.Generator) -> None:
    """Each image changes the weights of up to WINNERS maps, at the place where the map fires first."""
    weights = (0.8 + 0.05 * torch.randn(network.conv.weight.shape, generator=generator)).clamp(0, 1)
    seen, plus, minus = 0, PLUS, MINUS
    for _ in range(STDP_PASSES):
        for index in torch.randperm(spikes.shape[1], generator=generator).tolist():
            _learn(weights, spikes[:, index], plus, minus)
            seen += 1
            if seen % DOUBLES_EVERY == 0 and plus < MOST_PLUS:
                plus, minus = 2 * plus, 2 * minus
    network.conv.weight.copy_(weights - weights.mean((1, 2, 3), keepdim=True))


def _learn(weights: Tensor, spikes: Tensor, plus: float, minus: float) -> None:
    """One image: spikes [T, 2, H, W]. Integrate-and-fire neurons without a leak, each firing at most once."""
    arrived = spikes.cumsum(0)
    potential = F.conv2d(arrived, weights, padding=KERNEL // 2)
    fires = potential >= THRESHOLD
    when = torch.where(fires.any(0), fires.int().argmax(0), STEPS)  # [maps, H, W]
    at = potential.gather(0, when.clamp(max=STEPS - 1)[None])[0]
    padded = F.pad(arrived, [KERNEL // 2] * 4)
    # The earliest neuron wins, of equal ones the strongest; then its map and its neighbourhood are out.
    order = torch.where(when < STEPS, -when * 1000.0 + at.clamp(max=999.0), -torch.inf)
    for _ in range(WINNERS):
        best = int(order.argmax())
        if order.flatten()[best] == -torch.inf:
            return
        place, (row, column) = best // order[0].numel(), divmod(best % order[0].numel(), order.shape[2])
        step = int(when[place, row, column])
        before = padded[step, :, row : row + KERNEL, column : column + KERNEL] > 0
        w = weights[place]
        w += torch.where(before, plus, minus) * w * (1 - w)
        w.clamp_(0, 1)
        order[place] = -torch.inf
        order[:, max(0, row - 2) : row + 3, max(0, column - 2) : column + 3] = -torch.inf


def train_surrogate(network: Network, spikes: Tensor, labels: Tensor, generator: torch.Generator) -> None:
    """SGD on the cross entropy of a linear head, cosine to 0."""
    optimizer = torch.optim.SGD(network.parameters(), lr=RATE, momentum=0.9, weight_decay=1e-4)
    batches = spikes.shape[1] // BATCH
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, EPOCHS * batches)
    for _ in range(EPOCHS):
        order = torch.randperm(spikes.shape[1], generator=generator)
        for number in range(batches):
            chosen = order[number * BATCH : (number + 1) * BATCH]
            loss = F.cross_entropy(network.head(network(spikes[:, chosen])), labels[chosen])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()


def read_out(network: Network, train: Tensor, labels: Tensor, test: Tensor, truth: Tensor) -> float:
    """Test accuracy of a logistic regression on the features."""
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))
    model.fit(network(train).numpy(), labels.numpy())
    return float(model.score(network(test).numpy(), truth.numpy()))


def measure(training: str, seed: int, data: tuple[Tensor, Tensor, Tensor, Tensor]) -> Record:
    """Train the convolution in one way, then the read-out."""
    train, labels, test, truth = data
    torch.manual_seed(seed)
    generator = torch.Generator().manual_seed(seed)
    network = Network()
    ways: dict[str, Callable[[], None]] = {
        "none": lambda: None,
        "stdp": lambda: train_stdp(network, train, generator),
        "surrogate": lambda: train_surrogate(network, train, labels, generator),
    }
    start = time.process_time()
    with torch.set_grad_enabled(training == "surrogate"):
        ways[training]()
    with torch.no_grad():
        if training != "surrogate":
            for first in range(0, 30 * 40, 40):  # in training mode: the norm's running statistics, of momentum 0.1
                network(train[:, first : first + 40])
        network.eval()
        accuracy = read_out(network, train, labels, test, truth)
    seconds = time.process_time() - start
    print(f"seed {seed}, {training}: {100 * accuracy:.2f} %, {seconds:.1f} s")
    values = {"accuracy": float(f"{accuracy:.5g}"), "seconds": float(f"{seconds:.3g}")}
    return Record(seed=seed, parameters={"training": training}, values=values)


def main() -> None:
    """Measure and store."""
    torch.set_num_threads(1)
    digits = load_digits()
    images = torch.from_numpy(digits.images / 16).float().unsqueeze(1)
    labels = torch.from_numpy(digits.target)
    runs = []
    for seed in range(SEEDS):
        train, test = train_test_split(range(len(images)), test_size=0.25, stratify=digits.target, random_state=seed)
        data = (contrasts(images[train]), labels[train], contrasts(images[test]), labels[test])
        runs += [measure(training, seed, data) for training in ("none", "stdp", "surrogate")]
    setting: dict[str, str | int | float] = {
        "dataset.name": "digits", "dataset.image_size": 8, "test samples": len(test), "time_steps": STEPS,
        "model.name": f"one convolution of {MAPS} maps, {KERNEL} x {KERNEL}",
    }  # fmt: skip
    store(__file__, "Is surrogate-gradient training better and faster than STDP?", "", setting, runs)


if __name__ == "__main__":
    main()
