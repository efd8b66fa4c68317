"""The command line: Hydra composes, pydantic validates, mistakes are answered before anything heavy is imported.

Hydra's own main does the work (so its flags, launchers and sweepers are there); what comes before it,
`check_command_line`, composes every requested configuration once to say what is wrong in plain words and with the
nearest match, which Hydra itself does not.
"""

from __future__ import annotations

import os
import select
import signal
import sys
from argparse import Namespace
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from gradspike.config import ExperimentConfig, explain, validate
from gradspike.errors import ConfigError, Interrupted, OutputClosed, UserError, did_you_mean
from gradspike.recipes import check_choices, unequal_recipes
from gradspike.registry import Strict
from gradspike.runs import check_writable

# ~ in runs_dir, for the one path that Hydra itself writes to (conf/config.yaml).
OmegaConf.register_new_resolver("expanduser", os.path.expanduser, replace=True)

CONF_DIR = Path(__file__).resolve().parents[2] / "conf"
GROUPS = ("dataset", "model", "method", "neuron", "loss", "optimizer", "scheduler", "trainer", "logger", "recipe")

HELP = """\
gradspike: train a spiking neural network with a surrogate-gradient method.

  python src/train.py method=mpd_agl dataset=digits model=spiking_cnn seed=1
  python src/train.py method=fixed_sg,mpd_agl seed=0,1,2 -m     every combination, one after the other
  python src/train.py resume=runs/<run>                         go on where a run stopped
  python src/train.py dataset=digits_events model.activation=relu optimizer.lr=0.05 trainer.max_epochs=5
  python src/train.py method=ds_atgo dataset=cifar10            with its recipe; recipe=none: without
  python src/train.py logger=wandb --cfg job                    print the composed configuration, train nothing

Choose (group=option):
{groups}

Set (key=value), among others:
  seed  time_steps  data_dir  runs_dir  resume  engine  dataset.batch_size  optimizer.lr  trainer.max_epochs
  trainer.devices  trainer.precision  neuron.decay  method.v_threshold  checkpoint.every_n_steps
  All keys with their values: python src/train.py --cfg job        Hydra's own flags: --hydra-help
"""


def options_of(group: str, config_dirs: list[Path]) -> list[str]:
    """Names of the YAML files of a Hydra group."""
    return sorted({file.stem for folder in config_dirs for file in (folder / group).glob("*.yaml")})


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


def run(train: Callable[[ExperimentConfig, list[str]], int], finish: Callable[[], None] | None = None) -> int:
    """Compose, validate and hand each configuration to `train(config, typed overrides) -> exit code`.

    Returns the exit code of the command. In a multirun a trial that fails does not keep the others from running; the
    first failure's code is returned, and `finish` is called after the last trial.
    """
    import hydra
    from hydra._internal.utils import get_args_parser

    if any(word in ("-h", "--help") for word in sys.argv[1:]):
        return reporting_errors(lambda: _show_help(_config_dir_argument(sys.argv[1:])))
    # Hydra's parser wants all overrides together; people write `seed=1 -m method=a,b` too.
    sys.argv[1:] = sorted(sys.argv[1:], key=lambda word: word.startswith("-") or "=" not in word)
    arguments = get_args_parser().parse_args()
    codes: list[int] = []

    @hydra.main(config_path=str(CONF_DIR), config_name="config", version_base="1.3")
    def job(raw: DictConfig) -> None:
        from hydra.core.hydra_config import HydraConfig

        typed = [word for word in HydraConfig.get().overrides.task if not word.startswith("hydra")]
        codes.append(_tried(lambda: train(validate(to_plain(raw)), typed)))

    def checked() -> int:
        if not (arguments.info or arguments.shell_completion or arguments.hydra_help):
            check_command_line(arguments)
        try:
            job()
        finally:
            if len(codes) > 1 and finish is not None:
                finish()
        return next((code for code in codes if code), 0)

    return reporting_errors(checked)


def reporting_errors(action: Callable[[], int]) -> int:
    """Run `action`; turn a UserError or a signal into one message on standard error and its exit code.

    When whoever read the output has gone away, as `| head` does, it ends as other commands do: at once, silently.
    """
    try:
        return _tried(action)
    except OutputClosed:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what Python has still to write at its end
        return 128 + signal.SIGPIPE
    except Interrupted as error:
        print(error, file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:
        print("Interrupted.", file=sys.stderr)
        return 130


def _tried(action: Callable[[], int]) -> int:
    """One trial: a UserError is told and leaves the other trials alone, anything else ends them all."""
    try:
        code = action()
        sys.stdout.flush()
        return code
    except UserError as error:
        print(f"Error: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError as error:
        if _output_is_closed():
            raise OutputClosed from error
        raise


def _output_is_closed() -> bool:
    """Whether nobody reads our standard output any more; pipes to worker processes can break as well."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    return any(event & select.POLLERR for _, event in poll.poll(0))


def to_plain(raw: DictConfig) -> dict[str, Any]:
    """An OmegaConf configuration as plain containers, interpolations resolved, or ConfigError where one cannot be."""
    try:
        plain = OmegaConf.to_container(raw, resolve=True)
    except OmegaConfBaseException as error:
        raise ConfigError(f"The configuration cannot be resolved: {str(error).splitlines()[0]}") from error
    assert isinstance(plain, dict)
    return {str(key): value for key, value in plain.items()}


def load_config(words: list[str], config_dir: str | None = None) -> ExperimentConfig:
    """The validated configuration of a list of overrides. Raises ConfigError."""
    config_dirs = _config_dirs(config_dir)
    sweeps = [override for override in check_groups(words, config_dirs) if override.is_sweep_override()]
    if sweeps:
        raise ConfigError(f"{sweeps[0].input_line}: one value, not several.")
    return validate(_compose(words, config_dirs, "config"))


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


def check_groups(words: list[str], config_dirs: list[Path]) -> list[Any]:
    """Parse overrides and check the options of config groups. Returns Hydra's parsed overrides; raises ConfigError."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.core.override_parser.types import ValueType
    from hydra.errors import HydraException

    overrides = []
    for word in words:
        try:
            overrides += OverridesParser.create().parse_overrides([word])
        except HydraException as error:
            hint = " Write key=value."
            if "={" in word:
                hint = " Names in a dictionary stand without quotes: '+key={name:value}'."
            elif "=" in word:
                hint = " Put quotes around a value with special characters: 'key=\"value\"'."
            raise ConfigError(f"{word}: cannot be read.{hint}") from error
    for override in overrides:
        group = override.key_or_group
        allowed = options_of(group, config_dirs)
        if not allowed or override.is_delete():
            continue
        listed = (ValueType.SIMPLE_CHOICE_SWEEP, ValueType.CHOICE_SWEEP)
        if override.is_sweep_override() and override.value_type not in listed:
            raise ConfigError(f"{override.input_line}: list the options, as in {group}={','.join(allowed[:2])}")
        for option in _values(override):
            if str(option) not in allowed:
                hint = did_you_mean(str(option), allowed)
                raise ConfigError(f"{group}={option}: there is no such {group}.{hint} Allowed: {', '.join(allowed)}")
    return overrides


def take_flags(words: list[str], flags: tuple[str, ...], usage: str) -> tuple[list[str], set[str]]:
    """The words that are no flags, and which of `flags` are there. --help stays among the words; raises ConfigError for
    any other flag.
    """
    rest, found = [], set()
    for word in words:
        if word in flags:
            found.add(word)
        elif word.startswith("-") and word not in ("-h", "--help"):
            raise ConfigError(f"{word}: there is no such flag.{did_you_mean(word, [*flags, '--help'])}\n\n{usage}")
        else:
            rest.append(word)
    return rest, found


def parse_key_values(words: list[str], schema: type[Strict], usage: str) -> Any:
    """The `key=value` arguments of a command without config groups, validated by `schema`. Prints `usage` and exits on
    --help.
    """
    from pydantic import ValidationError

    if any(word in ("-h", "--help") for word in words):
        print(usage, end="")
        raise SystemExit(0)
    values: dict[str, str] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            raise ConfigError(f"{word}: cannot be read. Write key=value.\n\n{usage}")
        if key not in schema.model_fields:
            raise ConfigError(f"{key}: there is no such key.{did_you_mean(key, schema.model_fields)}\n\n{usage}")
        values[key] = value
    try:
        return schema.model_validate(values)
    except ValidationError as error:
        problems = [f"{_key(detail)}: {explain(detail)}" for detail in error.errors(include_url=False)]
        raise ConfigError("\n".join(problems) + f"\n\n{usage}") from error


def _key(detail: Any) -> str:
    """`key=value` of a pydantic mistake, or the bare key where no value was given."""
    key = ".".join(str(part) for part in detail["loc"])
    return key if detail["type"] == "missing" else f"{key}={detail['input']}"


def _config_dir_argument(words: list[str]) -> str | None:
    """The value of --config-dir, read before Hydra's parser (which would print its own help)."""
    for index, word in enumerate(words):
        if word in ("--config-dir", "-cd"):
            return words[index + 1] if index + 1 < len(words) else None
        if word.startswith("--config-dir="):
            return word.partition("=")[2]
    return None


def _config_dirs(extra: str | None) -> list[Path]:
    if extra is not None and not Path(extra).is_dir():
        raise ConfigError(f"--config-dir {extra}: there is no such folder.")
    return [CONF_DIR] if extra is None else [CONF_DIR, Path(extra).resolve()]


def _values(override: Any) -> list[Any]:
    """The value of an override, or each value of a sweep over a list."""
    if override.is_discrete_sweep():
        return [value.partition("=")[2] or value for value in override.sweep_string_iterator()]
    value = override.value()
    return value if isinstance(value, list) else [value]


def _trials(overrides: list[Any], words: list[str]) -> Iterator[list[str]]:
    """The overrides of each trial. A sweep that only its sweeper can expand is checked without the swept keys."""
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    if any(override.is_sweep_override() and not override.is_discrete_sweep() for override in overrides):
        yield [word for word, override in zip(words, overrides, strict=True) if not override.is_sweep_override()]
    elif any(override.is_sweep_override() for override in overrides):
        yield from BasicSweeper.split_arguments(overrides, max_batch_size=None)[0]
    else:
        yield words


def _compose(words: list[str], config_dirs: list[Path], config_name: str) -> dict[str, Any]:
    """Compose one configuration. Raises ConfigError that names the unknown key and the nearest one."""
    from hydra import compose, initialize_config_dir
    from hydra.errors import HydraException

    search_path = (
        [f"hydra.searchpath=[{','.join(f'file://{folder}' for folder in config_dirs[1:])}]"] if config_dirs[1:] else []
    )
    with initialize_config_dir(config_dir=str(config_dirs[0]), version_base="1.3"):
        try:
            composed = to_plain(compose(config_name, overrides=[*search_path, *words]))
        except (HydraException, OmegaConfBaseException) as error:
            groups = [word for word in words if word.lstrip("+").partition("=")[0] in GROUPS]
            try:
                known = sorted(_flat_keys(to_plain(compose(config_name, overrides=[*search_path, *groups]))))
            except (HydraException, OmegaConfBaseException):
                known = []
            for word in words:
                key = word.partition("=")[0]
                if known and not key.startswith(("+", "~", "hydra")) and key not in known and key not in GROUPS:
                    parent = key.rpartition(".")[0]
                    siblings = [word for word in known if parent and word.rpartition(".")[0] == parent]
                    allowed = f" Allowed: {', '.join(siblings)}" if siblings else ""
                    raise ConfigError(
                        f"{key}: there is no such key.{did_you_mean(key, [*known, *GROUPS])}{allowed}"
                    ) from error
            plus = " New keys of a dictionary want a plus: '+key={name:value}'."
            reason = str(error).splitlines()[0]
            raise ConfigError(reason + (plus if any("={" in word for word in words) else "")) from error
    check_choices(words, composed, config_dirs)
    return composed


def _flat_keys(values: dict[str, Any], prefix: str = "") -> Iterator[str]:
    """Dotted keys of a nested dictionary, inner ones included."""
    for key, value in values.items():
        yield prefix + key
        if isinstance(value, dict):
            yield from _flat_keys(value, f"{prefix}{key}.")
