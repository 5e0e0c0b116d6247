"""Headline tables: scores are those of the records, seeds of a model share a row, and findings are not pooled."""

from dataclasses import replace

import numpy as np
import pytest

from lcprobe.analysis.findings.cells import Slice
from lcprobe.analysis.findings.results import analyse
from lcprobe.analysis.report.answer.headline import effective_length, headline_tables, reach_text
from lcprobe.analysis.report.answer.lines import answer_lines
from lcprobe.analysis.stats.estimates import Proportion
from tests.analysis.fabricated import FORMAT, flat, plan, records, run, study, task, window

LENGTHS, DEPTHS = [64, 128, 256], [0.0, 0.5, 1.0]
CELLS = plan(["single", "multikey"], lengths=LENGTHS, depths=DEPTHS, n=60)
TASKS = [task("single"), task("multikey", 4)]


def tables_of(runs, behaviours, cells=CELLS):
    table = records(behaviours, cells)
    return headline_tables(analyse(study(runs, TASKS, cells), table)), table.to_pandas()


def test_scores_are_counted_from_the_records_with_the_seeds_of_a_model_together():
    runs = [run("a-0", group="a"), run("a-1", group="a", seed=1), run("b", context_length=64)]
    tables, frame = tables_of(runs, {"a-0": flat(0.9), "a-1": flat(0.6), "b": flat(0.5)})
    assert {table.task for table in tables} == {"single", "multikey"}
    for table in tables:
        assert [(row.model, row.seeds) for row in table.rows] == [("a", 2), ("b", 1)]
        assert (table.context_length, table.lengths, table.n_formats) == (None, tuple(LENGTHS), 1)
        for row, names in zip(table.rows, (["a-0", "a-1"], ["b"]), strict=True):
            for score in row.scores:
                own = frame[frame.model.isin(names) & (frame.task == table.task) & (frame.length == score.length)]
                assert isinstance(score.estimate, Proportion)
                assert (score.estimate.k, score.estimate.n) == (own.exact.sum(), len(own))
                assert score.estimate.low < score.estimate.value < score.estimate.high
                assert score.by_seed == pytest.approx(own.groupby("model").exact.mean().tolist())
                assert score.trained == (score.length == row.context_length)
                assert score.past == (score.length > row.context_length)


def test_an_incomplete_length_has_its_reason_in_place_of_a_score():
    table = records({"a": flat(0.9)}, CELLS)
    kept = table.filter(np.array(table["length"]) < 256)
    rows = headline_tables(analyse(study([run("a")], TASKS, CELLS), kept))[0].rows
    assert [isinstance(s.estimate, Proportion) for s in rows[0].scores] == [True, True, False]
    assert str(rows[0].scores[2].estimate) == "incomplete (0 of 3 cells)"


def test_effective_lengths_of_seeds_are_a_span_and_never_pooled():
    cells = plan(["single"], lengths=[64, 128, 256, 512], depths=DEPTHS, n=200)
    cells += plan(["single"], lengths=[128], depths=[0.5], n=200, control="zero_distance")
    runs = [run("a-0", group="a"), run("a-1", group="a", seed=1)]
    behaviours = {"a-0": lambda c: np.where(c["length"] <= 128, 0.98, 0.1), "a-1": flat(0.98)}
    results = analyse(study(runs, TASKS[:1], cells), records(behaviours, cells))
    row = headline_tables(results)[0].rows[0]
    assert (row.effective, row.multiple) == ("128 to ≥ 512", "")
    keys = [e.where for e in results.extrapolations if e.where.model == "a-1"]
    assert effective_length(results, keys) == ("≥ 512", "≥ 4×", "", 512)
    (short,) = (e.where for e in results.extrapolations if e.where.model == "a-0")
    score = results.data.slice(short, 256)
    assert isinstance(score, Slice)
    assert effective_length(results, [short]) == ("128", "1×", f"256 shown to fall: {score.value:.2f}", 128)


def test_reach_is_that_of_a_planted_window_and_absent_where_nothing_falls():
    cells = plan(["single"], n=60) + plan(["single"], lengths=[128], depths=[0.5], n=60, control="zero_distance")
    results = analyse(
        study([run("a"), run("b")], TASKS[:1], cells), records({"a": window(200), "b": flat(0.99)}, cells)
    )
    a, b = (reach_text([r]) for r in results.reaches)
    low, high = a.split("(")[1].rstrip(")").split("–")
    assert float(low) <= 200 <= float(high)
    beyond = results.reaches[1]
    assert (beyond.tokens, b) == (None, f"≥ {beyond.low or beyond.longest:,.0f}")


def test_a_fall_that_is_no_finding_is_not_resolved_and_not_beyond():
    cells = plan(["single"], n=60) + plan(["single"], lengths=[128], depths=[0.5], n=60, control="zero_distance")
    results = analyse(study([run("a")], TASKS[:1], cells), records({"a": window(200)}, cells))
    (found,) = results.reaches
    (open_, beyond) = replace(found, p_report=1.0), replace(found, tokens=None, low=816.4)
    assert reach_text([open_]) == "not resolved"
    assert reach_text([beyond]) == "≥ 816"
    assert reach_text([open_, beyond]) == "≥ 816 (1 of 2 seeds)"
    assert reach_text([beyond, replace(found, refused="x")]) == "n/a"


def test_a_task_of_look_up_by_key_comes_before_one_that_copying_solves():
    """Models differ on `single` alone, which has one key; on `multikey` both look it up."""
    tasks = ["single", "multikey"]
    cells = plan(tasks, lengths=[64, 128, 256], depths=DEPTHS, n=60)
    cells += plan(tasks, lengths=[128], depths=DEPTHS, n=60, control="wrong_key")
    cells += plan(tasks, lengths=[128], depths=[0.5], n=60, control="zero_distance")

    def of(far):
        return lambda c: np.select(
            [c["control"] == "wrong_key", (c["task"] == "single") & (c["length"] > 128)], [0.05, far], 0.97
        )

    runs, behaviours = [run("a"), run("b")], {"a": of(0.9), "b": of(0.2)}
    results = analyse(study(runs, TASKS, cells), records(behaviours, cells))
    assert {c.task for c in results.of("models") if c.resolved} == {"single"}
    tables = headline_tables(results)
    assert [table.task for table in tables] == ["multikey", "single"]
    lines = answer_lines(results, tables)
    assert all(line.question.endswith(" on multikey?") for line in lines)
    assert "Scores on multikey of these seeds are" in lines[-1].text


def test_tasks_where_models_differ_come_first():
    cells = plan(["single", "multikey"], [FORMAT], LENGTHS, DEPTHS, 100)
    far = lambda c: np.where(c["task"] == "multikey", 0.9, 0.5)  # noqa: E731
    tables, _ = tables_of([run("a"), run("b")], {"a": far, "b": flat(0.5)}, cells)
    assert [table.task for table in tables] == ["multikey", "single"]
