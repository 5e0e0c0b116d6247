"""Verdicts about stated chance: exact binomial against scipy, few false alarms, and a leak is called one."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lcprobe.analysis.leakage import Guessed, detectable, in_words, judged
from lcprobe.analysis.stats.intervals import binomial_range, binomial_tail


def cell(hits, chance, queries=1, policy="p"):
    return Guessed(policy, "t", "corpus/words/numbers", 128, np.asarray(hits), np.full(len(hits), queries), chance)


@given(n=st.integers(1, 2000), p=st.floats(0, 1), k=st.integers(0, 2001))
def test_binomial_tail_equals_scipy(n, p, k):
    k = min(k, n + 1)
    assert binomial_tail(k, n, p) == pytest.approx(stats.binom.sf(k - 1, n, p), rel=1e-9, abs=1e-12)


@given(n=st.integers(1, 800), p=st.floats(0.001, 0.999))
def test_the_range_holds_at_least_95_percent_and_no_end_can_be_spared(n, p):
    low, high = (round(x * n) for x in binomial_range(n, p))
    assert stats.binom.cdf(low - 1, n, p) <= 0.025 + 1e-9
    assert stats.binom.sf(high, n, p) <= 0.025 + 1e-9
    assert stats.binom.cdf(low, n, p) > 0.025 - 1e-9
    assert stats.binom.sf(high - 1, n, p) >= 0.025 - 1e-9


def test_certain_levels():
    assert binomial_range(50, 1.0) == (1.0, 1.0)
    assert binomial_range(50, 0.0) == (0.0, 0.0)
    assert binomial_tail(1, 50, 0.0) == 0.0
    assert binomial_tail(50, 50, 1.0) == 1.0


@pytest.mark.parametrize("queries", [1, 4])
def test_honest_tables_raise_a_false_alarm_in_less_than_one_of_twenty(queries):
    """300 tables of 40 cells at their stated chance; with four questions a sample, its answers hang together."""
    generator, alarms, outside = np.random.default_rng(queries), 0, 0
    for _ in range(300):
        cells = []
        for chance in np.repeat([0.02, 0.1, 0.25, 0.5], 10):
            p = chance if queries == 1 else generator.beta(8 * chance, 8 * (1 - chance), 120)
            cells.append(cell(generator.binomial(queries, p, 120), chance, queries))
        table = judged(cells)
        alarms += any(c.verdict == "EXCEEDS" for c in table)
        outside += sum(c.accuracy > c.high for c in table)
    assert alarms / 300 <= 0.05 + 2 * (0.05 * 0.95 / 300) ** 0.5
    assert outside / (300 * 40) <= 0.03


def test_verdicts_by_size():
    ones = np.arange(200)
    table = judged(
        [cell(ones < 50, 0.25), cell(ones < 63, 0.25), cell(ones < 120, 0.25, policy="copies"), cell(ones < 2, 0.25)]
    )
    assert [c.verdict for c in table] == ["at chance", "above its range", "EXCEEDS", "below"]
    assert table[0].low < 0.25 < table[0].high
    assert "1 exceed chance after Holm: copies on t corpus/words/numbers at 128 (0.60, chance 0.25)" in in_words(
        table
    )
    assert "none exceeds" in in_words(table[:1])


def test_repeated_questions_are_not_more_evidence():
    alike = np.repeat([0, 4], [75, 25])
    (one,), (four,) = judged([cell(alike // 4, 0.2)]), judged([cell(alike, 0.2, 4)])
    assert four.p == pytest.approx(one.p, rel=0.2)


def test_what_can_be_found_is_found_in_four_of_five_and_less_is_not():
    for n, chance, level in ((400, 0.25, 0.05 / 200), (400, 0.008, 0.05 / 200), (80, 0.5, 0.05)):
        least = detectable(n, chance, level)
        few = int(stats.binom.isf(level, n, chance)) + 1  # the least count whose tail is below the level
        assert stats.binom.sf(few - 1, n, chance) < level
        assert stats.binom.sf(few - 1, n, least) == pytest.approx(0.8, abs=1e-4)
    assert detectable(1, 0.5, 1e-3) == 1.0


def test_what_is_the_task_is_shown_and_not_judged():
    ones = np.arange(200)
    solves = Guessed("counts", "t", "f", 128, ones < 200, np.ones(200), 0.25, is_the_task=True)
    again = Guessed("again", "t", "f", 128, ones < 50, np.ones(200), 0.25, same_as="first")
    low = cell(ones < 20, 0.25)
    table = judged([solves, again, low])
    assert [c.verdict for c in table] == ["the task", "at chance", "below"]
    assert table[1].p_holm == judged([again, low])[0].p_holm, "one test less"
    said = in_words(table)
    assert said.startswith(
        "2 cells, 1 of them repeat another policy's answers: 0 above their own 95 % range, 1 below"
    )
    assert "one-sided" in said
    assert "with 80 % power an excess of 0.09 over chance" in said
