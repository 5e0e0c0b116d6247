"""Half-life: planted ones are in their interval, and a curve that is not exponential has none."""

import pytest

from lcprobe.analysis.findings.families import corrected
from lcprobe.analysis.findings.half_life import HalfLife, half_lives
from lcprobe.analysis.findings.load_records import load_records
from lcprobe.analysis.findings.reach import reaches
from tests.analysis.fabricated import flat, plan, records, run, study, task, window


def half_life(behaviour, tasks=("single", 1), seed=0) -> HalfLife:
    cells = plan([tasks[0]])
    data = load_records(study([run("m")], [task(*tasks)], cells), records({"m": behaviour}, cells, seed=seed))
    return half_lives(data, corrected(reaches(data, {})))[0]


@pytest.mark.parametrize("h", [60, 150, 400])
@pytest.mark.parametrize("top", [1.0, 0.7])
def test_a_planted_half_life_is_recovered(h, top):
    estimate = half_life(lambda c: top * 2.0 ** (-c["distance"] / h))
    assert estimate.refused is None
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low <= h <= estimate.high
    assert estimate.high / estimate.low < 1.6
    assert estimate.top == pytest.approx(top, abs=0.1)


def test_a_look_up_task_falls_to_chance():
    estimate = half_life(lambda c: 0.25 + 0.75 * 2.0 ** (-c["distance"] / 150), ("multikey", 4))
    assert estimate.low is not None
    assert estimate.high is not None
    assert estimate.low <= 150 <= estimate.high


@pytest.mark.parametrize("seed", range(3))
def test_a_fall_that_is_not_exponential_has_no_half_life(seed):
    assert half_life(window(300), seed=seed).refused == "none: the fall is not exponential"
    assert (
        half_life(lambda c: 0.95 / (1 + (c["distance"] / 200) ** 6), seed=seed).refused
        == "none: the fall is not exponential"
    )
    assert str(half_life(flat(0.6), seed=seed)).startswith("beyond the longest distance tested")
    assert str(half_life(flat(0.01), seed=seed)).startswith("not testable")
