"""Checkpoints: damage is detected on reading, a valid one always remains, and a full disk ends a run cleanly."""

from __future__ import annotations

import json
import os
import random
import subprocess
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from gradspike.cli.evaluate import evaluate
from gradspike.config.schema import ExperimentConfig
from gradspike.errors import UserError
from gradspike.runs.folder import RunFolder
from gradspike.training.checkpoint import AtomicFiles, load_checkpoint, state_hash
from gradspike.training.module import Diverged, SpikingClassifier
from helpers.forks import fork_server
from helpers.limits import no_file_can_be_opened, no_file_may_grow
from helpers.runs import assert_same_run, at_batch, train

Compose = Callable[..., ExperimentConfig]

CONTENT: dict[str, Any] = {
    "state_dict": {"weight": torch.randn(20, 10, generator=torch.Generator().manual_seed(0)), "steps": torch.tensor(3)},
    "optimizer_states": [{"state": {0: {"momentum_buffer": torch.arange(64, dtype=torch.bfloat16)}}}],
    "config": {"seed": 0},
    "epoch": 1,
    "global_step": 2,
    "metrics_bytes": 3,
}


def same(one: Any, other: Any) -> bool:
    if isinstance(one, torch.Tensor):
        return one.dtype == other.dtype and torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def test_a_full_disk_speaks_of_an_earlier_checkpoint_only_if_there_is_one(tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    for kept in ("", " The previous checkpoint is unchanged."):
        with pytest.raises(UserError) as error, no_file_may_grow():
            AtomicFiles().save_checkpoint(CONTENT, file)
        raised = "raise the limit of the size of files (ulimit -f)"
        assert str(error.value) == f"{file}: cannot be saved (File too large): {raised}.{kept}"
        AtomicFiles().save_checkpoint(CONTENT, file)


def test_a_checkpoint_that_this_process_cannot_read_is_not_damaged(tmp_path: Path) -> None:
    """The resumed run would continue from an older one."""
    file = tmp_path / "last.ckpt"
    AtomicFiles().save_checkpoint(CONTENT, file)
    with pytest.raises(OSError, match="Too many open files"), no_file_can_be_opened():
        load_checkpoint(file)


def test_no_flipped_bit_is_read(tmp_path: Path) -> None:
    """Every flip is refused, or hit padding and reads as the same state."""
    file = tmp_path / "last.ckpt"
    AtomicFiles().save_checkpoint(CONTENT, file)
    whole = file.read_bytes()
    assert same(load_checkpoint(file), CONTENT)
    draw = random.Random(0)
    refused = 0
    for place in draw.sample(range(8 * len(whole)), 600):
        damaged = bytearray(whole)
        damaged[place // 8] ^= 1 << place % 8
        file.write_bytes(damaged)
        try:
            read = load_checkpoint(file)
        except UserError:
            refused += 1
        else:
            assert same(read, CONTENT), f"bit {place} changed the state"
    assert refused > 200


def test_tensors_changed_after_the_checksum_are_refused(tmp_path: Path) -> None:
    """Like faulty memory during writing: the archive is consistent, but its tensors differ from the saved ones."""
    file = tmp_path / "last.ckpt"
    AtomicFiles().save_checkpoint(CONTENT, file)
    content = torch.load(file, weights_only=True)
    content["state_dict"]["weight"][3, 4] *= 1.5
    torch.save(content, file)
    with pytest.raises(UserError, match="its tensors differ from the saved ones"):
        load_checkpoint(file)


class Evil:
    def __reduce__(self) -> Any:
        return (os.getcwd, ())


def test_code_in_a_checkpoint_is_named_and_not_run(tmp_path: Path) -> None:
    file = tmp_path / "last.ckpt"
    torch.save({**CONTENT, "evil": Evil()}, file)
    with pytest.raises(UserError, match="may run code and are not loaded"):
        load_checkpoint(file)


def stopped(config: ExperimentConfig, monkeypatch: pytest.MonkeyPatch, batch: int) -> RunFolder:
    """A run that ends with an error before its `batch`-th batch."""

    def fail() -> None:
        raise OSError("power failure")

    at_batch(monkeypatch, batch, fail)
    with pytest.raises(OSError, match="power failure"):
        train(config)
    monkeypatch.undo()
    return RunFolder(next(Path(config.runs_dir).glob("2*")))


def flip_a_weight(file: Path) -> None:
    whole = bytearray(file.read_bytes())
    weight = torch.load(file, weights_only=True)["state_dict"]["model.head.weight"].numpy().tobytes()
    whole[whole.index(weight) + 5] ^= 1
    file.write_bytes(whole)


@pytest.mark.parametrize("damage", ["flip", "missing", "metrics"])
def test_a_damaged_last_checkpoint_falls_back_to_the_one_before(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, damage: str
) -> None:
    options = ("checkpoint.every_n_steps=7", "probe.every_n_steps=5")
    unbroken = train(tiny_config(*options))
    run = stopped(tiny_config(*options, f"runs_dir={unbroken.path.parent / 'damaged'}"), monkeypatch, 19 + 12)
    before = run.checkpoints / "last-1.ckpt"
    kept = load_checkpoint(before)
    assert (load_checkpoint(run.last)["global_step"], kept["global_step"]) == (28, 21)
    if damage == "flip":
        flip_a_weight(run.last)
    elif damage == "missing":
        run.last.unlink()
    else:  # lost with the power, while the checkpoint was not
        os.truncate(run.metrics, kept["metrics_bytes"])
    train(run.config(), run)
    assert_same_run(unbroken, run)
    if damage == "missing":
        return
    said = [line for line in run.log.read_text().splitlines() if "Continuing from last-1.ckpt" in line]
    assert len(said) == 1
    assert ("is damaged" if damage == "flip" else "bytes, but last.ckpt was saved after") in said[0]
    load_checkpoint(before)


def test_the_good_state_outlives_the_first_save_after_a_fallback(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = stopped(tiny_config("checkpoint.every_n_steps=7"), monkeypatch, 19 + 12)
    flip_a_weight(run.last)
    steps = []
    original = AtomicFiles.save_checkpoint

    def save(self: AtomicFiles, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        original(self, checkpoint, path)
        if Path(path) == run.last:
            steps.append([load_checkpoint(each)["global_step"] for each in run.last_states()])

    monkeypatch.setattr(AtomicFiles, "save_checkpoint", save)
    train(run.config(), run)
    assert steps == [[28, 21], [35, 28], [38, 35]]
    with pytest.raises(UserError, match="damaged"):
        load_checkpoint(run.checkpoints / "damaged.ckpt")


@pytest.mark.parametrize("keep", [1, 3])
def test_checkpoint_keep_sets_the_number_of_states(tiny_config: Compose, keep: int) -> None:
    run = train(tiny_config("checkpoint.every_n_steps=7", f"checkpoint.keep={keep}"))
    assert [load_checkpoint(path)["global_step"] for path in run.last_states()] == [38, 35, 28][:keep]
    assert len(list(run.checkpoints.iterdir())) == keep + 1


def test_evaluate_refuses_a_flipped_bit(tiny_config: Compose) -> None:
    run = train(tiny_config("trainer.max_epochs=1"))
    flip_a_weight(run.best)
    with pytest.raises(UserError, match=r"best\.ckpt: is damaged"):
        evaluate([f"run={run.path}", "accelerator=cpu"])


def test_weights_that_are_not_finite_are_not_saved_as_good(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The loss of the step in which weights become infinite is itself finite."""
    original = SpikingClassifier.training_step

    def step(self: Any, batch: Any, batch_idx: int) -> Any:
        loss = original(self, batch, batch_idx)
        if batch_idx == 4:
            with torch.no_grad():
                next(self.model.parameters()).data[0] = torch.nan
        return loss

    monkeypatch.setattr(SpikingClassifier, "training_step", step)
    config = tiny_config("checkpoint.every_n_steps=1")
    with pytest.raises(Diverged, match="contains NaN or infinite values"):
        train(config)
    run = RunFolder(next(Path(config.runs_dir).glob("2*")))
    assert [load_checkpoint(path)["global_step"] for path in run.last_states()] == [4, 3]
    for path in run.last_states():
        state = load_checkpoint(path)["state_dict"]
        assert all(value.isfinite().all() for value in state.values() if value.is_floating_point())
    assert (run.checkpoints / "diverged.ckpt").is_file()


@pytest.mark.parametrize("file", ["checkpoint", "metrics"])
def test_a_full_disk_ends_a_run_cleanly(tiny_config: Compose, tmp_path: Path, file: str) -> None:
    """No file may grow beyond a size. The state before is left, with the reason for the end, and resumes."""
    unbroken = train(tiny_config("trainer.max_epochs=2", "probe.every_n_steps=1"))
    folder = tmp_path / "full"
    words = tiny_config("trainer.max_epochs=2", "probe.every_n_steps=1", f"runs_dir={folder}")
    run = RunFolder.create(words)
    size = unbroken.last.stat().st_size - 500
    if file == "metrics":
        size = unbroken.metrics.stat().st_size * 3 // 4
        assert size > unbroken.last.stat().st_size
    process = fork_server().start("train", f"resume={run.path}", starve=f"file={size}")
    output = process.communicate()[0]
    assert process.returncode == 1, output
    assert "Traceback" not in output
    assert any(line.startswith("Error: ") and "File too large" in line for line in output.splitlines())
    status = json.loads((run.path / "status.json").read_text())
    assert status["state"] == "failed"
    assert "File too large" in status["reason"]
    assert not list(run.path.rglob("*.partial"))
    assert [path.name for path in run.last_states()] == ([] if file == "checkpoint" else ["last.ckpt"])
    train(run.config(), run)
    assert_same_run(unbroken, run)


def fill(disk: Path) -> None:
    with suppress(OSError), (disk / "rest").open("ab", buffering=0) as file:
        while True:
            file.write(bytes(4096))


def test_the_status_of_a_run_on_a_disk_without_any_space(tiny_config: Compose, tmp_path: Path) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    size = ["-t", "tmpfs", "-o", "size=32k", "tmpfs", str(disk)]
    if subprocess.run(["mount", *size], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here (needs root)")
    try:
        run = RunFolder.create(tiny_config(f"runs_dir={disk}"))
        fill(disk)
        run.set_status("failed", "metrics.jsonl: cannot be written (No space left on device)." + " " * 200)
        run.set_status("failed", "why")
        status = json.loads((run.path / "status.json").read_text())
        assert (status["state"], status["reason"]) == ("failed", "why")
        (run.path / "status.json").unlink()
        fill(disk)
        with pytest.raises(UserError, match="No space left"):
            run.set_status("failed")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_resumed_run_without_a_checkpoint_starts_its_files_again(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = ("probe.every_n_steps=1", "logger=tensorboard")
    unbroken = train(tiny_config(*options))
    run = stopped(tiny_config(*options, f"runs_dir={unbroken.path.parent / 'started'}"), monkeypatch, 8)
    assert run.metrics.stat().st_size > 0
    assert not run.last_states()
    events = set((run.path / "tensorboard").glob("events*"))
    train(run.config(), run)
    assert_same_run(unbroken, run)
    assert not events & set((run.path / "tensorboard").glob("events*"))
    assert len(run.timing.read_text().splitlines()) == 2


@pytest.mark.parametrize("left", ["some", "none"])
def test_metrics_shorter_than_the_checkpoint_are_refused(
    tiny_config: Compose, monkeypatch: pytest.MonkeyPatch, left: str
) -> None:
    run = stopped(tiny_config("checkpoint.keep=1"), monkeypatch, 19 + 4)
    expected = load_checkpoint(run.last)["metrics_bytes"]
    if left == "some":
        os.truncate(run.metrics, expected - 10)
    else:
        run.metrics.unlink()
    with pytest.raises(UserError, match=rf"bytes, but last\.ckpt was saved after {expected:,}"):
        train(run.config(), run)
    assert not run.metrics.exists() or b"\0" not in run.metrics.read_bytes()


def test_the_digest_does_not_depend_on_the_layout_in_memory() -> None:
    plain = torch.randn(2, 3, 4, 4)
    assert state_hash({"x": plain}) == state_hash({"x": plain.contiguous(memory_format=torch.channels_last)})
