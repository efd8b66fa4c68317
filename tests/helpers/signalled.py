"""Trainings that get a signal at a chosen moment."""

from __future__ import annotations

from typing import Any

from helpers.forks import Forked, fork_server


def start(words: list[str], **options: Any) -> Forked:
    ranks = 1 + ("trainer.devices=2" in words)
    return fork_server().start("train", *words, **{"ranks": ranks} | options)
