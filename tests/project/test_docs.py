"""The documentation: the guide works as written, methods.md agrees with the code, commands of sweeps.md are accepted.

In add_a_method.md and add_a_norm.md a block that begins with `# file: PATH` is that file, a diff that begins so changes
it, and bash blocks are commands. All paths are relative to the root of the checkout, here a copy of this one.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple, get_origin

import pytest
import yaml

from gradspike.config.compose import CONF_DIR, load_config, options_of
from gradspike.methods.options import MethodConfig
from gradspike.methods.registry import METHODS
from gradspike.neurons.registry import NEURONS
from gradspike.norms.registry import NORMS
from gradspike.surrogate import SURROGATES
from gradspike.tools.compare import command as compare_command
from gradspike.tools.dashboard.command import dashboard
from gradspike.tools.sweep import command as sweep_command
from gradspike.tools.sweep.file import read
from gradspike.tools.sweep.options import parse
from gradspike.tools.sweep.words import build
from helpers.command import ROOT, command

DOCS = ROOT / "docs"
GUIDE = (DOCS / "add_a_method.md").read_text(encoding="utf-8")
NORM_GUIDE = (DOCS / "add_a_norm.md").read_text(encoding="utf-8")
METHODS_PAGE = (DOCS / "methods.md").read_text(encoding="utf-8")
NORMS_PAGE = (DOCS / "norms.md").read_text(encoding="utf-8")
PAGES = [*sorted(DOCS.glob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]
FILE = re.compile(r"# file: (\S+)\n")


class Block(NamedTuple):
    section: str
    language: str
    path: str | None
    text: str


def blocks(page: str) -> Iterator[Block]:
    for part in re.split(r"^## ", page, flags=re.MULTILINE):
        section = part.partition("\n")[0]
        for language, text in re.findall(r"^```(\w+)\n(.*?)^```$", part, flags=re.MULTILINE | re.DOTALL):
            marker = FILE.match(text)
            yield Block(section, language, marker and marker[1], text[marker.end() :] if marker else text)


def patch(text: str, diff: str) -> str:
    """`text` with a diff without line numbers applied; its old lines must stand there exactly once."""
    lines = [(line[:1], line[1:]) for line in diff.splitlines(keepends=True)]
    old = "".join(line for sign, line in lines if sign in "- \n")
    new = "".join(line for sign, line in lines if sign in "+ \n")
    assert text.count(old) == 1, f"the lines to be changed are not there once:\n{old}"
    return text.replace(old, new)


class Reader:
    """A user who follows the guide in a fresh checkout."""

    def __init__(self, folder: Path, shrunk: list[str]) -> None:
        self.root = folder / "gradspike"
        self.shrunk = shrunk
        ignore = shutil.ignore_patterns("__pycache__", "*.egg-info")
        for part in ("src", "conf", "tests"):
            shutil.copytree(ROOT / part, self.root / part, ignore=ignore, symlinks=True)
        shutil.copy(ROOT / "pyproject.toml", self.root)

    def follow(self, section: str, guide: str = GUIDE) -> str:
        """Do what one section of a guide says; gives what its commands printed."""
        steps = [block for block in blocks(guide) if block.section == section]
        assert steps, f"no section {section}"
        said = ""
        for block in steps:
            if block.language == "bash":
                said += self.type(block.text)
            elif block.path is not None:
                file = self.root / block.path
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(patch(file.read_text(), block.text) if block.language == "diff" else block.text)
        return said

    def type(self, commands: str) -> str:
        """Run the lines of a block in a shell, with overrides that shorten the training."""
        lines = commands.replace("\\\n", " ").splitlines()
        lines = [" ".join([line, *self.shrunk]) if "gradspike train" in line else line for line in lines]
        # Functions, since what is on the PATH need not be of the Python and the checkout that are tested.
        python = 'python() { PYTHONPATH="$THIS_SOURCE:$PYTHONPATH" "$THIS_PYTHON" "$@"; }'
        script = "\n".join(["set -e", python, 'gradspike() { python -m gradspike "$@"; }', *lines])
        result = subprocess.run(
            ["bash", "-c", script],
            cwd=self.root,
            capture_output=True,
            text=True,
            timeout=240,
            env={
                **os.environ,
                "OMP_NUM_THREADS": "1",
                "THIS_PYTHON": sys.executable,
                "THIS_SOURCE": str(self.root / "src"),
            },
        )
        assert result.returncode == 0, f"{commands}\n{result.stdout}\n{result.stderr}"
        return result.stdout

    def package(self) -> dict[Path, bytes]:
        """Every source and configuration file."""
        files = [*(self.root / "src").rglob("*.py"), *(self.root / "conf").rglob("*.yaml")]
        return {file: file.read_bytes() for file in files}

    def summaries(self, folder: str) -> list[dict[str, Any]]:
        return [json.loads(file.read_text()) for file in (self.root / folder).glob("*/summary.json")]


@pytest.fixture
def reader(tmp_path: Path, data_dir: Path) -> Reader:
    """A reader with a clone, and with the folder `my_work` beside it."""
    tiny = [
        "model.width=4",
        "model.depth=2",
        "trainer.max_epochs=1",
        "trainer.progress=none",
        "trainer.accelerator=cpu",
        "engine=eager",
    ]
    clone = tmp_path / "clone"
    clone.mkdir()
    return Reader(clone, [*tiny, f"data_dir={data_dir}"])


def passed(said: str) -> int:
    found = re.search(r"(\d+) passed", said)
    assert found
    assert not re.search(r"failed|error|no tests", said)
    return int(found[1])


def test_a_method_in_a_folder_of_its_own(reader: Reader) -> None:
    """File, YAML, contract, a comparison over two seeds; no line of the package changes."""
    before = reader.package()
    reader.follow("The file")
    reader.follow("The YAML")
    assert passed(reader.follow("Test it")) > len(SURROGATES)
    printed = reader.follow("Train it and the baseline")
    summaries = reader.summaries("runs/annealed")
    assert {(one["method"], one["seed"]) for one in summaries} == {
        (method, seed) for method in ("fixed_sg", "annealed") for seed in (0, 1)
    }
    assert "4 trials" in printed
    for method in ("fixed_sg", "annealed"):
        accuracies = [one["test"]["last"]["accuracy"] for one in summaries if one["method"] == method]
        assert re.search(rf"{method}\W+{100 * sum(accuracies) / 2:.2f} ±", printed)
    assert (reader.root / "annealed.html").is_file()
    assert reader.package() == before


def test_a_method_inside_the_package(reader: Reader) -> None:
    """The same method registered: found by the contract tests and trained by its name."""
    reader.follow("The file")
    reader.follow("The YAML")
    printed = reader.follow("Inside the package")
    assert passed(printed) > len(SURROGATES) + 1
    assert [one["method"] for one in reader.summaries("runs")] == ["annealed"]


def test_the_method_of_the_guide_does_what_it_says(reader: Reader, monkeypatch: pytest.MonkeyPatch) -> None:
    from helpers.method_checks import make_input, make_layer, method_config

    reader.follow("The file")
    monkeypatch.syspath_prepend(str(reader.root / "../my_work"))
    layer = make_layer(method_config("my_lab.annealed:Annealed", start=2.0, end=0.5, half_life=2.0))
    widths = []
    for seed in range(5):
        widths.append(layer.inspect(make_input()).widths[0].item())
        layer(make_input(seed))
    assert widths == pytest.approx([0.5 + 1.5 * 2 ** (-n / 2) for n in range(5)])
    assert layer.state_dict()["method.batches"] == 5


def test_a_norm_from_outside_then_inside_the_package(reader: Reader) -> None:
    """File, YAML, contract, a comparison over two seeds without a changed line of the package; then registered."""
    before = reader.package()
    for section in ("The file", "The YAML"):
        reader.follow(section, NORM_GUIDE)
    assert passed(reader.follow("Test it", NORM_GUIDE)) > 8
    assert "4 trials" in reader.follow("Train it and the default", NORM_GUIDE)
    configs = [yaml.safe_load(file.read_text()) for file in (reader.root / "runs/clipped").glob("*/config.yaml")]
    assert sorted((one["norm"]["name"], one["seed"]) for one in configs) == [
        (norm, seed) for norm in ("my_lab.clipped:Clipped", "tdbn") for seed in (0, 1)
    ]
    assert (reader.root / "clipped.html").is_file()
    assert reader.package() == before
    assert passed(reader.follow("Inside the package", NORM_GUIDE)) > 8


@pytest.mark.parametrize("part", ["method", "neuron", "norm"])
def test_the_file_of_a_guide_has_fewer_than_thirty_lines(part: str) -> None:
    page = (DOCS / f"add_a_{part}.md").read_text(encoding="utf-8")
    (text,) = (block.text for block in blocks(page) if block.language == "python")
    assert len([line for line in text.splitlines() if line.strip()]) < 30


def tables(page: str) -> Iterator[list[dict[str, str]]]:
    """Each table of a page as rows of column -> cell."""
    for found in re.findall(r"(?:^\|.*\n)+", page, flags=re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.strip("|\n").split("|")] for line in found.splitlines())
        # KL(P||Q) and the like would be cut apart: such a thing has no place in a table.
        assert all(len(row) == len(head) for row in rows), f"cells and columns differ: {head}"
        yield [dict(zip(head, row, strict=True)) for row in rows]


def code(cell: str) -> str:
    """The first `code` of a cell."""
    found = re.search(r"`([^`]+)`", cell)
    assert found, f"no code in: {cell}"
    return found[1]


def documented_defaults(column: str, page: str = METHODS_PAGE) -> dict[str, Any]:
    """Option -> default from the table of a page that has this column."""
    for rows in tables(page):
        if "option" in rows[0] and column in rows[0]:
            return {code(row["option"]): yaml.safe_load(code(row[column])) for row in rows if "`" in row[column]}
    raise AssertionError(f"no table of options has the column {column}")


@pytest.mark.parametrize("name", METHODS.names())
def test_options_and_defaults_of_a_method(name: str) -> None:
    defaults = METHODS.config_class(name).model_validate({"name": name}).model_dump(exclude={"name"})
    assert {**documented_defaults("every method"), **documented_defaults(f"`{name}`")} == defaults


@pytest.mark.parametrize("name", NEURONS.names())
def test_options_and_defaults_of_a_neuron(name: str) -> None:
    page = (DOCS / "neurons.md").read_text(encoding="utf-8")
    assert name in {code(row["`neuron`"]) for row in next(tables(page))}
    assert [code(row["`neuron`"]) for row in next(tables(page)) if "default" in row["`neuron`"]] == ["plif"]
    defaults = NEURONS.config_class(name).model_validate({"name": name}).model_dump(exclude={"name"})
    assert {**documented_defaults("every neuron", page), **documented_defaults(f"`{name}`", page)} == defaults


@pytest.mark.parametrize("name", NEURONS.names())
def test_the_file_of_a_neuron_has_its_defaults(name: str) -> None:
    config = NEURONS.config_class(name)
    values = yaml.safe_load((CONF_DIR / "neuron" / f"{name}.yaml").read_text(encoding="utf-8"))
    fixed = {key for key, field in config.model_fields.items() if get_origin(field.annotation) is Literal}
    assert values.items() <= config.model_validate({"name": name}).model_dump().items()
    assert set(config.model_fields) - set(values) <= fixed | {"decay", "v_reset"}


@pytest.mark.parametrize("name", NORMS.names())
def test_options_and_defaults_of_a_norm(name: str) -> None:
    defaults = NORMS.config_class(name).model_validate({"name": name}).model_dump(exclude={"name"})
    own = documented_defaults("`tdbn`", NORMS_PAGE) if name.startswith("tdbn") else {}
    assert {**documented_defaults("every norm", NORMS_PAGE), **own} == defaults


def test_every_norm_has_a_row_and_a_section() -> None:
    overview = next(tables(NORMS_PAGE))
    assert sorted(code(row["`norm`"]) for row in overview) == NORMS.names()
    assert [code(row["`norm`"]) for row in overview if "default" in row["`norm`"]] == ["tdbn"]
    for row in overview:
        assert re.search(r"\(#[\w-]+\)", row["`norm`"])


@pytest.mark.parametrize("name", options_of("loss", [CONF_DIR]))
def test_options_and_defaults_of_a_loss(name: str) -> None:
    page = (DOCS / "losses.md").read_text(encoding="utf-8")
    assert name in {code(row["`loss`"]) for row in next(tables(page))}
    values = yaml.safe_load((CONF_DIR / "loss" / f"{name}.yaml").read_text(encoding="utf-8"))
    documented = documented_defaults(f"`{name}`", page)
    documented["cutmix"] = documented["mixup"]  # they share a row
    assert {**documented, "name": values["name"]} == values


def test_every_method_has_a_section_and_a_row() -> None:
    overview = next(tables(METHODS_PAGE))
    assert sorted(code(row["name"]) for row in overview) == METHODS.names()
    headings = set(re.findall(r"^## (.+)$", METHODS_PAGE, flags=re.MULTILINE))
    for row in overview:
        target = re.search(r"\(#(\w+)\)", row["name"])
        assert target
        assert target[1] in headings
        default = METHODS.config_class(code(row["name"])).model_fields["v_threshold"].default
        assert float(row["V_th"]) == default


def test_variants_are_the_yaml_files() -> None:
    documented = {
        code(row["variant"]): yaml.safe_load("{" + code(row["sets"]) + "}")
        for rows in tables(METHODS_PAGE)
        if "variant" in rows[0]
        for row in rows
    }
    files = {file.stem: yaml.safe_load(file.read_text()) for file in (ROOT / "conf" / "method").glob("*.yaml")}
    variants = {
        name: {key: value for key, value in values.items() if key not in ("defaults", "label", "name")}
        for name, values in files.items()
        if name not in METHODS.names()
    }
    assert documented == variants


def test_every_shape_has_a_row() -> None:
    (rows,) = (rows for rows in tables(METHODS_PAGE) if "primitive phi(v), from 0 to 1" in rows[0])
    assert [code(row["name"]) for row in rows] == list(SURROGATES)
    default = MethodConfig.model_fields["surrogate"].default
    assert [code(row["name"]) for row in rows if "default" in row["name"]] == [default]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_paths_and_tests_named_in_a_page_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    made = {block.path for block in blocks(text)}
    mentioned = re.findall(
        r"(?<![\w./-])((?:conf|src|tests|docs|benchmarks|sweeps|docker)/[\w./-]*\w)(?:::(\w+))?", text
    )
    for path, test in set(mentioned):
        if path in made:
            continue
        assert (ROOT / path).exists(), path
        assert not test or f"\ndef {test}(" in (ROOT / path).read_text(encoding="utf-8"), f"{path}::{test}"


def test_the_values_on_the_way_of_time_steps_are_those_of_the_page() -> None:
    page = (DOCS / "architecture.md").read_text(encoding="utf-8")
    rows = next(rows for rows in tables(page) if "`time_steps`" in rows[0])
    shown = [int(row["`time_steps`"]) for row in rows]
    config = yaml.safe_load((ROOT / code(rows[0]["source"])).read_text(encoding="utf-8"))
    typed = ["method=psg", "dataset=cifar10"]
    each = [config["time_steps"]]
    each += [load_config([*typed, *words]).time_steps for words in (["recipe=none"], [], ["time_steps=8"])]
    assert shown == each


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_of_a_page_lead_somewhere(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        file, _, anchor = target.partition("#")
        if "://" in target:
            continue
        there = page.parent / file if file else page
        assert there.exists(), target
        headings = re.findall(r"^#+ (.+)$", there.read_text(encoding="utf-8"), flags=re.MULTILINE) if anchor else []
        slugs = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
        assert not anchor or anchor in slugs, target


def test_the_readme_leads_to_every_page() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    for page in DOCS.glob("*.md"):
        assert f"](docs/{page.name})" in readme


def test_the_mistake_in_the_readme_is_answered_as_shown() -> None:
    shown = re.search(r"^\$ gradspike (.+)\n(Error: .+)$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    assert shown
    result = command(*shown[1].split())
    assert result.returncode != 0
    assert result.stderr.strip() == shown[2]


def test_a_diff_that_does_not_fit_is_noticed() -> None:
    assert patch("a\nb\nc\n", " a\n-b\n+x\n") == "a\nx\nc\n"
    with pytest.raises(AssertionError, match="not there once"):
        patch("a\nb\n", "-c\n+d\n")


def commands_of(page: Path) -> list[list[str]]:
    """Every line of a page's code blocks that is a `gradspike` command, split into words."""
    parts = re.findall(r"^```\w*\n(.*?)^```$", page.read_text(encoding="utf-8"), flags=re.MULTILINE | re.DOTALL)
    text = "\n".join(parts)
    lines = [line.strip() for line in text.replace("\\\n", " ").splitlines()]
    return [shlex.split(line, comments=True)[1:] for line in lines if line.startswith("gradspike ")]


def test_commands_of_the_page_on_sweeps_are_accepted(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Dry runs are executed; the other commands are only parsed."""
    monkeypatch.chdir(ROOT)
    commands = commands_of(DOCS / "sweeps.md")
    programs = [words[0] for words in commands]
    assert {"sweep", "compare", "dashboard"} <= set(programs)
    for program, *words in commands:
        if program == "sweep" and "--dry-run" in words:
            assert sweep_command.sweep(words) == 0
            assert capsys.readouterr().out.count("gradspike train") == 18  # as the page says
        elif program == "sweep":
            line = parse(words)
            assert load_config(build(read(line.file), line.typed).of({})).method_label()
        elif program == "compare":
            assert compare_command.parse(words).sweep == ["runs/sweeps/quick"]
        elif program == "dashboard":
            pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is an optional extra")
            assert dashboard([*words, "--dry-run"]) == 0
        else:
            raise AssertionError(f"{program}: nothing tries this command")
