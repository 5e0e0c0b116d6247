"""Headline tables: scores are those of the records, seeds of a model share a row, and findings are not pooled."""

import numpy as np
import pytest

from lcprobe.analysis.findings.results import analyse
from lcprobe.analysis.report.answer.headline import effective_length, headline_tables, reach_text
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
    assert effective_length(results, keys) == ("≥ 512", "≥ 4×", 512)


def test_reach_is_that_of_a_planted_window_and_absent_where_nothing_falls():
    cells = plan(["single"], n=60) + plan(["single"], lengths=[128], depths=[0.5], n=60, control="zero_distance")
    results = analyse(
        study([run("a"), run("b")], TASKS[:1], cells), records({"a": window(200), "b": flat(0.99)}, cells)
    )
    a, b = (reach_text([r]) for r in results.reaches)
    low, high = a.split("(")[1].rstrip(")").split("–")
    assert float(low) <= 200 <= float(high)
    assert b.startswith("no fall to ")


def test_tasks_where_models_differ_come_first():
    cells = plan(["single", "multikey"], [FORMAT], LENGTHS, DEPTHS, 100)
    far = lambda c: np.where(c["task"] == "multikey", 0.9, 0.5)  # noqa: E731
    tables, _ = tables_of([run("a"), run("b")], {"a": far, "b": flat(0.5)}, cells)
    assert [table.task for table in tables] == ["multikey", "single"]
