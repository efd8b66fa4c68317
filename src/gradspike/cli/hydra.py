"""The command line of training: Hydra composes, pydantic validates, before anything heavy is imported.

Hydra's own main runs the command, so its flags, launchers and sweepers are available. Before that,
`check_command_line` composes each requested configuration once, to report mistakes in plain words and with the nearest
match.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NoReturn

from omegaconf import DictConfig, OmegaConf

from gradspike.cli.arguments import take_config_dir
from gradspike.cli.columns import columns, fitted
from gradspike.cli.key_help import general_help, key_help
from gradspike.cli.reporting import tried
from gradspike.cli.resume import printed, requested_config, resumed_path
from gradspike.config.compose import (
    CONF_DIR,
    GROUPS,
    check_groups,
    comma_hint,
    compose_plain,
    config_dirs,
    options_of,
    settle,
    to_plain,
)
from gradspike.config.overrides import override
from gradspike.config.recipes import unequal_recipes
from gradspike.config.schema import ExperimentConfig
from gradspike.config.validate import validate
from gradspike.errors import ConfigError, unknown
from gradspike.runs.files import check_writable
from gradspike.variables import variable

# Expands ~ in runs_dir, for the only path that Hydra itself writes to (conf/config.yaml).
OmegaConf.register_new_resolver("expanduser", lambda path: os.path.expanduser(str(path)), replace=True)

HELP_FLAGS = ("-h", "--help")

REFUSED = {
    "--config-path": "use --config-dir to add your own folder.",
    "--experimental-rerun": "start the run again with its configuration, or continue it with resume=<run>.",
}

HELP = """\
Train a spiking network with a surrogate-gradient method, or resume a run.

  gradspike train method=mpd_agl dataset=digits model=spiking_cnn seed=1
  gradspike train method=ds_atgo dataset=cifar10               with the matching recipe; recipe=none uses none
  gradspike train dataset=digits_events model.activation=relu optimizer.lr=0.05 trainer.max_epochs=5
  gradspike train method=fixed_sg,mpd_agl seed=0,1,2 -m        every combination, one after the other
  gradspike train resume=runs/<run>                            continue a run where it stopped
  gradspike train resume=runs/<run> trainer.max_epochs=40      train a run for more epochs, also a finished one
  gradspike train init_from=runs/<run> optimizer.lr=0.01       start from the weights of another run
  gradspike train method=psg seed=3 resume=auto                continue the newest unfinished run of this configuration
  gradspike train logger=wandb --cfg job                       print the whole configuration, train nothing

Options of the groups (group=option):
{groups}

Keys (key=value) outside the groups, with their defaults:
{keys}
Keys of a group (--help, and the group or an option of it):
  gradspike train --help method=lsg
  gradspike train --help trainer dataset=cifar10

Flags:
  --config-dir DIR   your own folder with further options of the groups
  -m, --multirun     train all combinations of the values
  --cfg job          print the configuration
  --hydra-help       Hydra's other flags
"""


def help_text(folders: list[Path]) -> str:
    """The text of --help, with the options in conf/ and in the user's folder."""
    groups = "\n".join(f"  {group:<10} {' '.join(names)}" for group in GROUPS if (names := options_of(group, folders)))
    return fitted(HELP.format(groups=groups, keys=general_help()), columns())


def run(
    words: list[str],
    train: Callable[[ExperimentConfig, list[str]], int],
    finish: Callable[[], None] | None = None,
) -> int:
    """Compose, validate and hand each configuration to `train(config, typed overrides) -> exit code`.

    Returns the exit code of the command. In a multirun, the other trials continue after a failed one; the exit code is
    that of the first failure, and `finish` is called after the last trial.
    """
    from hydra import version
    from hydra._internal.utils import _run_hydra

    rest, config_dir = take_config_dir(words)
    if any(word in HELP_FLAGS for word in rest):
        folders, typed = config_dirs(config_dir), [word for word in rest if not word.startswith("-")]
        print(key_help(typed, folders) if typed else help_text(folders), end="")
        return 0
    parser = hydra_parser()
    arguments = parser.parse_args(sorted(rest, key=_is_flag))
    arguments.config_dir = config_dir
    _check_flags(arguments)
    codes: list[int] = []
    resumed: tuple[ExperimentConfig, list[str]] | None = None
    version.setbase("1.3")

    def job(raw: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        if resumed is not None:
            config, words = resumed
            codes.append(tried(lambda: train(config, words)))
            return
        typed = [word for word in HydraConfig.get().overrides.task if not word.startswith("hydra")]
        codes.append(tried(lambda: train(validate(to_plain(raw)), typed)))

    if not (arguments.info or arguments.shell_completion or arguments.hydra_help):
        resumed = _resumed(arguments)
        if resumed is None:
            arguments.overrides = check_command_line(arguments)
        elif arguments.cfg == "job":
            print(printed(resumed[0], arguments.package), end="")
            return 0
    try:
        _run_hydra(arguments, parser, job, str(CONF_DIR), "config")
    finally:
        if len(codes) > 1 and finish is not None:
            finish()
    return next((code for code in codes if code), 0)


def hydra_parser() -> ArgumentParser:
    """Hydra's parser, with errors raised as ConfigError."""
    from hydra._internal.utils import get_args_parser

    parser: ArgumentParser = get_args_parser()
    parser.allow_abbrev = False

    def error(message: str) -> NoReturn:
        flags = [flag for action in parser._actions for flag in action.option_strings if flag.startswith("--")]
        strange = message.removeprefix("unrecognized arguments: ").split()[0]
        if strange.startswith("-"):
            message = unknown("flag", strange, [flag for flag in flags if flag not in REFUSED])
        raise ConfigError(f"{message}\nSee: gradspike train --help")

    parser.error = error  # type: ignore[method-assign]
    return parser


def _is_flag(word: str) -> bool:
    # Hydra's parser needs all overrides together, but users also type `seed=1 -m method=a,b`.
    return word.startswith("-") or "=" not in word


def _check_flags(arguments: Namespace) -> None:
    """Refuse flags that would compose a configuration other than the checked one."""
    for flag, instead in REFUSED.items():
        if getattr(arguments, flag.removeprefix("--").replace("-", "_")) is not None:
            raise ConfigError(f"{flag}: {instead}")


def check_command_line(arguments: Namespace) -> list[str]:
    """Compose and validate all configurations of the command line. Raises ConfigError.

    Returns the overrides for Hydra.
    """
    folders = config_dirs(arguments.config_dir)
    name = arguments.config_name or "config"
    words, _ = settle(arguments.overrides, folders, name)
    overrides = check_groups(words, folders)
    multirun = arguments.multirun or any(
        override.key_or_group == "hydra.mode" and str(override.value()).upper() == "MULTIRUN" for override in overrides
    )
    sweeps = [override for override in overrides if override.is_sweep_override()]
    if sweeps and not multirun:
        raise ConfigError(
            f"{sweeps[0].input_line}: several values need several runs. Add -m to train all of them."
            f"{comma_hint(sweeps[0])}"
        )
    if multirun and arguments.cfg:
        raise ConfigError("--cfg and -m cannot be combined: print one configuration at a time.")
    if multirun and any(override.key_or_group == "resume" for override in overrides):
        raise ConfigError("resume and -m cannot be combined: resume one run at a time.")
    configs = []
    for trial in _trials(overrides, words):
        configs.append(validate(compose_plain(trial, folders, name)))
        if multirun:
            _refuse_one_wandb_run(configs[-1])
            _refuse_several_devices(configs[-1])
            check_writable(configs[-1].runs_dir)  # Hydra writes there before any trial does
    if warning := unequal_recipes(configs):
        print(f"Note: {warning}", file=sys.stderr)
    return words


def _refuse_one_wandb_run(config: ExperimentConfig) -> None:
    if config.logger.name == "wandb" and (one := variable("WANDB_RUN_ID")) is not None:
        raise ConfigError(
            f"The environment variable WANDB_RUN_ID={one} is one W&B run, and a multirun has several: unset it."
        )


def _resumed(arguments: Namespace) -> tuple[ExperimentConfig, list[str]] | None:
    """The configuration of the run that the command line resumes, and what was typed; leaves the rest to Hydra.

    None without `resume`, and for several runs. Raises ConfigError for what the run does not have or must keep.
    """
    folders = config_dirs(arguments.config_dir)
    path = resumed_path(arguments.overrides, folders)
    hydras = [word for word in arguments.overrides if word.startswith("hydra")]
    if path is None or arguments.multirun or any(word.upper() == "HYDRA.MODE=MULTIRUN" for word in hydras):
        return None
    if arguments.cfg == "all":
        raise ConfigError("resume and --cfg all cannot be combined: --cfg job prints the run's configuration.")
    resumed = requested_config(path, arguments.overrides, folders, arguments.config_name or "config")
    arguments.overrides = [override("resume", path), *hydras]
    return resumed


def _refuse_several_devices(config: ExperimentConfig) -> None:
    if config.trainer.world_size > 1:
        raise ConfigError(
            f"trainer.devices={config.trainer.devices}: a multirun can use only one device, because each process of a "
            "trial would repeat the whole multirun. Start one command per trial instead."
        )


def _trials(overrides: list[Any], words: list[str]) -> Iterator[list[str]]:
    """The overrides of each trial. If only the sweeper can expand a sweep, those without the swept keys."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    if any(override.is_sweep_override() and not override.is_discrete_sweep() for override in overrides):
        yield [word for word, override in zip(words, overrides, strict=True) if not override.is_sweep_override()]
    elif any(override.is_sweep_override() for override in overrides):
        yield from BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]
    else:
        yield words
