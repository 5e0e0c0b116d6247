"""Verdicts about stated chance: few false positives, a leak is detected, repeated answers are no evidence."""

import numpy as np
import pytest

from lcprobe.analysis.leakage import PolicyScores, leakage_summary, leakage_table


def cell(hits, chance, queries=1, policy="p"):
    return PolicyScores(
        policy, "t", "corpus/words/numbers", 128, np.asarray(hits), np.full(len(hits), queries), chance
    )


@pytest.mark.parametrize("queries", [1, 4])
def test_honest_tables_have_a_false_positive_in_less_than_one_of_twenty(queries):
    """300 tables of 40 cells at their stated chance; with four questions per sample, its answers are correlated."""
    generator, alarms, outside = np.random.default_rng(queries), 0, 0
    for _ in range(300):
        cells = []
        for chance in np.repeat([0.02, 0.1, 0.25, 0.5], 10):
            p = chance if queries == 1 else generator.beta(8 * chance, 8 * (1 - chance), 120)
            cells.append(cell(generator.binomial(queries, p, 120), chance, queries))
        table = leakage_table(cells)
        alarms += any(c.verdict == "EXCEEDS" for c in table)
        outside += sum(c.accuracy > c.high for c in table)
    assert alarms / 300 <= 0.05 + 2 * (0.05 * 0.95 / 300) ** 0.5
    assert outside / (300 * 40) <= 0.03


def test_verdicts_by_size():
    ones = np.arange(200)
    table = leakage_table(
        [cell(ones < 50, 0.25), cell(ones < 63, 0.25), cell(ones < 120, 0.25, policy="copies"), cell(ones < 2, 0.25)]
    )
    assert [c.verdict for c in table] == ["at chance", "above its range", "EXCEEDS", "below"]
    assert table[0].low < 0.25 < table[0].high
    assert (
        "1 exceed chance after Holm: copies on t corpus/words/numbers at 128 (0.60, chance 0.25)"
        in leakage_summary(table)
    )
    assert "none exceeds" in leakage_summary(table[:1])


def test_repeated_questions_are_no_more_evidence():
    hits = np.repeat([0, 4], [75, 25])
    (one,), (four,) = leakage_table([cell(hits // 4, 0.2)]), leakage_table([cell(hits, 0.2, 4)])
    assert four.p == pytest.approx(one.p, rel=0.2)


def test_policies_that_solve_the_task_are_shown_but_not_tested():
    ones = np.arange(200)
    solves = PolicyScores("counts", "t", "f", 128, ones < 200, np.ones(200), 0.25, is_the_task=True)
    again = PolicyScores("again", "t", "f", 128, ones < 50, np.ones(200), 0.25, same_as="first")
    low = cell(ones < 20, 0.25)
    table = leakage_table([solves, again, low])
    assert [c.verdict for c in table] == ["the task", "at chance", "below"]
    assert table[1].p_holm == leakage_table([again, low])[0].p_holm, "one test less"
    summary = leakage_summary(table)
    assert summary.startswith(
        "2 cells, 1 of them repeat another policy's answers: 0 above their own 95 % range, 1 below"
    )
    assert "one-sided" in summary
    assert "with 80 % power an excess of 0.09 over chance" in summary
