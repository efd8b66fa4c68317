"""Compare DS-ATGO's firing rate with 1 - Phi(f_c) = 15.87 % (f_c = 1), by layer and step.

    python benchmarks/ds_atgo_firing.py runs/<run of method=ds_atgo>

With theta = mean + std of u over the batch, a normal u fires in 15.87 % of cases for any mean and std. For a batch of
the validation split, with thresholds measured as in training, the table lists the firing rate and how far u is from
normal: skewness, excess kurtosis, and the largest distance between its distribution and the normal one
(Kolmogorov-Smirnov statistic).
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))

import torch
from scipy import stats
from torch import Tensor, nn

from gradspike.runs.folder import RunFolder
from gradspike.spiking_norm import SpikingNorm
from gradspike.training.build import build_data
from gradspike.training.checkpoint import load_checkpoint
from gradspike.training.module import SpikingClassifier

SAMPLE = 20_000  # of the membrane potentials of a layer and step, for the distance


def describe(u: Tensor, spikes: Tensor) -> tuple[float, float, float, float]:
    """Firing rate, skewness, excess kurtosis and distance from normal of one layer at one step."""
    values = u.flatten().double()
    z = (values - values.mean()) / values.std()
    few = z[torch.randperm(len(z), generator=torch.Generator().manual_seed(0))[:SAMPLE]]
    distance = stats.kstest(few.numpy(), "norm").statistic
    return float(spikes.float().mean()), float((z**3).mean()), float((z**4).mean() - 3), float(distance)


def main(folder: str) -> None:
    """Print one row for each layer and step."""
    run = RunFolder.open(folder)
    config = run.config()
    if config.method.name != "ds_atgo":
        raise SystemExit(f"{folder}: trained with {config.method.name}, not ds_atgo.")
    module = SpikingClassifier(config)
    module.load_state_dict(load_checkpoint(run.last)["state_dict"])
    data = build_data(config)
    data.prepare_data()
    data.setup()
    batch = data.on_after_batch_transfer(next(iter(data.val_dataloader())), 0)
    rows: list[tuple[str, int, tuple[float, float, float, float]]] = []

    def look(layer: nn.Module, inputs: tuple[Tensor, ...], options: dict[str, bool], output: Tensor) -> None:
        assert isinstance(layer, SpikingNorm)
        trace = layer.inspect(*inputs, **options)
        for step in range(layer.time_steps):
            rows.append((layer.layer_name, step, describe(trace.u[step], trace.spikes[step])))

    for layer in module.modules():
        if isinstance(layer, SpikingNorm):
            layer.register_forward_hook(look, with_kwargs=True)
    module.train()  # thresholds are measured on this batch, as the theorem assumes
    with torch.no_grad():
        module(batch["input"])
    print(f"| layer | step | firing rate (%) | skewness | excess kurtosis | distance from normal |\n|{'---|' * 6}")
    for name, step, (rate, skewness, kurtosis, distance) in rows:
        print(f"| {name} | {step} | {100 * rate:.2f} | {skewness:+.2f} | {kurtosis:+.2f} | {distance:.3f} |")


if __name__ == "__main__":
    main(sys.argv[1])
