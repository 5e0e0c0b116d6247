"""What is said of a report on the terminal: within 80 columns for any number of models, nothing of a score lost."""

from dataclasses import replace
from pathlib import Path

import pytest

from lcprobe.analysis.findings.results import analyse
from lcprobe.analysis.report.answer.findings import MAX_FINDINGS, findings
from lcprobe.analysis.report.answer.headline import HeadlineRow, HeadlineTable, Score, headline_tables
from lcprobe.analysis.report.answer.limits import folded_limits
from lcprobe.analysis.report.summary import summary
from lcprobe.analysis.report.write import Report
from lcprobe.analysis.stats.estimates import Proportion
from lcprobe.studies import console
from lcprobe.studies.evaluation.reporting.screen import say_report, statements, table_text
from tests.analysis.fabricated import flat, plan, records, run, study, task, window

LENGTHS = (32, 64, 128, 256, 512, 1024)
NAMES = ("transformerpp", "positional=rope-hybrid-with-a-name-that-goes-on-and-on", "m2")


def table_of(n: int, effective: str = "≥ 1,024") -> HeadlineTable:
    def scores(i: int) -> tuple[Score, ...]:
        found = [Proportion(77 + j, 100, 100, 0.701 + j / 100, 0.8341) for j in range(len(LENGTHS))]
        return tuple(
            Score(length, one, (), length == 128, length > 128) for length, one in zip(LENGTHS, found, strict=True)
        )

    rows = [
        HeadlineRow(f"{NAMES[i % 3]}-{i}", 3, 128, scores(i), effective, "≥ 8×", "", "≥ 1,024", 1024)
        for i in range(n)
    ]
    return HeadlineTable("multikey", "corpus/words/numbers", LENGTHS, tuple(rows), 0.25, 100, 128, 3)


@pytest.mark.parametrize("effective", ["≥ 1,024", "task not acquired; key look-up not acquired (2 of 3 seeds)"])
@pytest.mark.parametrize("n", [1, 3, 9, 45])
def test_no_line_is_wider_than_80_columns_and_every_score_is_there(n, effective):
    lines = table_text(table_of(n, effective), 80)
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for j in range(len(LENGTHS)):
        assert text.count(f".{77 + j} ") + text.count(f".{77 + j}\n") >= n
    assert text.count(".70–.83") == n
    assert "128*" in text
    assert "64*" not in text


def test_in_a_pipe_a_model_is_a_line():
    table = table_of(9)
    lines = table_text(table, None)
    assert len(lines) == 2 + 9
    assert all(row.model in line for row, line in zip(table.rows, lines[2:], strict=True))
    assert lines[2].count("(.7") == len(LENGTHS)
    assert lines[2].endswith("≥ 1,024 (≥ 8×); ≥ 1,024")


def test_training_lengths_that_differ_are_marked_at_the_scores():
    table = replace(table_of(2), context_length=None)
    lines = table_text(table, None)
    assert "*" not in lines[0]
    assert lines[2].count("*") == 1


@pytest.fixture
def report() -> Report:
    cells = plan(["single", "multikey"], lengths=[64, 128, 256], depths=[0.0, 0.5, 1.0], n=60)
    runs = [run("a"), run("b", tuned="untuned"), run("c", tuned="untuned")]
    behaviours = {"a": flat(0.95), "b": window(100), "c": flat(0.3)}
    results = analyse(study(runs, [task("single"), task("multikey", 4)], cells), records(behaviours, cells))
    sentences = summary(results)
    found = [sentence.text for sentence in findings(results)]
    return Report(
        Path("runs/x/report.html"),
        [],
        headline_tables(results),
        [],
        found,
        [],
        folded_limits(sentences),
        {},
        [],
        results,
    )


def test_the_screen_has_the_table_findings_limits_and_the_path_in_this_order(report, capsys):
    say_report(report)
    lines = capsys.readouterr().out.splitlines()
    places = [lines.index(line) for line in lines if line.startswith(("model ", "finding", "limit", "report: "))]
    assert places == sorted(places)
    assert lines[-1] == "report: runs/x/report.html"
    limits = lines[next(i for i, line in enumerate(lines) if line.startswith("limit")) + 1 : -1]
    assert limits == [f"- {limit.line}" for limit in report.limits], "one line each"
    assert limits


def test_the_screen_fits_a_terminal(report, monkeypatch, capsys):
    monkeypatch.setattr(console, "width_of", lambda stream=None: 80)
    monkeypatch.setattr("lcprobe.studies.evaluation.reporting.screen.width_of", lambda: 80)
    say_report(report)
    assert max(map(len, capsys.readouterr().out.splitlines())) <= 80


def test_what_is_not_resolved_is_said_apart_from_findings(report):
    said = list(statements(replace(report, findings=["found"], seen=["seen"])))
    assert said[:4] == ["finding:", "- found", "not resolved:", "- seen"]
    assert "not resolved:" not in list(statements(replace(report, seen=[])))


def test_at_most_eight_findings_are_said(report):
    many = replace(report, findings=[f"finding {i}" for i in range(MAX_FINDINGS + 3)])
    said = list(statements(many))
    assert sum(line.startswith("- finding ") for line in said) == MAX_FINDINGS
    assert "- and 3 more findings in the report" in said
    assert "- and 1 more finding in the report" in list(statements(replace(many, findings=many.findings[:-2])))
