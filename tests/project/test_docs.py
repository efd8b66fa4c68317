"""The documentation: tables of options are those of the code, links and paths lead somewhere, commands are accepted."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_origin

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
from helpers.pages import DOCS, blocks

METHODS_PAGE = (DOCS / "methods.md").read_text(encoding="utf-8")


NORMS_PAGE = (DOCS / "norms.md").read_text(encoding="utf-8")


PAGES = [*sorted(DOCS.glob("*.md")), *(ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md"))]


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
