"""Whole runs: what they write, that they are repeatable, that an interrupted run ends like an unbroken one."""

from __future__ import annotations

import errno
import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from gradspike.cli import train as launch
from gradspike.cli.evaluate import evaluate
from gradspike.config.compose import CONF_DIR, load_config, options_of
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError, UserError
from gradspike.methods.registry import METHODS
from gradspike.runs.folder import RunFolder
from gradspike.runs.resume import resumed_config
from gradspike.training.checkpoint import AtomicFiles, load_checkpoint
from gradspike.training.module import Diverged, SpikingClassifier
from helpers.forks import Forked, fork_server
from helpers.runs import assert_same_run, epoch_records, train

Compose = Callable[..., ExperimentConfig]


def test_run_folder_is_complete(tiny_config: Compose) -> None:
    config = tiny_config("seed=3", "method=ds_atgo_at")
    run = train(config)
    assert "_ds_atgo_at_digits_spiking_cnn_s3_" in run.path.name
    assert run.config() == config
    assert run.state() == "finished"
    records = epoch_records(run)
    assert [record["epoch"] for record in records] == [0, 1]
    names = {"train/loss", "train/accuracy", "val/loss", "val/accuracy", "val/firing_rate", "lr", "step"}
    assert names <= set(records[0])
    summary = run.summary()
    assert summary["val"]["last"]["accuracy"] == records[-1]["val/accuracy"]
    assert summary["val"]["best"]["accuracy"] == max(record["val/accuracy"] for record in records)
    assert 0 <= summary["test"]["best"]["accuracy"] <= 1
    assert 0 < summary["test"]["last"]["firing_rate"] < 1
    session = json.loads((run.path / "environment.json").read_text())[0]
    assert session["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert (run.path / "run.log").read_text()
    timing = [json.loads(line) for line in run.timing.read_text().splitlines()]
    assert all(line["samples_per_second"] > 0 for line in timing)


# Ablations share the code of their method, so they need not see both kinds of data.
ON_DATA = [(method, "digits") for method in options_of("method", [CONF_DIR])]
ON_DATA += [(method, "digits_events") for method in METHODS.names()]


@pytest.mark.parametrize(("method", "dataset"), ON_DATA)
def test_every_method_and_ablation_trains_from_its_name(tiny_config: Compose, method: str, dataset: str) -> None:
    options = ["time_steps=3", "dataset.batch_size=256", "trainer.max_epochs=1"]
    run = train(tiny_config(f"method={method}", f"dataset={dataset}", *options))
    assert run.summary()["method"] == method
    records = [json.loads(line) for line in run.metrics.read_text().splitlines()]
    assert any("probe_val/mean/gradient_available" in record for record in records)


def test_the_twin_is_named_and_grouped_apart_from_every_method(tiny_config: Compose) -> None:
    run = train(tiny_config("model.activation=relu", "trainer.max_epochs=1"))
    assert "_relu_digits_spiking_cnn_" in run.path.name
    assert run.summary()["method"] == "relu"


def test_checkpoints_are_plain(tiny_config: Compose) -> None:
    run = train(tiny_config())
    checkpoint = torch.load(run.last, weights_only=True)
    assert checkpoint["config"]["method"]["name"] == "mpd_agl"


def test_two_runs_in_one_second_have_two_folders(tiny_config: Compose) -> None:
    config = tiny_config()
    assert len({RunFolder.create(config).path for _ in range(20)}) == 20


@pytest.mark.parametrize("extra", [[], ["trainer.precision=bf16"], ["method=psg_pda", "trainer.gradient_clip=1"]])
def test_same_seed_same_run_and_another_seed_another(tiny_config: Compose, extra: list[str]) -> None:
    first, second, other = (train(tiny_config(f"seed={seed}", *extra)) for seed in (0, 0, 1))
    assert_same_run(first, second)
    assert first.metrics.read_bytes() != other.metrics.read_bytes()


def test_a_run_killed_between_epochs_resumes_bit_for_bit(tiny_config: Compose, tiny: Callable[..., list[str]]) -> None:
    unbroken = train(tiny_config("trainer.max_epochs=3"))
    run = killed(tiny("trainer.max_epochs=3", "runs_dir=" + str(unbroken.path.parent / "killed")), signal.SIGKILL)
    assert run.state() == "running"
    assert launch.train(tiny_config(f"resume={run.path}"), [f"resume={run.path}"]) == 0
    assert_same_run(unbroken, run)


@pytest.mark.parametrize(
    ("signum", "method"),
    [
        (signal.SIGTERM, ["method=ds_atgo"]),
        (signal.SIGINT, ["method=ds_atgo"]),
        (signal.SIGHUP, ["method=ds_atgo"]),
        (signal.SIGTERM, ["method=asgl", "method.gamma=0.5"]),  # noise whose share follows the epoch
        pytest.param(signal.SIGTERM, ["method=dspike_adaptive", "method.weights=4"], marks=pytest.mark.slow),
    ],
)
def test_a_run_stopped_within_an_epoch_resumes_bit_for_bit(
    tiny_config: Compose, tiny: Callable[..., list[str]], signum: signal.Signals, method: list[str]
) -> None:
    options = ["trainer.max_epochs=8", *method, "checkpoint.every_n_steps=5"]
    unbroken = train(tiny_config(*options))
    words = tiny(*options, f"runs_dir={unbroken.path.parent / 'stopped'}")
    run = killed(words, signum)
    assert run.state() == "interrupted"
    assert load_checkpoint(run.last)["epoch"] < 7
    launch.train(tiny_config(f"resume={run.path}"), [f"resume={run.path}"])
    assert_same_run(unbroken, run)


def start(words: list[str], **options: Any) -> Forked:
    ranks = 1 + ("trainer.devices=2" in words)
    return fork_server().start("train", *words, **{"ranks": ranks} | options)


def signal_at(process: Forked, line: str, signum: signal.Signals, group: bool = False) -> str:
    """Send a signal once a line that begins with `line` is printed. Returns all output."""
    output = ""
    for printed in process.stdout:
        output += printed
        if printed.startswith(line):
            os.killpg(process.pid, signum) if group else process.send_signal(signum)
            break
    return output + process.communicate()[0]


@pytest.mark.parametrize("line", ["run: ", "epoch 1/1"])
@pytest.mark.parametrize("signum", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_before_the_first_step_or_after_the_last(
    tiny: Callable[..., list[str]], tmp_path: Path, signum: signal.Signals, line: str
) -> None:
    """While the trainer starts, at the last checkpoint, in the final test: exit code never 0, always resumable."""
    process = start(tiny("trainer.max_epochs=1", "trainer.progress=lines"))
    output = signal_at(process, line, signum)
    run = RunFolder(next((tmp_path / "runs").glob("2*")))
    assert (process.returncode, run.state()) == (128 + signum, "interrupted"), output
    assert "Traceback" not in output
    assert f"resume={run.path}" in output
    assert launch.train(run.config(), [f"resume={run.path}"]) == 0


def test_a_signal_ends_a_whole_multirun(tiny: Callable[..., list[str]], tmp_path: Path) -> None:
    process = start(["-m", "seed=0,1,2", *tiny("trainer.max_epochs=50", "trainer.progress=lines")])
    output = signal_at(process, "epoch  1/50", signal.SIGINT)
    assert process.returncode == 128 + signal.SIGINT, output
    assert len(list((tmp_path / "runs").glob("2*"))) == 1
    assert "Traceback" not in output


@pytest.mark.parametrize("case", ["diverges", "ctrl-c"])
def test_two_processes_end_as_one(tiny: Callable[..., list[str]], tmp_path: Path, case: str) -> None:
    words = ["trainer.devices=2", "trainer.max_epochs=50", "trainer.progress=lines"]
    process = start(tiny(*words, *(["optimizer.lr=1e30"] if case == "diverges" else [])), start_new_session=True)
    if case == "diverges":
        output, code, state = process.communicate(timeout=120)[0], 1, "failed"
        assert output.count("Error: The loss became NaN or infinite") == 1, output
    else:
        output, code, state = signal_at(process, "epoch  1/50", signal.SIGINT, group=True), 130, "interrupted"
        assert output.count("Stopped by SIGINT after saving its state.") == 1, output
    run = RunFolder(next((tmp_path / "runs").glob("2*")))
    assert (process.returncode, run.state()) == (code, state), output
    assert "Traceback" not in output


def test_a_signal_to_one_of_two_processes_stops_both_at_one_step(
    tiny: Callable[..., list[str]], tmp_path: Path
) -> None:
    words = tiny("trainer.devices=2", "trainer.max_epochs=4", "trainer.progress=lines", "checkpoint.every_n_steps=1000")
    unbroken = start([*words, f"runs_dir={tmp_path / 'unbroken'}"])
    output = unbroken.communicate()[0]
    assert unbroken.returncode == 0, output
    process = start(words)
    assert process.stdout is not None
    output = next(line for line in process.stdout if line.startswith("epoch 1/4"))
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    second = [int(pid) for pid in children if Path(f"/proc/{pid}/comm").read_text() == "rank1\n"]
    os.kill(second[0], signal.SIGTERM)
    output += process.communicate()[0]
    run = RunFolder(next((tmp_path / "runs").glob("2*")))
    assert (process.returncode, run.state()) == (128 + signal.SIGTERM, "interrupted"), output
    assert output.count("after saving its state") == 1, output
    assert "Traceback" not in output
    assert load_checkpoint(run.last)["epoch"] < 3
    resumed = start([f"resume={run.path}"], ranks=2)
    output = resumed.communicate()[0]
    assert resumed.returncode == 0, output
    states = [
        load_checkpoint(RunFolder(next(tmp_path.glob(f"{name}/2*"))).last)["state_dict"]
        for name in ("unbroken", "runs")
    ]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)


def killed(words: list[str], signum: signal.Signals) -> RunFolder:
    """Start a run as a process, end it once its first epoch is saved, and check the exit code."""
    folder = Path(next(word for word in reversed(words) if word.startswith("runs_dir=")).partition("=")[2])
    process = start(words)
    deadline = time.monotonic() + 120
    while not list(folder.glob("*/checkpoints/last.ckpt")):
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(process.pid, signum)
    output = process.communicate()[0]
    if signum == signal.SIGKILL:
        assert process.returncode == -signum
    else:
        assert process.returncode == 128 + signum, output
        assert "resume=" in output
    assert "Traceback" not in output
    return RunFolder(next(folder.glob("2*")))


@pytest.mark.parametrize("optimizer", ["adamw", "lamb"])
def test_a_checkpoint_within_an_epoch_continues_with_the_next_batch(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, optimizer: str
) -> None:
    """A crash five batches after the newest save: those batches are trained again, the epoch's running numbers
    included.
    """
    options = ("checkpoint.every_n_steps=7", f"optimizer={optimizer}")
    unbroken = train(tiny_config(*options))
    steps = 0
    original = SpikingClassifier.training_step

    def failing(self: Any, batch: Any, batch_idx: int) -> Any:
        nonlocal steps
        steps += 1
        if steps == 19 + 12:
            raise OSError("the disk is gone")
        return original(self, batch, batch_idx)

    monkeypatch.setattr(SpikingClassifier, "training_step", failing)
    config = tiny_config(*options, f"runs_dir={unbroken.path.parent / 'crashed'}")
    with pytest.raises(OSError, match="the disk is gone"):
        train(config)
    monkeypatch.undo()
    run = RunFolder(next((unbroken.path.parent / "crashed").glob("2*")))
    assert run.state() == "failed"
    assert load_checkpoint(run.last)["global_step"] == 28
    train(run.config(), run)
    assert_same_run(unbroken, run)


def test_a_finished_run_is_left_alone(tiny_config: Compose, capsys: pytest.CaptureFixture[str]) -> None:
    run = train(tiny_config())
    before = {file: file.stat().st_mtime_ns for file in run.path.rglob("*") if file.is_file()}
    assert launch.train(tiny_config(f"resume={run.path}"), [f"resume={run.path}"]) == 0
    assert "is finished" in capsys.readouterr().out
    assert before == {file: file.stat().st_mtime_ns for file in run.path.rglob("*") if file.is_file()}


def test_resume_refuses_another_configuration(tiny_config: Compose) -> None:
    run = RunFolder.create(tiny_config())
    words = [f"resume={run.path}", "optimizer.lr=0.3", "method=fixed_sg", "trainer.progress=lines"]
    with pytest.raises(ConfigError, match="keeps its configuration") as error:
        launch.train(tiny_config(*words), words)
    assert "optimizer.lr: the run has 0.1, the command line 0.3" in str(error.value)
    assert "method.name: the run has mpd_agl, the command line fixed_sg" in str(error.value)
    assert "progress:" not in str(error.value)


@pytest.mark.parametrize(
    ("started_with", "typed"),
    [
        ("method=mpd_agl_no_gamma", "method=mpd_agl"),
        ("method=mpd_agl", "method=mpd_agl_no_time"),
        ("seed=0", "trainer=ddp4"),
    ],
)
def test_resume_refuses_another_variant(tiny_config: Compose, started_with: str, typed: str) -> None:
    run = RunFolder.create(tiny_config(started_with))
    with pytest.raises(ConfigError, match="keeps its configuration"):
        resumed_config(run, tiny_config(typed), [typed])
    resumed_config(run, tiny_config(started_with), [started_with])


def test_a_group_and_its_keys_typed_again_are_the_same_run(tiny_config: Compose) -> None:
    words = ["dataset=digits", "dataset.batch_size=32", "dataset.workers=1"]
    run = RunFolder.create(tiny_config("dataset=digits", "dataset.batch_size=32"))
    assert resumed_config(run, tiny_config(*words), words).dataset.workers == 1


def test_resume_refuses_other_samples(tiny_config: Compose) -> None:
    """On resume, the data may have moved but must be the same."""
    run = train(tiny_config("trainer.max_epochs=1"))
    content = load_checkpoint(run.last)
    assert len(content["data"]) == 64
    torch.save({**content, "data": "another"}, run.last)
    config = run.config()
    with pytest.raises(UserError, match="the run was trained on samples with the digest"):
        train(config, run)


def test_a_home_folder_is_expanded(tiny_config: Compose, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    run = RunFolder.create(tiny_config("runs_dir='~/my runs'"))
    assert run.path.parent == tmp_path / "my runs"
    assert RunFolder.open(f"~/my runs/{run.path.name}").path == run.path


def test_a_checkpoint_that_cannot_be_saved_leaves_the_previous_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "last.ckpt"
    target.write_bytes(b"whole")

    def full(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", full)
    with pytest.raises(UserError, match="No space left"):
        AtomicFiles().save_checkpoint({}, target)
    assert [file.name for file in tmp_path.iterdir()] == ["last.ckpt"]
    assert target.read_bytes() == b"whole"


def test_damaged_small_files_do_not_matter(tiny_config: Compose) -> None:
    run = RunFolder.create(tiny_config("trainer.max_epochs=1"))
    (run.path / "environment.json").write_text("{")
    train(run.config(), run)
    assert json.loads((run.path / "environment.json").read_text())[0] == {"damaged": "{"}


def test_evaluate_of_another_network(tiny_config: Compose) -> None:
    run = train(tiny_config("trainer.max_epochs=1"))
    config = yaml.safe_load((run.path / "config.yaml").read_text())
    config["model"]["width"] = 8
    (run.path / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="does not fit the network"):
        evaluate([f"run={run.path}"])


def test_weights_that_blow_up_in_the_last_step_are_noticed(tiny_config: Compose) -> None:
    with pytest.raises(Diverged):
        train(tiny_config("dataset.batch_size=100000", "trainer.max_epochs=1", "optimizer.lr=1e38"))


def test_resume_of_a_run_without_a_checkpoint_starts_it(tiny_config: Compose) -> None:
    run = RunFolder.create(tiny_config())
    launch.train(tiny_config(f"resume={run.path}"), [f"resume={run.path}"])
    assert run.state() == "finished"


@pytest.mark.parametrize("damage", ["cut short", "empty", "another file"])
def test_a_damaged_checkpoint_is_refused(tiny_config: Compose, damage: str) -> None:
    run = train(tiny_config("trainer.max_epochs=1"))
    whole = run.last.read_bytes()
    if damage == "another file":
        torch.save({"weights": torch.zeros(3)}, run.last)
    else:
        run.last.write_bytes(whole[: len(whole) // 2 if damage == "cut short" else 0])
    run.set_status("interrupted")
    with pytest.raises(UserError, match=r"last\.ckpt: is (damaged|not a checkpoint)"):
        launch.train(tiny_config(f"resume={run.path}"), [f"resume={run.path}"])
    assert run.state() == "interrupted"


def test_a_damaged_config_is_refused(tiny_config: Compose) -> None:
    run = RunFolder.create(tiny_config())
    (run.path / "config.yaml").write_text("seed: [1")
    with pytest.raises(ConfigError, match=r"config\.yaml: cannot be read"):
        launch.train(tiny_config(f"resume={run.path}"), [f"resume={run.path}"])


def test_a_run_in_use_is_refused(tiny_config: Compose) -> None:
    run = RunFolder.create(tiny_config())
    other = RunFolder(run.path)
    other.lock()
    with pytest.raises(UserError, match="another process"):
        train(run.config(), run)
    other.unlock()


def test_a_loss_that_is_not_finite_ends_the_run(tiny_config: Compose) -> None:
    config = tiny_config("optimizer.lr=1e30")
    with pytest.raises(Diverged, match=r"epoch 1, batch 3.*optimizer\.lr \(now 1e\+30\)"):
        train(config)
    run = RunFolder(next(Path(config.runs_dir).glob("2*")))
    assert run.state() == "failed"
    assert (run.checkpoints / "diverged.ckpt").is_file()
    assert not run.last.exists()


def test_evaluate_repeats_the_summary_and_notes_a_read_only_folder(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = train(tiny_config("dataset=digits_events", "time_steps=2", "trainer.max_epochs=1"))
    process = fork_server().start("evaluate", f"run={run.path}", "split=test", "accelerator=cpu")
    output = process.communicate()[0]
    assert process.returncode == 0, output
    assert json.loads((run.path / "evaluation_test.json").read_text()) == run.summary()["test"]
    assert evaluate([f"run={run.path}", "split=val", "checkpoint=last"]) == 0
    val = json.loads((run.path / "evaluation_val.json").read_text())
    assert val["last"]["accuracy"] == run.summary()["val"]["last"]["accuracy"]
    (run.path / "evaluation_val.json").unlink()

    def refuse(*args: Any, **options: Any) -> None:
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))  # root may write to every folder that it can mount

    monkeypatch.setattr("gradspike.runs.files.tempfile.mkstemp", refuse)
    capsys.readouterr()
    assert evaluate([f"run={run.path}", "split=val", "checkpoint=last"]) == 0
    printed = capsys.readouterr()
    assert "accuracy" in printed.out
    assert "written:" not in printed.out
    assert printed.err.startswith("Note: the run folder is read-only, so the result is not recorded: ")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run=no/such/run"], "is not a run folder"),
        (["spit=test"], "Did you mean 'split'"),
        (["run=x", "split=tset"], "split"),
        (["split=test"], "run: "),
    ],
)
def test_evaluate_refuses(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        evaluate(words)


def test_evaluate_of_a_run_that_never_saved(tiny_config: Compose) -> None:
    run = RunFolder.create(tiny_config())
    with pytest.raises(
        UserError, match=r"unknown checkpoint '.*last\.ckpt'\. The run is not finished: it was killed\."
    ):
        evaluate([f"run={run.path}"])


def test_two_processes_train_as_one(tiny: Callable[..., list[str]], tmp_path: Path) -> None:
    """DDP over two CPU processes: one folder, one record, and every sample evaluated once."""
    process = start(tiny("trainer.devices=2", "trainer.max_epochs=1", "trainer.progress=lines"))
    output = process.communicate()[0]
    assert process.returncode == 0, output
    runs = list((tmp_path / "runs").glob("2*"))
    assert len(runs) == 1
    run = RunFolder(runs[0])
    assert len(epoch_records(run)) == 1
    assert run.summary()["steps"] == 1257 // 64
    assert output.count("epoch 1/1") == 1
    # No sample of the test split is missing or counted twice: a whole number of correct answers out of 359.
    right = run.summary()["test"]["last"]["accuracy"] * 359
    assert right == pytest.approx(round(right), abs=1e-4)


def test_saved_configuration_is_readable_by_others(tiny_config: Compose) -> None:
    run = RunFolder.create(tiny_config())
    assert yaml.safe_load((run.path / "config.yaml").read_text())["optimizer"]["lr"] == 0.1
    assert (run.path / "config.yaml").stat().st_mode & 0o777 == 0o666 & ~current_umask()


def current_umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask


@pytest.mark.slow
@pytest.mark.parametrize(("dataset", "least"), [("digits", 0.97), ("digits_events", 0.93)])
def test_default_training_reaches_its_accuracy(dataset: str, least: float, data_dir: Path, tmp_path: Path) -> None:
    for seed in range(2):
        words = [
            f"dataset={dataset}",
            f"seed={seed}",
            f"data_dir={data_dir}",
            f"runs_dir={tmp_path}",
            "trainer.progress=none",
        ]
        run = train(load_config(words))
        assert run.summary()["test"]["last"]["accuracy"] >= least
