"""The report as files: its numbers are those of the records, it runs no code, and it is self-contained."""

import base64
import csv
import hashlib
import json
import re
import subprocess
import sys
from html.parser import HTMLParser
from xml.etree import ElementTree

import numpy as np
import pyarrow as pa
import pytest
from PIL import Image

from lcprobe.analysis.report.tables import safe
from lcprobe.analysis.report.write import write_report
from lcprobe.tracking import NoTracker
from tests.analysis.fabricated import flat, plan, records, run, study, task, window, with_column

LENGTHS, DEPTHS = [64, 128, 256], [0.0, 0.5, 1.0]
BAD = "<script>alert(1)</script>"
ODD = "=HYPERLINK(1) $x^{$"


class Page(HTMLParser):
    """Elements, attributes and text of a page."""

    def __init__(self, html: str):
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self.rows: list[list[str]] = []
        self.scripts: list[str] = []
        """What runs."""
        self.specs: list[str] = []
        self.captions: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag == "script":
            self._own().append("")
        if tag == "figcaption":
            self.captions.append("")

    def _own(self):
        return self.specs if self.tags[-1][1].get("type") == "application/json" else self.scripts

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] == "script" and self.cdata_elem == "script":
            self._own()[-1] += data
            return
        self.text += data
        if self.tags and self.tags[-1][0] == "figcaption":
            self.captions[-1] += data
        if self.tags and self.tags[-1][0] in ("td", "th"):
            self.rows[-1][-1] += data.strip()


class Spy(NoTracker):
    def __init__(self):
        self.tables, self.figures = {}, {}

    def metrics(self, values):
        raise AssertionError("the analysis has no points of a run")

    def table(self, name, rows):
        self.tables[name] = rows

    def figure(self, name, png):
        self.figures[name] = png

    def named(self):
        return [name.removeprefix("report/") for name in self.figures]


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    formats = [("corpus", "words", "numbers"), ("words", "words", "numbers")]
    cells = plan(["single"], formats, LENGTHS, DEPTHS, 50)
    cells += plan(["single"], formats, [128], [0.5], 50, "zero_distance")
    metrics = [{"tokens": 1000.0 * i, "train/loss": 4 - i / 100, "probe/single@128": i / 100} for i in range(100)]
    facts = study([run("a", metrics=metrics), run("b")], [task("single")], cells)
    table = records({"a": flat(0.83), "b": window(100)}, cells)
    folder, spy = tmp_path_factory.mktemp("report"), Spy()
    return facts, table, folder, write_report(facts, table, folder, spy), spy


def read(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def test_every_cell_of_the_csv_and_the_page_is_recounted_from_the_records(written):
    _, table, folder, report, _ = written
    frame, page = table.to_pandas(), Page(report.html.read_text())
    rows = read(folder / "tables" / "cells.csv")
    shown = {tuple(row[:7]) for row in page.rows if len(row) == 17}
    factors = ["model", "task", "haystack", "key_format", "value_format", "control", "length", "depth"]
    groups = frame.groupby(factors)
    assert len(rows) == len(groups) == 2 * 2 * (3 * 3 + 1)
    for row in rows:
        own = groups.get_group(tuple(row[f] for f in factors[:6]) + (int(row["length"]), float(row["depth"])))
        assert (int(row["k"]), int(row["n"])) == (own.exact.sum(), len(own))
        assert float(row["accuracy"]) == pytest.approx(own.exact.mean())
        name = f"{row['haystack']}/{row['key_format']}/{row['value_format']}"
        place = {"0.0": "0-33 %", "0.5": "33-67 %", "1.0": "67-100 %"}[row["depth"]]
        depth = "0-100 %" if row["control"] == "zero_distance" else place
        cell = (row["model"], row["task"], name, row["control"], row["length"], depth, f"{row['k']}/{row['n']}")
        assert cell in shown
    assert report.cells == [row for row in report.cells if row["n"] == 50]


def test_means_and_differences_on_the_page_are_those_of_the_records(written):
    _, table, folder, report, _ = written
    frame = table.to_pandas()
    frame = frame[(frame.control == "none") & (frame.haystack == "corpus")]
    accuracy = frame.groupby(["model", "length"]).exact.agg(["sum", "size", "mean"])
    page = Page(report.html.read_text()).text
    for row in read(folder / "tables" / "extrapolation.csv"):
        if row["haystack"] == "corpus":
            own, base = accuracy.loc[row["model"], int(row["length"])], accuracy.loc[row["model"], 128]
            assert float(row["accuracy"]) == pytest.approx(own["mean"])
            assert float(row["ratio"]) == pytest.approx(own["mean"] / base["mean"])
            assert f"{own['mean']:.2f} ({own['sum']:.0f}/{own['size']:.0f}, " in page
    gap = accuracy.loc["b", 256]["mean"] - accuracy.loc["b", 128]["mean"]
    lines = [s for s in report.summary if s.startswith("b, single (corpus/words/numbers): effective length")]
    assert f"difference −{abs(gap):.2f} (" in lines[0]


def test_a_planted_window_is_recovered_by_the_report(written):
    _, _, folder, report, _ = written
    row = next(r for r in read(folder / "tables" / "reach.csv") if r["model"] == "b")
    assert float(row["low"]) <= 100 <= float(row["high"])
    assert any(s.startswith("b, single (corpus/words/numbers): effective reach") for s in report.summary)


def test_figures_are_pictures_and_specifications_in_the_page_and_files_beside_it(written):
    _, _, folder, report, spy = written
    kinds = {name.split("_")[0] for name in report.figures}
    assert kinds == {"skill", "length", "heatmap", "depth", "distance", "formats", "training"}
    page = Page(report.html.read_text())
    names = [a["id"].removeprefix("fig-") for tag, a in page.tags if tag == "figure"]
    assert sorted(names) == sorted(report.figures) == sorted(spy.named())
    assert len([tag for tag, _ in page.tags if tag == "svg"]) == len(page.specs) == len(names)
    assert all(
        json.loads(spec)["$schema"].startswith("https://vega.github.io/schema/vega-lite/") for spec in page.specs
    )
    assert all(len(text) > 40 and re.search(r"n = \d|runs", text) for text in page.captions)
    for suffix in (".svg", ".pdf", ".png"):
        assert {path.stem for path in (folder / "figures").glob(f"*{suffix}")} == {*report.figures}


def test_a_png_is_the_svg_at_twice_its_size_on_white(written):
    _, _, _, report, spy = written
    for name, path in report.figures.items():
        assert path.suffix == ".svg"
        width, height = re.search(r'<svg[^>]*width="([\d.]+)" height="([\d.]+)"', path.read_text()).groups()
        picture = Image.open(path.with_suffix(".png"))
        assert picture.size == pytest.approx((2 * float(width), 2 * float(height)), abs=2)
        assert picture.convert("RGBA").getpixel((1, 1)) == (255, 255, 255, 255)
        assert spy.figures[f"report/{name}"] == path.with_suffix(".png")


def test_ids_of_figures_are_unique_and_their_references_lead_to_them(written):
    text = re.sub(r"<script.*?</script>", "", written[3].html.read_text(), flags=re.DOTALL)
    ids = re.findall(r'\bid="([^"]+)"', text)
    assert len(ids) == len({*ids})
    assert {*re.findall(r"url\(#([^)]+)\)", text)} <= {*ids}


def test_the_page_loads_nothing_from_outside(written):
    page = Page(written[3].html.read_text())
    (policy,) = [a["content"] for tag, a in page.tags if a.get("http-equiv") == "Content-Security-Policy"]
    digests = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in page.scripts]
    allowed = " ".join(f"'sha256-{digest}'" for digest in digests)
    assert policy == f"default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src {allowed}"
    targets = [v for _, a in page.tags for name, v in a.items() if name.endswith(("src", "href", "action", "srcset"))]
    saved = [a["href"] for tag, a in page.tags if tag == "a" and "download" in a]
    assert saved
    assert all(re.match("data:(text/csv|application/gzip);base64,[A-Za-z0-9+/=]+$", v) for v in saved)
    targets = [v for v in targets if v not in saved]
    assert targets
    assert all(v.startswith("#") for v in targets)
    assert not {"link", "iframe", "object", "embed", "form", "base"} & {tag for tag, _ in page.tags}
    assert {v[1:] for v in targets} <= {a.get("id") for _, a in page.tags}


def test_the_tracker_gets_every_table_with_equal_keys(written):
    _, _, folder, _, spy = written
    assert {name.removeprefix("report/") for name in spy.tables} == {
        p.stem for p in (folder / "tables").glob("*.csv")
    }
    for rows in spy.tables.values():
        assert len({tuple(row) for row in rows}) == 1
        json.dumps(rows, default=lambda v: (_ for _ in ()).throw(TypeError(type(v))))  # plain Python values only


def test_the_same_inputs_give_the_same_bytes(written, tmp_path):
    facts, table, folder, report, _ = written
    order = np.random.default_rng(0).permutation(len(table))  # nor does the order of the rows matter
    again = write_report(facts, table.take(pa.array(order)), tmp_path)
    assert again.summary == report.summary
    files = sorted(path.relative_to(folder) for path in folder.rglob("*") if path.is_file())
    assert files == sorted(path.relative_to(tmp_path) for path in tmp_path.rglob("*") if path.is_file())
    assert len([name for name in files if name.parts[0] == "figures"]) == 3 * len(report.figures)
    for name in files:
        if name.suffix == ".pdf":  # lists its fonts in any order
            assert (folder / name).stat().st_size == (tmp_path / name).stat().st_size
            continue
        assert (folder / name).read_bytes() == (tmp_path / name).read_bytes(), name


def test_data_cannot_become_markup_or_a_formula(tmp_path):
    cells = plan(["=cmd()|x"], [("<b>corpus", "@key", "+value")], LENGTHS, DEPTHS, 20)
    facts = study(
        [run(BAD, layout=BAD, tuned=BAD, data_digest="-1+1", group="$x^{"), run(ODD)],
        [task("=cmd()|x")],
        cells,
        name=BAD,
        notes=[BAD],
        config_yaml=BAD,
        matching=[{BAD: "+1", "=x": 3}],
        versions={BAD: "@SUM(A1)"},
    )
    table = records({BAD: flat(0.5), ODD: flat(0.6)}, cells)
    for name in ("answer", "prediction"):
        table = with_column(table, name, [f'"><img src=x onerror=alert(1)>{BAD}'] * len(table))
    report = write_report(facts, table, tmp_path)
    page = Page(report.html.read_text())
    assert "b>corpus" not in {tag for tag, _ in page.tags}
    assert len(page.scripts) == 2, "the page's own and the bundle"
    assert all("<b>corpus" in str(json.loads(spec)) and "<" not in spec for spec in page.specs if "corpus" in spec)
    assert not [name for _, a in page.tags for name in a if name.startswith("on")]
    assert "img" not in {tag for tag, _ in page.tags}
    for path in report.figures.values():
        assert not {"script", "img"} & {element.tag.split("}")[-1] for element in ElementTree.parse(path).iter()}
    assert BAD in page.text  # shown as text
    assert all(
        re.fullmatch(r"[A-Za-z0-9._-]+", str(p.relative_to(tmp_path / "figures"))) for p in report.figures.values()
    )
    for path in (tmp_path / "tables").glob("*.csv"):
        with open(path, newline="", encoding="utf-8") as file:
            fields = [field for row in csv.reader(file) for field in row]
        assert not [
            f for f in fields if f[:1] in ("=", "+", "-", "@") and not re.fullmatch(r"-?(\d[\d.e+-]*|inf)", f)
        ], path.name


def test_safe_fields():
    assert [safe(x) for x in ("=1", " @x", "-a", "\tx", "a=b", -1.5, None, "")] == [
        "'=1",
        "' @x",
        "'-a",
        "'\tx",
        "a=b",
        -1.5,
        None,
        "",
    ]


def test_no_records_at_all_still_give_a_report_with_a_warning(tmp_path, no_pictures):
    cells = plan(["single"], lengths=LENGTHS, n=10)
    table = records({"a": flat(0.5)}, cells).slice(0, 0)
    report = write_report(study([run("a")], [task("single")], cells), table, tmp_path)
    assert any("15 of 15 planned cells are incomplete" in s for s in report.summary)
    assert {row["accuracy"] for row in report.cells} == {None}


def test_importing_the_report_loads_no_drawing_library():
    """altair validates schemas and loads pandas' neighbours when imported: only drawing may do it."""
    names = "write, figures, page, summary, tables"
    code = f"import sys; from lcprobe.analysis.report import {names}; from lcprobe.analysis.stats import power; print([m for m in ('altair', 'vl_convert', 'jinja2', 'PIL', 'torch') if m in sys.modules])"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "[]"


def test_the_page_opens_with_the_scores_and_marks_cells_whose_chance_is_an_average(tmp_path):
    cells = plan(["single", "multikey"], lengths=LENGTHS, depths=DEPTHS, n=20)
    facts = study([run("a"), run(BAD)], [task("single"), task("multikey", 4)], cells)
    table = records({"a": flat(1.0), BAD: flat(0.5)}, cells)
    text = write_report(facts, table, tmp_path).html.read_text(encoding="utf-8")
    assert text.index('id="headline-single"') < text.index('id="findings"') < text.index("<figure"), (
        "a table of scores is the first thing"
    )
    page = Page(text)
    head = next(i for i, row in enumerate(page.rows) if row[:2] == ["model", "64"])
    assert page.rows[head][-2:] == ["effective length", "reach"], "what sums the scores up stands behind them"
    assert [row[0] for row in page.rows[head + 1 : head + 3]] == ["a", BAD]
    assert BAD not in text, "names are escaped in the headline, too"
    marked = {(row[1], row[5]) for row in page.rows if len(row) > 10 and row[10].endswith("*")}
    assert marked == {("multikey", "0-33 %"), ("multikey", "67-100 %")}, (
        "not the middle, and not where there is a single value"
    )
    assert text.count("In the first stratum of depth the target needle is often the first") == 1 + 1, (
        "the table of all cells, and the maps of multikey"
    )


def test_few_samples_are_a_warning_with_their_counts(tmp_path, no_pictures):
    cells = plan(["single"], lengths=[128], n=250) + plan(["single"], lengths=[256], n=100)
    facts = study([run("a")], [task("single")], cells)
    sentences = write_report(facts, records({"a": flat(0.9)}, cells), tmp_path / "few").summary
    assert any(s.startswith("Few samples: 5 of 10 planned cells have 100. Below 250") for s in sentences)
    cells = plan(["single"], lengths=[128], n=250)
    facts = study([run("a")], [task("single")], cells)
    sentences = write_report(facts, records({"a": flat(0.9)}, cells), tmp_path / "enough").summary
    assert not any("Few samples" in s for s in sentences)
