"""The private names of torch, Lightning, timm and Hydra that the package uses. Any version may remove them.

Add new ones here on purpose. The test names those that the installed versions lack. Those with something to fall back
on are used through `private_names.found`.
"""

from __future__ import annotations

import ast
import importlib
import platform
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from gradspike.engine import compiled, formulas, watched
from gradspike.engine.records import Affine, Inputs, Spec
from gradspike.private_names import cpu_flags, found
from gradspike.surrogate import SURROGATES
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
    "torch._dynamo.config.patch": "numbers of a kernel that are constants",
    "torch._dynamo.exc.TorchDynamoException": "errors of torch.compile as one sentence",
    "torch._inductor.compile": "kernels that are called directly",
    "torch._inductor.dtype_propagation.DtypePropagationOpsHandler": "kernels that compile faster",
    "torch._inductor.list_options": "spikes written as they fire on CUDA",
    "torch._inductor.runtime.cache_dir_utils.cache_dir": "where compiled code is cached",
    "torch.cpu._is_amx_tile_supported": "whether a CPU has bf16",
    "torch.cpu._is_avx512_bf16_supported": "whether a CPU has bf16",
    "torch.fx.experimental._config.patch": "symbolic sizes that are equal in an example stay independent",
    "torch.ops.mkldnn._is_mkldnn_bf16_supported": "whether a CPU has bf16",
    "torch.utils._python_dispatch._get_current_dispatch_mode_stack": "in place of the name in torch._C",
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
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):  # for `private_names.found`
            names = [node.value] if re.fullmatch(r"[\w.]+", node.value) else []
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
        "found('torch._x.y', None)\nprint('see torch._x.z')\n"
    )
    expected = {"torch._dynamo", "torch._inductor.config", "lightning.x._y", "torch._C._nn.pad", "torch._x.y"}
    assert outermost(set(private(file))) == expected


def test_a_missing_name_has_its_fallback() -> None:
    assert found("torch.nn.Linear", None) is torch.nn.Linear
    assert found("torch.nn._no_such_name", 3) == 3
    assert found("torch.nn.no_such_module._name", 3) == 3
    assert found("no_such_package._name", 3) == 3


def test_fallbacks_say_what_the_private_names_say() -> None:
    """On this version, which has both."""
    assert watched._modes_in_python() == watched._modes() == 0
    with FlopCounterMode(display=False):
        assert watched._modes_in_python() == watched._modes() == 1
    if platform.machine() == "x86_64" and sys.platform == "linux":
        assert ("avx512_bf16" in cpu_flags()) == torch.cpu._is_avx512_bf16_supported()
        assert ("amx_tile" in cpu_flags()) == torch.cpu._is_amx_tile_supported()
    assert issubclass(compiled.TorchDynamoException, RuntimeError)


def test_the_compiled_engine_works_without_private_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "found", lambda name, otherwise: otherwise)
    assert compiled.cache_dir()
    y = torch.randn(2, 1, 3, 4, generator=torch.Generator().manual_seed(0))
    spec = Spec(2, "planes", "none", 0.0, SURROGATES["rectangular"])
    inputs = Inputs(y, Affine(), torch.ones(2), torch.ones(2), (torch.tensor(0.5),))
    fired = compiled.CompiledKernels().forward(inputs, None, spec)
    assert torch.equal(fired.spikes, formulas.forward(inputs, None, spec).spikes)
