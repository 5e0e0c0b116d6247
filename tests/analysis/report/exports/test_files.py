"""Every table of a report is there as CSV and LaTeX, and nothing of an earlier report stays."""

import csv
import shutil
from dataclasses import replace

import pyarrow as pa
import pytest

from lcprobe.analysis.report.blocks import Table
from lcprobe.analysis.report.exports.files import MAX_TYPESET, keep_only, table_csv, write_tables
from lcprobe.analysis.report.exports.tables import number_table, page_tables
from lcprobe.analysis.report.write import write_report
from tests.analysis.fabricated import flat, plan, records, run, study, task, window

CELLS = plan(["single", "multi"], lengths=[64, 128, 256], n=6)
RUNS = [run("ssm"), run("rope")]
FACTS = study(RUNS, [task("single"), task("multi", 4)], CELLS)
RECORDS = records({"ssm": flat(0.8), "rope": window(150)}, CELLS)


def read(path):
    with open(path, encoding="utf-8") as file:
        return list(csv.reader(file))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    write_report(FACTS, RECORDS, folder)
    return folder


def test_every_table_is_there_as_csv_and_if_not_long_as_latex(folder):
    for where in (folder / "tables", folder / "tables" / "page"):
        csvs, texs = ({p.stem: p for p in where.glob(f"*{suffix}")} for suffix in (".csv", ".tex"))
        assert texs.keys() == {name for name, path in csvs.items() if len(read(path)) - 1 <= MAX_TYPESET} != set()
    page = {path.stem for path in (folder / "tables" / "page").glob("*.csv")}
    assert {"exact-match-on-single", "exact-match-on-multi", "effective-length", "all-cells", "runs"} <= page
    labels = [path.read_text().split("\\label{")[1].split("}")[0] for path in (folder / "tables").rglob("*.tex")]
    assert len({*labels}) == len(labels)


def test_a_long_table_is_csv_alone(tmp_path):
    rows = [{"model": "a", "value": i} for i in range(MAX_TYPESET + 1)]
    page = {"t": Table("T", "", ["a"], [["x"]] * (MAX_TYPESET + 1))}
    written = write_tables(tmp_path, {"long": rows, "short": rows[1:]}, page)
    assert {path.relative_to(tmp_path).as_posix() for path in written} == {
        "long.csv", "short.csv", "short.tex", "page/t.csv",
    }  # fmt: skip
    assert {*written} == {path for path in tmp_path.rglob("*") if path.is_file()}


def test_the_headline_has_the_scores_of_the_cells(folder):
    head, *rows = read(folder / "tables" / "page" / "exact-match-on-multi.csv")
    names, *cells = read(folder / "tables" / "cells.csv")
    assert all(column.isidentifier() for column in head)
    assert len(rows) == 2 * 3
    for row in rows:
        at = dict(zip(head, row, strict=True))
        own = [dict(zip(names, c, strict=True)) for c in cells]
        own = [c for c in own if (c["model"], c["task"], c["length"]) == (at["model"], "multi", at["length"])]
        k, n = sum(int(c["k"]) for c in own), sum(int(c["n"]) for c in own)
        assert (int(at["k"]), int(at["n"]), float(at["value"])) == (k, n, k / n)
        assert float(at["low"]) <= k / n <= float(at["high"])


def test_numbers_below_zero_stay_numbers_and_formulas_do_not():
    text = table_csv(Table("T", "", ["x"], [["-0.25"], ["+1e-3"], ["-1+cmd|x"], ["=1"], ["@x"]]))
    assert text.split() == ["x", "-0.25", "+1e-3", "'-1+cmd|x", "'=1", "'@x"]


def test_a_smaller_report_leaves_no_table_and_no_figure_of_the_larger_one(folder, tmp_path, no_pictures):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    own = [tmp_path / "figures" / "notes.txt", tmp_path / "tables" / "mine.xlsx"]
    for path in own:
        path.write_text("the user's")
    (tmp_path / "tables" / "old" / "deep").mkdir(parents=True)
    (tmp_path / "tables" / "old" / "deep" / "x.csv").write_text("a,b")
    small = replace(FACTS, tasks=FACTS.tasks[:1], expected_cells=[c for c in CELLS if c["task"] == "single"])
    rows = RECORDS.filter(pa.array([name == "single" for name in RECORDS["task"].to_pylist()]))
    report = write_report(small, rows, tmp_path)
    fresh = tmp_path / "fresh"
    again = write_report(small, rows, fresh)
    for name in ("tables", "figures"):
        found = {p.relative_to(tmp_path / name) for p in (tmp_path / name).rglob("*")} - {
            p.relative_to(tmp_path / name) for p in own if p.parent.name == name
        }
        assert found == {p.relative_to(fresh / name) for p in (fresh / name).rglob("*")}
    assert report.figures.keys() == again.figures.keys() < {p.stem for p in (folder / "figures").glob("*")}
    assert all(path.read_text() == "the user's" for path in own)


def test_only_what_reports_write_is_deleted(tmp_path):
    keep_only(tmp_path / "nothing", [])
    (tmp_path / "a.csv").write_text("")
    (tmp_path / ".b.csv.123.tmp").write_text("")
    keep_only(tmp_path, [])
    assert [path.name for path in tmp_path.iterdir()] == [".b.csv.123.tmp"]


def test_tables_of_one_title_have_files_of_their_own():
    one = Table("Runs", "", ["a"], [["1"]])
    assert list(page_tables([one, replace(one, rows=[["2"]]), replace(one, rows=[])], [])) == ["runs", "runs.2"]


def test_bounds_are_one_column_and_formulas_are_quoted():
    made = number_table("x", [{"model": "=a", "accuracy": 0.123456, "low": 0.1, "high": None, "n": 1234}])
    assert list(made.columns) == ["model", "accuracy", "interval", "n"]
    assert made.rows == [["=a", "0.1235", "0.1 to ", "1,234"]]
    assert table_csv(made).splitlines()[1].startswith("'=a,")
