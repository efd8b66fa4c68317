"""Options handed to submitit, the script it submits, and jobs that need more than one time slice."""

from __future__ import annotations

import os
import re
import signal
import stat
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from typing_extensions import override

from gradspike.errors import ConfigError, UserError
from gradspike.runs.folder import RunFolder
from gradspike.tools.sweep.file import Metric
from gradspike.tools.sweep.folder import Record, SweepFolder
from gradspike.tools.sweep.proposals import Proposal
from gradspike.tools.sweep.running import Active, Running
from gradspike.tools.sweep.settling import settle
from gradspike.tools.sweep.slurm import TIME_SLICES, Cluster, Job
from gradspike.tools.sweep.slurm_options import submitit_options
from gradspike.tools.sweep.study import Study, build_pruner
from gradspike.tools.sweep.table import Table
from gradspike.tools.sweep.words import Words
from gradspike.tools.sweep.workload import Plan, Workload
from helpers.command import TINY
from helpers.forks import Forked, fork_server
from helpers.slurm_cluster import slurm_cluster, why_not
from helpers.sweep_files import write

METRIC = Metric(name="val/accuracy", goal="maximize")
WORDS = Words({}, None, (), (), ())


def options(*typed: str) -> dict[str, Any]:
    return submitit_options([(key, value) for key, _, value in (word.partition("=") for word in typed)])


@pytest.mark.parametrize(
    ("typed", "expected"),
    [
        (["srun_args=--cpu-bind=none"], {"slurm_srun_args": ["--cpu-bind=none"]}),
        (["srun_args=--cpu-bind=none --mpi='p m i'"], {"slurm_srun_args": ["--cpu-bind=none", "--mpi=p m i"]}),
        (["srun_args=[--cpu-bind=none, --mem=0]"], {"slurm_srun_args": ["--cpu-bind=none", "--mem=0"]}),
        (["srun_args=-v", "srun_args=--mem=0"], {"slurm_srun_args": ["-v", "--mem=0"]}),
        (["setup=module load cuda"], {"slurm_setup": ["module load cuda"]}),
        (["setup=module load cuda", "setup=. env/bin/activate"],
         {"slurm_setup": ["module load cuda", ". env/bin/activate"]}),
        (["setup=[module load cuda, 'export A=1,2']"], {"slurm_setup": ["module load cuda", "export A=1,2"]}),
        (["setup=[ -f x ] && . ./x"], {"slurm_setup": ["[ -f x ] && . ./x"]}),
        (["setup=[[ -n $X ]]"], {"slurm_setup": ["[[ -n $X ]]"]}),
        (["teardown=rm -r $TMP"], {"slurm_teardown": ["rm -r $TMP"]}),
        (["exclusive=false"], {}),
        (["exclusive=true"], {"slurm_exclusive": True}),
        (["exclusive=user"], {"slurm_exclusive": "user"}),
        (["exclusive=true", "exclusive=false"], {}),
        (["use_srun=false"], {"slurm_use_srun": False}),
        (["stderr_to_stdout=false"], {"stderr_to_stdout": False}),
        (["stderr_to_stdout=True"], {"stderr_to_stdout": True}),
        (["account=007"], {"slurm_account": "007"}),
        (["partition=1e3"], {"slurm_partition": "1e3"}),
        (["qos=true"], {"slurm_qos": "true"}),
        (["nodelist=node[01-04]"], {"slurm_nodelist": "node[01-04]"}),
        (["gres=gpu:a100:1"], {"slurm_gres": "gpu:a100:1"}),
        (["mem=0"], {"slurm_mem": "0"}),
        (["mem_per_cpu=016G"], {"slurm_mem_per_cpu": "016G"}),
        (["time=00:30:00"], {"slurm_time": 30}),
        (["time=1-12:00:00"], {"slurm_time": 36 * 60}),
        (["time=2-00"], {"slurm_time": 48 * 60}),
        (["time=90"], {"slurm_time": 90}),
        (["time=01:30"], {"slurm_time": 2}),
        (["timeout_min=0600"], {"timeout_min": 600}),
        (["mem_gb=1.5"], {"mem_gb": 1.5}),
        (["cpus_per_task=8", "cpus_per_task=4"], {"cpus_per_task": 4}),
        (["max_num_timeout=50"], {"slurm_max_num_timeout": 50}),
        (["additional_parameters={reservation: 007, hold: true}"],
         {"slurm_additional_parameters": {"reservation": "007", "hold": True}}),
        (["additional_parameters.reservation=a, b: c", "additional_parameters.mail-user=me@home"],
         {"slurm_additional_parameters": {"reservation": "a, b: c", "mail-user": "me@home"}}),
    ],
    ids=str,
)  # fmt: skip
def test_an_option_has_the_type_that_submitit_wants(typed: list[str], expected: dict[str, Any]) -> None:
    assert options(*typed) == expected


@pytest.mark.parametrize(
    ("typed", "said"),
    [
        ("partiton=gpu", "unknown option 'slurm.partiton'. Did you mean 'slurm.partition'?"),
        ("nodes=two", "slurm.nodes=two: must be a whole number"),
        ("nodes=1.0", "slurm.nodes=1.0: must be a whole number"),
        ("mem_gb=16GB", "slurm.mem_gb=16GB: must be a number"),
        ("use_srun=perhaps", "slurm.use_srun=perhaps: must be true or false"),
        ("time=tomorrow", "slurm.time=tomorrow: must be a time such as"),
        ("time=0", "must be a minute or more"),
        ("account=", "must not be empty"),
        ("setup=['a, b]", "cannot be read"),
        ("setup=[a", "cannot be read; put quotes around each element"),
        ("setup=[]", "must not be empty"),
        ("setup=[[a]]", "elements must be text"),
        ("exclusive=maybe", "must be one of true, false, user, mcs, topo"),
        ("nodes=0", "must be at least 1"),
        ("timeout_min=0", "must be at least 1"),
        ("additional_parameters.x y=1", "'x y' is not the name of an option of sbatch"),
        ("srun_args=--x='a", "slurm.srun_args=--x='a: No closing quotation"),
        ("account.x=1", "slurm.account has no entries"),
        ("additional_parameters=reservation", "must be {key: value}"),
        ("additional_parameters.hold=false", "either true or left out"),
        ("comment=a\nb", "must be one line"),
    ],
)
def test_mistakes_in_options(typed: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        options(typed)
    assert said in str(error.value)


@pytest.fixture
def slurm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[], str]:
    """A cluster whose sbatch keeps the script. The fixture is a function that returns the script."""
    tools = tmp_path / "bin"
    tools.mkdir()
    for name, text in {"srun": "", "sbatch": f'cp "$1" "{tmp_path}/script"; echo "Submitted batch job 7"'}.items():
        (tools / name).write_text(f"#!/bin/sh\n{text}\n")
        (tools / name).chmod(stat.S_IRWXU)
    monkeypatch.setenv("PATH", f"{tools}{os.pathsep}{os.environ['PATH']}")
    return lambda: (tmp_path / "script").read_text()


def cluster(folder: SweepFolder, **options: Any) -> Cluster:
    folder.create("s", "study.db")
    for number in (0, 1):
        folder.trial(number).mkdir()
    return Cluster(folder, WORDS, local=False, workers=3, gpus=2, processes=2, options=options)


def test_the_script_has_what_was_typed(slurm: Callable[[], str], tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "a 'sweep' [b]?")
    typed = options(
        "srun_args=--cpu-bind=none", "exclusive=false", "setup=module load cuda", "account=007", "time=00:30:00"
    )
    made = cluster(folder, **typed)
    jobs = made.submit([0, 1])
    script = slurm()
    assert [job.name for job in jobs] == ["7_0", "7_1"]
    assert re.search(r"^srun --unbuffered .* --cpu-bind=none ", script, re.MULTILINE)
    assert "\nmodule load cuda\n" in script
    assert "#SBATCH --account=007\n" in script
    assert "#SBATCH --time=30\n" in script
    assert "#SBATCH --array=0-1%2\n" in script
    assert "#SBATCH --gpus-per-node=2\n" in script
    assert "exclusive" not in script
    assert made._executor._executor.max_num_timeout == TIME_SLICES > 1000
    assert cluster_slices(folder, 12) == 12


def cluster_slices(folder: SweepFolder, slices: int) -> Any:
    made = Cluster(folder, WORDS, False, 1, 0, 1, options(f"max_num_timeout={slices}"))
    return made._executor._executor.max_num_timeout


def test_what_slurm_refuses_is_one_sentence(
    slurm: Callable[[], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bin" / "sbatch").write_text("#!/bin/sh\necho 'error: invalid account' >&2\nexit 1\n")
    with pytest.raises(UserError, match=r"could not be submitted: .*invalid account"):
        cluster(SweepFolder(tmp_path / "s")).submit([0])
    with pytest.raises(ConfigError, match=r"sbatch replaces % and \\ in a path"):
        cluster(SweepFolder(tmp_path / "100%"))
    monkeypatch.setenv("PATH", os.fspath(tmp_path / "nothing"))
    with pytest.raises(UserError, match="executor=slurm: Could not detect"):
        Cluster(SweepFolder(tmp_path / "s"), WORDS, False, 1, 0, 1, {})


QUEUE = """7_0 RUNNING
7_1 SUSPENDED
7_2 COMPLETING
7_3 PENDING
7_4 REQUEUE_HOLD
7_5 COMPLETED
7_6 PREEMPTED
7_7 CANCELLED
"""


def test_a_job_is_alive_as_long_as_slurm_or_its_lock_says_so(slurm: Callable[[], str], tmp_path: Path) -> None:
    """The queue decides: a cluster without accounting has no sacct, which submitit asks."""
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text(f"#!/bin/sh\ncat <<'END'\n{QUEUE}END\n")
    squeue.chmod(stat.S_IRWXU)
    folder = SweepFolder(tmp_path / "s")
    made = cluster(folder)
    jobs = [Job(SimpleNamespace(state="UNKNOWN", job_id=f"7_{n}"), folder, 0, made._queue) for n in range(9)]
    assert [job.alive() for job in jobs] == [True] * 5 + [False] * 4
    assert [job.cancelled() for job in jobs] == [False] * 7 + [True, False]
    accounted = Job(SimpleNamespace(state="CANCELLED by 1000", job_id="6"), folder, 0, made._queue)
    assert accounted.cancelled(), "the queue has forgotten the job"
    held = folder.lock_trial(0)
    assert held is not None
    assert jobs[-1].alive(), "its training still holds the lock"
    held.close()
    (folder.trial(0) / "job").write_text("7_3\n")
    (folder.trial(1) / "job").write_text("7_8\n")
    found = [made.find(Record(number=n, state="queued", parameters={}, overrides=[])) for n in (0, 1)]
    assert [job is not None for job in found] == [True, False]


def test_a_job_counts_as_running_while_slurm_does_not_answer(slurm: Callable[[], str], tmp_path: Path) -> None:
    squeue = tmp_path / "bin" / "squeue"
    squeue.write_text("#!/bin/sh\necho 'slurm_load_jobs error: Unable to contact slurm controller' >&2\nexit 1\n")
    squeue.chmod(stat.S_IRWXU)
    folder = SweepFolder(tmp_path / "s")
    made = cluster(folder)
    assert all(job.alive() for job in made.submit([0, 1]))


@pytest.mark.slow
@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
def test_scancel_ends_a_trial_and_the_sweep_goes_on(tmp_path: Path, data_dir: Path) -> None:
    constants = dict(word.split("=") for word in TINY if not word.startswith("trainer.progress"))
    parameters: dict[str, Any] = {name: {"value": yaml.safe_load(value)} for name, value in constants.items()}
    parameters |= {"seed": {"value": 0}, "trainer.max_epochs": {"values": [5000, 1]}}
    file = write(tmp_path, parameters=parameters)
    folder, slurm = SweepFolder(tmp_path / "s"), tmp_path / "slurm"
    slurm.mkdir()
    with slurm_cluster(slurm) as cluster:
        line = ["sweep", str(file), f"data_dir={data_dir}", f"folder={folder.path}", "executor=slurm", "workers=1"]
        line += ["slurm.cpus_per_task=1", "slurm.timeout_min=20"]
        runner = fork_server().start(*line, log=tmp_path / "said", cwd=tmp_path, **cluster.variables)
        try:
            wait_for(lambda: any(folder.runs.glob("*/checkpoints/last.ckpt")), runner, tmp_path / "said")
            cluster.run("scancel", (folder.trial(0) / "job").read_text().strip())
            assert runner.wait(600) == 1
        finally:
            runner.send_signal(signal.SIGTERM)
            cluster.run("scancel", "--full", "--signal=KILL", "--user=root")
    records = [record for number in (0, 1) if (record := folder.record(number)) is not None]
    said = (tmp_path / "said").read_text() + folder.log(0).read_text()
    expected = [("interrupted", "its job was cancelled"), ("finished", None)]
    assert [(record.state, record.reason) for record in records] == expected, said
    assert not folder.is_training(0)
    assert RunFolder(folder.path / str(records[0].run)).state() == "interrupted"
    assert "Stopped by SIGTERM after saving its state." in folder.log(0).read_text()


def wait_for(reached: Callable[[], bool], runner: Forked, said: Path, seconds: float = 600) -> None:
    deadline = time.monotonic() + seconds
    while not reached():
        assert runner.poll() is None, said.read_text()
        assert time.monotonic() < deadline
        time.sleep(0.05)


class Ended(Running):
    """A job that has ended."""

    detached = True

    def __init__(self, cancelled: bool = False) -> None:
        self._cancelled = cancelled

    @override
    def alive(self) -> bool:
        return False

    @override
    def code(self) -> int | None:
        return None

    @override
    def stop(self, hard: bool = False) -> None:
        raise AssertionError("it is over")

    @override
    def cancelled(self) -> bool:
        return self._cancelled


def workload(folder: SweepFolder) -> Workload:
    """A runner's, with retries=1 and one trial whose job has ended with its state saved."""
    folder.create("s", "study.db")
    study = Study("sqlite://", "s", METRIC, build_pruner(None, None, 1), seed=0)
    study.fill([Proposal("a", {"seed": 0})], {})
    assert study.take(study.trials()[0], folder.id, "here")
    place = folder.runs / "run"
    (place / "checkpoints").mkdir(parents=True)
    (place / "config.yaml").write_text("{}")
    (place / "checkpoints" / "last.ckpt").touch()
    RunFolder(place).set_status("interrupted", "Stopped by SIGTERM")
    plan = Plan(WORDS, (METRIC,), {}, workers=1, gpus=[], gpus_needed=1, retries=1, epochs=9)
    return Workload(folder, study, plan, None, Table([METRIC], 1, "again"))


def attempt(folder: SweepFolder, started: float) -> Record:
    parameters: dict[str, Any] = {"seed": 0}
    return folder.write(
        Record(number=0, state="running", parameters=parameters, overrides=[], run="runs/run", started=started)
    )


def test_a_trial_may_need_any_number_of_time_slices(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "s")
    ours = workload(folder)
    for _ in range(6):
        ours.tries[0] += 1
        settle(ours, Active(attempt(folder, started=time.time() - 60), Ended(), 9), stopping=False)
        assert ours.again.pop(0).state == "queued"
    assert not ours.given_up
    # A job that saved nothing counts as failed; otherwise the trial would restart forever.
    for _ in range(2):
        ours.tries[0] += 1
        settle(ours, Active(attempt(folder, started=time.time() + 60), Ended(), 9), stopping=False)
    assert ours.given_up == {0}
    record = folder.record(0)
    assert record is not None
    assert record.state == "failed"


def test_a_cancelled_job_is_not_submitted_again(tmp_path: Path) -> None:
    folder = SweepFolder(tmp_path / "s")
    ours = workload(folder)
    ours.tries[0] += 1
    settle(ours, Active(attempt(folder, started=time.time() - 60), Ended(cancelled=True), 9), stopping=False)
    assert not ours.again
    record = folder.record(0)
    assert record is not None
    assert (record.state, record.reason) == ("interrupted", "its job was cancelled")
