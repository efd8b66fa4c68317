"""The check of a GPU in one command: its options, its results, its tables, and the pack of CIFAR-10."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch._dynamo
from PIL import Image

import gpu_check
from gpu_pack import pack
from gpu_record import Record, Task, close, results
from gpu_steps import network_words
from gpu_table import END, NONE, START, section, write_table
from gradspike.config.compose import load_config
from gradspike.engine import compiled
from gradspike.errors import ConfigError, UserError
from gradspike.models.registry import MODELS
from gradspike.training.build import build_data
from helpers.command import ROOT, execute
from step_profile import covered
from triton_bandwidth import FORMS, measured


def check(out: Path, *words: str, **variables: str) -> Any:
    command = [sys.executable, str(ROOT / "benchmarks" / "gpu_check.py"), "--out", str(out)]
    return execute(*command, "--device", "cpu", "--size", "small", *words, OMP_NUM_THREADS="1", **variables)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--only", "machin"], "--only machin: unknown step. Did you mean 'machine'?"),
        (["--only", ","], "--only: choose from machine, tests"),
        (["--skip", "kernel"], "Did you mean 'kernels'?"),
        (["--minutes", "0"], "--minutes 0: must be greater than 0."),
        (["--jobs", "0"], "--jobs 0: must be at least 1."),
        (["--data", "nowhere.zip"], "unknown file or folder 'nowhere.zip'"),
    ],
)
def test_options_that_do_not_fit_are_refused(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        gpu_check.options_of(words)
    assert said in str(error.value)


def test_every_step_is_implemented() -> None:
    from gpu_steps import ACTIONS

    assert [step.name for step in gpu_check.STEPS] == list(ACTIONS)


def test_a_step_that_fails_does_not_stop_the_others_and_the_next_call_repeats_it_alone(tmp_path: Path) -> None:
    others = ",".join(step.name for step in gpu_check.STEPS if step.name not in ("machine", "cifar10"))
    data = tmp_path / "data"
    data.mkdir()
    words = ["--skip", others, "--data", str(data)]
    first = check(tmp_path / "out", *words)
    found = results(tmp_path / "out")
    assert first.returncode == 1, first.stderr
    assert found["machine"]["state"] == "passed", found
    assert found["machine"]["problems"] == []
    assert found["machine"]["found"]["copy_bytes_per_second"] > 0
    assert found["cifar10"]["state"] == "failed"
    assert "gradspike prepare" in found["cifar10"]["problems"][0]
    assert "Not passed: cifar10" in first.stdout
    second = check(tmp_path / "out", *words, "--minutes", "0.01")
    assert second.returncode == 1
    assert "1 step, " in second.stdout
    assert "cifar10       not started: no time left" in second.stdout


@pytest.mark.parametrize("small", [False, True])
def test_every_network_has_its_step(small: bool) -> None:
    """Their options differ, and the step of the check names some."""
    for name in MODELS.names():
        assert load_config(["dataset=cifar10", "recipe=none", *network_words(name, small)]).model.name


def task(tmp_path: Path, **changes: Any) -> Task:
    values = {"step": "digits", "size": "full", "device": "cuda", "simulated": False, "python": (sys.executable,)}
    values |= {"work": str(tmp_path), "data": None, "seconds": 9.0, "jobs": 1}
    return Task(**{**values, **changes})


def test_a_result_is_complete_at_any_moment(tmp_path: Path) -> None:
    file = tmp_path / "digits.json"
    record = Record(file, task(tmp_path))
    record.note("one", 1)
    assert json.loads(file.read_text())["found"] == {"one": 1}
    assert not record.check("holds", False, "not so")
    record.check_values("equal", False)
    close(file, "failed", 2.5, ["stopped"])
    content = results(tmp_path)["digits"]
    assert content["problems"] == ["holds: not so", "equal", "stopped"]
    assert (content["state"], content["seconds"], content["unchecked"]) == ("failed", 2.5, [])


def test_values_of_a_simulated_device_are_not_checked_and_said_to_be(tmp_path: Path) -> None:
    record = Record(tmp_path / "digits.json", task(tmp_path, simulated=True))
    record.check_values("equal", False)
    content = results(tmp_path)["digits"]
    assert (content["problems"], content["unchecked"]) == ([], ["equal"])


def found_on(tmp_path: Path, **changes: Any) -> dict[str, dict[str, Any]]:
    """Results as the steps write them."""
    rows = [
        {"channels": 128, "side": 32, "dtype": "bfloat16", "arrangement": "rows", "engine": engine, "what": what}
        | {"seconds": 1e-4, "bytes_per_second": speed}
        for engine, what, speed in (("", "copy", 2e12), ("triton", "forward", 1.8e12), ("triton", "backward", 1e12))
    ]
    candidates = {
        name: {"seconds": [took, took], "peak_bytes": size, "busy": 0.04, "host": 0.02, "launches": 700.0}
        for name, took, size in (("ReLU twin", 0.06, 2**30), ("ReLU twin, compiled", 0.05, 2**30))
    }
    for name, took in (("ReLU twin", 0.05), ("compiled, ds_atgo", 0.06)):
        candidates[f"{name}, CUDA graphs"] = {**candidates["ReLU twin"], "seconds": [took, took]}
    candidates["compiled, ds_atgo"] = {**candidates["ReLU twin"], "seconds": [0.055, 0.055], "busy": None}
    steps = {
        "machine": {"card": "a GPU", "torch": "2", "copy_bytes_per_second": 2e12, "bf16_matmul_flops": 7e14},
        "digits": {"triton-1": {"accuracy": 0.9916, "seconds": 9.0}},
        "kernels": {"time_steps": 2, "batch": 128, "rows": rows},
        "vggsnn": {"title": "VGGSNN, T = 10", "setting": "bf16", "candidates": candidates},
    }
    for name, found in steps.items():
        record = Record(tmp_path / f"{name}.json", task(tmp_path, step=name, **changes))
        for key, value in found.items():
            record.note(key, value)
        close(record.file, "passed", 7.0)
    close(tmp_path / "digits.json", "failed", 8.0, ["triton-2 ends with code 0: 1"])
    return dict(results(tmp_path))


def test_the_table_has_the_bounds_beside_the_figures(tmp_path: Path) -> None:
    text = section(found_on(tmp_path))
    assert "**a GPU**: torch 2. Bounds: a copy moves 2.00 TB/s" in text
    assert "| `digits` | failed | 8 |" in text
    assert "- `digits`: triton-2 ends with code 0: 1" in text
    assert "| 128 x 32 x 32, bfloat16, rows | triton | 2,000 GB/s | 100 us | 90% | 100 us | 50% |" in text
    assert "| ReLU twin, compiled | 50.0 ms | 1.00 |  | 80% | 20.0 ms | 700 | 1.00 |  |" in text
    assert "| compiled, ds_atgo | 55.0 ms | 1.10 | 1.15 | - | 20.0 ms | 700 | 1.00 | 1.00 |" in text
    assert "| compiled, ds_atgo, CUDA graphs | 60.0 ms | 1.20 | 1.15 | 67% | 20.0 ms | 700 | 1.00 | 1.00 |" in text
    assert "1.00 is ReLU twin, CUDA graphs, 50.0 ms" in text
    assert "| digits, spiking_cnn | triton-1 | - | 99.16% | - | 9 |" in text


@pytest.mark.parametrize("changes", [{"simulated": True}, {"device": "cpu"}, {"size": "small"}])
def test_only_a_gpu_at_full_size_has_figures(tmp_path: Path, changes: dict[str, Any]) -> None:
    assert section(found_on(tmp_path, **changes)) == NONE


def test_the_page_says_whether_a_gpu_has_run_it(tmp_path: Path) -> None:
    page = tmp_path / "page.md"
    page.write_text(f"before\n{START}\nold\n{END}\nafter\n")
    write_table(tmp_path / "nothing", page)
    assert page.read_text() == f"before\n{START}\n{NONE}\n{END}\nafter\n"
    page.write_text("no place")
    with pytest.raises(UserError, match="has no lines"):
        write_table(tmp_path / "nothing", page)
    real = (ROOT / "docs" / "performance.md").read_text()
    assert START in real.partition(END)[0]


def test_a_pack_has_all_test_images_and_trains(tmp_path: Path) -> None:
    """Training images stay of equal number in each class."""
    source, generator = tmp_path / "cifar10", np.random.default_rng(0)
    pixels = {}
    for number in range(10):
        for split, count in (("train", 6), ("test", 2)):
            folder = source / split / f"class{number}"
            folder.mkdir(parents=True)
            for index in range(count):
                picture = generator.integers(0, 256, (32, 32, 3), dtype=np.uint8)
                pixels[split, number, index] = picture
                Image.fromarray(picture).save(folder / f"{index}.png")
    packed = tmp_path / "pack.zip"
    with pytest.raises(UserError, match="too few"):
        pack(source, packed, limit=90_000)
    assert not packed.exists()
    pack(source, packed, limit=190_000)
    with zipfile.ZipFile(packed) as archive:
        names = archive.namelist()
    assert len([name for name in names if name.startswith("test/")]) == 20
    train = [name.split("/")[1] for name in names if name.startswith("train/")]
    assert 20 <= len(train) < 60
    counts = [train.count(f"class{number}") for number in range(10)]
    assert max(counts) - min(counts) <= 1
    words = ["dataset=cifar10", "dataset.val_fraction=0", f"dataset.source={packed}", f"data_dir={tmp_path / 'data'}"]
    data = build_data(load_config(words))
    data.prepare_data()
    data.setup()
    tests = data.samples.indices("test")
    first = np.asarray(data.samples.inputs[tests[0]]).transpose(1, 2, 0)
    assert any(np.array_equal(first, pixels["test", 0, index]) for index in range(2))


def test_no_data_to_pack(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="name its archive or folder with --data"):
        pack(None, tmp_path / "pack.zip")


def test_kernels_are_measured_as_training_calls_them() -> None:
    """Once for each form: where gradients are recorded, torch.compile would compile each again for another size."""
    mode = torch.are_deterministic_algorithms_enabled()
    before = torch._dynamo.utils.counters["stats"]["unique_graphs"]

    def once(call: Callable[[], object]) -> float:
        call()
        return 1.0

    engines = {"compiled": compiled.CompiledKernels()}
    rows = list(measured(2, 2, engines, once, "cpu", ((8, 4),), FORMS[2:3]))
    made = torch._dynamo.utils.counters["stats"]["unique_graphs"] - before
    rows += list(measured(2, 3, engines, once, "cpu", ((6, 3),), FORMS[2:3]))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] - before == made == 2
    assert [row.what for row in rows] == ["copy", "forward", "backward"] * 2
    assert torch.are_deterministic_algorithms_enabled() == mode


def test_covered_time_counts_overlaps_once() -> None:
    assert covered([(0.0, 2.0), (1.0, 3.0), (5.0, 6.0), (5.2, 5.5)]) == 4.0
    assert covered([]) == 0.0
