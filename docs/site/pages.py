"""A hook of mkdocs: the pages of the site that are made from other files.

The README is the front page; links to files outside docs/ lead to the repository. The reference has a page for each
folder of parts, with every module in it.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "src" / "gradspike"

REFERENCE = {
    "library": ("Library", "What `import gradspike` gives: see [in your own code](../library.md).", ["library"]),
    "layers": ("Layers", "A spiking layer: norm, neuron and method.", ["spiking_norm.py", "surrogate.py"]),
    "methods": ("Methods", "What sets thresholds and surrogates. Equations: [methods](../methods.md).", ["methods"]),
    "neurons": ("Neurons", "Dynamics of the potential. Equations: [neurons](../neurons.md).", ["neurons"]),
    "norms": ("Norms", "What comes before the neuron. Equations: [norms](../norms.md).", ["norms"]),
    "models": ("Models", "Backbones and what they are built of.", ["models"]),
    "engines": ("Engines", "The same layer, computed faster: see [performance](../performance.md).", ["engine"]),
    "data": ("Data", "Sources, loading and augmentation: see [data](../data.md).", ["data", "data/augment"]),
    "training": ("Training", "From a configuration to a finished run.", ["training", "training/callbacks", "runs"]),
    "robustness": (
        "Robustness",
        "Accuracy on attacked and corrupted input: see [robustness](../robustness.md).",
        ["robustness"],
    ),
    "export": ("Export", "Networks for other programs: see [export](../export.md).", ["tools/export"]),
    "configuration": ("Configuration", "Schema, checks and recipes.", ["config"]),
}
"""Pages of the reference: title, first sentence, and the files or folders of the package whose modules it documents."""


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    # Without the list of its headings, the front page has room for its commands and what they do.
    pages = {"index.md": "---\nhide: [toc]\n---\n" + links_from_docs(readme, f"{config.repo_url}/blob/main")}
    pages |= {f"reference/{name}.md": reference(*page) for name, page in REFERENCE.items()}
    for place, content in pages.items():
        files.append(File.generated(config, place, content=content))
    return files


def links_from_docs(text: str, repository: str) -> str:
    """The README's links as they are from docs/. Those to other folders become addresses in the repository."""
    text = re.sub(r"\]\(docs/", "](", text)

    def elsewhere(link: re.Match[str]) -> str:
        return f"]({repository}/{link[1]})" if (ROOT / link[1].partition("#")[0]).exists() else link[0]

    return re.sub(r"\]\(((?!https?:|#)[^)]+)\)", elsewhere, text)


def reference(title: str, sentence: str, places: list[str]) -> str:
    """A page of the reference, which mkdocstrings fills in."""
    modules = [module for place in places for module in modules_of(PACKAGE / place)]
    return "\n\n".join([f"# {title}", sentence, *(f"::: {module}" for module in modules)])


def modules_of(place: Path) -> Iterator[str]:
    """The modules of a folder, or the one of a file, by their dotted names."""
    for file in sorted(place.glob("*.py")) if place.is_dir() else [place]:
        if not file.name.startswith("_"):
            yield ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
