"""The longest that can be built is asked like the shortest: what fills a context may be used up."""

import pytest

from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.schema import build

FULL = {"type": "niah", "n_keys": 3, "template": "line", "digits": 2}
"""Ninety numbers of two digits: as many lines."""
GRAMS = {"type": "copying", "ask": "gram", "share": 0.5, "vocabulary": 4, "gram": 2, "formats": {"value": "words"}}


def planned(materials, task, grid):
    tasks = TaskSet(build(ProbeConfig, {"tasks": {"t": task}}, "probe"), materials)
    return tasks, tasks.plan([build(Grid, {"n": 3, "depths": 1, **grid}, "grid")], 64)


@pytest.mark.parametrize(
    ("task", "haystacks", "reason"),
    [(FULL, ["needles", "corpus"], "needle-like lines"), (GRAMS, ["corpus"], "make 16")],
    ids=["lines", "grams"],
)
def test_lengths_that_cannot_be_built_are_left_out_in_one_line(materials, task, haystacks, reason):
    lengths = [128, 256, 2048, 4096]
    tasks, plan = planned(materials, task, {"lengths": [f"{n}t" for n in lengths], "haystack": haystacks})
    assert all(tasks.can_make(unit) for unit in plan.units)
    (note,) = plan.notes
    (long,) = plan.too_long
    assert str(long) == note
    assert reason in note
    assert long.lengths == (2048, 4096)
    assert {(unit.formats.haystack, unit.length) for unit in plan.units} == {
        (haystack, n) for haystack in haystacks for n in lengths if haystack != haystacks[0] or n not in long.lengths
    }


def test_the_plan_leaves_out_what_probing_would(materials):
    """At lengths on both sides of the longest that can be built."""
    built = []
    for length in range(100, 600, 100):
        tasks, plan = planned(materials, FULL, {"lengths": [f"{length}t"], "haystack": ["needles"]})
        built.append(bool(plan.units))
        assert all(tasks.can_make(unit) for unit in plan.units)
    assert built == sorted(built, reverse=True)
    assert built[0] > built[-1]
