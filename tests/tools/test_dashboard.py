"""The W&B workspace: it requests metrics that runs log, its dry run works offline, and it is saved to a server."""

from __future__ import annotations

import json
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from gradspike.config.compose import load_config
from gradspike.config.schema import ExperimentConfig
from gradspike.runs.folder import RunFolder
from gradspike.tools.dashboard import heat_map
from gradspike.tools.dashboard.command import dashboard
from gradspike.training import run as training
from helpers.command import IMPORT_TIMES, TINY, command, imported
from helpers.wandb_records import final_summary, inspect
from helpers.wandb_server import USER, wandb_server

pytest.importorskip("wandb_workspaces", reason="wandb-workspaces is an optional extra")


@pytest.fixture(autouse=True)
def _logged_out(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL", "WANDB_PROJECT", "WANDB_ENTITY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", "/dev/null")


@pytest.fixture
def specification(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """The output of a dry run without a network."""

    def refuse(*args: Any) -> None:
        raise AssertionError("a dry run asked the network")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    assert dashboard(["project=mine", "entity=us", "dataset=digits", "name=Our methods", "--dry-run"]) == 0
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


def panels(specification: dict[str, Any], kind: str) -> list[dict[str, Any]]:
    """The configurations of all panels of one kind, of which there must be some."""
    sections = specification["view"]["section"]["panelBankConfig"]["sections"]
    found = [panel["config"] for one in sections for panel in one["panels"] if panel["viewType"] == kind]
    assert found, kind
    return found


@pytest.fixture(scope="module")
def logged(tmp_path_factory: pytest.TempPathFactory, data_dir: Path) -> tuple[RunFolder, list[dict[str, Any]]]:
    """A trained run and all records in its W&B files."""
    words = [*TINY, "logger=wandb", "method=ds_atgo_at", f"data_dir={data_dir}"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("WANDB_MODE", "offline")
        config = load_config([*words, f"runs_dir={tmp_path_factory.mktemp('logged')}"])
        run, _ = training.train(config, None, ["test"])
    return run, inspect(run)


def history(records: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [record["history"]["item"] for record in records if record["type"] == "history"]


def test_every_curve_is_logged_beside_its_axis(
    specification: dict[str, Any], logged: tuple[RunFolder, list[dict[str, Any]]]
) -> None:
    lines = panels(specification, "Run History Line Plot")
    shown = {metric for line in lines for metric in line["metrics"]}
    assert {"val/accuracy", "val/loss", "train/loss", "probe/mean/gradient_available"} <= shown
    assert {"probe/mean/theta", "probe/mean/kappa"} <= shown
    for line in lines:
        (metric,) = line["metrics"]
        together = [item for item in history(logged[1]) if isinstance(item.get(metric), int | float)]
        assert together, metric
        assert all(line["xAxis"] in item for item in together), metric
        assert (line["groupBy"], line["groupAgg"], line["groupArea"]) == ("group", "mean", "stddev")


def test_every_bar_point_and_column_is_in_the_summary(
    specification: dict[str, Any], logged: tuple[RunFolder, list[dict[str, Any]]]
) -> None:
    summary = final_summary(logged[1])
    bars = panels(specification, "Bar Chart")
    asked = [metric for bar in bars for metric in bar["metrics"]]
    assert {"test/last/accuracy", "val/last/accuracy", "test/last/energy_nj"} <= set(asked)
    assert all(bar["groupBy"] == "group" for bar in bars)
    points = [axis for plot in panels(specification, "Scatter Plot") for axis in (plot["xAxis"], plot["yAxis"])]
    columns = specification["view"]["section"]["runSets"][0]["runFeed"]["columnOrder"]
    for word in [*points, *columns]:
        section, _, name = word.partition(":")
        if word != "run:displayName":
            assert section == "summary"
            asked.append(name)
    assert "test/last/firing_rate" in asked
    assert set(asked) <= set(summary)
    assert summary["test/last/energy_nj"] > 0


def test_runs_are_grouped_and_filtered_by_what_they_have(
    specification: dict[str, Any], logged: tuple[RunFolder, list[dict[str, Any]]]
) -> None:
    start = next(record["run"] for record in logged[1] if record["type"] == "run")
    runs = specification["view"]["section"]["runSets"][0]
    assert runs["grouping"] == [{"section": "run", "name": "group"}]
    assert start["run_group"] == "ds_atgo_at"
    (kept,) = runs["filters"]["filters"]
    assert (kept["key"]["section"], kept["op"], kept["value"]) == ("config", "IN", ["digits"])
    # W&B keeps config.dataset as {"dataset": {"value": {...}}}.
    first, envelope, inner = kept["key"]["name"].split(".")
    assert envelope == "value"
    assert start["config"]["update"][first][inner] == "digits"
    assert start["config"]["update"]["method"]["name"] == "ds_atgo"  # W&B's own grouping needs no workspace


def test_heat_maps_show_the_layers_that_the_last_validation_has_measured(
    specification: dict[str, Any], logged: tuple[RunFolder, list[dict[str, Any]]]
) -> None:
    run, records = logged
    summary = final_summary(records)
    maps = panels(specification, "Vega2")
    assert [one["fieldSettings"]["value"] for one in maps] == ["firing_rate", "gradient_available"]
    (table,) = (run.path / "wandb").rglob("*.table.json")
    content = json.loads(table.read_text())
    chart = json.dumps(specification["chart"]["specification"])
    for one in maps:
        (asked,) = one["userQuery"]["queryFields"]
        (key,) = next(field for field in asked["fields"] if field["name"] == "summaryTable")["args"]
        assert summary[f"{key['value']}._type"] == "table-file"
        assert table.as_posix().endswith(summary[f"{key['value']}.path"])
        assert one["panelDefId"] == specification["chart"]["id"]
        assert set(re.findall(r"\$\{field:(\w+)\}", chart)) == set(one["fieldSettings"])
        assert set(one["fieldSettings"].values()) <= set(content["columns"])
        assert set(re.findall(r"\$\{string:(\w+)\}", chart)) == set(one["stringSettings"])
    validation = [json.loads(line) for line in run.metrics.open() if "probe_val/" in line][-1]
    rows = [dict(zip(content["columns"], row, strict=True)) for row in content["data"]]
    steps = run.config().time_steps
    assert [(row["depth"], row["layer"], row["step"]) for row in rows] == [
        (depth, f"neurons.{depth}", step) for depth in range(2) for step in range(steps)
    ]
    for row in rows:
        assert (row["method"], row["seed"]) == ("ds_atgo_at", 0)
        for quantity in ("firing_rate", "gradient_available"):
            assert row[quantity] == validation[f"probe_val/{row['layer']}/{quantity}/t{row['step']}"]


def test_energy_is_that_of_the_comparison(logged: tuple[RunFolder, list[dict[str, Any]]]) -> None:
    from gradspike.tools.compare.folder import read_run
    from gradspike.tools.compare.groups import group_runs
    from gradspike.tools.compare.report import compare

    run = read_run(logged[0].path)
    (row,) = compare(group_runs([run]), None, []).rows
    assert row.energy is not None
    assert final_summary(logged[1])["test/last/energy_nj"] == pytest.approx(row.energy.mean)


def test_the_relu_twin_has_an_energy_and_no_table(tiny_config: Callable[..., ExperimentConfig]) -> None:
    run, _ = training.train(tiny_config("logger=wandb", "model.activation=relu", "trainer.max_epochs=1"), None, [""])
    summary = final_summary(inspect(run))
    assert summary["test/last/energy_nj"] > 0
    assert not [key for key in summary if key.startswith("layers")]
    assert not list((run.path / "wandb").rglob("*.table.json"))


def test_another_chart_has_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    before = heat_map.name()
    assert heat_map.name() == before
    monkeypatch.setitem(heat_map.SPECIFICATION, "columns", 4)
    assert heat_map.name() != before


def test_help_imports_nothing_heavy() -> None:
    result = command("dashboard", "--help", python=IMPORT_TIMES)
    assert result.returncode == 0
    assert "project=gradspike" in result.stdout
    assert not {"torch", "lightning", "wandb", "wandb_workspaces"} & imported(result.stderr)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["projct=x"], 2, "Did you mean 'project'?"),
        ([], 2, "project: must be given"),
        (["project=x", "--dryrun"], 2, "Did you mean '--dry-run'?"),
        (["project=x", "dataset=cifar10dsv"], 2, "Did you mean 'cifar10dvs'?"),
        (["project=team/x"], 2, "project=team/x: must not contain /; write the team as entity=team"),
        (["project=x#1"], 2, "must not contain #, which W&B does not allow"),
        (["project=x", "entity=a%b"], 2, "must not contain %"),
        (["project=" + "x" * 129], 2, "at most 128 characters"),
        (["project=x"], 1, "Not logged in to W&B. Run wandb login"),
    ],
)
def test_refusals(words: list[str], code: int, said: str) -> None:
    result = command("dashboard", *words)
    assert (result.returncode, result.stdout) == (code, "")
    assert result.stderr.startswith("Error: ")
    assert said in result.stderr


@pytest.mark.parametrize(
    ("words", "variables", "project", "entity"),
    [
        ([], {"WANDB_PROJECT": "theirs", "WANDB_ENTITY": "team"}, "theirs", "team"),
        (["project=x"], {"WANDB_PROJECT": "theirs", "WANDB_ENTITY": ""}, "x", None),
        (["project=x", "entity=y"], {"WANDB_PROJECT": "not/good", "WANDB_ENTITY": "not/good"}, "x", "y"),
    ],
)
def test_project_and_entity_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    words: list[str],
    variables: dict[str, str],
    project: str,
    entity: str | None,
) -> None:
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert dashboard([*words, "--dry-run"]) == 0
    printed = json.loads(capsys.readouterr().out)
    assert (printed["project"], printed["entity"]) == (project, entity)


def test_a_wrong_project_of_the_environment_is_refused() -> None:
    result = command("dashboard", WANDB_PROJECT="team/x")
    assert result.returncode == 2
    said = (
        "Error: the environment variable WANDB_PROJECT=team/x: must not contain /; write the team as WANDB_ENTITY=team"
    )
    assert result.stderr.startswith(said)


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from gradspike.errors import UserError

    monkeypatch.setitem(sys.modules, "wandb_workspaces", None)
    with pytest.raises(UserError, match=r"pip install 'gradspike\[dashboard\]'"):
        dashboard(["project=x", "--dry-run"])


def without_ids(value: Any) -> Any:
    """A view without the ids that are drawn for its panels."""
    if isinstance(value, dict):
        return {key: without_ids(one) for key, one in value.items() if key not in ("__id__", "id")}
    return [without_ids(one) for one in value] if isinstance(value, list) else value


def test_it_is_saved_in_the_default_entity(specification: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    with wandb_server(["mine", "theirs"]) as server:
        result = command("dashboard", "project=mine", "dataset=digits", "name=Our methods", **server.environment)
    assert result.returncode == 0, result.stdout + result.stderr
    assert f"saved: {server.address}/{USER}/mine?nw=" in result.stdout
    chart, view = server.sent["createCustomChart"], server.sent["upsertView"]
    assert (chart["entity"], chart["access"]) == (USER, "PRIVATE")
    assert json.loads(chart["spec"]) == heat_map.SPECIFICATION
    assert (view["entityName"], view["projectName"], view["displayName"]) == (USER, "mine", "Our methods")
    assert view["type"] == "project-view"
    assert f"{USER}/{heat_map.name()}" in view["spec"]
    sent = json.loads(view["spec"].replace(f"{USER}/{heat_map.name()}", f"us/{heat_map.name()}"))
    assert without_ids(sent) == without_ids(specification["view"])


@pytest.mark.parametrize(
    ("refuses", "code", "said"),
    [
        ("createCustomChart", 0, f"Note: W&B did not save the chart {heat_map.name()}"),
        ("upsertView", 1, "Error: W&B: saving the workspace failed: "),
    ],
)
def test_server_errors_are_reported(refuses: str, code: int, said: str) -> None:
    with wandb_server(["mine"], refuses) as server:
        result = command("dashboard", "project=mine", "entity=us", **server.environment)
    assert result.returncode == code, result.stdout + result.stderr
    assert said in result.stdout + result.stderr
    assert "not today" in result.stdout + result.stderr


def test_a_missing_project_is_reported_before_anything_is_saved() -> None:
    with wandb_server(["methods"]) as server:
        result = command("dashboard", "project=method", "entity=us", **server.environment)
    assert result.returncode == 1
    assert "unknown project 'method' of us. Did you mean 'methods'?" in result.stderr
    assert not server.sent
