"""W&B and TensorBoard in addition to the files: their contents, and that their failures do not stop training."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import wandb

from gradspike.cli import train as launch
from gradspike.cli.resume import requested_config
from gradspike.config.compose import CONF_DIR
from gradspike.config.schema import ExperimentConfig
from gradspike.config.wandb_options import WandbConfig
from gradspike.errors import ConfigError
from gradspike.loggers.jsonl import JsonLines
from gradspike.loggers.wandb import WandbLogger
from gradspike.loggers.wandb_environment import check_environment, check_settings_file
from gradspike.loggers.wandb_login import logged_in
from gradspike.runs.folder import RunFolder
from gradspike.shown import shown
from gradspike.training import run as training
from helpers.command import IMPORT_TIMES, command, imported
from helpers.wandb_records import final_summary, inspect

Compose = Callable[..., ExperimentConfig]


@pytest.fixture(autouse=True)
def _logged_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [*filter(lambda name: name.startswith("WANDB_"), os.environ)]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", "/dev/null")


def epochs(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The history records at the end of an epoch; the others are from the probe."""
    return [record for record in records if record["type"] == "history" and "train/loss" in json.dumps(record)]


def test_wandb_offline_holds_everything(tiny_config: Compose) -> None:
    config = tiny_config("logger=wandb", "logger.project=test-project", "method=ds_atgo_at")
    run, summary = training.train(config, None, ["test"])
    records = inspect(run)
    start = next(record["run"] for record in records if record["type"] == "run")
    assert (start["project"], start["run_id"], start["run_group"]) == ("test-project", run.id, "ds_atgo_at")
    written = start["config"]["update"]
    plain = config.plain()
    assert {key: written[key] for key in plain} == plain
    history = [record["history"]["item"] for record in records if record["type"] == "history"]
    epochs = [entry for entry in history if "val/accuracy" in entry]
    recorded = [json.loads(line) for line in run.metrics.read_text().splitlines() if "val/accuracy" in line]
    assert [entry["val/accuracy"] for entry in epochs] == [entry["val/accuracy"] for entry in recorded]
    assert {"train/loss", "train/accuracy", "val/loss", "val/firing_rate", "lr", "epoch"} <= epochs[0].keys()
    final = final_summary(records)
    assert final["test/last/accuracy"] == summary["test"]["last"]["accuracy"]
    assert final["val/best/loss"] == summary["val"]["best"]["loss"]
    assert final["parameters"] == summary["parameters"]


def test_wandb_keeps_its_id_on_resume(tiny_config: Compose) -> None:
    run, _ = training.train(tiny_config("logger=wandb", "trainer.max_epochs=1"), None, ["test"])
    run.set_status("interrupted")
    training.train(run.config(), run, ["test"])
    starts = [record["run"]["run_id"] for record in inspect(run) if record["type"] == "run"]
    assert set(starts) == {run.id}
    assert len(starts) == 2


def test_two_wandb_runs_in_one_process_are_two(tiny_config: Compose) -> None:
    runs = [training.train(tiny_config("logger=wandb", "trainer.max_epochs=1"), None, ["test"])[0] for _ in range(2)]
    for run in runs:
        assert [record for record in inspect(run) if record["type"] == "run"]
        assert len(epochs(inspect(run))) == 1


NAMES = {
    "WANDB_PROJECT": "theirs", "WANDB_ENTITY": "team", "WANDB_RUN_GROUP": "their group", "WANDB_NAME": "their name",
    "WANDB_TAGS": "one,two", "WANDB_NOTES": "a note", "WANDB_JOB_TYPE": "job", "WANDB_RUN_ID": "id-1",
}  # fmt: skip
RECORDED = ("project", "entity", "run_group", "display_name", "tags", "notes", "job_type", "run_id")


@pytest.fixture
def own_client() -> Iterator[None]:
    """A client of W&B for this test alone: each reads the variables once."""
    wandb.teardown()
    yield
    wandb.teardown()


def start_record(run: RunFolder) -> dict[str, Any]:
    return next(record["run"] for record in inspect(run) if record["type"] == "run")


@pytest.mark.usefixtures("own_client")
def test_variables_of_wandb_win_over_our_defaults(tiny_config: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NAMES.items():
        monkeypatch.setenv(name, value)
    run, _ = training.train(tiny_config("logger=wandb", "trainer.max_epochs=1"), None, ["test"])
    expected = ["theirs", "team", "their group", "their name", ["one", "two"], "a note", "job", "id-1"]
    assert [start_record(run)[key] for key in RECORDED] == expected


@pytest.mark.usefixtures("own_client")
def test_what_is_typed_wins_over_variables(tiny_config: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in NAMES.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("WANDB_MODE", "disabled")
    typed = ["logger.project=gradspike", "logger.entity=me", "logger.group=mine", "logger.tags=[x]"]
    run, _ = training.train(
        tiny_config("logger=wandb", "trainer.max_epochs=1", "logger.mode=offline", *typed), None, ["test"]
    )
    expected = ["gradspike", "me", "mine", ["x"]]
    assert [start_record(run)[key] for key in ("project", "entity", "run_group", "tags")] == expected


@pytest.mark.usefixtures("own_client")
def test_a_variable_that_is_set_and_empty_is_unset(tiny_config: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NAMES, "WANDB_MODE", "WANDB_DIR", "WANDB_CONSOLE", "WANDB_INIT_TIMEOUT", "WANDB_SILENT"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("WANDB_TAGS", " ,")
    monkeypatch.setenv("WANDB_JOB_TYPE", " ")
    run, _ = training.train(tiny_config("logger=wandb", "trainer.max_epochs=1"), None, ["test"])
    (folder,) = run.path.glob("wandb/offline-run-*")
    assert [line.partition(" W&B: ")[2] for line in run.log.read_text().splitlines() if "W&B" in line] == [
        "not logged in, so the run is recorded offline (log in with: wandb login)",
        f"the record is offline in {shown(folder)}",
        f"upload it with: wandb sync {shown(folder)}",
    ]
    start = start_record(run)
    assert (start["project"], start["run_group"], start["run_id"]) == ("gradspike", "mpd_agl", run.id)
    assert (start["display_name"], start.get("tags"), start.get("entity")) == (run.path.name, None, None)


@pytest.mark.usefixtures("own_client")
def test_wandb_mode_and_folder_of_the_environment(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")
    run, _ = training.train(tiny_config("logger=wandb", "trainer.max_epochs=1"), None, ["test"])
    assert "W&B" not in run.log.read_text()
    assert not (run.path / "wandb").exists()
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DIR", str(tmp_path / "theirs"))
    run, _ = training.train(tiny_config("logger=wandb", "trainer.max_epochs=1"), None, ["test"])
    assert list((tmp_path / "theirs").glob(f"wandb/offline-run-*-{run.id}"))
    assert not (run.path / "wandb").exists()


def test_settings_of_the_environment_win(tiny_config: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    import wandb

    seen: list[wandb.Settings] = []
    monkeypatch.setattr(wandb, "init", lambda **given: seen.append(given["settings"]) or Mock())
    for seconds in ("", "7"):
        monkeypatch.setenv("WANDB_INIT_TIMEOUT", seconds)
        config = tiny_config("logger=wandb")
        WandbLogger(config, RunFolder(Path("run"))).start()
    ours, theirs = (settings.model_dump(exclude_unset=True) for settings in seen)
    assert (ours["init_timeout"], ours["console"]) == (8.0, "off")
    assert "init_timeout" not in theirs


def test_an_id_of_the_environment_is_kept_without_wandbs_files(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With WANDB_DIR elsewhere, a resumed run began another W&B run."""
    config = tiny_config("logger=wandb")
    run = RunFolder.create(config)
    own = run.id
    monkeypatch.setattr("wandb.init", lambda **given: Mock())
    for _ in range(2):
        monkeypatch.setenv("WANDB_RUN_ID", "theirs")
        WandbLogger(config, run).start()
        monkeypatch.delenv("WANDB_RUN_ID")
    assert WandbLogger(config, run)._names()["id"] == "theirs"
    assert run.id == own


@pytest.mark.usefixtures("own_client")
def test_a_resumed_run_stays_where_it_is(tiny_config: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the environment variables of the first session are no longer set."""
    with monkeypatch.context() as first:
        first.setenv("WANDB_PROJECT", "theirs")
        first.setenv("WANDB_RUN_ID", "id-1")
        run, _ = training.train(tiny_config("logger=wandb", "trainer.max_epochs=1"), None, ["test"])
    run.set_status("interrupted")
    training.train(run.config(), run, ["test"])
    starts = [record["run"] for record in inspect(run) if record["type"] == "run"]
    assert [(start["project"], start["run_id"]) for start in starts] == [("theirs", "id-1")] * 2


@pytest.mark.parametrize(
    ("typed", "variables", "said"),
    [
        (["logger.project=team/project"], {}, "logger.project=team/project: must not contain /; write the team as "
         "logger.entity=team logger.project=project"),
        (["logger.project=a/b/c"], {}, "logger.project=a/b/c: must not contain /, which W&B does not allow"),
        (["logger.project='a b?'"], {}, "must not contain ?, which W&B does not allow"),
        (["logger.project=" + "x" * 129], {}, "must have at most 128 characters, which is W&B's limit; it has 129"),
        (["logger.project="], {}, "logger.project=: must not be empty"),
        (["logger.project='a\nb'"], {}, "must not contain control characters or line breaks"),
        (["logger.entity=a/b"], {}, "logger.entity=a/b: must not contain /"),
        (["logger.group=" + "x" * 129], {}, "logger.group=xxx"),
        (["logger.group="], {}, "logger.group=: must not be empty"),
        (["logger.tags=[" + "x" * 65 + "]"], {}, "a tag must have 1 to 64 characters"),
        ([], {"WANDB_PROJECT": "team/project"}, "the environment variable WANDB_PROJECT=team/project: must not contain "
         "/; write the team as WANDB_ENTITY=team WANDB_PROJECT=project"),
        ([], {"WANDB_PROJECT": "x" * 129}, "WANDB_PROJECT=xxx"),
        ([], {"WANDB_ENTITY": "a#b"}, "WANDB_ENTITY=a#b: must not contain #"),
        ([], {"WANDB_RUN_GROUP": "x" * 129}, "WANDB_RUN_GROUP=xxx"),
        ([], {"WANDB_NAME": "x" * 129}, "at most 128"),
        ([], {"WANDB_JOB_TYPE": "x" * 65}, "at most 64"),
        ([], {"WANDB_RUN_ID": "a/b"}, "WANDB_RUN_ID=a/b: must not contain /"),
        ([], {"WANDB_TAGS": "a," + "x" * 65}, "WANDB_TAGS=a,xxx"),
        ([], {"WANDB_MODE": "offlin"}, "WANDB_MODE=offlin: must be one of online, offline, disabled, shared, "
         "dryrun, run. Did you mean 'offline'?"),
        ([], {"WANDB_INIT_TIMEOUT": "soon"}, "WANDB_INIT_TIMEOUT=soon: must be a number of seconds"),
    ],
)  # fmt: skip
def test_names_that_wandb_refuses_are_refused_by_the_schema(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, typed: list[str], variables: dict[str, str], said: str
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as error:
        tiny_config("logger=wandb", *typed)
    assert said in str(error.value)
    tiny_config("logger=files")  # which reads no variable of W&B


def test_a_run_keeps_what_it_recorded(tiny_config: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """Reading a run needs no variable of W&B, and resuming it keeps its entity and tags, also if there are none."""
    run = RunFolder.create(tiny_config("logger=wandb"))
    for name, value in {**NAMES, "WANDB_MODE": "offlin"}.items():
        monkeypatch.setenv(name, value)
    resumed, _ = requested_config(str(run.path), [], [CONF_DIR])
    for config in (run.config(), resumed):
        assert isinstance(config.logger, WandbConfig)
        assert (config.logger.project, config.logger.entity, config.logger.group) == ("gradspike", None, None)
        assert config.logger.tags == ()
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = WandbLogger(resumed, run)
    logger.start()
    logger.close(None)
    start = start_record(run)
    assert (start["project"], start["run_group"]) == ("gradspike", "mpd_agl")
    assert (start.get("entity"), start.get("tags")) == (None, None)


def test_a_logger_added_on_resume_takes_the_variables(tiny_config: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.create(tiny_config("logger=files"))
    monkeypatch.setenv("WANDB_ENTITY", "team")
    config, _ = requested_config(str(run.path), ["logger=wandb"], [CONF_DIR])
    assert isinstance(config.logger, WandbConfig)
    assert config.logger.entity == "team"


def test_a_resumed_run_still_refuses_a_wrong_mode(tiny_config: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    run = RunFolder.create(tiny_config("logger=wandb"))
    monkeypatch.setenv("WANDB_MODE", "offlin")
    config, words = requested_config(str(run.path), [], [CONF_DIR])
    with pytest.raises(ConfigError, match=r"WANDB_MODE=offlin: must be one of .* Did you mean 'offline'"):
        launch.train(config, words)


def test_spaces_around_values_are_no_part_of_them(tiny_config: Compose, monkeypatch: pytest.MonkeyPatch) -> None:
    """W&B refuses an id with spaces and an empty tag; it reads the variables itself."""
    for name, value in {"WANDB_RUN_ID": " one ", "WANDB_TAGS": " a,,b , ", "WANDB_PROJECT": " p "}.items():
        monkeypatch.setenv(name, value)
    options = tiny_config("logger=wandb").logger
    assert isinstance(options, WandbConfig)
    assert (options.project, options.tags) == ("p", ("a", "b"))
    check_environment()
    assert [os.environ[name] for name in ("WANDB_RUN_ID", "WANDB_TAGS", "WANDB_PROJECT")] == ["one", "a,b", "p"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("WANDB_RESUME", "maybe", "WANDB_RESUME=maybe: Input should be 'allow', 'must', 'never' or 'auto'"),
        ("WANDB_CONSOLE", "loud", "WANDB_CONSOLE=loud: Input should be"),
        ("WANDB_SILENT", "perhaps", "WANDB_SILENT=perhaps: Input should be a valid boolean"),
        ("WANDB_BASE_URL", "https://wandb.ai", "WANDB_BASE_URL=https://wandb.ai: "),
        ("WANDB_HTTP_TIMEOUT", "soon", "WANDB_HTTP_TIMEOUT=soon: Input should be a valid number"),
        ("WANDB__STATS_SAMPLING_INTERVAL", "0", "WANDB__STATS_SAMPLING_INTERVAL=0: "),
        ("WANDB_FORK_FROM", "run?_step=5", "WANDB_FORK_FROM=run?_step=5 cannot be used"),
    ],
)
def test_variables_that_wandb_refuses_are_refused_before_a_run(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, name: str, value: str, said: str
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as error:
        launch.train(tiny_config("logger=wandb"), [])
    assert said in str(error.value)
    assert not list((tmp_path / "runs").glob("*"))


def test_a_refused_project_costs_a_second_and_no_folder(tiny: Callable[..., list[str]], tmp_path: Path) -> None:
    words = ["train", *tiny("logger=wandb")]
    for more, variables in ((["logger.project=team/x"], {}), ([], {"WANDB_PROJECT": "team/x"})):
        result = command(*words, *more, python=IMPORT_TIMES, **variables)
        assert result.returncode == 2
        assert not {"torch", "lightning", "wandb"} & imported(result.stderr)
    assert not (tmp_path / "runs").exists()


def test_a_settings_file_of_wandb_in_the_working_folder_moves_no_run(
    tiny_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`wandb init` has written it for other runs. W&B would send this one to another team."""
    file = tmp_path / "wandb" / "settings"
    file.parent.mkdir()
    monkeypatch.chdir(tmp_path)
    file.write_text("[default]\nentity = others\nproject = theirs\nmode = disabled\n")
    with pytest.raises(ConfigError, match=r"W&B would read entity=others .* Type logger.entity=others, or"):
        launch.train(tiny_config("logger=wandb"), [])
    assert not (tmp_path / "runs").exists() or not list((tmp_path / "runs").iterdir())
    check_settings_file(tiny_config("logger=wandb", "logger.entity=others").logger)  # type: ignore[arg-type]
    file.write_text("[default]\napi_key = secret\n")
    with pytest.raises(ConfigError, match=r"api_key=\*\*\* "):
        check_settings_file(tiny_config("logger=wandb").logger)  # type: ignore[arg-type]


def test_a_folder_of_wandb_that_cannot_be_used(tiny: Callable[..., list[str]], tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    result = command("train", *tiny("logger=wandb"), WANDB_DIR=str(tmp_path / "file" / "x"))
    assert (result.returncode, result.stdout) == (1, "")
    assert result.stderr.startswith(f"Error: The environment variable WANDB_DIR={tmp_path / 'file' / 'x'}: cannot be")
    assert not list((tmp_path / "runs").glob("*"))


def test_a_multirun_is_not_one_wandb_run(tiny: Callable[..., list[str]]) -> None:
    result = command("train", *tiny("logger=wandb", "seed=0,1", "-m"), WANDB_RUN_ID="one")
    assert result.returncode == 2
    assert "WANDB_RUN_ID=one is one W&B run, and a multirun has several" in result.stderr


def test_login_with_empty_variables(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / ".netrc").write_text(f"machine api.wandb.ai login user password {'a' * 40}\n")
    (tmp_path / ".netrc").chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("NETRC", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.setenv(name, "")
    assert logged_in()


@pytest.mark.parametrize("broken", ["init", "log"])
def test_wandb_that_breaks_does_not_stop_training(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, broken: str
) -> None:
    import wandb

    def fail(*args: Any, **kwargs: Any) -> None:
        raise RuntimeError("the service is gone")

    if broken == "init":
        monkeypatch.setattr(wandb, "init", fail)
    else:
        monkeypatch.setattr(wandb.Run, "log", fail)
    run, summary = training.train(tiny_config("logger=wandb"), None, ["test"])
    assert summary["test"]["last"]["accuracy"] > 0
    assert "the service is gone" in run.log.read_text()


def test_tensorboard_holds_the_curves(tiny_config: Compose) -> None:
    pytest.importorskip("tensorboard", reason="tensorboard is an optional extra")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run, _ = training.train(tiny_config("logger=tensorboard"), None, ["test"])
    events = EventAccumulator(str(run.path / "tensorboard"))
    events.Reload()
    curve = [event.value for event in events.Scalars("val/accuracy")]
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    recorded = [record["val/accuracy"] for record in records if "val/accuracy" in record]
    assert curve == pytest.approx(recorded)


def test_json_lines_writes_valid_json_for_numbers_that_are_not_finite(tmp_path: Path) -> None:
    logger = JsonLines(tmp_path / "metrics.jsonl")
    logger.log_metrics({"a": float("nan"), "b": 1.5}, 3)
    size = logger.size_on_disk()
    logger.log_metrics({"a": 2.0}, 4)
    logger.cut(size)
    assert [json.loads(line) for line in logger.file.read_text().splitlines()] == [{"step": 3, "a": None, "b": 1.5}]
