"""Published and ours: planted probabilities come out as agreeing or not, marks and escapes reach the page, means are of complete parts."""

import csv
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from lcprobe.analysis.findings.cells import Unavailable
from lcprobe.analysis.findings.load_records import load_records
from lcprobe.analysis.findings.published_cells import OURS, comparisons
from lcprobe.analysis.findings.results import analyse
from lcprobe.analysis.published.tables import MEAN, cells, ruler_tasks, same_tasks
from lcprobe.analysis.report.published.chapter import _counts, counts_text, published_section, retest_table
from lcprobe.analysis.report.study_tables import _digests_text, model_tables
from lcprobe.analysis.report.write import write_report
from lcprobe.analysis.stats.estimates import Estimate
from tests.analysis.fabricated import plan, records, run, study, task, with_column
from tests.analysis.report.test_report import BAD, Page

PUBLISHED = {(c.table, c.model, c.task, c.formats, c.length, c.depth): c for c in cells()}
STRATA = 11
RULER = tuple(ruler_tasks())
DEPTHS = tuple((2 * i + 1) / (2 * STRATA) for i in range(STRATA))
FORMATS = {(OURS[f.haystack], OURS[f.key], OURS[f.value]): f for c in cells() if c.table == "4" for f in c.formats}


def of_table_4(shift=0.0, n=250):
    """Ours is drawn with the published probability of the nearest depth, plus a shift."""
    grid = plan(["needle"], list(FORMATS), [1024, 2048], DEPTHS, n)

    def behaviour(c):
        p = np.zeros(len(c["length"]))
        for (haystack, _, value), f in FORMATS.items():
            for length in (1024, 2048):
                for depth, low, high in ((0, -1, 0.25), (50, 0.25, 0.75), (100, 0.75, 2)):
                    here = (c["haystack"] == haystack) & (c["value_format"] == value) & (c["length"] == length)
                    here &= (c["depth"] > low) & (c["depth"] <= high)
                    p[here] = PUBLISHED["4", "Mamba2", "needle", (f,), length, depth].share
        return np.clip(p + shift, 0, 1)

    facts = study([run("mine", published="Mamba2", context_length=2048)], [task("needle")], grid)
    return facts, records({"mine": behaviour}, grid)


def found_in(facts, table):
    return comparisons(load_records(facts, table))


def test_cells_drawn_with_the_published_probabilities_agree_and_others_do_not():
    same = [c for c in found_in(*of_table_4()) if c.cell.table == "4"]
    assert len(same) == 18
    assert all(c.scored_by == "exact" and c.published.n == 250 for c in same)
    assert sum(c.agrees for c in same) >= 16
    shifted = [c for c in found_in(*of_table_4(-0.25)) if c.cell.table == "4"]
    assert sum(c.agrees for c in shifted) <= 2
    assert "ours is higher in 0" in counts_text(shifted)
    for c in same:
        assert c.difference.value == pytest.approx(c.exact.value - c.cell.share)
        assert c.difference.low < c.difference.value < c.difference.high


def test_a_depth_of_table_2_is_compared_with_our_mean_over_its_formats():
    table_2 = {c.cell.depth: c for c in found_in(*of_table_4()) if c.cell.table == "2"}
    assert set(table_2) == {0, 20, 40, 50, 60, 80, 100}
    one = [c for c in found_in(*of_table_4()) if c.cell.table == "4" and (c.cell.length, c.cell.depth) == (2048, 50)]
    assert table_2[50].exact.value == pytest.approx(sum(c.exact.value for c in one) / 3)
    assert table_2[50].exact.n == 750
    assert table_2[50].exact.high - table_2[50].exact.low < min(c.exact.high - c.exact.low for c in one)


def test_too_few_strata_are_no_published_depth():
    grid = plan(["needle"], list(FORMATS), [2048], (1 / 6, 0.5, 5 / 6), 20)
    facts = study([run("mine", published="TPP", context_length=2048)], [task("needle")], grid)
    found = found_in(facts, records({"mine": lambda c: np.full(len(c["length"]), 0.5)}, grid))
    at = {c.cell.depth: c for c in found if c.cell.table == "4"}
    assert isinstance(at[0].difference, Unavailable)
    assert "no stratum around depth 0" in str(at[0].difference)
    assert at[50].agrees is not None


def ruler_study(published, lengths, tasks=RULER, shares=None, **changes):
    grid = plan(tasks, [("noise", "words", "numbers")], lengths, [0.5], 60)
    facts = study([run("mine", published=published, **changes)], [task(name) for name in tasks], grid)
    table = records({"mine": lambda c: np.full(len(c["length"]), 0.1)}, grid)
    return facts, table if shares is None else with_column(table, "substring", np.full(len(table), shares))


def test_the_substring_score_is_compared_where_it_was_recorded():
    facts, table = ruler_study("RG", [1024], shares=0.75)
    found = found_in(facts, table)
    assert {c.scored_by for c in found} == {"substring"}
    assert all(c.substring.value == pytest.approx(0.75) for c in found)
    vt = next(c for c in found if c.cell.task == "vt")
    assert vt.difference.value == pytest.approx(0.75 - 0.98)
    assert vt.exact.value < 0.3
    half = with_column(table, "substring", pa.array([None if i % 2 else 0.75 for i in range(len(table))]))
    assert {c.scored_by for c in found_in(facts, half)} == {"exact"}, "half of a cell is no mean"


def test_a_mean_of_13_tasks_is_taken_on_both_sides_over_those_that_are_the_same_and_needs_all_of_them():
    with_all = found_in(*ruler_study("RG", [1024]))
    mean = next(c for c in with_all if c.cell.task == MEAN)
    own = [c for c in with_all if c.cell.task in same_tasks()]
    assert mean.exact.value == pytest.approx(sum(c.exact.value for c in own) / len(own))
    assert mean.exact.n == len(own) * 60
    assert mean.published.value == pytest.approx(sum(c.cell.share for c in own) / len(own))
    assert mean.published.value != pytest.approx(mean.cell.share, abs=0.01)
    without = found_in(*ruler_study("RG", [1024], tasks=("vt", "cwe")))
    assert {c.cell.task for c in without} == {"vt", "cwe"}


def test_unreadable_and_incomplete_cells_have_no_difference():
    damaged = found_in(*ruler_study("SL-IT", [2048], tasks=("vt", "qa_1")))
    assert {c.cell.task: str(c.difference) for c in damaged if isinstance(c.difference, Unavailable)} == {
        "vt": "unreadable"
    }
    incomplete = found_in(*ruler_study("RWKV", [16384], tasks=("vt", "fwe", "qa_1")))
    assert {c.cell.task for c in incomplete if isinstance(c.difference, Unavailable)} == {"vt", "fwe"}
    assert "fewer samples" in str(incomplete[0].difference)


def test_other_tasks_of_the_same_name_are_shown_apart_without_a_verdict_and_not_counted(tmp_path):
    facts, table = ruler_study("RG", [1024], tasks=("cwe", "vt", "niah_single_2"))
    found = found_in(facts, table)
    assert {c.cell.task: c.agrees is None for c in found} == {"cwe": True, "vt": True, "niah_single_2": False}
    assert all(isinstance(c.difference, Estimate) for c in found)
    assert "of 1 cells agree" in counts_text(found)
    section = published_section(analyse(facts, table))
    tables = {t.title: t for t in section.tables}
    apart = tables["Tables 7 to 19: tasks that are not the same"]
    assert [row[list(apart.columns).index("agrees")] for row in apart.rows] == ["another task"] * 2
    assert len(tables["Tables 7 to 19: RULER tasks"].rows) == 1
    assert any("--frozen" in text for text in section.text)


def test_means_of_other_cells_are_not_in_the_total():
    """Two lengths of Table 4 with 9 cells each; of Table 2's seven depths four are no mean of Table 4."""
    section = published_section(analyse(*of_table_4()))
    counted = next(text for text in section.text if text.startswith("All tables"))
    assert "of 22 cells agree" in counted
    assert "Left out of this count: Table 1" in counted
    means = next(t for t in section.tables if t.title.startswith("Printed means"))
    assert [(row[0], row[1]) for row in means.rows] == [("2", "Mamba2")]


def test_cells_at_zero_agree_always_and_the_range_says_so():
    found = found_in(*ruler_study("SL", [16384], tasks=("niah_single_1", "niah_single_2"), shares=0.0))
    assert [c.chance_to_agree for c in found] == [pytest.approx(1)] * 2
    assert counts_text(found).startswith("2 of 2")
    assert counts_text(found).endswith("if nothing differed, 2 would agree")


def test_the_page_has_the_counts_the_marks_and_the_retest_and_runs_nothing(tmp_path):
    facts, table = ruler_study("RWKV", [2048, 16384], tasks=("cwe", "fwe"), context_length=4096)
    facts.runs[0].__dict__["name"] = BAD
    table = with_column(table, "model", [BAD] * len(table))
    report = write_report(facts, table, tmp_path)
    html = report.html.read_text(encoding="utf-8")
    page = Page(html)
    assert BAD not in html
    assert "&lt;script&gt;alert(1)" in html
    assert "Published and ours" in page.text
    assert "7 middle significantly below both ends" in page.text
    assert "Tables 7 to 19" in page.text
    assert any("incomplete run" in cell for row in page.rows for cell in row)
    rows = list(csv.DictReader((tmp_path / "tables" / "published.csv").open(encoding="utf-8")))
    assert len(rows) == 2 * 2
    assert {row["marks"] for row in rows if row["task"] == "cwe"} == {"task changes at 4096"}


def test_variants_with_other_prompts_than_the_studys_are_counted_apart():
    facts, table = ruler_study("SL", [1024], tasks=("niah_multikey_1",), template="none")
    (other,) = found_in(facts, table)
    facts, table = ruler_study("SL", [1024], tasks=("niah_multikey_1",), template="instruction")
    (same,) = found_in(facts, table)
    assert (other.as_published, same.as_published) == (False, True)
    text = _counts([same, other])
    assert text.count("of 1 cells agree") == 2
    assert "; with other prompts 0 of 1" in text


def test_a_study_without_published_models_has_no_such_chapter(tmp_path):
    facts, table = ruler_study("", [1024], tasks=("vt",))
    assert found_in(facts, table) == []
    assert "Published and ours" not in write_report(facts, table, tmp_path).html.read_text(encoding="utf-8")


def test_the_caption_of_the_retest_counts_its_rows():
    table = retest_table()
    assert len(table.rows) == 22
    for pattern in ("below both ends", "below the end", "below the start", "below neither"):
        n = sum(row[-1] == pattern for row in table.rows)
        assert f" {n} middle significantly" in table.caption


def test_nothing_is_said_of_how_published_models_were_trained(tmp_path):
    facts, table = ruler_study("RG", [1024], tasks=("vt",), tuned="published", lr=None, data_digest="", tokens=0)
    results = analyse(facts, table)
    tables = {t.title: t for t in model_tables(results)}
    runs = tables["Runs"]
    (row,) = (dict(zip(runs.columns, row, strict=True)) for row in runs.rows)
    assert [row[name] for name in ("seed", "tokens", "learning rate", "skipped steps", "seconds")] == [""] * 5
    assert tables["Digests"].caption.endswith("none is known: not trained here.")
    assert "equal" not in tables["Digests"].caption


def test_digests_are_compared_between_models_that_have_one():
    (own,) = ruler_study("RG", [1024], tasks=("vt",))[0].runs
    runs = [own, replace(own, name="other"), replace(own, name="theirs", data_digest="", tuned="published")]
    captions = []
    for digest in (own.data_digest, "0" * 32):
        runs[1] = replace(runs[1], data_digest=digest)
        captions.append(_digests_text(runs))
    assert captions[0] == "the digests that are known are equal; of 1 none is known: not trained here"
    assert captions[1].startswith("the digests that are known are NOT equal")
    assert _digests_text(runs[:2]) == "the digests are NOT equal"
