"""Features of all commands: the list, the help, parser errors, --config-dir."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from gradspike import __version__
from gradspike.__main__ import COMMANDS, main
from gradspike.cli.arguments import Command, checked_file, take_config_dir
from gradspike.errors import ConfigError, UserError
from gradspike.registry import Strict
from helpers.command import IMPORT_TIMES, ROOT, command, execute, here, imported
from helpers.forks import fork_server

HEAVY = {"torch", "lightning", "numpy", "wandb", "optuna", "tonic", "timm", "matplotlib"}


def test_help_lists_every_command_in_a_line() -> None:
    result = command("--help")
    assert result.returncode == 0
    for name, (line, _) in COMMANDS.items():
        assert f"\n  {name:<14}{line}\n" in result.stdout
    assert main(["help"]) == 0


def test_help_is_answered_in_half_a_second() -> None:
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        assert command("--help").returncode == 0
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.5


@pytest.mark.parametrize("name", COMMANDS)
def test_help_of_a_command(name: str) -> None:
    result = command(name, "--help", python=IMPORT_TIMES, COLUMNS="80")
    assert result.returncode == 0
    intro, _, body = result.stdout.partition("\n\n")
    assert intro.endswith((".", ":")) or ":" in intro
    rest = body.splitlines()
    assert rest[0].split()[:2] == ["gradspike", name]
    assert any(line in ("Arguments:", "Options of the groups (group=option):") for line in rest)
    assert max(map(len, result.stdout.splitlines())) <= 80
    assert not HEAVY & imported(result.stderr)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["trian"], "unknown command 'trian'. Did you mean 'train'?"),
        (["dataset=digits"], "unknown command 'dataset=digits'"),
        (["--hlep"], "unknown command '--hlep'"),
    ],
)
def test_unknown_commands(words: list[str], said: str) -> None:
    result = command(*words)
    assert (result.returncode, result.stdout) == (2, "")
    assert result.stderr.startswith(f"Error: {said}")


def test_no_command_prints_the_help_and_fails(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([]) == 2
    assert "Commands:" in capsys.readouterr().out


def test_version() -> None:
    assert command("--version").stdout == f"gradspike {__version__}\n"


def test_the_script_is_the_same_as_gradspike_train() -> None:
    words = ["method=psg", "--cfg", "job"]
    assert execute(sys.executable, "src/train.py", *words).stdout == command("train", *words).stdout


def test_windows_gets_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("gradspike.__main__.sys.platform", "win32")
    assert main(["train", "--help"]) == 1
    assert capsys.readouterr().err == "Error: gradspike runs on Linux and macOS. On Windows, use WSL.\n"
    assert main(["--version"]) == 0


class Keys(Strict):
    points: int = 3
    out: str | None = None


TOOL = Command("tool", "how to\n", keys=Keys, switches=("--dry-run",), valued=("--where",))


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["pionts=3"], "unknown key 'pionts'. Did you mean 'points'? Allowed: out, points"),
        (["points=x"], "points=x: must be an integer"),
        (["points"], "'points' is not an argument. Write key=value."),
        (["--dryrun"], "unknown flag '--dryrun'. Did you mean '--dry-run'?"),
        (["--dry-run=yes"], "--dry-run takes no value."),
        (["--where"], "--where needs a value"),
        (["--where", "--dry-run"], "--where needs a value"),
        (["--where="], "--where needs a value"),
        (["--config-dir", "x"], "tool does not compose a configuration: leave out --config-dir"),
        (["-cd=x"], "tool does not compose a configuration"),
    ],
)
def test_mistakes_name_the_way_to_the_help(words: list[str], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        TOOL.parse(words)
    first, last = str(error.value).splitlines()
    assert first.startswith(said)
    assert last == "See: gradspike tool --help"


def test_a_command_line_is_taken_apart() -> None:
    typed = TOOL.parse(["--where", "a=1", "points=5", "--dry-run", "--where=b=2", "out=x=y"])
    assert typed.options == Keys(points=5, out="x=y")
    assert (typed.flags["--where"], typed.last("--where"), typed.last("--title")) == (["a=1", "b=2"], "b=2", None)
    assert "--dry-run" in typed.flags
    trains = Command("tool", "", keys=Keys, trains=True, words=True)
    typed = trains.parse(["file.yaml", "-cd", "conf", "seed=1", "+optimizer.groups={a:1}", "hydra.verbose=true"])
    assert typed.words == ["file.yaml"]
    assert typed.overrides == ["seed=1", "+optimizer.groups={a:1}", "hydra.verbose=true"]
    assert typed.config_dir == "conf"
    with pytest.raises(ConfigError, match=r"unknown key 'sed'\. Did you mean 'seed'"):
        trains.parse(["sed=1"])


@pytest.mark.parametrize(
    "words", [["--config-dir", "a b"], ["--config-dir=a b"], ["-cd", "a b"], ["-cd=a b"], ["x", "--config-dir", "a b"]]
)
def test_every_spelling_of_the_folder_of_options(words: list[str]) -> None:
    rest, folder = take_config_dir(words)
    assert folder == "a b"
    assert rest == [word for word in words if word == "x"]


@pytest.fixture
def own_options(tmp_path: Path) -> Path:
    folder = tmp_path / "José (lab)" / "conf"
    (folder / "model").mkdir(parents=True)
    (folder / "model" / "small.yaml").write_text("name: spiking_cnn\nwidth: 4\ndepth: 1\n")
    return folder


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["train", "model=small", "--cfg", "job"], "width: 4"),
        (["train", "--help"], " small "),
        (["describe", "model=small", "dataset=digits", "engine=eager"], "spiking_cnn"),
        (["prepare", "model=small", "dataset=digits", "data_dir=DATA"], "data set   digits"),
        (["sweep", "SWEEP", "--dry-run"], "lab)/conf"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else None,
)
def test_the_folder_is_taken_by_every_command_that_composes(
    own_options: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str
) -> None:
    sweep = tmp_path / "s.yaml"
    sweep.write_text(
        "program: src/train.py\nmethod: grid\nparameters: {model: {values: [small]}}\n"
        "command: ['${interpreter}', '${program}', '${args_no_hyphens}']\n"
    )
    (tmp_path / "data").mkdir()
    given = [word.replace("DATA", str(tmp_path / "data")).replace("SWEEP", str(sweep)) for word in words]
    for flags in (["--config-dir", str(own_options)], [f"-cd={own_options}"]):
        code, printed, error = here([*given, *flags], capsys)
        assert code == 0, error
        assert said in printed
    assert here([*given, "--config-dir", str(tmp_path / "no")], capsys)[0] == 2


@pytest.mark.parametrize("name", ["evaluate", "landscape", "compare", "dashboard"])
def test_other_commands_say_that_they_need_none(name: str, own_options: Path) -> None:
    result = command(name, "--config-dir", str(own_options))
    assert result.returncode == 2
    assert f"{name} does not compose a configuration: leave out --config-dir." in result.stderr


@pytest.mark.parametrize(
    ("text", "error", "said"),
    [
        ("", ConfigError, "out=: must be a file"),
        (".", ConfigError, "out=.: must be a file"),
        ("x/", ConfigError, "out=x/: must be a file"),
        ("no/such/x.json", ConfigError, "unknown folder 'no/such'"),
        ("a.txt", ConfigError, r"must end in one of \.json \(the numbers\)"),
        ("/proc/x.json", UserError, "cannot be written to"),
    ],
)
def test_files_to_write_are_checked_before_any_work(text: str, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        checked_file("out=", text, {".json": "the numbers"})


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["evaluate", "run="], "run=: must not be empty"),
        (["evaluate", "run=x", "data_dir="], "data_dir=: must not be empty"),
        (["landscape", "run=x", "out="], "out=: must not be empty"),
        (["prepare", "dataset=cifar10dvs_sim", "export="], "export=: must not be empty"),
        (["sweep", "x.yaml", "gpus="], "gpus=: must not be empty"),
        (["train", "resume="], "The path of a run must not be empty"),
        (["train", "dataset=digits", "runs_dir="], "runs_dir=: must not be empty"),
    ],
)
def test_an_unset_variable_of_the_shell_is_no_default(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """`run=$RUN` in the folder of a run evaluated that run."""
    assert main(words) == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("words", [["describe", "dataset=digits"], ["profile", "dataset=digits"]])
def test_a_file_that_cannot_be_written_is_answered_without_torch(words: list[str], tmp_path: Path) -> None:
    result = command(*words, f"out={tmp_path}", python=IMPORT_TIMES)
    assert result.returncode == 2
    assert "must be a file" in result.stderr
    assert "torch" not in imported(result.stderr)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--multrun"], "unknown flag '--multrun'. Did you mean '--multirun'?"),
        (["--config-path", "x"], "--config-path: use --config-dir to add your own folder."),
        (["--experimental-rerun", "x"], "--experimental-rerun: start the run again"),
        (["--cfg", "jobb"], "invalid choice: 'jobb'"),
    ],
)
def test_flags_of_hydra(words: list[str], said: str) -> None:
    result = command("train", *words)
    assert result.returncode == 2
    assert said in result.stderr
    assert "Traceback" not in result.stderr


def test_text_reaches_the_run_through_hydra(tiny: Callable[..., list[str]], tmp_path: Path) -> None:
    """Also in the trials of a multirun, whose overrides Hydra writes itself."""
    folder = tmp_path / "José (lab) [1e3]"
    words = tiny("trainer.max_epochs=1", "method.label=1e3,007")
    words = [word for word in words if not word.startswith("runs_dir=")]
    process = fork_server().start("train", *words, f"runs_dir={folder}", "-m")
    output = process.communicate(timeout=240)[0]
    assert process.returncode == 0, output
    names = sorted(run.name.split("_")[2] for run in folder.glob("2*"))
    assert names == ["007", "1e3"]
    assert "2 trials" in output


def test_readme_and_docs_name_the_commands_that_exist() -> None:
    found = set()
    for file in (ROOT / "README.md", *(ROOT / "docs").glob("*.md")):
        blocks = file.read_text(encoding="utf-8").split("```")[1::2]
        for line in "\n".join(blocks).splitlines():
            if line.startswith("gradspike ") and not line.split()[1].startswith("-"):
                found.add(line.split()[1])
    assert found == set(COMMANDS)
