"""The documentation as a site."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

from gradspike.methods.registry import METHODS
from helpers.command import ROOT, execute


def test_the_site_builds_without_warnings_and_without_a_network(tmp_path: Path) -> None:
    """Each page of docs/ is in it, and the reference has every method."""
    words = ["-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path)]
    done = execute(sys.executable, *words, NO_MKDOCS_2_WARNING="1", timeout=300)
    assert done.returncode == 0, done.stdout + done.stderr
    for page in (ROOT / "docs").glob("*.md"):
        assert (tmp_path / f"{page.stem}.html").is_file()
    methods = (tmp_path / "reference" / "methods.html").read_text(encoding="utf-8")
    for name in METHODS.names():
        assert f'id="{METHODS.implementation(name).__module__}"' in methods, name
    front = (tmp_path / "index.html").read_text(encoding="utf-8")
    assert not re.findall(r'(?:src|href)="(?:https?:)?//(?!github\.com/gradspike)', front.partition("<footer")[0])


def test_the_gallery_is_as_its_script_writes_it() -> None:
    script = runpy.run_path(str(ROOT / "docs" / "site" / "gallery.py"))
    assert (ROOT / "docs" / "gallery.md").read_text(encoding="utf-8") == script["page"]()
