"""`resume=auto` names the runs that it cannot look at."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from gradspike.config.compose import load_config
from gradspike.runs.folder import RunFolder
from gradspike.runs.newest import newest_run
from helpers.limits import permissions_count


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        ("closed folder", "{run} cannot be read (Permission denied), so it is not continued."),
        ("closed file", "{run}/config.yaml is damaged or cannot be read, so this run is not continued."),
        ("no yaml", "{run}/config.yaml is damaged or cannot be read, so this run is not continued."),
        ("half", "{run}/config.yaml is damaged or cannot be read, so this run is not continued."),
        ("empty", "{run}/config.yaml is damaged or cannot be read, so this run is not continued."),
    ],
)
def test_a_run_that_cannot_be_read_is_named(
    tmp_path: Path, damage: str, said: str, caplog: pytest.LogCaptureFixture
) -> None:
    config = load_config(["dataset=digits", f"runs_dir={tmp_path}"])
    whole, spoilt = sorted((RunFolder.create(config) for _ in range(2)), key=lambda run: run.path.name)
    file = spoilt.path / "config.yaml"
    text = file.read_text()
    if damage == "closed folder":
        spoilt.path.chmod(0)
    elif damage == "closed file":
        file.chmod(0)
    else:
        file.write_text({"no yaml": "{" + text, "half": text[: text.index("seed:")], "empty": ""}[damage])
    with caplog.at_level(logging.WARNING, logger="gradspike"), permissions_count():
        found = newest_run(config)
    spoilt.path.chmod(0o700)
    assert found is not None
    assert found.path == whole.path
    assert [record.getMessage() for record in caplog.records] == ["resume=auto: " + said.format(run=spoilt.path)]
