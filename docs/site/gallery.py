"""Make docs/gallery.md and its pictures: every picture and page that the commands make, from small runs.

    python docs/site/gallery.py        writes docs/gallery.md and docs/gallery/*.png (minutes on two cores)

Pages are shown as screenshots by Chromium or Chrome, which must be installed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from PIL import Image

from gradspike.runs.files import write_atomically

ROOT = Path(__file__).resolve().parents[2]
BROWSERS = ("chromium", "google-chrome", "chromium-browser", "chrome")
COLOURS = 128
"""Of a picture, which makes it a third as large."""

TRAINING = "train method=fixed_sg,mpd_agl,psg dataset=digits seed=0,1,2 trainer.max_epochs=5 engine=eager -m"
RUN = "<run>"
"""In a command: one of the trained runs, of `mpd_agl`."""


@dataclass(frozen=True)
class Item:
    """A picture. `command` writes `made` in the working folder; a page has the size of its screenshot."""

    name: str
    title: str
    text: str
    command: str
    made: str
    size: tuple[int, int] = (0, 0)


ITEMS = (
    Item(
        "samples",
        "Samples of a data set",
        "Raw and augmented, one row for each class: what the network receives.",
        "prepare dataset=digits_events preview=samples.png",
        "samples.png",
    ),
    Item(
        "curves",
        "Curves of a run",
        "Also while it trains.",
        f"curves run={RUN} out=curves.png",
        "curves.png",
    ),
    Item(
        "landscape",
        "Loss landscape",
        "Loss and accuracy on a plane of weights around the trained ones.",
        f"landscape run={RUN} points=15 out=landscape",
        "landscape/landscape.png",
    ),
    Item(
        "robustness",
        "Accuracy under attack",
        "With intervals over the test samples. `corrupt=noise` and `corrupt=event_drop` draw the same for corruptions.",
        f"evaluate run={RUN} attack=pgd epsilon=2/255,8/255,16/255 checkpoint=last samples=100",
        f"{RUN}/robustness/test_pgd_0.00784314-0.0313725-0.0627451_samples-100_last.png",
    ),
    Item(
        "comparison",
        "Comparison of methods",
        "One page, which works offline.",
        "compare runs --out report.html",
        "report.html",
        (1280, 2000),
    ),
    Item(
        "claims",
        "Claims of papers",
        "A verdict for each claim, from stored summaries of runs.",
        "claims --out claims.html",
        "claims.html",
        (1280, 1600),
    ),
)


def main(words: list[str]) -> int:
    """The command. Returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "docs", help="folder of gallery.md and gallery/")
    out = parser.parse_args(words).out
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        print("Error: no Chromium or Chrome was found, which draws the pages.", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        call(TRAINING, folder)
        run = next(iter(sorted((folder / "runs").rglob("*mpd_agl*_s0_*"))))
        (out / "gallery").mkdir(exist_ok=True)
        for item in ITEMS:
            call(item.command.replace(RUN, str(run)), folder)
            made = folder / item.made.replace(RUN, str(run))
            if item.size != (0, 0):
                made = screenshot(browser, made, item.size)
            target = out / "gallery" / f"{item.name}.png"
            partial = target.with_suffix(".partial")
            Image.open(made).convert("RGB").quantize(COLOURS).save(partial, "PNG", optimize=True)
            os.replace(partial, target)
    write_atomically(out / "gallery.md", page())
    return 0


def call(command: str, folder: Path) -> None:
    """`gradspike COMMAND` in `folder`, with the claims and the package of this checkout."""
    for link in ("claims", "docs"):
        if not (folder / link).exists():
            (folder / link).symlink_to(ROOT / link)
    variables = {**os.environ, "PYTHONPATH": str(ROOT / "src")}
    subprocess.run([sys.executable, "-m", "gradspike", *command.split()], cwd=folder, env=variables, check=True)


def screenshot(browser: str, page: Path, size: tuple[int, int]) -> Path:
    """The top of a page, as a picture beside it."""
    picture = page.with_suffix(".png")
    options = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--virtual-time-budget=10000"]
    words = [browser, *options, f"--window-size={size[0]},{size[1]}", f"--screenshot={picture}", page.as_uri()]
    subprocess.run(words, check=True, capture_output=True)
    return picture


def page() -> str:
    """The gallery in Markdown."""
    parts = [
        "# Gallery",
        "What the commands draw, here for three methods on `digits` after five epochs. `make gallery` makes this page.",
        f"```\ngradspike {TRAINING}\n```",
    ]
    for item in ITEMS:
        parts += [f"## {item.title}", item.text, f"```\ngradspike {item.command}\n```"]
        parts += [f"![{item.title}](gallery/{item.name}.png)"]
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
