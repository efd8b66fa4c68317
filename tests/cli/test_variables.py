"""Environment variables: empty counts as unset; an invalid value gives a one-sentence error, without torch."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from gradspike.errors import ConfigError
from gradspike.variables import check_for_training, unset_empty, variable, whole_number
from helpers.command import IMPORT_TIMES, command, imported

NUMBERS = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "NODE_RANK", "GROUP_RANK", "MASTER_PORT", "SLURM_JOB_ID")
NUMBERS += ("SLURM_PROCID", "SLURM_LOCALID", "SLURM_NTASKS", "SLURM_CPUS_PER_TASK", "SLURM_STEP_ID")


@pytest.fixture(autouse=True)
def _none_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*NUMBERS, "OMP_NUM_THREADS", "MKL_NUM_THREADS", "CUDA_VISIBLE_DEVICES"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("value", ["", " "])
def test_set_and_empty_is_unset(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    empty = (
        *NUMBERS,
        "OMP_NUM_THREADS",
        "WANDB_MODE",
        "NETRC",
        "TORCHINDUCTOR_CACHE_DIR",
        "XDG_CACHE_HOME",
        "HOME",
        "CXX",
        "OMP_PROC_BIND",
        "CUDA_HOME",
        "CUBLAS_WORKSPACE_CONFIG",
        "CUDA_VISIBLE_DEVICES",
        "TEST_OF_OURS",
    )
    for name in empty:
        monkeypatch.setenv(name, value)
    assert variable("RANK") is None
    assert whole_number("RANK") is None
    unset_empty()
    check_for_training()
    # An empty list of GPUs means no GPU, and variables of other programs are left alone.
    assert [name for name in empty if name in os.environ] == ["CUDA_VISIBLE_DEVICES", "TEST_OF_OURS"]


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        *((name, "x", f"The environment variable {name}=x must be a whole number") for name in NUMBERS),
        ("RANK", "-1", "RANK=-1 must be a whole number"),
        ("RANK", "1.5", "RANK=1.5 must be a whole number"),
        ("MASTER_PORT", "70000", "MASTER_PORT=70000 must be a port, 0 to 65535"),
        ("OMP_NUM_THREADS", "abc", "OMP_NUM_THREADS=abc must be a number of threads, 1 or more"),
        ("OMP_NUM_THREADS", "0", "OMP_NUM_THREADS=0 must be a number of threads, 1 or more"),
        ("MKL_NUM_THREADS", "-2", "MKL_NUM_THREADS=-2 must be a number of threads, 1 or more"),
        ("CUDA_VISIBLE_DEVICES", "0,x", "CUDA_VISIBLE_DEVICES=0,x must be numbers or UUIDs of GPUs"),
        ("CUDA_VISIBLE_DEVICES", "0;1", "'0;1' is neither"),
        ("CUDA_VISIBLE_DEVICES", "0,0", "CUDA_VISIBLE_DEVICES=0,0 names a GPU twice"),
        ("PL_TRAINER_FAST_DEV_RUN", "True", "would change Lightning's trainer without a record"),
    ],
)
def test_a_wrong_value_is_one_sentence(monkeypatch: pytest.MonkeyPatch, name: str, value: str, said: str) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ConfigError) as error:
        check_for_training()
    assert said in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("OMP_NUM_THREADS", "4,2"),
        ("CUDA_VISIBLE_DEVICES", "-1"),
        ("CUDA_VISIBLE_DEVICES", "0, 1"),
        ("CUDA_VISIBLE_DEVICES", "GPU-5ebe9f43-ac33420d4628,MIG-GPU-1/2/0"),
        ("CUDA_VISIBLE_DEVICES", "NoDevFiles"),
        ("MASTER_PORT", "0"),
        ("SLURM_JOB_NODELIST", "gpu[03-04]"),
        ("SLURM_TASKS_PER_NODE", "2(x2)"),
    ],
)
def test_right_values(monkeypatch: pytest.MonkeyPatch, name: str, value: str) -> None:
    monkeypatch.setenv(name, value)
    check_for_training()
    assert os.environ[name] == value


def test_a_rank_that_is_no_number_is_refused_at_once(tiny: Callable[..., list[str]], tmp_path: Path) -> None:
    result = command("train", *tiny(), python=IMPORT_TIMES, RANK="first")
    said = [line for line in result.stderr.splitlines() if not line.startswith("import time:")]
    assert (result.returncode, said) == (2, ["Error: The environment variable RANK=first must be a whole number."])
    assert not {"torch", "lightning"} & imported(result.stderr)
    assert not (tmp_path / "runs").exists()
    assert command("train", "--help", RANK="first").returncode == 0
    assert command("compare", "--help", RANK="first").returncode == 0


def test_empty_variables_do_not_hurt_a_training(tiny: Callable[..., list[str]]) -> None:
    """Importing Lightning fails if RANK is empty, and libgomp complains about an empty OMP_NUM_THREADS."""
    empty = dict.fromkeys(("RANK", "LOCAL_RANK", "WORLD_SIZE", "SLURM_PROCID", "MASTER_PORT", "OMP_NUM_THREADS"), "")
    # torchmetrics imports matplotlib.
    result = command("train", *tiny("trainer.max_epochs=1"), **empty, MPLBACKEND="none such")
    assert (result.returncode, result.stderr) == (0, "")
