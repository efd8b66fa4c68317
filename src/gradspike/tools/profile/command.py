"""`gradspike profile`: arguments, order of work, and the file. Imports nothing heavy by itself."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from gradspike.cli.arguments import checked_file, take_config_dir
from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import validate
from gradspike.errors import ConfigError
from gradspike.runs.files import write_output

if TYPE_CHECKING:
    from gradspike.tools.profile.measure import Profile

USAGE = """\
Where a training step's time and memory go, and its ReLU twin beside it: a real training of a few steps, with its data.

  gradspike profile model=resnet19 dataset=digits_events method=ds_atgo
  gradspike profile dataset=cifar10 trainer=fast steps=20 out=profile.json

  key=value   what gradspike train takes: groups (gradspike train --help) and single keys
  steps       training steps that are measured, in each of two rounds; 12 unless given
  out         a file to which the same numbers are written as JSON
  --config-dir FOLDER   a folder of your own with further options of the groups

Every moment of a step is given to one row, so that rows add up to the step. Means over the measured steps.
  norm + neuron   norm, neuron and method of a layer: one piece, whatever the engine; in the twin norm and ReLU
  optimiser       zeroing gradients, clipping, the step
  data            from one step's end to the next one's start: fetching, moving, augmenting, Lightning's loop
  probe           what the probe adds to a step, spread over the steps from one probe to the next
  other           pooling, residual sums, meters, the finiteness check, what lies between layers
On CUDA times are the device's, waiting for the host included, and waits of the host for the device are counted.
"""
STEPS = 12
ROUNDS = 2


def profile(words: list[str]) -> int:
    """Print the tables of the configuration that `words` compose. Returns the exit code."""
    if any(word in ("-h", "--help") for word in words):
        print(USAGE, end="")
        return 0
    words, config_dir = take_config_dir(words, USAGE)
    own = {"steps": str(STEPS), "out": ""}
    own |= {key: value for key, _, value in (word.partition("=") for word in words) if key in own}
    steps = _count(own["steps"])
    out = [word.partition("=")[2] for word in words if word.startswith("out=")]
    config = load_config([word for word in words if word.partition("=")[0] not in own], config_dir)
    _check(config)
    path = checked_file(out[-1]) if out else None

    from gradspike.tools.profile.measure import measure
    from gradspike.tools.profile.table import print_profile
    from gradspike.training.build import build_data
    from gradspike.training.device import check_device
    from gradspike.training.trainer import quieten

    quieten()
    check_device(config.trainer)
    data = build_data(config)
    data.prepare_data()
    data.setup()
    configs = [config]
    if config.model.activation != "relu":
        plain = config.plain()
        plain["model"]["activation"] = "relu"
        configs.append(validate(plain))
    mine, *twins = measure(configs, data, steps, ROUNDS)
    twin = twins[0] if twins else None
    print_profile(config, mine, twin, _device(config))
    if path is not None:
        numbers = {"label": config.label(), "engine": config.engine, "step": _numbers(mine)}
        if twin is not None:
            numbers["twin"] = _numbers(twin)
        write_output(path, json.dumps(numbers, indent=2) + "\n", "out=")
        print(f"written: {path}")
    return 0


def _count(word: str) -> int:
    if not word.isdecimal() or not 2 <= int(word) <= 10_000:
        raise ConfigError(f"steps={word}: must be a whole number of 2 to 10000.")
    return int(word)


def _check(config: ExperimentConfig) -> None:
    """Raises ConfigError for what cannot be looked into."""
    if config.trainer.world_size > 1:
        raise ConfigError("A profile is of one device: trainer.devices=1 trainer.num_nodes=1.")
    if config.trainer.accumulate > 1:
        raise ConfigError(
            "A profile is of steps of one batch: trainer.accumulate=1, and dataset.batch_size the size of a part."
        )
    if config.trainer.compile:
        raise ConfigError(
            "trainer.compile=true makes one piece of the whole network, in which there are no layers to tell apart: "
            "profile with trainer.compile=false."
        )


def _device(config: ExperimentConfig) -> str:
    import torch

    if config.trainer.accelerator == "cpu" or not torch.cuda.is_available():
        threads = torch.get_num_threads()
        return f"a CPU, {threads} {'thread' if threads == 1 else 'threads'}"
    return torch.cuda.get_device_name()


def _numbers(profile: Profile) -> dict[str, Any]:
    """What the file holds of one network."""
    return {
        "seconds": profile.total(),
        "waits": profile.waits,
        "memory_bytes": profile.memory,
        "parts": [
            {"kind": part.kind, "phase": part.phase, "layer": part.layer, "seconds": seconds}
            for part, seconds in profile.seconds.items()
        ],
    }
