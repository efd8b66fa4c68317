"""The private names of torch, Lightning, timm and Hydra that the package uses. Any version may remove them.

Add new ones here on purpose. The test names those that the installed versions lack.
"""

from __future__ import annotations

import ast
import importlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from helpers.command import ROOT

LIBRARIES = ("torch", "lightning", "timm", "hydra", "triton")

USED = {
    "hydra._internal.core_plugins.basic_sweeper.BasicSweeper": "multiruns",
    "hydra._internal.hydra.Hydra": "composing with the user's flags",
    "hydra._internal.utils._run_hydra": "composing with the user's flags",
    "hydra._internal.utils.create_config_search_path": "composing with the user's flags",
    "hydra._internal.utils.get_args_parser": "composing with the user's flags",
    "lightning.pytorch.strategies.launchers.subprocess_script._SubprocessScriptLauncher": "ending the other processes",
    "timm.layers._fx.get_notrace_functions": "tracing",
    "timm.layers._fx.get_notrace_modules": "tracing",
    "timm.layers.create_act._ACT_LAYER_DEFAULT": "which modules are activations",
    "timm.layers.create_act._ACT_LAYER_ME": "which modules are activations",
    "timm.models._manipulate.adapt_input_conv": "weights for another number of channels",
    "torch._C._len_torch_dispatch_stack": "no compiled kernels while operations are counted",
    "torch._dynamo.exc.TorchDynamoException": "errors of torch.compile as one sentence",
    "torch._inductor.runtime.cache_dir_utils": "where compiled code is cached",
    "torch._inductor.runtime.cache_dir_utils.cache_dir": "where compiled code is cached",
    "torch.cpu._is_amx_tile_supported": "whether a CPU has bf16",
    "torch.cpu._is_avx512_bf16_supported": "whether a CPU has bf16",
    "torch.fx.experimental._config": "symbolic sizes that are equal in an example stay independent",
    "torch.fx.experimental._config.patch": "symbolic sizes that are equal in an example stay independent",
    "torch.ops.mkldnn._is_mkldnn_bf16_supported": "whether a CPU has bf16",
    "torch.utils._python_dispatch.TorchDispatchMode": "the names of a network's operations",
    "torch.utils._pytree.tree_leaves": "the tensors of a nested argument",
    "torch.utils.data.dataloader._MultiProcessingDataLoaderIter": "loader processes that could not start",
}
"""Each name and its use."""


def private(file: Path) -> Iterator[str]:
    """The dotted library names in a file that have a part with a leading underscore."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and node.level == 0:
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.Attribute):
            names = [dotted(node)]
        else:
            continue
        for name in names:
            parts = name.split(".")
            if parts[0] in LIBRARIES and any(part.startswith("_") and not part.startswith("__") for part in parts):
                yield name


def dotted(node: ast.AST) -> str:
    """`a.b.c` of an attribute; empty if it begins with something other than a name."""
    parts: list[str] = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join([node.id, *reversed(parts)]) if isinstance(node, ast.Name) else ""


def outermost(names: set[str]) -> set[str]:
    """Without prefixes of other names, such as torch._inductor of torch._inductor.runtime."""
    return {name for name in names if not any(other.startswith(f"{name}.") for other in names)}


def test_private_names_are_listed() -> None:
    found = outermost({name for file in sorted((ROOT / "src").rglob("*.py")) for name in private(file)})
    assert found == outermost(set(USED))


@pytest.mark.parametrize("name", sorted(USED))
def test_private_names_exist(name: str) -> None:
    """In the installed versions."""
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found: Any = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            found = getattr(found, part)
        return
    raise AssertionError(f"{name} is not installed")


def test_private_names_are_found_in_every_form(tmp_path: Path) -> None:
    file = tmp_path / "sample.py"
    file.write_text(
        "import torch\nimport torch._dynamo\nfrom torch._inductor import config\nfrom lightning.x import _y as z\n"
        "torch._C._nn.pad(1)\ntorch.nn.functional.pad(1)\nself._private\nx.torch._hidden\n"
    )
    expected = {"torch._dynamo", "torch._inductor.config", "lightning.x._y", "torch._C._nn.pad"}
    assert outermost(set(private(file))) == expected
