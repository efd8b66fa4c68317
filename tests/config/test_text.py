"""Values of text keys stay as typed, even if Hydra's grammar would parse them differently."""

from __future__ import annotations

import os
import re
import shlex
import sys
from pathlib import Path

import pytest

from gradspike.config.compose import load_config
from gradspike.config.overrides import override, quoted
from gradspike.errors import ConfigError
from helpers.command import command

FOLDER = ["dataset=event_folder", "dataset.source=x.zip", "dataset.image_size=32", "dataset.classes=3"]

STRANGE = [
    "2025", "007", "1e3", "1_000", "-1", "+5", ".5", "nan", "inf", "true", "False", "jose (lab)", "José (lab)", "a=b",
    "it's", 'say "x"', "[final]", "X/runs [final]", "a[1]", "100%", "a:b", "a b", "~/x", "@home", "#1", "a&b", "?", "*",
    "(a)", "a;b", "sort(x)y",
]  # fmt: skip


@pytest.mark.parametrize("text", STRANGE)
@pytest.mark.parametrize("key", ["data_dir", "dataset.train_folder", "dataset.source"])
def test_what_was_typed_is_what_is_read(key: str, text: str) -> None:
    config = load_config([*FOLDER, f"{key}={text}"])
    section, _, name = key.rpartition(".")
    found = getattr(getattr(config, section) if section else config, name)
    assert found == (str(Path(text).expanduser()) if text.startswith("~") and key == "data_dir" else text)


@pytest.mark.parametrize(
    "text", [*STRANGE, "null", "a,b", "${x}", "\\", "a\\", "\\${x}", "'quoted'", " a ", "[a, b]", ""]
)
def test_a_written_override_is_read_back(text: str) -> None:
    if text:
        assert load_config([*FOLDER, override("dataset.train_folder", text)]).dataset.train_folder == text


@pytest.mark.parametrize(("text", "found"), [("1e3", "1e3"), ("007", "007"), ("true", "true"), ("2025", "2025")])
def test_labels_and_logger(text: str, found: str) -> None:
    config = load_config([f"method.label={text}", "logger=wandb", f"logger.project={text}", f"logger.tags=[{text},a]"])
    assert config.method.label == found
    assert config.logger.project == found
    assert config.logger.tags == (found, "a")


@pytest.mark.parametrize("tags", [("é", "好 😀"), ("#1", "50%?"), ("a; b", "<x> & |")])
def test_a_list_of_texts_that_hydra_cannot_read(tags: tuple[str, ...]) -> None:
    assert load_config(["logger=wandb", f"logger.tags=[{', '.join(tags)}]"]).logger.tags == tags
    assert load_config([f"runs_dir=[{','.join(tags)}]"]).runs_dir == f"[{','.join(tags)}]"
    with pytest.raises(ConfigError, match=r"In a list, quote each text, as in"):
        load_config(["logger=wandb", f"logger.tags=[{tags[0]}, (b), 'c]"])


def test_a_label_fits_into_the_name_of_a_folder() -> None:
    with pytest.raises(ConfigError, match="must have at most 100 characters"):
        load_config(["method.label=" + "x" * 101])


def test_null_is_no_text() -> None:
    assert load_config([*FOLDER, "dataset.val_folder=null"]).dataset.val_folder is None
    with pytest.raises(ConfigError, match="data_dir=null"):
        load_config(["data_dir=null"])


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("optimizer.lr=(1)", "optimizer.lr=(1): cannot be read"),
        ("runs_dir=a,b", "only one value is allowed"),
        ("runs_dir=(a,b", "cannot be read"),
        ("+optimizer.groups={'a':{lr:1}}", "without quotes"),
        ("method=(x)", "unknown method '(x)'"),
        ("method=2025", "unknown method '2025'"),
    ],
)
def test_what_was_refused_is_refused(word: str, said: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([word])
    assert said in str(error.value)


@pytest.mark.parametrize("text", ["a,b", "/x/a, b (c)", "x={y},z", "(a,b", 'it\'s, "quoted"', "a,b\\"])
@pytest.mark.parametrize("key", ["data_dir", "dataset.source", "dataset.train_folder"])
def test_an_error_says_how_to_quote_a_text(key: str, text: str) -> None:
    """What it says can be pasted into a shell."""
    with pytest.raises(ConfigError) as error:
        load_config([*FOLDER, f"{key}={text}"])
    (word,) = shlex.split(str(error.value).rpartition("quote it: ")[2])
    section, _, name = key.rpartition(".")
    config = load_config([*FOLDER, word])
    assert getattr(getattr(config, section) if section else config, name) == text


@pytest.mark.parametrize("word", ["seed=0,1", "optimizer.lr=0.1,0.2", "method=psg,lsg"])
def test_no_quotes_are_suggested_for_numbers_and_options(word: str) -> None:
    with pytest.raises(ConfigError) as error:
        load_config([word])
    assert "quote" not in str(error.value)


@pytest.mark.parametrize("key", ["data_dir", "runs_dir", "dataset.source", "logger.group"])
def test_what_is_no_text_is_refused(key: str) -> None:
    words = [*FOLDER, "logger=wandb"]
    with pytest.raises(ConfigError, match=rf"{key}=a.*: is not UTF-8\. Rename it"):
        load_config([*words, override(key, os.fsdecode(b"a\xff"))])


def test_a_nul_in_a_file_of_options_is_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset").mkdir()
    (tmp_path / "dataset" / "mine.yaml").write_text('name: image_folder\nsource: "a\\0b"\nclasses: 2\nimage_size: 8\n')
    with pytest.raises(ConfigError, match="must not contain a NUL character"):
        load_config(["dataset=mine"], str(tmp_path))


ASCII = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}


def test_words_are_text_in_a_locale_without_their_letters() -> None:
    """In an ASCII locale, Python gives the letters of a path as bytes that are not text."""
    result = command("train", "runs_dir=é", "--cfg", "job", "--package", "runs_dir", **ASCII)
    assert (result.returncode, result.stdout, result.stderr) == (0, "\\xe9\n", "")
    result = command("describe", "methodd=好", **ASCII)
    assert result.returncode == 2
    assert result.stderr.startswith("Error: unknown key 'methodd'. Did you mean 'method'?")


def test_the_users_own_choice_of_an_ascii_locale_is_named() -> None:
    result = command("train", "runs_dir=é", "--cfg", "job", python=("-X", "utf8=0"), **ASCII)
    assert result.returncode == 2
    assert "cannot be read in this locale's encoding (ascii). Set LC_ALL=C.UTF-8" in result.stderr


def test_a_key_of_the_users_own_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the user's class declares that its option is text."""
    (tmp_path / "text_rule.py").write_text(
        "from gradspike.methods.fixed_sg import FixedSg\n"
        "from gradspike.methods.fixed_sg import FixedSgConfig\n"
        "class Config(FixedSgConfig):\n    table: str = ''\n    steps: int = 1\n"
        "class Rule(FixedSg):\n    Config = Config\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "text_rule", raising=False)
    words = ["method=fixed_sg", "method.name=text_rule:Rule", "+method.table=2025", "+method.steps=3"]
    options = load_config(words).method.model_dump()
    assert (options["table"], options["steps"]) == ("2025", 3)


def test_options_named_by_a_number(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    for name in ("1e3", "2025"):
        (tmp_path / "optimizer" / f"{name}.yaml").write_text("name: sgd\nlr: 0.25\n")
        assert load_config([f"optimizer={name}"], str(tmp_path)).optimizer.lr == 0.25


@pytest.mark.parametrize(
    "name", ["jose (lab)", "José (lab)", "Jose\u0301 (lab)", "a, b", "it's", "100%?", "[x]", "a=b", "#", "${x}"]
)
def test_a_config_dir_of_any_name(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name / "conf"
    (folder / "method").mkdir(parents=True)
    (folder / "method" / "mine.yaml").write_text("name: fixed_sg\nwidth: 3.0\n")
    assert load_config(["method=mine"], str(folder)).method.model_dump()["width"] == 3.0


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"name: sgd\nlr: 010\n", "line 2: 010 would be read as 8"),
        (b"name: sgd\nnesterov: no\n", "line 2: no would be read as false"),
        ("name: é\n".encode("latin1"), "'utf-8' codec can't decode byte 0xe9"),
        ("name: sgd\n".encode("utf-16"), "'utf-8' codec can't decode"),
        (b"name: [sgd\n", "cannot be read as YAML: while parsing"),
    ],
)
def test_an_option_that_is_no_text_or_reads_as_another_value(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "mine.yaml").write_bytes(content)
    with pytest.raises(ConfigError, match=re.escape(said)) as error:
        load_config(["optimizer=mine"], str(tmp_path))
    assert str(error.value).startswith(f"{tmp_path}/optimizer/mine.yaml: cannot be read as YAML: ")


def test_a_union_is_named_by_its_key() -> None:
    with pytest.raises(ConfigError, match=r"  dataset\.sensor_size\.0=0: must be greater than 0$"):
        load_config(["dataset=event_folder", "dataset.classes=2", "dataset.image_size=32", "dataset.sensor_size=[0,5]"])


def test_an_option_that_would_be_hidden_by_ours_is_refused(tmp_path: Path) -> None:
    (tmp_path / "optimizer").mkdir()
    (tmp_path / "optimizer" / "sgd.yaml").write_text("name: sgd\nlr: 9.0\n")
    with pytest.raises(ConfigError, match=r"sgd\.yaml: gradspike has an option of this name"):
        load_config([], str(tmp_path))


def test_quotes_survive_omegaconf() -> None:
    for text in ("${runs_dir}", "\\${runs_dir}", "a'${b", "\\\\${x}\\"):
        assert load_config([f"data_dir={quoted(text)}"]).data_dir == text
