"""The files around the code agree: what CI, pre-commit and make run, the version, the citation."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from gradspike import __version__
from helpers.command import ROOT

WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
FORMS = sorted(file for file in (ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml") if file.stem != "config")


def load(file: Path) -> Any:
    return yaml.safe_load(file.read_text(encoding="utf-8"))


def project() -> dict[str, Any]:
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def test_the_version_is_the_same_everywhere() -> None:
    assert load(ROOT / "CITATION.cff")["version"] == __version__
    newest = re.search(r"^## (\S+) \((\d{4}-\d\d-\d\d)\)$", (ROOT / "CHANGELOG.md").read_text(), flags=re.MULTILINE)
    assert newest, "the first section of CHANGELOG.md is not '## VERSION (YYYY-MM-DD)'"
    assert newest[1] == __version__


def test_citation_has_what_the_format_requires() -> None:
    citation = load(ROOT / "CITATION.cff")
    assert citation["cff-version"] == "1.2.0"
    assert {"message", "title", "authors"} <= citation.keys()
    assert citation["authors"] == project()["authors"]
    assert citation["license"] == project()["license"]
    assert citation["repository-code"] == project()["urls"]["Homepage"]


def lint_tools() -> set[str]:
    """The tools of `make lint`, such as "ruff check"."""
    recipe = re.search(r"^lint:.*\n((?:\t.*\n)+)", (ROOT / "Makefile").read_text(), flags=re.MULTILINE)
    assert recipe
    return {tool_of(line.strip().removeprefix("@")) for line in recipe[1].splitlines()}


def tool_of(command: str) -> str:
    """`.venv/bin/python -m ruff check .` is "ruff check"."""
    words = re.sub(r"^\S+/python -m |^\$\(PY\) -m |^\S+/", "", command).split()
    return " ".join(words[:2]) if words[0] == "ruff" else words[0]


def test_pre_commit_runs_what_make_lint_runs() -> None:
    hooks = [hook for repo in load(ROOT / ".pre-commit-config.yaml")["repos"] for hook in repo["hooks"]]
    assert {tool_of(hook["entry"]) for hook in hooks} == lint_tools()
    assert lint_tools() == {"ruff check", "ruff format", "codespell_lib", "lint-imports", "mypy"}


@pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda file: file.name)
def test_actions_of_a_workflow_are_pinned_by_hash(workflow: Path) -> None:
    steps = [step for job in load(workflow)["jobs"].values() for step in job["steps"]]
    used = [step["uses"] for step in steps if "uses" in step]
    assert used
    for action in used:
        assert re.fullmatch(r"[\w.-]+/[\w.-]+@[0-9a-f]{40}", action), action


def test_ci_tests_the_supported_versions_of_python() -> None:
    prefix = "Programming Language :: Python :: 3."
    supported = {f"3.{one.removeprefix(prefix)}" for one in project()["classifiers"] if one.startswith(prefix)}
    jobs = load(ROOT / ".github" / "workflows" / "ci.yml")["jobs"]
    for job in jobs.values():
        assert set(job["strategy"]["matrix"]["python"]) == supported
    assert ".ci/run" in [step.get("run") for step in jobs["test"]["steps"]]
    (lowest,) = (one for one in project()["dependencies"] if one.startswith("torch>="))
    assert [f"{lowest}.0"] == [f"torch>={version}" for version in jobs["lowest"]["strategy"]["matrix"]["torch"]]
    assert "\nexec make test\n" in (ROOT / ".ci" / "run").read_text()


@pytest.mark.parametrize("form", FORMS, ids=lambda file: file.name)
def test_issue_forms_are_whole(form: Path) -> None:
    content = load(form)
    assert {"name", "description", "body"} <= content.keys()
    ids = [field["id"] for field in content["body"]]
    assert len(ids) == len(set(ids))
    for field in content["body"]:
        assert field["type"] in ("input", "textarea", "dropdown", "checkboxes"), field
        assert field["attributes"]["label"]
    assert any(field.get("validations", {}).get("required") for field in content["body"])


def test_what_the_repository_names_is_there() -> None:
    files = [ROOT / "CONTRIBUTING.md", *(ROOT / ".github").rglob("*.*")]
    for file in files:
        for path in re.findall(r"(?<![\w./-])((?:docs|tests|src|benchmarks)/[\w./-]*\w)", file.read_text()):
            assert (ROOT / path).exists(), f"{file.name}: {path}"
