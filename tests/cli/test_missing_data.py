"""Missing files of a data set are reported before torch is imported."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from gradspike.config.compose import load_config
from gradspike.data.options.base import FilesConfig
from gradspike.data.registry import DATASETS
from gradspike.runs.folder import RunFolder
from helpers.command import execute

OF_FILES = [name for name in DATASETS.names() if issubclass(DATASETS.config_class(name), FilesConfig)]

COMMANDS = """
import json, sys
from gradspike.__main__ import main
codes = [main(words) for words in json.loads(sys.argv[1])]
print(json.dumps([codes, sorted({"torch", "lightning"} & set(sys.modules))]))
"""

CHECKS = """
import json, sys
from pathlib import Path
from gradspike.data.presence import check_files
from gradspike.data.registry import DATASETS
from gradspike.errors import UserError
missing = []
for name in json.loads(sys.argv[1]):
    own = {"image_size": 32, "classes": 2, "source": "none"} if name.endswith("_folder") else {}
    try:
        check_files(DATASETS.config_class(name).model_validate({"name": name, **own}), 4, Path(sys.argv[2]))
    except UserError as error:
        missing.append(str(error))
print(json.dumps([missing, sorted({"torch", "lightning"} & set(sys.modules))]))
"""


def test_every_data_set_of_files(tmp_path: Path) -> None:
    assert len(OF_FILES) >= 10
    done = execute(sys.executable, "-c", CHECKS, json.dumps(OF_FILES), str(tmp_path), cwd=tmp_path)
    missing, heavy = json.loads(done.stdout)
    assert len(missing) == len(OF_FILES)
    assert all(f"was not found in data_dir={tmp_path}" in one or "none does not exist" in one for one in missing)
    assert heavy == []


def test_every_command_that_reads_data(tmp_path: Path) -> None:
    words = ["dataset=imagenet", "recipe=none", f"data_dir={tmp_path}", f"runs_dir={tmp_path / 'runs'}"]
    run = RunFolder.create(load_config(words))
    (run.checkpoints / "last.ckpt").write_bytes(b"")
    of_run = [f"run={run.path}", "checkpoint=last"]
    commands = [["train", *words], ["prepare", *words], ["profile", *words], ["evaluate", *of_run]]
    commands += [["describe", *of_run], ["landscape", *of_run], ["export", *of_run, "format=pt2", "bits=8"]]
    done = execute(sys.executable, "-c", COMMANDS, json.dumps(commands), cwd=tmp_path)
    codes, heavy = json.loads(done.stdout)
    assert codes == [1] * len(commands)
    assert heavy == []
    assert done.stderr.count("ImageNet was not found in data_dir=") == len(commands)
    assert list((tmp_path / "runs").iterdir()) == [run.path]


def test_mistakes_are_reported_as_early(tmp_path: Path) -> None:
    """A folder that is no run, an unknown key, a source for a data set that has none, missing first weights."""
    run = RunFolder.create(load_config(["dataset=digits", f"data_dir={tmp_path}", f"runs_dir={tmp_path / 'runs'}"]))
    (run.checkpoints / "last.ckpt").write_bytes(b"")
    here = f"run={run.path}"
    of_run = {"evaluate": [], "describe": [], "landscape": [], "export": ["format=pt2", "bits=8"]}
    commands = []
    for name, more in of_run.items():
        commands += [[name, f"run={tmp_path}", *more], [name, here, *more, "chekpoint=last"]]
        commands += [[name, here, *more, "checkpoint=last", "dataset.source=elsewhere"]]
    for name in ("describe", "profile"):
        commands += [[name, "dataset=digits", "methd=lsg"], [name, "dataset=digits", "init_from=nowhere"]]
    done = execute(sys.executable, "-c", COMMANDS, json.dumps(commands), cwd=tmp_path)
    codes, heavy = json.loads(done.stdout)
    assert codes == [2] * len(commands)
    assert heavy == []
    assert done.stderr.count("is not a run folder") == len(of_run)
    assert done.stderr.count("unknown key 'dataset.source'") == len(of_run)
    assert done.stderr.count("init_from: ") == 2
