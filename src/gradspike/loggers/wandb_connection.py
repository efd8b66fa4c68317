"""The connection of a run to W&B. Whatever fails, the record continues in a local folder that `wandb sync` uploads."""

from __future__ import annotations

import logging
import shutil
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from gradspike.shown import relative, shell_words, shown
from gradspike.variables import variable

log = logging.getLogger(__name__)

SETTINGS = {"init_timeout": 8, "finish_timeout": 10, "silent": True, "console": "off"}
"""Settings where WANDB_INIT_TIMEOUT, WANDB_FINISH_TIMEOUT, WANDB_SILENT and WANDB_CONSOLE say nothing else.

A run waits at most so many seconds for W&B, whose own defaults are 90 s at the start and no limit at the end.
"""
OFFLINE = "offline"
NO_JSON = ("looking for beginning of value", "unexpected end of JSON input")
"""How W&B's client, written in Go, words an answer that is no JSON, such as the login page of a hotel's network."""
WEB_PAGE = "something else answered in its place, such as the login page of this network"
HEADER_BYTES = 7
"""The size of a .wandb file without records. W&B's client writes records to disk every few seconds."""


class Connection:
    """A W&B run, online or offline. No method raises an error of W&B; each problem is one warning.

    run: the arguments of `wandb.init` that name the run.
    """

    def __init__(self, run: Mapping[str, Any]) -> None:
        self._named = dict(run)
        self._run: Any = None
        self._unsent: list[Path] = []
        """Folders of records that W&B was meant to get and did not."""
        self._reopened = False

    def open(self, mode: str) -> None:
        """Open the W&B run, offline if that fails in `mode`."""
        for attempt in dict.fromkeys((mode, OFFLINE)):
            before = self._folders()
            try:
                self._run = self._init(attempt)
            except Exception as error:
                log.warning("W&B (%s) could not start: %s", attempt, _one_line(error))
                self._drop_client()
                for folder in self._folders() - before:  # an empty record under the id of the run
                    shutil.rmtree(folder, ignore_errors=True)
                continue
            if attempt != mode:
                self._unsent.append(self._folder())
            return

    def attempt(self, action: Callable[[Any], object]) -> None:
        """Call `action` with the W&B run. If W&B's client has died, continue once in a new offline record."""
        if self._run is None:
            return
        try:
            action(self._run)
        except Exception as error:
            folder = self._folder()
            self._drop_client()
            if _has_records(folder):
                self._unsent.append(folder)
            if self._reopened:
                log.warning("W&B failed again (%s). The files in the run folder stay complete.", _one_line(error))
                return
            log.warning("W&B failed (%s). Its record continues offline and may lack 10 s.", _one_line(error))
            self._reopened = True
            self.open(OFFLINE)
            if self._run is not None:
                self._unsent.append(self._folder())
            self.attempt(action)

    def close(self, exit_code: int) -> None:
        """End the W&B run, and say how to upload what W&B did not get."""
        if self._run is not None:
            folder, logged = self._folder(), Path(self._run.settings.log_internal)
            try:
                self._run.finish(exit_code=exit_code)
                problem = _refused(logged)
            except TimeoutError:
                problem = f"it did not take everything within {self._run.settings.finish_timeout:g} s"
            except Exception as error:
                problem = f"{_one_line(error)}; the last 10 s may be missing"
                self._drop_client()
            if problem:
                log.warning("W&B does not have the whole run: %s.", problem)
                self._unsent.append(folder)
            if folder.name.startswith(f"{OFFLINE}-") and folder not in self._unsent:
                log.info("W&B: the record is offline in %s", shown(folder))
                log.info("W&B: upload it with: %s", sync_command([folder]))
        self._run = None
        if self._unsent:
            log.warning("Upload the run to W&B with: %s", sync_command(list(dict.fromkeys(self._unsent))))

    def _init(self, mode: str) -> Any:
        import wandb

        settings = {key: value for key, value in SETTINGS.items() if variable(f"WANDB_{key.upper()}") is None}
        run = wandb.init(
            **self._named,
            mode=mode,  # type: ignore[arg-type]
            reinit="finish_previous",
            settings=wandb.Settings(**settings, finish_timeout_raises=True),  # type: ignore[arg-type]
        )
        run.define_metric("epoch")
        return run

    def _folder(self) -> Path:
        return Path(self._run.settings.sync_dir)

    def _folders(self) -> set[Path]:
        """All folders with records of this run."""
        return set(Path(self._named["dir"]).glob(f"wandb/*run-*-{self._named['id']}"))

    def _drop_client(self) -> None:
        """End W&B's client process, which would refuse to open the same run again and fail once more at the exit."""
        import wandb

        self._run = None
        with suppress(Exception):
            wandb.teardown()


def sync_command(folders: list[Path]) -> str:
    """The command that uploads these folders of W&B. It would skip those of online runs without being told."""
    online = any(not folder.name.startswith("offline-") for folder in folders)
    words = ["wandb", "sync", *(["--include-online"] if online else [])]
    return shell_words([*words, *(str(relative(folder)) for folder in folders)])


def _has_records(folder: Path) -> bool:
    """Whether W&B's client has written more than the file's header before it died."""
    return any(file.stat().st_size > HEADER_BYTES for file in folder.glob("*.wandb"))


def _refused(logged: Path) -> str | None:
    """Why W&B's client gave up uploading, from its log, which is the only place that has it.

    It takes a login page that answers with status 200 for a success and does not send the data again.
    """
    with suppress(OSError):
        for line in logged.read_text(encoding="utf-8", errors="replace").splitlines():
            if '"level":"ERROR+' in line:
                return "its server refused data, see " + shell_words([str(relative(logged))])
            if '"level":"ERROR"' in line and any(words in line for words in NO_JSON):
                return f"{WEB_PAGE}, see " + shell_words([str(relative(logged))])
    return None


def _one_line(error: Exception) -> str:
    said = " ".join(str(error).split()) or type(error).__name__
    return f"{WEB_PAGE} ({said})" if any(words in said for words in NO_JSON) else said
