"""The command line: Hydra composes, pydantic validates, mistakes are answered before anything heavy is imported.

Hydra's own main does the work (so its flags, launchers and sweepers are there); what comes before it,
`check_command_line`, composes every requested configuration once to say what is wrong in plain words and with the
nearest match, which Hydra itself does not.
"""

from __future__ import annotations

import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from gradspike.cli.arguments import _tried
from gradspike.config.compose import CONF_DIR, GROUPS, _compose, _config_dirs, check_groups, options_of, to_plain
from gradspike.config.recipes import unequal_recipes
from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import validate
from gradspike.errors import ConfigError
from gradspike.runs.files import check_writable

# ~ in runs_dir, for the one path that Hydra itself writes to (conf/config.yaml).
OmegaConf.register_new_resolver("expanduser", os.path.expanduser, replace=True)

HELP = """\
gradspike: train a spiking neural network with a surrogate-gradient method.

  gradspike train method=mpd_agl dataset=digits model=spiking_cnn seed=1
  gradspike train method=fixed_sg,mpd_agl seed=0,1,2 -m     every combination, one after the other
  gradspike train resume=runs/<run>                         go on where a run stopped
  gradspike train dataset=digits_events model.activation=relu optimizer.lr=0.05 trainer.max_epochs=5
  gradspike train method=ds_atgo dataset=cifar10            with its recipe; recipe=none: without
  gradspike train logger=wandb --cfg job                    print the composed configuration, train nothing

Choose (group=option):
{groups}

Set (key=value), among others:
  seed  time_steps  data_dir  runs_dir  resume  engine  dataset.batch_size  optimizer.lr  trainer.max_epochs
  trainer.devices  trainer.precision  neuron.decay  method.v_threshold  checkpoint.every_n_steps
  All keys with their values: gradspike train --cfg job        Hydra's own flags: --hydra-help
"""


def help_text(config_dirs: list[Path]) -> str:
    """The text of --help, with the options that stand in conf/ now."""
    lines = []
    for group in GROUPS:
        words = options_of(group, config_dirs)
        if not words:
            continue
        line = f"  {group:<10}"
        for word in words:
            if len(line) + len(word) > 118:
                lines.append(line)
                line = " " * 12
            line += f" {word}"
        lines.append(line)
    return HELP.format(groups="\n".join(lines))


def _show_help(config_dir: str | None) -> int:
    print(help_text(_config_dirs(config_dir)), end="")
    return 0


def run(
    words: list[str],
    train: Callable[[ExperimentConfig, list[str]], int],
    finish: Callable[[], None] | None = None,
) -> int:
    """Compose, validate and hand each configuration to `train(config, typed overrides) -> exit code`.

    Returns the exit code of the command. In a multirun a trial that fails does not keep the others from running; the
    first failure's code is returned, and `finish` is called after the last trial.
    """
    from hydra import version
    from hydra._internal.utils import _run_hydra, get_args_parser

    if any(word in ("-h", "--help") for word in words):
        return _show_help(_config_dir_argument(words))
    # Hydra's parser wants all overrides together; people write `seed=1 -m method=a,b` too.
    parser = get_args_parser()
    arguments = parser.parse_args(sorted(words, key=lambda word: word.startswith("-") or "=" not in word))
    codes: list[int] = []
    version.setbase("1.3")

    def job(raw: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        typed = [word for word in HydraConfig.get().overrides.task if not word.startswith("hydra")]
        codes.append(_tried(lambda: train(validate(to_plain(raw)), typed)))

    if not (arguments.info or arguments.shell_completion or arguments.hydra_help):
        check_command_line(arguments)
    try:
        _run_hydra(arguments, parser, job, str(CONF_DIR), "config")
    finally:
        if len(codes) > 1 and finish is not None:
            finish()
    return next((code for code in codes if code), 0)


def check_command_line(arguments: Namespace) -> None:
    """Compose and validate every configuration the command line asks for. Raises ConfigError."""
    config_dirs = _config_dirs(arguments.config_dir)
    overrides = check_groups(arguments.overrides, config_dirs)
    multirun = arguments.multirun or any(
        override.key_or_group == "hydra.mode" and str(override.value()).upper() == "MULTIRUN" for override in overrides
    )
    sweeps = [override for override in overrides if override.is_sweep_override()]
    if sweeps and not multirun:
        raise ConfigError(f"{sweeps[0].input_line}: several values make several runs; add -m to train each of them.")
    if multirun and arguments.cfg:
        raise ConfigError("--cfg and -m exclude each other: print one configuration at a time.")
    if multirun and any(override.key_or_group == "resume" for override in overrides):
        raise ConfigError("resume and -m exclude each other: resume one run at a time.")
    configs = []
    for trial in _trials(overrides, arguments.overrides):
        configs.append(validate(_compose(trial, config_dirs, arguments.config_name or "config")))
        if multirun:
            _refuse_several_devices(configs[-1])
            check_writable(configs[-1].runs_dir)  # Hydra writes there before any trial does
    if warning := unequal_recipes(configs):
        print(f"Note: {warning}", file=sys.stderr)


def _refuse_several_devices(config: ExperimentConfig) -> None:
    if config.trainer.world_size > 1:
        raise ConfigError(
            f"A multirun with trainer.devices={config.trainer.devices}: one device only, since the processes of "
            "one trial would replay the whole multirun. Start one command a trial instead."
        )


def _config_dir_argument(words: list[str]) -> str | None:
    """The value of --config-dir, read before Hydra's parser (which would print its own help)."""
    for index, word in enumerate(words):
        if word in ("--config-dir", "-cd"):
            return words[index + 1] if index + 1 < len(words) else None
        if word.startswith("--config-dir="):
            return word.partition("=")[2]
    return None


def _trials(overrides: list[Any], words: list[str]) -> Iterator[list[str]]:
    """The overrides of each trial. A sweep that only its sweeper can expand is checked without the swept keys."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    if any(override.is_sweep_override() and not override.is_discrete_sweep() for override in overrides):
        yield [word for word, override in zip(words, overrides, strict=True) if not override.is_sweep_override()]
    elif any(override.is_sweep_override() for override in overrides):
        yield from BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]
    else:
        yield words
