"""Results of benchmarks/gpu_check.py as a section of docs/performance.md, between two markers."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gpu_record import results
from gradspike.errors import UserError
from gradspike.runs.files import write_output
from names import GRAPHS, TWINS

START, END = "<!-- gpu check -->", "<!-- end of gpu check -->"
NONE = (
    "No GPU has run `make gpu-check` yet, so there are no figures. The command has run only with small networks on a "
    "simulated GPU, whose kernels compute nothing."
)
MEMORY_TARGET = "1.00"

Result = Mapping[str, Any]


def write_table(out: Path, page: Path) -> None:
    """Replace the section of the page by the results in `out`. Raises UserError if the page has no place for it."""
    text = page.read_text(encoding="utf-8") if page.is_file() else ""
    if START not in text or END not in text.partition(START)[2]:
        raise UserError(f"--page {page}: has no lines {START} and {END}, between which the results go.")
    before, _, rest = text.partition(START)
    after = rest.partition(END)[2]
    write_output(page, f"{before}{START}\n{section(results(out) if out.is_dir() else {})}\n{END}{after}", "--page ")
    print(f"written: {page}", flush=True)


def section(found: Mapping[str, Result]) -> str:
    """The section's Markdown. Results of a CPU, a simulated device or small networks are no results of a GPU."""
    real = {
        name: one
        for name, one in found.items()
        if (one.get("device"), one.get("simulated"), one.get("size")) == ("cuda", False, "full")
    }
    if not real:
        return NONE
    parts = [machine(real.get("machine", {})), steps(real)]
    parts += [kernels(real["kernels"])] if real.get("kernels", {}).get("found", {}).get("rows") else []
    for name in ("resnet19_128", "resnet19_32", "vggsnn"):
        if real.get(name, {}).get("found", {}).get("candidates"):
            parts.append(training_steps(real[name]["found"]))
    parts += [accuracies(real)]
    return "\n\n".join(filter(None, parts))


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with the columns after the first aligned right."""
    lines = [head, ["---", *["---:"] * (len(head) - 1)], *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def machine(result: Result) -> str:
    """The machine in a sentence, with the bounds of all figures below."""
    found = result.get("found", {})
    if not found:
        return "The step `machine` has no results."
    names = ("torch", "triton", "cuda", "driver", "cudnn", "python")
    versions = ", ".join(f"{name} {found[name]}" for name in names if found.get(name))
    text = f"**{found.get('card', 'unknown GPU')}**: {versions}."
    if "copy_bytes_per_second" in found:
        text += f" Bounds: a copy moves {found['copy_bytes_per_second'] / 1e12:.2f} TB/s (read and written)"
    if "bf16_matmul_flops" in found:
        text += f", a bf16 matrix product computes {found['bf16_matmul_flops'] / 1e12:.0f} TFLOP/s"
    return text + "."


def steps(found: Mapping[str, Result]) -> str:
    """What became of each step, and its problems."""
    rows = [[f"`{name}`", one["state"], seconds(one.get("seconds"))] for name, one in found.items()]
    problems = [f"- `{name}`: {problem}" for name, one in found.items() for problem in one["problems"]]
    return "\n\n".join(filter(None, [table(["step", "result", "seconds"], rows), "\n".join(problems)]))


def seconds(value: float | None) -> str:
    """Whole seconds."""
    return "-" if value is None else f"{value:.0f}"


def kernels(result: Result) -> str:
    """Each layer's passes: time, and bandwidth as a share of a copy's, which is the bound."""
    found = result["found"]
    copies: dict[tuple[Any, ...], float] = {}
    passes: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in found["rows"]:
        layer = (row["channels"], row["side"], row["dtype"], row["arrangement"])
        if row["what"] == "copy":
            copies[layer] = row["bytes_per_second"]
        else:
            passes.setdefault((*layer, row["engine"]), {})[row["what"]] = row
    head = ["layer", "engine", "copy", "forward", "of the bound", "backward", "of the bound"]
    rows = []
    for (channels, side, dtype, arrangement, engine), both in passes.items():
        copy = copies[channels, side, dtype, arrangement]
        cells = [f"{channels} x {side} x {side}, {dtype}, {arrangement}", engine, f"{copy / 1e9:,.0f} GB/s"]
        for what in ("forward", "backward"):
            row = both.get(what)
            cells += ["-", "-"] if row is None else [
                f"{1e6 * row['seconds']:.0f} us", f"{row['bytes_per_second'] / copy:.0%}"
            ]  # fmt: skip
        rows.append(cells)
    return (
        f"Norm and neuron of single layers, T = {found['time_steps']}, batch {found['batch']}. The bound is the copy's "
        f"bandwidth; the bytes are the fewest that a pass can move.\n\n{table(head, rows)}"
    )


def training_steps(found: Mapping[str, Any]) -> str:
    """Time and memory of whole steps: ratios to the faster twin, with the target beside them. Steps as CUDA graphs have
    a table of their own, with a twin of graphs.
    """
    ran = {name: one for name, one in found["candidates"].items() if one["seconds"] and None not in one["seconds"]}
    groups = ({name: one for name, one in ran.items() if name.endswith(GRAPHS) == graphs} for graphs in (False, True))
    return "\n\n".join(step_table(found, group) for group in groups if group)


def step_table(found: Mapping[str, Any], ran: Mapping[str, Any]) -> str:
    """The table of some candidates, of which one or two are twins."""
    twins = [name for name in ran if name.removesuffix(GRAPHS) in TWINS]
    if not twins:
        return f"{found['title']}: no twin has run."
    medians = {name: statistics.median(one["seconds"]) for name, one in ran.items()}
    best = min(twins, key=medians.__getitem__)
    head = ["candidate", "step", "time", "target", "GPU busy", "host", "launches", "memory", "target"]
    rows = []
    for name, one in ran.items():
        took, ours = medians[name], name not in twins
        cells = [
            name,
            f"{1e3 * took:.1f} ms",
            f"{took / medians[best]:.2f}",
            target(name, found["title"]) if ours else "",
        ]
        cells += [share(one.get("busy"), took), milliseconds(one.get("host")), count(one.get("launches"))]
        cells += [f"{one['peak_bytes'] / ran[best]['peak_bytes']:.2f}", MEMORY_TARGET if ours else ""]
        rows.append(cells)
    rounds = len(ran[best]["seconds"])
    return (
        f"{found['title']}, {found['setting']}, {rounds} rounds. 1.00 is {best}, {1e3 * medians[best]:.1f} ms and "
        f"{ran[best]['peak_bytes'] / 2**30:.2f} GiB at its peak.\n\n{table(head, rows)}"
    )


def target(candidate: str, title: str) -> str:
    """The target of a candidate's time, relative to the twin."""
    many = "T = 10" in title
    if candidate.removesuffix(GRAPHS).endswith("ds_atgo"):
        return "1.15" if many else "1.08"
    return "1.08" if many else "1.03"


def share(busy: float | None, took: float) -> str:
    """The share of a step in which the device works."""
    return "-" if busy is None else f"{busy / took:.0%}"


def milliseconds(value: float | None) -> str:
    """Milliseconds."""
    return "-" if value is None else f"{1e3 * value:.1f} ms"


def count(value: float | None) -> str:
    """A mean number of launches."""
    return "-" if value is None else f"{value:,.0f}"


def accuracies(found: Mapping[str, Result]) -> str:
    """The trainings: the README's command and CIFAR-10."""
    rows = []
    for step, title in (("digits", "digits, spiking_cnn"), ("cifar10", "CIFAR-10, ResNet-19, T = 2, bf16")):
        for name, one in found.get(step, {}).get("found", {}).items():
            if not isinstance(one, dict) or one.get("accuracy") is None:
                continue
            epochs = one.get("epochs")
            cells = [title, name, "-" if epochs is None else str(epochs), f"{one['accuracy']:.2%}"]
            rows.append([*cells, seconds(one.get("epoch_seconds")), seconds(one["seconds"])])
    head = ["training", "run", "epochs", "test accuracy", "seconds of an epoch", "seconds in all"]
    return table(head, rows) if rows else ""
