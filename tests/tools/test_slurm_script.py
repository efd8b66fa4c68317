"""`gradspike slurm-script`: the text of the script, and one run of it on a cluster."""

from __future__ import annotations

import os
import shlex
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gradspike.cli.resume import resumed_path
from gradspike.config.compose import CONF_DIR, load_config
from gradspike.config.overrides import override
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import ConfigError
from gradspike.runs.folder import RunFolder
from gradspike.tools.slurm_script.command import slurm_script
from gradspike.tools.slurm_script.options import sbatch_options
from gradspike.training.checkpoint import load_checkpoint
from helpers.command import ROOT, command
from helpers.slurm_cluster import slurm_cluster, why_not

WORDS = ["method=mpd_agl", "dataset=digits", "trainer=ddp4", "trainer.num_nodes=2"]


def script(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert slurm_script([*WORDS, *words]) == 0
    return capsys.readouterr().out


def set_options(text: str) -> dict[str, str]:
    """The #SBATCH lines, as sbatch reads them."""
    lines = [line.removeprefix("#SBATCH --") for line in text.splitlines() if line.startswith("#SBATCH")]
    pairs = [shlex.split(line)[0].partition("=") for line in lines]
    assert len({name for name, _, _ in pairs}) == len(pairs)
    return {name: value for name, _, value in pairs}


def test_the_configuration_decides_nodes_and_tasks(capsys: pytest.CaptureFixture[str]) -> None:
    options = set_options(script(capsys))
    assert (options["nodes"], options["ntasks-per-node"], options["gpus-per-node"]) == ("2", "4", "4")
    assert options["signal"] == "USR1@120"
    assert options["requeue"] == ""
    cpu = set_options(script(capsys, "trainer.accelerator=cpu", "trainer.devices=8"))
    assert cpu["ntasks-per-node"] == "8"
    assert "gpus-per-node" not in cpu


def test_options_of_sbatch(capsys: pytest.CaptureFixture[str]) -> None:
    typed = ["slurm.gres=gpu:a100:4", "slurm.cpus_per_task=9", "slurm.comment=my job #1 $HOME", "slurm.exclusive=true"]
    text = script(capsys, *typed, "slurm.job-name=007")
    options = set_options(text)
    assert options["gres"] == "gpu:a100:4"
    assert "gpus-per-node" not in options
    assert (options["comment"], options["exclusive"], options["job-name"]) == ("my job #1 $HOME", "", "007")
    assert "srun --cpus-per-task=9 " in text


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("slurm.partitoin=gpu", "Did you mean 'slurm.partition'"),
        ("slurm.nodes=2", "trainer.num_nodes"),
        ("slurm.ntasks_per_node=2", "trainer.devices"),
        ("slurm.gpus_per_task=1", "has to see all GPUs"),
        ("slurm.signal=USR2@5", "asks for the signal"),
        ("slurm.comment=a\nb", "one line"),
        ('slurm.comment=a"b', "double quotes"),
        ("slurm.time=", "must not be empty"),
        ("slurm.hold=maybe", "true or false"),
        ("slurm.comment=a\\b", "backslashes"),
        ("slurm.mem=null", "must not be empty"),
        ("slurm.exclusive=", "must not be empty"),
        ("slurm.exclusive=maybe", "must be true or false, or one of user, mcs, topo"),
        ("slurm.exclusive=0", "must be true or false"),
        ("slurm.cpus_per_task=0", "must be a whole number of at least 1"),
        ("slurm.cpus_per_task=1.5", "must be a whole number"),
        ("slurm.setup=module load cuda", "Use --setup LINE"),
        ("slurm.timeout_min=60", "Use slurm.time=<minutes>"),
        ("slurm.additional_parameters.wckey=x", "Use slurm.<option>=... for each"),
    ],
)
def test_wrong_options_are_refused(word: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        sbatch_options([word])
    assert said in str(error.value)


def test_the_configuration_is_checked(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "job.sh"
    for words, said in [
        (["method=mpd_ag"], "Did you mean 'mpd_agl'"),
        (["optimizer.lrr=1"], "Did you mean 'optimizer.lr'"),
        (["seed=0,1"], "only one value is allowed"),
        (["--setpu", "x"], "Did you mean '--setup'"),
    ]:
        with pytest.raises(ConfigError, match=said):
            slurm_script([*words, f"out={out}"])
    assert not out.exists()


def test_a_resumed_run_is_read_as_train_reads_it(
    tiny_config: Callable[..., ExperimentConfig], capsys: pytest.CaptureFixture[str]
) -> None:
    """The default data set has no `dataset.camera`."""
    run = RunFolder.create(tiny_config("trainer.devices=2", "dataset=digits_events"))
    words = [f"resume={run.path}", "dataset.camera.threshold=0.2"]
    with pytest.raises(ConfigError, match=r"dataset\.camera\.threshold: the run has 0\.4"):
        slurm_script(words)
    assert slurm_script([f"resume={run.path}", "trainer.devices=1", "trainer.accumulate=2"]) == 0
    text = capsys.readouterr().out
    assert set_options(text)["ntasks-per-node"] == "1"
    assert f"words=(resume={run.path} trainer.devices=1 trainer.accumulate=2)" in text
    with pytest.raises(ConfigError, match="finds its own run again"):
        slurm_script(["resume=auto"])


@pytest.mark.parametrize(
    "name",
    [
        "runs",
        "it's $HOME [a] & b",
        "a, b",
        "x={y}",
        '"q"',
        "${x}",
        "back\\slash",
        "end\\",
        "-dash",
        "two\nlines",
        "é",
        "a\tb",
    ],
)
def test_the_script_runs_in_bash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Arguments reach the command unchanged, even with characters that are special to bash or to Hydra."""
    monkeypatch.chdir(tmp_path)
    typed = [*WORDS, "logger.name=files", "+optimizer.groups={x:{lr:2}}", override("data_dir", name)]
    setup = "srun() { shift; printf '%s\\0' \"$@\"; }"
    out = tmp_path / "job.sh"
    assert slurm_script([*typed, override("runs_dir", name), f"out={out}", "--setup", setup]) == 0
    variables = {**os.environ, "SLURM_JOB_ID": "7"}
    done = subprocess.run(["bash", out], env=variables, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    words = done.stdout.split("\0")[:-1]
    words = words[words.index("train") + 1 :]
    assert words[:-1] == typed
    config = load_config(words)
    assert (config.data_dir, config.runs_dir) == (name, f"{name}/slurm_7")
    Path(f"{name}/slurm_7/2026-01-01_00-00-00_x").mkdir(parents=True)
    done = subprocess.run(["bash", out], env=variables, capture_output=True, text=True)
    word = done.stdout.split("\0")[-2]
    assert resumed_path([word], [CONF_DIR]) == f"{name}/slurm_7/2026-01-01_00-00-00_x/"


def test_only_a_saved_run_is_queued_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for code, queued in [(0, False), (1, False), (138, True), (143, False)]:
        setup = f'srun() {{ return {code}; }}; scontrol() {{ echo "$@"; }}; sleep() {{ :; }}'
        out = tmp_path / f"{code}.sh"
        assert slurm_script([*WORDS, f"out={out}", "--setup", setup]) == 0
        done = subprocess.run(["bash", out], env={**os.environ, "SLURM_JOB_ID": "7"}, capture_output=True, text=True)
        assert done.returncode == code
        assert (done.stdout == "requeue 7\n") == queued


@pytest.mark.slow
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_a_job_of_two_nodes_saves_is_queued_again_and_finishes(tmp_path: Path, tiny: Callable[..., list[str]]) -> None:
    """A stopped and requeued job gives the same run as one uninterrupted process."""
    words = tiny("trainer.num_nodes=2", "trainer.max_epochs=12", "trainer.progress=lines", "trainer.accelerator=cpu")
    unbroken = command("train", *words, "trainer.num_nodes=1", "trainer.devices=2", f"runs_dir={tmp_path / 'unbroken'}")
    assert unbroken.returncode == 0, unbroken.stderr
    job_file, sources = tmp_path / "job.sh", ROOT / "src"
    export = f"export PYTHONPATH={shlex.quote(str(sources))}"
    assert slurm_script([*words, f"out={job_file}", "slurm.time=10", "--setup", export]) == 0
    output = tmp_path / "output"
    slurm = tmp_path / "slurm"
    slurm.mkdir()
    with slurm_cluster(slurm) as cluster:
        job = cluster.run("sbatch", "--parsable", f"--output={output}", str(job_file), cwd=tmp_path)
        _wait(lambda: "epoch  2/12" in (output.read_text() if output.exists() else ""), output)
        cluster.run("scancel", "--signal=USR1", job)
        _wait(lambda: cluster.state(job) == "COMPLETED", output)
    printed = output.read_text()
    assert printed.count("Stopped by SIGUSR1 after saving its state.") == 1, printed
    assert printed.count("resumed at epoch") == 1
    assert "Traceback" not in printed
    runs = [RunFolder(next(tmp_path.glob(pattern))) for pattern in ("unbroken/2*", f"runs/slurm_{job}/2*")]
    assert [run.state() for run in runs] == ["finished", "finished"]
    states = [load_checkpoint(run.last)["state_dict"] for run in runs]
    torch.testing.assert_close(states[0], states[1], rtol=0, atol=0)


def _wait(ready: Callable[[], bool], output: Path) -> None:
    deadline = time.monotonic() + 180
    while not ready():
        assert time.monotonic() < deadline, output.read_text() if output.exists() else "no output"
        time.sleep(0.3)
