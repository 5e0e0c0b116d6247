"""Plain text in the report: a planted rise, blow-up and memory are recovered with their size; noise alone is no rise."""

import csv
from dataclasses import replace

import numpy as np
import pytest

from lcprobe.analysis.findings.families import corrected
from lcprobe.analysis.findings.text_curves import text_curves
from lcprobe.analysis.report.write import write_report
from lcprobe.errors import DataError
from lcprobe.records import CONTEXT_SCHEMA, table_of
from tests.analysis.fabricated import flat, plan, records, run, study, task, text_records

CONTEXT = 128


def curves(*models, **given):
    facts = study([run(name, context_length=CONTEXT) for name in models], [task("single")], plan(["single"]))
    rows = [row for name in models for row in text_records(name, **given)]
    found = text_curves(facts, table_of(rows, CONTEXT_SCHEMA))
    return [replace(c, rise=rise) for c, rise in zip(found, corrected([c.rise for c in found]), strict=True)]


def test_a_planted_rise_is_recovered_with_its_start_and_size():
    (result,) = curves("a", rise=lambda edge: 0.8 if edge > 256 else 0.0)
    assert result.rises == 256
    assert (result.base.low, result.base.high) == (64, 127)
    last = result.bins[-1].difference
    assert last.low < 0.8 + 3 / 512 - 3 / 64 < last.high
    assert last.n == result.windows == 20


def test_noise_and_one_bad_bin_are_no_rise():
    wrong = sum(curves("a", seed=seed)[0].rises is not None for seed in range(60))
    assert wrong <= 3
    (bump,) = curves("a", rise=lambda edge: 3.0 if edge == 512 else 0.0)
    assert bump.rises is None


def test_intervals_are_over_windows_and_include_the_mean():
    (result,) = curves("a", noise=0.0)
    levels = [row["value"] - 3 / row["low"] for row in text_records("a", noise=0.0) if row["measure"] == "loss"]
    for bin in result.bins:
        assert bin.loss.value == pytest.approx(np.mean(levels) + 3 / bin.low)
        half = 2.09 * np.std(levels, ddof=1) / np.sqrt(20)
        assert bin.loss.high - bin.loss.low == pytest.approx(2 * half, rel=0.2)
        assert bin.difference is None or bin.difference.high - bin.difference.low < 1e-5


def test_missing_columns_are_named():
    table = table_of(text_records("a"), CONTEXT_SCHEMA).drop_columns(["kept"])
    with pytest.raises(DataError, match="columns kept are missing"):
        text_curves(study([run("a")], [task("single")], plan(["single"])), table)


def test_the_report_shows_plain_text_only_where_it_was_measured(tmp_path, no_pictures):
    cells = plan(["single"], lengths=[64, 128, 256], depths=[0.0, 0.5, 1.0], n=20)
    facts = study([run("a"), run("b"), run("c")], [task("single")], cells)
    table = records({name: flat(0.5) for name in "abc"}, cells)
    rows = text_records("a", rise=lambda edge: 1.0 if edge > 128 else 0.0) + text_records("b", bad=7, growth=0.0)
    report = write_report(facts, table, tmp_path, context=table_of(rows, CONTEXT_SCHEMA))
    assert {"context_loss", "context_state", "context_remembrance_128", "context_remembrance_1024"} <= set(
        report.figures
    )
    sentences = [s for s in report.summary if "plain text" in s or "root mean square" in s or "total variation" in s]
    assert any(s.startswith("a: loss of plain text rises from 128 tokens on: +0.9") for s in sentences)
    assert any(s.startswith("b: loss of plain text shows no lasting rise") for s in sentences)
    assert "b: on plain text of 1,024 tokens 0 values of the state and 140 predictions were not finite." in sentences
    assert any(s.startswith("a: the state grows: root mean square 1.1") for s in sentences)
    assert any(s.startswith("b: no change resolved in the state") for s in sentences)
    assert (
        "a: after 128 tokens, reading the last 64 alone changes the prediction by a total variation of 0.118 (0.118–0.118)."
        in sentences
    )
    assert not any(s.startswith("c") for s in sentences)
    with open(tmp_path / "tables" / "context.csv", newline="", encoding="utf-8") as file:
        result = list(csv.DictReader(file))
    own = [r for r in result if r["model"] == "a" and r["measure"] == "loss" and r["to"] == "1023"]
    mean = np.mean([r["value"] for r in rows if r["model"] == "a" and r["measure"] == "loss" and r["high"] == 1023])
    assert float(own[0]["value"]) == pytest.approx(mean)
    page = report.html.read_text()
    assert 'id="context"' in page
    assert "are shared by several questions" in page
    again = write_report(facts, table, tmp_path / "without")
    assert not [name for name in again.figures if name.startswith("context")]
    assert 'id="context"' not in again.html.read_text()
