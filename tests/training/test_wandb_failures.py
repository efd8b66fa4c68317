"""W&B is unreachable, refuses, hangs or dies: the record is complete, and one command uploads it."""

from __future__ import annotations

import logging
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb

from gradspike.config.schema import ExperimentConfig
from gradspike.loggers.wandb import WandbLogger
from gradspike.loggers.wandb_connection import sync_command
from gradspike.runs.folder import RunFolder
from helpers.command import variables_of
from helpers.wandb_records import final_summary, inspect_folder
from helpers.wandb_server import Server, wandb_server

Compose = Callable[..., ExperimentConfig]


@pytest.fixture(autouse=True)
def _fresh_client(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """W&B reads its variables once for each client process."""
    for name in [*filter(lambda name: name.startswith("WANDB_"), os.environ)]:
        monkeypatch.delenv(name)
    wandb.teardown()
    monkeypatch.setenv("WANDB_INIT_TIMEOUT", "0.5")
    monkeypatch.setenv("WANDB_FINISH_TIMEOUT", "0.5")
    yield
    wandb.teardown()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with wandb_server([]) as server:
        point_to(server.address, monkeypatch)
        monkeypatch.setenv("WANDB_INIT_TIMEOUT", "20")
        yield server


def point_to(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_BASE_URL", address)
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)


def record(config: ExperimentConfig, midway: Callable[[], None] = lambda: None) -> RunFolder:
    """Log five steps and a summary value as a run does; `midway` is called after the third step."""
    run = RunFolder.create(config)
    logger = WandbLogger(config, run)
    logger.start()
    for step in range(5):
        logger.log_metrics({"epoch": step, "train/loss": 1 / (step + 1)}, step)
        if step == 2:
            midway()
    logger._attempt(lambda run: run.summary.update({"test/last/accuracy": 0.5}))
    logger.close(None)
    wandb.teardown()  # as at exit: the last records are on disk
    return run


def said(caplog: pytest.LogCaptureFixture) -> tuple[str, list[Path]]:
    """All warnings, and the folders uploaded by the printed command."""
    text = "\n".join(entry.getMessage() for entry in caplog.records if entry.levelno >= logging.WARNING)
    (command,) = re.findall(r"Upload the run to W&B with: (.*)", text)
    words = shlex.split(command)
    folders = [Path(word) for word in words[2:] if not word.startswith("--")]
    assert command == sync_command(folders)
    return text, folders


def steps_of(records: list[dict[str, Any]]) -> list[int]:
    return [int(one["history"]["step"]["num"]) for one in records if one["type"] == "history"]


@pytest.mark.parametrize(
    "silent",
    [pytest.param(False, id="refuses"), pytest.param(True, id="never answers", marks=pytest.mark.slow)],
)
def test_unreachable_at_the_start(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, silent: bool
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        point_to(f"http://127.0.0.1:{listening.getsockname()[1]}", monkeypatch)
        if not silent:
            listening.close()
        run = record(tiny_config("logger=wandb"))
    _recorded_offline(run, caplog)


def test_no_such_host(tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
    point_to("http://wandb.invalid", monkeypatch)  # a name that never exists (RFC 2606)
    _recorded_offline(record(tiny_config("logger=wandb")), caplog)


@pytest.mark.parametrize("portal", ["page", "redirect"])
def test_login_page_of_a_network(
    tiny_config: Compose, server: Server, caplog: pytest.LogCaptureFixture, portal: str
) -> None:
    server.portal = portal
    _recorded_offline(record(tiny_config("logger=wandb")), caplog)
    assert "the login page of this network" in caplog.text


def _recorded_offline(run: RunFolder, caplog: pytest.LogCaptureFixture) -> None:
    """The run's only record is offline and complete, and the printed command names it."""
    text, (folder,) = said(caplog)
    assert "W&B (online) could not start" in text
    assert list((run.path / "wandb").glob("*run-*-*")) == [folder]  # the failed attempt leaves nothing
    assert folder.name.startswith("offline-run-")
    records = inspect_folder(folder)
    assert steps_of(records) == [0, 1, 2, 3, 4]
    assert final_summary(records)["test/last/accuracy"] == 0.5
    assert next(one["run"]["run_id"] for one in records if one["type"] == "run") == run.id


@pytest.mark.parametrize(
    ("status", "portal"),
    [
        pytest.param(404, None, id="refuses data"),
        pytest.param(None, None, id="is slow"),
        pytest.param(500, None, id="has errors", marks=pytest.mark.slow),
        pytest.param(200, "page", id="login page"),
        pytest.param(200, "redirect", id="redirected to a login page"),
    ],
)
def test_dying_midway(
    tiny_config: Compose,
    server: Server,
    caplog: pytest.LogCaptureFixture,
    status: int | None,
    portal: str | None,
) -> None:
    def fail() -> None:
        server.status, server.portal = status or 200, portal
        if status is None:
            server.answers.clear()

    started = time.monotonic()
    record(tiny_config("logger=wandb"), fail)
    assert time.monotonic() - started < 20
    text, (folder,) = said(caplog)
    assert final_summary(inspect_folder(folder))["test/last/accuracy"] == 0.5
    assert "W&B does not have the whole run" in text
    assert ("the login page of this network" in text) == (portal is not None)
    # The printed command works once the server is back.
    server.status, server.portal = 200, None
    server.answers.set()
    words = shlex.split(sync_command([folder]))
    result = subprocess.run(
        [sys.executable, "-m", *words],
        capture_output=True,
        text=True,
        timeout=60,
        env=variables_of(WANDB_BASE_URL=server.address, WANDB_API_KEY="a" * 40, WANDB_MODE="online"),
    )
    assert result.returncode == 0, result.stderr
    assert [one["train/loss"] for one in server.history()][-5:] == [1, 1 / 2, 1 / 3, 1 / 4, 1 / 5]


def test_a_server_that_takes_everything_needs_no_command(
    tiny_config: Compose, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    record(tiny_config("logger=wandb"))
    assert not [entry for entry in caplog.records if entry.levelno >= logging.WARNING]
    assert [one["_step"] for one in server.history()] == [0, 1, 2, 3, 4]


def test_the_client_dies(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """As if memory had run out. The rest is recorded in a second folder."""
    monkeypatch.setenv("WANDB_MODE", "offline")

    def kill() -> None:
        children = Path(f"/proc/{os.getpid()}/task/{os.getpid()}/children").read_text().split()
        (client,) = (one for one in children if b"wandb-core" in Path(f"/proc/{one}/cmdline").read_bytes())
        os.kill(int(client), signal.SIGKILL)
        # What is logged before W&B's own thread has noticed is lost, and only told at the end.
        for _ in range(1000):
            if "Reached EOF" in caplog.text or "Error reading server response" in caplog.text:
                return
            time.sleep(0.01)
        raise AssertionError("W&B did not notice the death of its client")

    run = record(tiny_config("logger=wandb"), kill)
    text, folders = said(caplog)
    assert "Its record continues offline and may lack 10 s" in text
    records = inspect_folder(folders[-1])
    assert steps_of(records)[-1] == 4
    assert final_summary(records)["test/last/accuracy"] == 0.5
    assert {one["run"]["run_id"] for one in records if one["type"] == "run"} == {run.id}


def test_the_command_names_what_wandb_would_skip(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    offline, online = tmp_path / "a b" / "offline-run-1-x", tmp_path / "run-1-x"
    assert sync_command([offline]) == "wandb sync 'a b/offline-run-1-x'"
    assert sync_command([online, offline]) == "wandb sync --include-online run-1-x 'a b/offline-run-1-x'"
