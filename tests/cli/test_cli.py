"""The commands as a user types them: messages, exit codes, and no files left behind."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from gradspike.cli.hydra import help_text
from gradspike.config.compose import CONF_DIR
from gradspike.methods.registry import METHODS
from helpers.command import IMPORT_TIMES, ROOT, command, execute, here, imported
from helpers.forks import fork_server
from helpers.warm import warm_python


def test_help_lists_every_option_and_imports_nothing_heavy() -> None:
    result = command("train", "--help", python=IMPORT_TIMES)
    assert result.returncode == 0
    assert all(name in result.stdout for name in (*METHODS.names(), "digits_events", "spiking_cnn", "resume="))
    assert not {"torch", "lightning", "wandb", "tonic"} & imported(result.stderr)


def test_mistakes_are_answered_before_anything_heavy_isimported(tmp_path: Path) -> None:
    result = command("train", "optimizer.lr=-1", f"runs_dir={tmp_path / 'runs'}", python=IMPORT_TIMES)
    assert result.returncode == 2
    assert "optimizer.lr=-1: must be greater than 0" in result.stderr
    assert not {"torch", "lightning", "wandb", "tonic"} & imported(result.stderr)
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["optimzer=sgd"], 2, "'optimizer'"),
        (["seed=0,1"], 2, "Add -m"),
        (["-m", "seed=0,1", "trainer.devices=2"], 2, "can use only one device"),
        (["hydra.mode=MULTIRUN", "seed=0", "trainer.devices=2"], 2, "can use only one device"),
        (["-m", "trainer=glob(*)"], 2, "list the options"),
        (["-m", "runs_dir=/proc/x"], 1, "/proc/x: cannot be written to"),
        (["--cfg", "job", "optimiser.lr=1"], 2, "'optimizer.lr'"),
        (["seed=0,1", "-m", "optimizer.lr=-1"], 2, "optimizer.lr=-1"),
        (["-m", "resume=x"], 2, "cannot be combined"),
        (["resume=no/such/run"], 2, "is not a run folder (it does not exist)"),
        (["data_dir=/no/such/place"], 1, "data_dir=/no/such/place was not created"),
        (["trainer.accelerator=gpu", "trainer.devices=64"], 1, "trainer.devices=64"),
        (["--config-dir", "/no/such/place"], 2, "/no/such/place"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else None,
)
def test_refusals(words: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found, _, error = here(["train", f"runs_dir={tmp_path / 'runs'}", *words], capsys)
    assert found == code, error
    assert said in error
    assert "Traceback" not in error
    assert not list((tmp_path / "runs").glob("2*"))


def test_runs_dir_that_is_a_file(tmp_path: Path) -> None:
    (tmp_path / "runs").write_text("")
    result = command("train", f"runs_dir={tmp_path / 'runs'}")
    assert result.returncode == 1
    assert "runs: cannot be written to" in result.stderr


def test_multirun_trains_every_combination(tiny: Callable[..., list[str]], tmp_path: Path) -> None:
    process = fork_server().start("train", "-m", "method=fixed_sg,mpd_agl", "seed=0,1", *tiny("trainer.max_epochs=1"))
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    assert "4 trials" in output
    runs = [folder for folder in (tmp_path / "runs").iterdir() if (folder / "summary.json").exists()]
    assert len(runs) == 4
    assert sum("_fixed_sg_" in run.name for run in runs) == 2


def test_user_method_by_import_path(tiny: Callable[..., list[str]], tmp_path: Path) -> None:
    """A method in the user's folder, chosen by its own YAML; the package is unchanged."""
    (tmp_path / "my_rule.py").write_text(
        "from gradspike.methods.fixed_sg import FixedSg\n"
        "from gradspike.methods.fixed_sg import FixedSgConfig\n"
        "class Rule(FixedSg):\n"
        "    Config = FixedSgConfig\n"
    )
    (tmp_path / "conf" / "method").mkdir(parents=True)
    (tmp_path / "conf" / "method" / "my_rule.yaml").write_text("name: my_rule:Rule\nv_threshold: 1.0\nwidth: 2.0\n")
    result = execute(
        *warm_python(), "-m", "gradspike", "train", "--config-dir", str(tmp_path / "conf"), "method=my_rule",
        *tiny("trainer.max_epochs=1"), PYTHONPATH=str(tmp_path), OMP_NUM_THREADS="1",
    )  # fmt: skip
    assert result.returncode == 0, result.stderr
    assert "_Rule_digits_" in result.stdout


def test_print_configuration() -> None:
    result = command("train", "optimizer.lr=0.3", "--cfg", "job", "--package", "optimizer")
    assert result.returncode == 0
    assert "lr: 0.3" in result.stdout


def test_every_group_of_conf_is_in_the_help() -> None:
    groups = {folder.name for folder in CONF_DIR.iterdir() if folder.is_dir() and any(folder.glob("*.yaml"))}
    assert all(f"\n  {group:<10}" in help_text([CONF_DIR]) for group in groups)


def test_readme_commands_are_valid() -> None:
    """Every `gradspike train` command in the README composes a configuration."""
    from gradspike.cli.hydra import check_command_line, hydra_parser

    lines = [line.partition("#")[0].strip() for line in (ROOT / "README.md").read_text().splitlines()]
    commands = [line.split()[2:] for line in lines if line.startswith("gradspike train")]
    assert len(commands) >= 3
    for words in commands:
        if any("<" in word for word in words):
            continue
        flags = [word for word in words if word.startswith("-")]
        check_command_line(hydra_parser().parse_args([word for word in words if word not in flags] + flags))
