"""How long probing still takes: what is left at the pace of all processes since this one began."""

from types import SimpleNamespace

import pytest

from lcprobe.probing.progress import Done
from lcprobe.studies.evaluation.jobs import study_progress
from lcprobe.studies.evaluation.jobs.study_progress import LOOK_SECONDS, Amount, Pace, ProbingProgress

WHOLE = Done(1000, 10)


class Shown:
    def __init__(self):
        self.states: list[tuple[str, str, float]] = []

    def show(self, now: str, rest: str, share: float) -> None:
        self.states.append((now, rest, share))


@pytest.fixture
def probing(monkeypatch):
    """Two models of 1000 tokens in 10 cells each, of which `stores` says what is done; the clock is `time`."""
    stores, time = {name: Amount(WHOLE, Done(0, 0)) for name in "ab"}, [0.0]
    monkeypatch.setattr(study_progress, "amount_of", lambda job: stores[job.variant.name])
    jobs = [SimpleNamespace(variant=SimpleNamespace(name=name)) for name in stores]

    def start() -> tuple[ProbingProgress, Shown]:
        shown = Shown()
        return ProbingProgress(shown, jobs, lambda: time[0]), shown  # type: ignore[arg-type]

    return SimpleNamespace(stores=stores, time=time, jobs=jobs, start=start)


def test_time_left_is_what_is_left_at_the_pace():
    assert Pace(5.0, 400).time_left(15.0, 100, 300) == pytest.approx(30)
    assert Pace(5.0, 400).time_left(15.0, 0, 400) is None


def test_time_left_is_told_once_enough_is_measured_and_forgets_a_slow_start():
    """A second for the first 5 of 10,000 tokens, as a model is loaded, then 100 a second: 100 s in all."""
    pace = Pace(0.0, 10_000)
    told = {second: pace.time_left(second, 5 + 100 * (second - 1), 10_095 - 100 * second) for second in range(1, 90)}
    assert told[1] is told[2] is None
    assert Pace(0.0, 10_000).time_left(60.0, 199, 9_801) is None, "less than 2 %"
    known = {second: left for second, left in told.items() if left is not None}
    assert min(known) <= 4
    ends = [second + left for second, left in known.items()]
    assert all(95 < end < 150 for end in ends)
    assert ends == sorted(ends, reverse=True), "it comes down to the truth"
    assert ends[-1] == pytest.approx(101, abs=0.5)


def test_a_pace_that_changes_is_followed_without_jumps():
    pace, lefts = Pace(0.0, 100_000), []
    for second in range(1, 201):
        done = 100 * second if second <= 100 else 10_000 + 400 * (second - 100)
        lefts.append(pace.time_left(float(second), done, 100_000 - done))
    before, first, last = (left for left in (lefts[99], lefts[100], lefts[-1]) if left is not None)
    assert 0.8 * before < first < before
    assert last == pytest.approx(50_000 / 400, rel=0.05)


def test_all_models_are_counted_and_named(probing):
    progress, shown = probing.start()
    tell = progress.of(probing.jobs[1])
    tell(Done(0, 0), "vt @512")
    assert shown.states[-1] == ("probing b (model 2 of 2): vt @512", "0 of 20 cells", 0)
    probing.time[0] = 4.0
    tell(Done(500, 6), "vt @1024")
    assert shown.states[-1] == ("probing b (model 2 of 2): vt @1024", "6 of 20 cells, 0:12 left", 0.25)


def test_what_was_done_before_is_done_and_no_part_of_the_pace(probing):
    probing.stores["a"] = Amount(WHOLE, WHOLE)
    probing.stores["b"] = Amount(WHOLE, Done(500, 5))
    progress, shown = probing.start()
    probing.time[0] = 4.0
    progress.of(probing.jobs[1])(Done(750, 7), "vt")
    assert shown.states[-1] == ("probing b (model 2 of 2): vt", "17 of 20 cells, 0:04 left", 0.875)
    progress.of(probing.jobs[1])(WHOLE, "vt")
    assert shown.states[-1] == ("probing b (model 2 of 2): vt", "20 of 20 cells, 0:00 left", 1.0)


def test_other_processes_shorten_it(probing):
    progress, shown = probing.start()
    tell = progress.of(probing.jobs[0])
    probing.stores["b"] = Amount(WHOLE, Done(600, 6))  # by another process
    probing.time[0] = LOOK_SECONDS + 3
    tell(Done(200, 2), "vt")
    assert shown.states[-1] == ("probing a (model 1 of 2): vt", "8 of 20 cells, 0:12 left", 0.4)
