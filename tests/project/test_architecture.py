"""docs/architecture.md: the plain training it shows is the tested one, and its table of layers leaves nothing out."""

from __future__ import annotations

import re

from helpers.command import ROOT

PAGE = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")


def test_the_plain_training_is_the_one_that_tests_compare_with() -> None:
    (shown,) = re.findall(r"^```python\n(.*?)^```$", PAGE, flags=re.MULTILINE | re.DOTALL)
    assert shown == (ROOT / "tests" / "helpers" / "plain_loop.py").read_text(encoding="utf-8")


def test_every_room_is_in_the_table_of_layers() -> None:
    table = PAGE.partition("## Layers")[2].partition("\n## ")[0]
    rooms = {
        path.name + "/" * path.is_dir()
        for path in (ROOT / "src" / "gradspike").iterdir()
        if path.suffix == ".py" or (path / "__init__.py").is_file()
    }
    assert {room for room in rooms - {"__init__.py"} if room not in table} == set()
