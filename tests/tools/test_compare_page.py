"""The HTML page in a browser: no network requests, no errors, and working switches."""

from __future__ import annotations

import csv
import io
import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from xml.etree import ElementTree

import pytest

from gradspike.tools.compare import page, page_data, report
from gradspike.tools.compare.command import compare
from gradspike.tools.compare.gather import gather
from gradspike.tools.compare.groups import group_runs
from gradspike.tools.compare.run import Excluded
from helpers.browser import CHROMIUM, Browser
from helpers.groups import grouping_of

FIGURES = ["differences", "curves", "layers", "widths", "energy", "sweep-time_steps", "classes"]
MINUS = "\N{MINUS SIGN}"
SIZE_WITHOUT_DATA = 100_000


@pytest.fixture(scope="module")
def report_file(compared_runs: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A page of runs with a swept parameter and one run left out."""
    folder = tmp_path_factory.mktemp("page")
    runs = Path(shutil.copytree(compared_runs, folder / "runs", ignore=shutil.ignore_patterns("*.ckpt")))
    for number, config in enumerate(sorted(runs.glob("2*/config.yaml"))):
        if number in (2, 5):
            config.write_text(config.read_text().replace("time_steps: 2", "time_steps: 4"))
    bad = next(runs.glob("*_relu_*"))
    (bad / "summary.json").write_text("{")
    out = folder / "report.html"
    assert compare([str(runs), "--out", str(out), "--title", "A <b>title</b> & {{DATA}}"]) == 0
    return out


@pytest.fixture(scope="module")
def browser(report_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    if CHROMIUM is None:
        pytest.skip("no Chromium or Chrome on this machine")
    with Browser(report_file, tmp_path_factory.mktemp("profile")) as opened:
        yield opened


def test_it_is_one_file_that_asks_for_nothing(report_file: Path) -> None:
    text = report_file.read_text()
    data = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert data
    assert len(text) - len(data[1]) < SIZE_WITHOUT_DATA
    outside = text.replace(data[1], "").replace("http://www.w3.org/2000/svg", "")
    assert not re.search(r"https?://|<link(?! rel=\"icon\" href=\"data:,\")|@import|url\(", outside)
    assert json.loads(data[1])["title"] == "A <b>title</b> & {{DATA}}"
    assert "<h1>A &lt;b&gt;title&lt;/b&gt; &amp; {{DATA}}</h1>" in text


def test_what_is_said_of_runs_cannot_end_the_script(compared_runs: Path) -> None:
    excluded = [Excluded("</script><script>alert(1)</script>", "<!--<script>")]
    comparison = report.compare(group_runs(gather([compared_runs]).runs), (), excluded)
    text = page.render(comparison, page_data.page_data(comparison, "t", "c", "now"))
    assert text.count("</script>") == 2
    assert "<!--" not in text


def test_it_opens_without_complaint_or_request(browser: Browser) -> None:
    assert browser.run("document.readyState") == "complete"
    assert browser.run("document.querySelectorAll('main > section').length") >= len(FIGURES) + 3
    assert browser.complaints() == []
    assert browser.requests() == []


def test_every_figure_is_drawn(browser: Browser) -> None:
    for name in FIGURES:
        assert browser.run(f"document.querySelectorAll('#{name} svg.chart').length") > 0, name
    assert browser.run("[...document.querySelectorAll('svg')].some((one) => one.outerHTML.includes('NaN'))") is False
    assert "belongs to no" not in browser.run("document.getElementById('excluded').textContent")
    assert "half written" in browser.run("document.getElementById('excluded').textContent")
    assert browser.run("document.querySelectorAll('#runs details[data-run]').length") == 6


def test_a_switch_hides_a_group_everywhere(browser: Browser) -> None:
    lines = "document.querySelectorAll('#curves [data-group=\"1\"]').length"
    assert browser.run(lines) == 1
    browser.run("document.querySelector('[data-chip=\"1\"]').click()")
    assert browser.run(lines) == 0
    assert browser.run("document.querySelector('tr[data-row=\"1\"]').hidden") is True
    assert browser.run("document.querySelector('[data-chip=\"1\"]').getAttribute('aria-pressed')") == "false"
    browser.run("document.querySelectorAll('[data-chip]').forEach((one) => one.ariaPressed === 'true' && one.click())")
    assert "switched off" in browser.run("document.getElementById('curves').textContent")
    browser.run("document.querySelectorAll('[data-chip]').forEach((one) => one.click())")
    assert browser.run(lines) == 1
    assert browser.complaints() == []


def test_every_choice_draws_something(browser: Browser) -> None:
    browser.run(
        "document.querySelectorAll('select').forEach((one) => [...one.options].forEach((option) => {"
        "one.value = option.value; one.dispatchEvent(new Event('change'))}))"
    )
    for name in FIGURES:
        assert browser.run(f"document.querySelectorAll('#{name} svg.chart').length") > 0, name
    assert browser.complaints() == []


def test_pointing_shows_values_and_the_band_of_one_group(browser: Browser) -> None:
    axis = "document.querySelector('#curves select[aria-label=\"Horizontal axis\"]')"
    browser.run(f"{axis}.value = 'epoch'; {axis}.dispatchEvent(new Event('change'))")
    bands = "document.querySelectorAll('#curves [data-band]:not([visibility=hidden])').length"
    assert browser.run(bands) == 0
    shown = browser.run(
        """(() => {
          const area = document.querySelector('#curves svg.chart > rect');
          const box = area.getBoundingClientRect();
          const place = {clientX: box.left + 5, clientY: box.top + 5, bubbles: true};
          area.dispatchEvent(new PointerEvent('pointermove', place));
          return document.getElementById('tip').hidden ? '' : document.getElementById('tip').textContent;
        })()"""
    )
    assert shown.startswith("epoch 1")
    assert "±" in shown
    assert browser.run(bands) == 1


def test_it_begins_with_the_verdict_and_what_is_equal(browser: Browser, report_file: Path) -> None:
    shown = browser.run("document.getElementById('verdict').textContent")
    expected = rf"With \d( to \d)? shared seeds? no group differs from fixed_sg; the largest difference is [+{MINUS}]"
    assert re.match(expected, shown)
    about = browser.run("document.getElementById('about').textContent")
    assert about.startswith("digits · spiking_cnn · 2 epochs · 359 test samples · "), "T differs"
    assert "parameters" in browser.run("document.querySelector('#results .equal').textContent")
    heads = browser.run("[...document.querySelectorAll('.results th')].map((one) => one.textContent)")
    assert "parameters" not in heads
    assert "difference to fixed_sg (points)" in heads
    out = report_file.with_name("chosen.html")
    words = ["--columns", "firing,n,test", "--out", str(out)]
    assert compare([str(report_file.parent / "runs"), *words]) == 0
    assert '"columns":["firing","n","test"]' in out.read_text()


def test_single_seeds_are_thin_lines_and_heat_maps_have_a_scale(browser: Browser) -> None:
    seeds = browser.run("[...document.querySelectorAll('#curves [data-seed]')].map((one) => one.dataset.seed)")
    groups = browser.run("data.groups.map((one) => one.seeds.length)")
    assert len(seeds) == sum(count for count in groups if count > 1)
    assert re.fullmatch(r"0 %[\d.]+ %[\d.]+ %", browser.run("document.querySelector('#layers .scale').textContent"))
    assert "% of neurons" in browser.run("document.querySelector('#layers .scaled').textContent")


@pytest.mark.parametrize("name", ["differences", "curves", "layers", "energy"])
def test_figures_download_as_svg_and_pdf(browser: Browser, name: str) -> None:
    drawn = f"drawing(figures.find((one) => one.id === '{name}').host)"
    picture = ElementTree.fromstring(browser.run(f"svgText({drawn})"))
    written = "".join(picture.itertext())
    assert "mpd_agl" in written
    assert len(picture.findall(".//{http://www.w3.org/2000/svg}path")) > 5
    assert "NaN" not in ElementTree.tostring(picture, encoding="unicode")
    text = browser.run(f"pdfText({drawn})")
    table = text[int(text.rpartition("startxref")[2].split()[0]) :]
    places = [int(line.split()[0]) for line in table.splitlines() if line.endswith(" n ")]
    assert [text[place:].partition(" ")[0] for place in places] == [str(number) for number in range(1, 8)]
    length, stream = re.search(r"/Length (\d+) >>\nstream\n(.*)\nendstream", text, re.DOTALL).groups()  # type: ignore[union-attr]
    assert len(stream) == int(length)
    assert b"mpd_agl".hex() in stream
    assert "NaN" not in stream
    assert max(map(ord, text)) < 128, "bytes are letters"


def test_every_download_button_works(browser: Browser) -> None:
    names = browser.run("[...document.querySelectorAll('[data-export]')].map((one) => one.dataset.export)")
    assert {f"{name}.{kind}" for name in FIGURES for kind in ("svg", "pdf")} <= set(names)
    browser.run("window.saved = []; HTMLAnchorElement.prototype.click = function () { saved.push(this.download) }")
    browser.run("document.querySelectorAll('[data-export], [data-csv]').forEach((one) => one.click())")
    assert set(names) <= set(browser.run("saved"))
    assert browser.complaints() == []


def test_a_pdf_has_greek_letters_and_minus_signs(browser: Browser) -> None:
    runs = browser.run(f"runsOf('{MINUS}1 κ', false).map((one) => one.font + one.codes.join(' '))")
    assert runs == ["S45", "H49 32", "S107"]


def test_every_csv_has_the_numbers(browser: Browser, report_file: Path) -> None:
    names = browser.run("[...document.querySelectorAll('[data-csv]')].map((one) => one.dataset.csv)")
    assert set(FIGURES) | {"results", "runs"} <= set(names)
    for name in names:
        rows = list(csv.reader(io.StringIO(browser.run(f"csvText(figures.find((one) => one.id === '{name}').rows())"))))
        assert len(rows) > 1, name
        assert len({len(row) for row in rows}) == 1, f"{name}: rows of different lengths"
    rows = list(csv.DictReader(io.StringIO(browser.run("csvText(figures.find((one) => one.id === 'results').rows())"))))
    expected = {}
    for file in (report_file.parent / "runs").glob("2*/summary.json"):
        if "_relu_" not in file.parent.name:
            summary = json.loads(file.read_text())
            expected[summary["seed"], summary["method"]] = summary["test"]["last"]["accuracy"]
    found = {
        (int(seed), row["group"].partition(",")[0]): float(value)
        for row in rows
        for seed, value in zip(row["seeds"].split(), row["accuracies"].split(), strict=True)
    }
    assert found == pytest.approx(expected, rel=1e-5)


def test_a_table_can_be_sorted_and_the_theme_changed(browser: Browser) -> None:
    order = "[...document.querySelectorAll('.results tbody tr')].map((one) => one.dataset.row).join()"
    before = browser.run(order)
    browser.run("document.querySelectorAll('.results th button')[2].click()")
    descending = browser.run(order)
    browser.run("document.querySelectorAll('.results th button')[2].click()")
    assert sorted(before) == sorted(descending)
    assert browser.run(order) != descending
    paper = "getComputedStyle(document.documentElement).backgroundColor"
    assert browser.run(paper) == "rgb(255, 255, 255)"
    browser.run("document.getElementById('theme').click()")
    browser.run("document.getElementById('theme').click()")
    assert browser.run(paper) != "rgb(255, 255, 255)"
    browser.run("document.getElementById('theme').click()")


def test_a_phone_need_not_scroll_sideways(browser: Browser) -> None:
    browser.call("Emulation.setDeviceMetricsOverride", width=390, height=800, deviceScaleFactor=1, mobile=True)
    browser.run("dispatchEvent(new Event('resize'))")
    assert browser.run("document.documentElement.scrollWidth") <= 390
    assert browser.run("document.querySelector('#curves svg.chart').viewBox.baseVal.width") <= 390
    place = "[...document.querySelectorAll('.results th')].findIndex((one) => one.textContent.startsWith('difference'))"
    cell = f"document.querySelector('.results tbody tr:not(.baseline)').children[{place}]"
    assert browser.run(f"{cell}.textContent").startswith(("+", MINUS, "0"))
    assert browser.run(f"{cell}.firstChild.textContent.length") > 3
    assert browser.run(f"{cell}.getBoundingClientRect().right") <= 390, "the difference is seen without scrolling"
    note = "document.querySelector('#differences text.number')"
    assert browser.run(f"parseFloat(getComputedStyle({note}).fontSize)") >= 13
    assert browser.complaints() == []


def test_an_axis_says_no_number_twice(browser: Browser) -> None:
    """For every choice, and for narrow ranges of values."""
    assert browser.run("[[1, 1.02], [0, 0], [35000, 35900], [-0.004, 0.003]].every(([from, to]) => {"
        "const scale = linear(extent([from, to]), [0, 400]);"
        "const texts = scale.ticks(8).map(scale.text);"
        "return texts.length > 1 && new Set(texts).size === texts.length})")  # fmt: skip
    assert browser.run("(() => { const scale = linear([-0.5, 0.5], [0, 400]); return scale.ticks(14).includes(0) })()")


def test_cells_of_a_heat_map_have_all_their_numbers_or_none(browser: Browser) -> None:
    counts = """[150, 400].map((width) => {
        const host = document.createElement("div");
        heatChart(host, width, [[0.09, 0.1], [0.1, 0.12]].map((row) => [...row, ...row, ...row]), {
          rowNames: ["neurons.0", "neurons.1"], columnNames: ["t0", "t1", "t2", "t3", "t4", "t5"], most: 0.12,
          text: (value) => percent(value, 0), tipTitle: () => "", label: ""});
        return host.querySelectorAll("g > text").length;
      })"""
    assert browser.run(counts) == [0, 12]


def test_names_of_a_heat_map_are_shortened_where_they_differ_least(browser: Browser) -> None:
    names = ["blocks.3.shortcut.1", "blocks.6.neuron1", "fixed_sg, surrogate=rectangular", "stem"]
    drawn = browser.run(f"""(() => {{
        const host = document.createElement("div");
        host.style.width = "170px";
        document.body.append(host);
        heatChart(host, 170, {[[0.1, 0.2]] * len(names)}, {{
          rowNames: {names}, columnNames: ["t0", "t1"], most: 1, text: () => "", tipTitle: () => "", label: ""}});
        const left = host.firstChild.getBoundingClientRect().left;
        const texts = [...host.querySelectorAll("svg > text")].slice(0, {len(names)});
        const found = texts.map((one) => [one.textContent, one.getBoundingClientRect().left - left]);
        host.remove();
        return found;
      }})()""")
    texts, places = zip(*drawn, strict=True)
    assert min(places) >= 0, drawn
    assert texts[0].endswith("3.shortcut.1")
    assert texts[1].endswith("6.neuron1")
    assert (texts[2][:4], texts[2][-5:], texts[3]) == ("fixe", "gular", "stem")


def test_names_on_a_phone_do_not_lie_on_intervals(browser: Browser) -> None:
    """Three groups of nearly the same cost; a name that has no free place is in the legend only."""
    names = browser.run("""(() => {
        const host = document.createElement("div");
        const points = [10, 10.2, 10.4, 12].map((x, k) => ({
          index: 0, name: `a_long_name_${k}`, x, y: 90 + 0.1 * k, low: 85, high: 95, tip: []}));
        scatterChart(host, 350, points, {xTitle: "", yTitle: "", label: ""});
        const bars = [...host.querySelectorAll('line[stroke-width="2"]')].map((one) => Number(one.getAttribute("x1")));
        return [...host.querySelectorAll("text.strong")].map((one) => {
          const [x, long] = [Number(one.getAttribute("x")), 6.4 * one.textContent.length];
          const left = one.getAttribute("text-anchor") === "end" ? x - long : x;
          return [one.textContent, bars.filter((bar) => bar > left && bar < left + long).length];
        });
      })()""")
    assert names
    assert [name for name, crossed in names if crossed] == []


def test_names_break_at_their_underscores(browser: Browser) -> None:
    found = browser.run("""(() => {
        const host = element("div", {}, element("h3", {}, element("span", {}, ...breakable("fixed_sg, T=4"))));
        const text = host.textContent;
        host.style = "width:80px;position:absolute";
        document.body.append(host);
        const texts = drawing(host).shapes.map((one) => one.text);
        host.style.width = "400px";
        const wide = drawing(host).shapes.map((one) => one.text);
        host.remove();
        return [text, texts.length > 1, texts.join(""), wide];
      })()""")
    assert found == ["fixed_sg, T=4", True, "fixed_sg, T=4", ["fixed_sg, T=4"]]


def test_it_fits_on_paper(report_file: Path, tmp_path: Path) -> None:
    """A page that is wider than the paper is shrunk as a whole, letters of figures and text by different amounts."""
    if CHROMIUM is None:
        pytest.skip("no Chromium or Chrome on this machine")
    a4_between_margins = 688
    with Browser(report_file, tmp_path, width=a4_between_margins) as opened:
        opened.call("Emulation.setEmulatedMedia", media="print")
        opened.run("dispatchEvent(new Event('beforeprint'))")
        assert opened.run("document.documentElement.scrollWidth") <= a4_between_margins
        assert opened.run("getComputedStyle(document.getElementById('runs')).display") == "none"
        assert opened.complaints() == []


def test_letters_of_the_confusion_matrix_are_as_large_on_paper(browser: Browser) -> None:
    browser.run("dispatchEvent(new Event('beforeprint'))")
    wide = "document.querySelector('#classes .two svg.chart').viewBox.baseVal.width"
    assert browser.run(wide) <= 0.62 * browser.run("PAPER")
    browser.run("dispatchEvent(new Event('afterprint'))")


def test_long_names_of_groups_widen_no_phone(report_file: Path, tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("no Chromium or Chrome on this machine")
    text = report_file.read_text().replace("fixed_sg, T=", "a_method_with_a_long_name, T=")
    file = tmp_path / "long.html"
    file.write_text(text)
    with Browser(file, tmp_path / "profile", width=390) as opened:
        assert "a_method_with_a_long_name" in opened.run("document.getElementById('layers').textContent")
        assert opened.run("document.documentElement.scrollWidth") <= 390


def test_several_data_sets_and_differences_of_differences_are_shown(tmp_path: Path) -> None:
    if CHROMIUM is None:
        pytest.skip("no Chromium or Chrome on this machine")
    grouping = grouping_of(
        {
            (label, (("dataset.name", data),)): {seed: at + low + 0.01 * seed for seed in range(3)}
            for label, at in (("fixed_sg", 0.8), ("lsg", 0.85))
            for data, low in (("digits", 0.1), ("cifar10", -0.1))
        }
    )
    comparison = report.compare(grouping, [], ())
    file = tmp_path / "sets.html"
    file.write_text(page.render(comparison, page_data.page_data(comparison, "t", "c", "now")))
    with Browser(file, tmp_path / "profile") as opened:
        assert opened.run("document.querySelectorAll('#profiles svg.chart [data-group]').length") == 2
        assert "lsg" in opened.run("document.querySelector('#data-sets tbody').textContent")
        crossed = opened.run("[...document.querySelectorAll('#crossed tbody td')].map((one) => one.textContent)")
        assert crossed[0].startswith("lsg, dataset=")
        assert crossed[3] == "+0.00 [+0.00, +0.00]"
        assert opened.complaints() == []
