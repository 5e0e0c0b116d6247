"""Planted copiers go through tasks, runner and report: one that names the last value is no retriever in any cell."""

from validation import copiers
from validation.planted import task_set


def test_a_pure_copier_is_given_nothing_where_one_key_stands_among_lines(materials, monkeypatch):
    """It was given an effective length of 128 tokens, a recency and a reach."""
    monkeypatch.setattr(copiers, "COPIED", ("last_distinct",))
    monkeypatch.setattr(copiers, "FOUND", (0.0,))
    tasks = task_set(materials.stream("corpus"), tasks={"lines": copiers.TASKS["lines"]})
    (results,) = copiers.of_copiers(tasks, copiers.plan_of(tasks, "lines", 30), 0).values()
    (gate,) = results.gates
    assert (copiers.taken_in(results), gate.lookup) == ((), "not acquired")
    assert results.reaches[0].refused == gate.closed
