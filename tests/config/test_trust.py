"""Code named only by a run's record is not executed until the user allows it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import yaml

from gradspike.cli import train as launch
from gradspike.cli.evaluate import evaluate
from gradspike.config import trust
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError, UserError
from gradspike.runs.folder import RunFolder
from gradspike.runs.newest import newest_run
from gradspike.tools.compare.groups import group_runs
from gradspike.tools.compare.published import published_of
from gradspike.tools.compare.run import Run
from gradspike.tools.landscape.command import landscape

Compose = Callable[..., ExperimentConfig]
MODULE = "code_of_somebody_else"
NAME = f"{MODULE}:Mine"
SOURCE = """\
from pathlib import Path
from typing import ClassVar
from gradspike.methods.fixed_sg import FixedSg, FixedSgConfig

class MineConfig(FixedSgConfig):
    done: ClassVar[None] = Path({mark!r}).touch()

class Mine(FixedSg):
    Config = MineConfig
"""


@pytest.fixture
def executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The file that the foreign code would create."""
    mark = tmp_path / "executed"
    (tmp_path / f"{MODULE}.py").write_text(SOURCE.format(mark=str(mark)))
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setattr(trust, "_typed", set())
    monkeypatch.setattr(trust, "_all", False)
    yield mark
    sys.modules.pop(MODULE, None)


@pytest.fixture
def run(tiny_config: Compose, executed: Path) -> RunFolder:
    """A run whose record names foreign code."""
    run = RunFolder.create(tiny_config("method=fixed_sg"))
    file = run.path / "config.yaml"
    plain = yaml.safe_load(file.read_text())
    plain["method"]["name"] = NAME
    file.write_text(yaml.safe_dump(plain))
    (run.checkpoints / "last.ckpt").write_bytes(b"")
    (run.checkpoints / "best.ckpt").write_bytes(b"")
    return run


def test_commands_that_read_a_run_refuse_it(run: RunFolder, executed: Path, tiny_config: Compose) -> None:
    words = [f"resume={run.path}"]
    for command in (
        lambda: evaluate([f"run={run.path}"]),
        lambda: landscape([f"run={run.path}"]),
        lambda: launch.command(words),
        lambda: launch.train(tiny_config(*words), words),
    ):
        with pytest.raises(ConfigError, match=f"method.name={NAME}\nIf you trust this code, add --trust"):
            command()
    assert not executed.exists()


def test_comparing_and_looking_for_a_run_execute_nothing(run: RunFolder, executed: Path, tiny_config: Compose) -> None:
    plain = yaml.safe_load((run.path / "config.yaml").read_text())
    summary = {"test": {"last": {"accuracy": 0.5, "loss": 1.0}}, "val": {}}
    read = Run(id="a", path=str(run.path), source="files", config=plain, summary=summary, epochs=({"val/accuracy": 1},))
    group_runs([read])
    assert published_of(read) is None
    assert newest_run(tiny_config("method=fixed_sg")) is None
    assert not executed.exists()


def test_what_the_user_says_or_has_trained_with_is_read(
    run: RunFolder, executed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for command in (evaluate, landscape):
        with pytest.raises(UserError) as error:  # the checkpoint is empty, which is detected later
            command([f"run={run.path}", "--trust"])
        assert "--trust" not in str(error.value)
        monkeypatch.setattr(trust, "_all", False)
        monkeypatch.setattr(trust, "_typed", set())
    assert executed.exists()
    monkeypatch.setenv("GRADSPIKE_TRUST", "1")
    run.config()
    monkeypatch.setenv("GRADSPIKE_TRUST", "0")
    monkeypatch.setattr(trust, "_typed", set())
    with pytest.raises(ConfigError):
        run.config()
    trust.remember({"method": {"name": NAME}, "dataset": {"name": "digits"}})
    run.config()
    # Another file of that name is other code.
    monkeypatch.setattr(trust, "_typed", set())
    sys.modules.pop(MODULE, None)
    elsewhere = run.path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / f"{MODULE}.py").write_text("raise SystemExit")
    monkeypatch.syspath_prepend(str(elsewhere))
    with pytest.raises(ConfigError, match="has not trained with"):
        run.config()


def test_parts_of_a_library_and_of_the_package_are_not_outside() -> None:
    model = {"library": "timm", "name": "hf-hub:somebody/net"}
    assert trust.outside({"model": model, "method": {"name": "psg"}, "seed": 1}) == {}
    assert trust.outside({"norm": {"name": NAME}, "neuron": {"name": "b:C"}}) == {
        "norm.name": NAME,
        "neuron.name": "b:C",
    }
