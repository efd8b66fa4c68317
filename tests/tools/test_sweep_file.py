"""Sweep files: mistakes reported before a trial starts, and the commands of the trials."""

from __future__ import annotations

import shlex
from pathlib import Path
from random import Random
from typing import Any

import pytest

from gradspike.config.compose import load_config
from gradspike.errors import ConfigError
from gradspike.tools.sweep import command as sweep_command
from gradspike.tools.sweep import words as sweep_words
from gradspike.tools.sweep.file import read
from gradspike.tools.sweep.options import parse
from gradspike.tools.sweep.proposals import check_all
from gradspike.tools.sweep.study import preview
from helpers.command import IMPORT_TIMES, ROOT, command, imported
from helpers.sweep_files import COMMAND, all_proposals, write

SWEEPS = sorted(path for path in (ROOT / "sweeps").rglob("*.yaml") if "conf" not in path.relative_to(ROOT).parts)


QUESTIONS = {
    "methods_on_cifar10", "methods_on_cifar10dvs", "ds_atgo_at_vs_tgo", "ds_atgo_firing_factor",
    "sg_width_fixed_vs_adaptive", "psg_shapes", "timesteps", "lr_and_weight_decay", "quick",
    "ds_atgo_table", "ds_atgo_parts", "fixed_widths", "asgl_widths", "clif_against_lif",
    "inner", "main", "relu_twin", "variants", "decay", "psg_widths", "shapes", "steps", "landscape",
    "nmnist", "nmnist_relu_twin", "nmnist_variants", "convolutional", "transformers", "vgg",
}  # fmt: skip


def test_there_is_a_file_for_each_question() -> None:
    assert {file.stem for file in SWEEPS} == QUESTIONS


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_sweep_is_valid_and_every_trial_composes(path: Path) -> None:
    file = read(path)
    words = sweep_words.build(file, [])
    assert len({proposal.key for proposal in all_proposals(file)}) == len(all_proposals(file))
    points = [proposal.values for proposal in all_proposals(file) if proposal.values is not None]
    if file.options.method == "grid":
        assert str(len(points)) in file.text.split("program:")[0], "the comment states the number of trials"
    else:
        points = preview(file.options.metrics, file.swept, 0, all_proposals(file)[:3])
    # The configuration treats all seeds alike, so one of them suffices.
    different = {str({**point, "seed": 0}): {**point, "seed": 0} for point in points if "seed" in point} or points
    for point in different.values() if isinstance(different, dict) else different:
        config = load_config(words.of(point), words.config_dir)
        assert config.recipe is None  # the same budget for all


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_wandb_reads_the_same_file_and_its_agent_writes_the_same_words(path: Path) -> None:
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args, load_sweep_config
    from wandb.sdk.sweeps.scheduler.optuna import search_space_from_sweep_config

    theirs = load_sweep_config(str(path))
    assert theirs is not None
    file = read(path)
    assert set(search_space_from_sweep_config(theirs["parameters"])) == set(file.parameters)
    assert create_sweep_command(list(theirs["command"])) == file.options.command
    values = {name: parameter.draw(Random(0)) for name, parameter in file.parameters.items()}
    args = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})
    swept = {name: values[name] for name in file.swept}
    assert sorted(args["args_no_hyphens"]) == sorted(sweep_words.build(file, []).of(swept))


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"paramters": {}}, "'parameters'"),
        ({"method": "gird"}, "Did you mean 'grid'"),
        ({"method": None}, "method: must be given"),
        ({"program": "train.py"}, "must be src/train.py"),
        ({"command": None}, "Hydra cannot read"),
        ({"command": [*COMMAND[:-1], "${args}"]}, "which is ${args_no_hyphens}"),
        ({"command": COMMAND[:-1]}, "must contain ${args_no_hyphens} once"),
        ({"command": [*COMMAND, "--multirun"]}, "the only flag allowed"),
        ({"command": ["nice", *COMMAND]}, "only NAME=value"),
        ({"metric": {"name": "val/accuracy"}}, "W&B would minimize"),
        ({"metric": {"name": "val/acuracy", "goal": "maximize"}}, "Did you mean 'val/accuracy'"),
        ({"metric": {"name": "test/last/accuracy", "goal": "maximize"}}, "never on the test split"),
        (
            {"metric": {"name": "val/loss", "goal": "minimize", "target": 0.1}},
            "unknown key 'metric.target'. Allowed: goal",
        ),
        ({"early_terminate": {"type": "hyperband", "s": 2, "max_iter": 9}}, "early_terminate.min_iter: must be given"),
        ({"controller": {"type": "local"}}, "is a key of W&B that this runner does not support"),
        ({"parameters": {}}, "parameters: is missing"),
        ({"parameters": {"seed": 3}}, "write {value: 3}"),
        ({"parameters": {"seed": {"valuse": [1]}}}, "write value: x"),
        ({"parameters": {"seed": {"values": [1, 1]}}}, "1 appears twice"),
        ({"parameters": {"seed": {"values": [1], "q": 1}}}, "unknown key 'parameters.seed.q'. Allowed: dist"),
        ({"parameters": {"optimizer": {"parameters": {"lr": {"value": 1}}}}}, "dotted names: optimizer.lr"),
        ({"parameters": {"recipe": {"value": None}}}, "'null'"),
        ({"parameters": {"resume": {"value": "x"}}}, "the sweep sets it itself"),
        ({"parameters": {"a b": {"value": "x"}}}, "W&B allows only letters"),
        ({"parameters": {"optimizer.lr": {"min": 0.1, "max": 1.0}}}, "a grid needs values"),
        ({"parameters": {"x": {"distribution": "log_uniform", "min": -3, "max": 0}}}, "log_uniform_values"),
        ({"parameters": {"x": {"distribution": "unifrom", "min": 0, "max": 1}}}, "Did you mean 'uniform'"),
        ({"parameters": {"x": {"distribution": "beta"}}}, "not supported by this runner"),
        (
            {"method": "random", "parameters": {"x": {"distribution": "log_uniform_values", "min": "1e-5", "max": 1}}},
            "x.min=1e-5: must be a number (YAML reads 1e-3 as text; write 1.0e-3)",
        ),
        ({"method": "random", "parameters": {"x": {"min": 2, "max": 1}}}, "min=2 must be less than max=1"),
        ({"method": "bayes", "parameters": {"x": {"distribution": "normal"}}}, "method: bayes needs"),
    ],
    ids=lambda value: None if isinstance(value, str) else str(value)[:60],
)
def test_mistakes_in_the_file(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        sweep_words.build(read(write(tmp_path, **changes)), [])
    assert said in str(error.value)
    assert "some.yaml" in str(error.value)


@pytest.mark.parametrize(
    ("word", "value"),
    [("010", "8"), ("1:30", "90"), ("1_000", "1000"), ("yes", "true"), ("Off", "false"), ("1_0.5", "10.5")],
)
def test_words_that_yaml_reads_as_another_value(tmp_path: Path, word: str, value: str) -> None:
    text = write(tmp_path).read_text() + "description: {word}\n"
    (tmp_path / "bad.yaml").write_text(text.replace("{word}", word))
    with pytest.raises(ConfigError, match=rf"{word} would be read as {value}\. Write '{word}' for text, or {value}\."):
        read(tmp_path / "bad.yaml")
    (tmp_path / "good.yaml").write_text(text.replace("{word}", f"'{word}'"))
    assert read(tmp_path / "good.yaml").options.description == word


@pytest.mark.parametrize("options", [{"min": 0, "max": 10**11}, {"min": 0, "max": 1e9, "distribution": "q_uniform"}])
def test_a_range_of_too_many_values(tmp_path: Path, options: dict[str, Any]) -> None:
    """It ended with `Out of memory`."""
    with pytest.raises(ConfigError, match=r"parameters\.seed: .*1,?0*,?\d* values are too many; at most 1,000,000"):
        read(write(tmp_path, parameters={"seed": options}))


def test_a_key_that_stands_twice(tmp_path: Path) -> None:
    file = tmp_path / "some.yaml"
    file.write_text("program: src/train.py\nmethod: grid\nparameters:\n  seed: {value: 1}\n  seed: {value: 2}\n")
    with pytest.raises(ConfigError, match="line 5: seed appears twice"):
        read(file)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"method": {"values": ["fixed_sg", "lsgg"]}}, "Did you mean 'lsg'"),
        ({"optimizer.lr": {"values": [0.1, -1]}}, "optimizer.lr=-1: must be greater than 0"),
        ({"optimiser.lr": {"value": 0.1}}, "Did you mean 'optimizer.lr'"),
        ({"method": {"values": ["fixed_sg", "lsg"]}, "method.width": {"value": 1.0}}, "method.width"),
    ],
    ids=str,
)
def test_mistakes_of_the_trials_are_reported_before_any_starts(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    file = read(write(tmp_path, parameters=changes))
    with pytest.raises(ConfigError) as error:
        check_all(file, sweep_words.build(file, []), all_proposals(file))
    assert said in str(error.value)
    assert "The trial" in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "Name one sweep file"),
        (["sweeps/quick.yaml", "worker=2"], "Did you mean 'workers'"),
        (["sweeps/quick.yaml", "workers=0"], "workers=0: must be greater than 0"),
        (["sweeps/quick.yaml", "--dryrun"], "Did you mean '--dry-run'"),
        (["sweeps/quic.yaml"], "Did you mean 'sweeps/quick.yaml'"),
        (["sweeps/quick.yaml", "seed=1"], "sweeps seed; change it there"),
        (["sweeps/quick.yaml", "runs_dir=x"], "the sweep sets runs_dir itself"),
        (["sweeps/quick.yaml", "trials=3"], "a grid has one trial per point"),
        (["SMALL", "gpus=0,1", "workers=3"], "only 2 trials can run at once"),
        (["SMALL", "gpus=0,1", "gpus_per_trial=4", "dataset.batch_size=64"], "needs 4 GPUs"),
        (["sweeps/quick.yaml", "gpus=0,,1"], "separated by commas"),
        (["sweeps/quick.yaml", "executor=slurm", "gpus=0"], "the cluster assigns the GPUs"),
        (["sweeps/quick.yaml", "slurm.partition=x"], "add executor=slurm"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_mistakes_on_the_command_line(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, arguments: list[str], said: str
) -> None:
    monkeypatch.chdir(ROOT)
    small = str(write(tmp_path))
    with pytest.raises(ConfigError) as error:
        sweep_command.sweep([small if word == "SMALL" else word for word in arguments])
    assert said in str(error.value)


@pytest.mark.parametrize("place", [{"SLURM_JOB_ID": "9", "SLURM_STEP_ID": "0", "SLURM_PROCID": "1"},
                                   {"TORCHELASTIC_RUN_ID": "x", "WORLD_SIZE": "4"}])  # fmt: skip
def test_what_tasks_of_one_sweep_cannot_share(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, place: dict[str, str]
) -> None:
    file = str(write(tmp_path))
    for name, value in {**place, "SLURM_STEP_NUM_TASKS": "4"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError, match=r"gpus=0,1: each of the 4 tasks would hand out the same GPUs"):
        parse([file, "gpus=0,1"])
    with pytest.raises(ConfigError, match="executor=slurm submits jobs by itself, and 4 tasks would submit each"):
        parse([file, "executor=slurm"])
    parse([file, "workers=2"])
    monkeypatch.delenv("SLURM_STEP_ID", raising=False)  # the batch script itself, not a task of srun
    monkeypatch.delenv("TORCHELASTIC_RUN_ID", raising=False)
    parse([file, "gpus=0,1"])


def test_a_mistake_is_answered_without_torch_and_leaves_nothing_behind(tmp_path: Path) -> None:
    file = write(tmp_path, method="gird")
    result = command("sweep", str(file), f"folder={tmp_path / 'sweep'}", python=IMPORT_TIMES)
    assert result.returncode == 2
    assert "Did you mean 'grid'" in result.stderr
    assert not {"torch", "lightning", "wandb", "optuna"} & imported(result.stderr)
    assert not (tmp_path / "sweep").exists()


def test_dry_run_prints_commands_that_a_shell_and_hydra_understand(tmp_path: Path) -> None:
    file = write(tmp_path, command=[COMMAND[0], "A=b c", *COMMAND[1:]])
    folder = tmp_path / "a sweep's folder"
    words = ["sweep", str(file), "--dry-run", f"folder={folder}", "logger=tensorboard", "optimizer.lr=0.01"]
    result = command(*words)
    assert result.returncode == 0, result.stderr
    assert not folder.exists()
    commands = [shlex.split(line) for line in result.stdout.splitlines()]
    assert [line[0] for line in commands] == ["A=b c"] * 4
    configs = [load_config(line[line.index("train") + 1 :]) for line in commands]
    assert [(config.seed, config.method.name) for config in configs] == [
        (0, "fixed_sg"), (0, "psg"), (1, "fixed_sg"), (1, "psg"),
    ]  # fmt: skip
    assert {config.runs_dir for config in configs} == {str(folder / "runs")}
    assert {(config.logger.name, config.optimizer.lr) for config in configs} == {("tensorboard", 0.01)}


def test_what_is_typed_wins_over_the_file_but_its_logger_is_for_wandb_alone(tmp_path: Path) -> None:
    file = read(write(tmp_path, parameters={"seed": {"values": [0]}, "optimizer.lr": {"value": 0.5}}))
    words = sweep_words.build(file, ["optimizer.lr=0.1", "data_dir=/data"])
    assert words.of({"seed": 0}) == ["optimizer.lr=0.1", "seed=0", "data_dir=/data"]
    assert words.shaping({"seed": 0}) == ["optimizer.lr=0.1", "seed=0"]
    assert words.free == ["data_dir=/data"]
    swept = read(write(tmp_path, parameters={"dataset.workers": {"values": [0, 2]}}))
    assert len({proposal.key for proposal in all_proposals(swept)}) == 2


def test_methods_of_a_folder_outside_the_package(tmp_path: Path) -> None:
    command = [*COMMAND[:3], "--config-dir", "../my_work/conf", *COMMAND[3:]]
    words = sweep_words.build(read(write(tmp_path, command=command)), [])
    assert words.command(["seed=0"])[-3:] == ["--config-dir", "../my_work/conf", "seed=0"]
