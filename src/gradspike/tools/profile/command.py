"""`gradspike profile`: its arguments and steps. Imports nothing heavy before the arguments are checked."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

from pydantic import Field

from gradspike.cli.arguments import CONFIG_DIR_USAGE, Command, checked_file
from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import validate
from gradspike.data.files.data_dir import check_data_dir
from gradspike.data.presence import check_files
from gradspike.errors import ConfigError
from gradspike.exhausted import one_sentence
from gradspike.json_text import to_json
from gradspike.registry import Strict
from gradspike.runs.files import write_output
from gradspike.runs.start import start_file
from gradspike.shown import counted

if TYPE_CHECKING:
    from gradspike.tools.profile.measure import Profile

ROUNDS = 2
LEAST_BATCHES = 3
"""Of an epoch: `measure` leaves out its first and last step."""

USAGE = (
    """\
Measure the time and memory of a training step, next to the ReLU twin. Trains a few real steps, with data.

  gradspike profile dataset=digits method=ds_atgo engine=eager
  gradspike profile dataset=cifar10 trainer=fast steps=20 out=profile.json

Arguments:
  key=value          any key of `gradspike train` (gradspike train --help)
  steps              training steps measured in each of two rounds    (12)
  out                JSON file for the same numbers
"""
    + CONFIG_DIR_USAGE
    + """
Each moment of a step belongs to one row, so the rows add up to the step. Numbers are means over the measured steps.
  norm + neuron   norm, neuron and method of a layer, in every engine; norm and ReLU in the twin
  optimiser       zeroing the gradients, clipping, the step
  data            from the end of a step to the start of the next: fetching, moving, augmenting, Lightning's loop
  probe           extra time of a probed step, spread over the steps between two probes
  other           pooling, residual sums, meters, the check for finite numbers, code between layers
On CUDA, times are those of the device and include its waits for the host. Waits of the host for the device are counted.
"""
)


class ProfileConfig(Strict):
    """Arguments of `gradspike profile` besides the keys of `gradspike train`."""

    steps: Annotated[int, Field(ge=2, le=10_000)] = 12
    out: str | None = None


COMMAND = Command("profile", USAGE, keys=ProfileConfig, trains=True)


def profile(words: list[str]) -> int:
    """Print the tables of the configuration that `words` compose. Returns the exit code."""
    typed = COMMAND.parse(words)
    options: ProfileConfig = typed.options
    config = load_config(typed.overrides, typed.config_dir)
    _check(config)
    path = None if options.out is None else checked_file("out=", options.out)
    check_files(config.dataset, config.time_steps, check_data_dir(config.data_dir))
    start_file(config)

    from gradspike.tools.profile.table import print_profile
    from gradspike.training.to_lower import to_lower

    with one_sentence(lambda: to_lower(config, trains=False)):
        mine, twin = _measured(config, options.steps)
    print_profile(config, mine, twin, _device(config))
    if path is not None:
        numbers = {"label": config.label(), "engine": config.engine, "step": _numbers(mine)}
        if twin is not None:
            numbers["twin"] = _numbers(twin)
        write_output(path, to_json(numbers, indent=2) + "\n", "out=")
        print(f"written: {path}")
    return 0


def _measured(config: ExperimentConfig, steps: int) -> tuple[Profile, Profile | None]:
    """The profile of a configuration, and that of its ReLU twin unless it is one itself."""
    from gradspike.tools.profile.measure import measure
    from gradspike.training.build import build_data
    from gradspike.training.device import check_device
    from gradspike.training.trainer import quieten

    quieten()
    check_device(config.trainer)
    data = build_data(config)
    data.prepare_data()
    data.setup()
    if (batches := len(data.train_dataloader())) < LEAST_BATCHES:
        raise ConfigError(
            f"dataset.batch_size={config.dataset.batch_size}: an epoch has {counted(batches, 'batch', 'batches')}, and "
            f"profile leaves out the first and the last of each. Choose one of at most "
            f"{max(len(data.samples.indices('train')) // LEAST_BATCHES, 1)}."
        )
    configs = [config]
    if config.model.activation != "relu":
        plain = config.plain()
        plain["model"]["activation"] = "relu"
        configs.append(validate(plain))
    mine, *twins = measure(configs, data, steps, ROUNDS)
    return mine, twins[0] if twins else None


def _check(config: ExperimentConfig) -> None:
    """Raise ConfigError for a configuration that cannot be profiled."""
    if config.trainer.world_size > 1:
        raise ConfigError("profile measures one device: set trainer.devices=1 trainer.num_nodes=1.")
    if config.trainer.accumulate > 1:
        raise ConfigError(
            "profile measures steps without accumulation: set trainer.accumulate=1, and dataset.batch_size to the size "
            "of a part."
        )
    if config.trainer.compile:
        raise ConfigError(
            "trainer.compile=true compiles the network as a whole, so layers cannot be measured: set "
            "trainer.compile=false."
        )
    if config.trainer.cuda_graphs:
        raise ConfigError(
            "trainer.cuda_graphs=true issues all layers of a pass at once, so layers cannot be measured: set "
            "trainer.cuda_graphs=false."
        )


def _device(config: ExperimentConfig) -> str:
    import torch

    if config.trainer.accelerator == "cpu" or not torch.cuda.is_available():
        threads = torch.get_num_threads()
        return f"a CPU, {counted(threads, 'thread')}"
    return torch.cuda.get_device_name()


def _numbers(profile: Profile) -> dict[str, Any]:
    """The numbers of one network in the JSON file."""
    return {
        "seconds": profile.total(),
        "waits": profile.waits,
        "memory_bytes": profile.memory,
        "parts": [
            {"kind": part.kind, "phase": part.phase, "layer": part.layer, "seconds": seconds}
            for part, seconds in profile.seconds.items()
        ],
    }
