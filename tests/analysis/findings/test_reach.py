"""Effective reach: planted windows are recovered, and a flat model or a limit of length has none."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from lcprobe.analysis.findings.cells import PanelKey
from lcprobe.analysis.findings.families import corrected
from lcprobe.analysis.findings.load_records import load_records
from lcprobe.analysis.findings.reach import Reach, fall_p, reaches
from lcprobe.analysis.inputs import StudyFacts
from lcprobe.tasks.episode import Formats
from tests.analysis.fabricated import FORMAT, flat, plan, records, run, study, task, window

CELLS = plan(["single"])


def reaches_of(facts: StudyFacts, table: pa.Table) -> list[Reach]:
    return corrected(reaches(load_records(facts, table), {}))


def reach(behaviour, tasks=("single", 1), seed=0) -> Reach:
    cells = plan([tasks[0]])
    table = records({"m": behaviour}, cells, seed=seed)
    return reaches_of(study([run("m")], [task(*tasks)], cells), table)[0]


@pytest.mark.parametrize("w", [45, 100, 300, 480, 700])
def test_a_window_of_w_tokens_is_reported_with_reach_w(w):
    """w is in the interval, which is no wider than the gap between neighbouring cells and the jitter."""
    r = reach(window(w))
    assert r.refused is None
    assert r.tokens is not None
    assert r.low is not None
    assert r.high is not None
    assert r.between is not None
    assert r.low <= w <= r.high
    assert r.low <= r.tokens <= r.high
    assert r.high / r.low < 1.6
    assert f"{r.between[0]} and {r.between[1]}" in str(r)


@pytest.mark.parametrize("seed", range(4))
def test_a_gentle_fall_has_its_reach_half_way_above_chance(seed):
    soft = reach(lambda c: 0.96 / (1 + (c["distance"] / 200) ** 3), seed=seed)
    above = reach(lambda c: 0.25 + 0.7 / (1 + (c["distance"] / 200) ** 3), ("multikey", 4), seed=seed)
    for r in (soft, above):
        assert r.refused is None
        assert r.tokens == pytest.approx(200, rel=0.2)
        assert r.low is not None
        assert r.high is not None
        assert r.low < 200 < r.high


@pytest.mark.parametrize("seed", range(6))
def test_a_flat_model_reaches_beyond_what_was_tested(seed):
    r = reach(flat(0.6), seed=seed)
    assert (r.refused, r.tokens, r.high) == (None, None, None)
    assert str(r).startswith("beyond the longest distance tested")


def test_a_model_that_breaks_past_its_training_length_has_no_reach():
    r = reach(lambda c: np.where(c["length"] <= 128, 0.95, 0.01))
    assert r.refused is not None
    assert r.refused.startswith("length and not distance is the limit")


def test_a_model_lost_in_the_middle_has_no_single_reach():
    r = reach(lambda c: np.where((c["depth"] > 0.1) & (c["depth"] < 0.9) & (c["length"] > 128), 0.05, 0.9))
    assert r.refused is not None
    assert "again at" in r.refused


def test_floor_and_gaps_are_refused():
    assert reach(flat(0.01)).refused == "not testable (at the floor already at the shortest distance)"
    assert (
        reach(flat(0.25), ("multikey", 4)).refused == "not testable (at the floor already at the shortest distance)"
    )
    table = records({"m": window(300)}, CELLS)
    part = table.slice(0, len(table) - 100)
    (r,) = reaches_of(study([run("m")], [task("single")], CELLS), part)
    assert r.refused == "incomplete (4 of 5 cells) at 1,024 tokens"


def test_every_trial_is_in_one_bin():
    r = reach(window(300))
    assert sum(b.estimate.n for b in r.bins) == 6 * 5 * 100
    assert all(a.high < b.low for a, b in zip(r.bins, r.bins[1:], strict=False))
    assert all(b.estimate.n >= 10 for b in r.bins)


def test_a_fall_is_tested_at_equal_length():
    """A limit of length, or accuracy that rises with the distance, is none; nor, as a rule, is noise."""
    cells = plan(["single"])
    where = PanelKey("m", "single", Formats(*FORMAT))

    def p(behaviour, seed=0) -> float:
        table = records({"m": behaviour}, cells, seed=seed)
        return fall_p(load_records(study([run("m")], [task("single")], cells), table).panels[where])

    assert sum(p(flat(0.6), seed) < 0.05 for seed in range(30)) <= 4
    assert p(lambda c: np.where(c["length"] <= 128, 0.9, 0.1)) > 0.05
    assert p(lambda c: 0.3 + 0.5 * (1 - c["depth"])) == 1.0  # rises with distance
    assert p(window(300)) < 1e-6
    unresolved = replace(reach(window(300)), p_report=0.2)
    assert (unresolved.is_found, str(unresolved)[:21]) == (False, "no fall is resolved u")
