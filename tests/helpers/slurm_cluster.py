"""A Slurm cluster of two nodes on this machine, from Debian's packages slurm-wlm and munge; started by root only."""

from __future__ import annotations

import ctypes
import os
import platform
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

PROGRAMS = ("munged", "slurmctld", "slurmd", "sbatch", "srun", "scontrol")

CONFIGURATION = """\
ClusterName=test
SlurmctldHost={host}(127.0.0.1)
SlurmUser=root
SlurmdUser=root
AuthType=auth/munge
AuthInfo=socket={folder}/munge.sock,cred_expire=10
StateSaveLocation={folder}/state
SlurmdSpoolDir={folder}/spool-%n
SlurmctldPidFile={folder}/slurmctld.pid
SlurmdPidFile={folder}/slurmd-%n.pid
SlurmctldLogFile={folder}/slurmctld.log
SlurmdLogFile={folder}/slurmd-%n.log
SlurmctldPort={ports[0]}
SlurmdParameters=config_overrides
ProctrackType=proctrack/pgid
TaskPlugin=task/none
SelectType=select/cons_tres
SelectTypeParameters=CR_Core
MpiDefault=none
ReturnToService=2
NodeName=n1 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[1]} CPUs=4
NodeName=n2 NodeHostname={host} NodeAddr=127.0.0.1 Port={ports[2]} CPUs=4
PartitionName=main Nodes=ALL Default=YES State=UP
"""


def why_not() -> str | None:
    """The reason why no cluster can be started on this machine, or None."""
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        return f"needs Slurm (apt-get install slurm-wlm munge): no {', '.join(missing)}"
    return None if os.geteuid() == 0 else "needs root, to start Slurm"


class Cluster:
    """`variables` make Slurm's commands and their jobs use this cluster."""

    def __init__(self, folder: Path) -> None:
        self.variables = {
            **os.environ,
            "SLURM_CONF": str(folder / "slurm.conf"),
            # The names n1 and n2 mean something to Slurm alone.
            "MASTER_ADDR": "127.0.0.1",
            "OMP_NUM_THREADS": "1",
        }

    def run(self, *words: str, **options: str | Path) -> str:
        """The output of a command of Slurm."""
        done = subprocess.run(words, env=self.variables, text=True, capture_output=True, timeout=60, **options)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    def state(self, job: str) -> str:
        """The state of a job, such as RUNNING."""
        shown = self.run("scontrol", "show", "job", job)
        return next(word for word in shown.split() if word.startswith("JobState=")).partition("=")[2]


@contextmanager
def slurm_cluster(folder: Path) -> Iterator[Cluster]:
    """Start the cluster, with its files in `folder`, and stop it afterwards."""
    folder.chmod(0o755)  # munge refuses a socket in a folder that others cannot enter
    (folder / "state").mkdir()
    key = folder / "munge.key"
    key.write_bytes(os.urandom(128))
    key.chmod(0o400)
    ports = [_free_port() for _ in range(3)]
    host = platform.node().partition(".")[0]
    (folder / "slurm.conf").write_text(CONFIGURATION.format(folder=folder, host=host, ports=ports))
    cluster = Cluster(folder)
    socket_file = folder / "munge.sock"
    files = {"key-file": key, "socket": socket_file, "pid-file": folder / "munged.pid"}
    files |= {"log-file": folder / "munged.log", "seed-file": folder / "munge.seed"}
    commands = [["munged", "--foreground", "--force", *(f"--{name}={file}" for name, file in files.items())]]
    commands += [["slurmctld", "-D"], ["slurmd", "-D", "-N", "n1"], ["slurmd", "-D", "-N", "n2"]]
    started: list[subprocess.Popen[bytes]] = []
    adopt_orphans(True)
    try:
        for words in commands:
            with (folder / f"{words[0]}.out").open("ab") as out:
                started.append(subprocess.Popen(words, env=cluster.variables, stdout=out, stderr=out))
            while words[0] == "munged" and not socket_file.exists():
                assert started[0].poll() is None, (folder / "munged.out").read_text()
                time.sleep(0.05)
        deadline = time.monotonic() + 60
        while _idle_nodes(cluster) < 2:
            assert time.monotonic() < deadline, "the nodes did not become idle"
            time.sleep(0.2)
        yield cluster
    finally:
        for process in reversed(started):
            process.terminate()
            process.wait(timeout=30)
        adopt_orphans(False)
        end_steps()


def adopt_orphans(on: bool) -> None:
    """Whether a process whose parent has ended becomes a child of this one.

    slurmd's `slurmstepd` leaves its parent, and PID 1 of a container may never wait for the ended ones.
    """
    set_child_subreaper = 36
    assert ctypes.CDLL(None, use_errno=True).prctl(set_child_subreaper, int(on), 0, 0, 0) == 0


def end_steps() -> None:
    """End each `slurmstepd` that this process has adopted, and wait for it."""
    for pid in map(int, filter(str.isdigit, os.listdir("/proc"))):
        with suppress(FileNotFoundError, ProcessLookupError):
            name, rest = Path(f"/proc/{pid}/stat").read_text().partition("(")[2].rsplit(")", 1)
            if name == "slurmstepd" and int(rest.split()[1]) == os.getpid():
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def _idle_nodes(cluster: Cluster) -> int:
    done = subprocess.run(
        ["sinfo", "-hN", "-o", "%T"], env=cluster.variables, text=True, capture_output=True, timeout=60
    )
    return done.stdout.split().count("idle")


def _free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
        return port
