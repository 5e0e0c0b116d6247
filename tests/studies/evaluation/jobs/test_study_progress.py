"""How long probing still takes: what is left at the pace of all processes since this one began."""

from types import SimpleNamespace

import pytest

from lcprobe.studies.evaluation.jobs import study_progress
from lcprobe.studies.evaluation.jobs.study_progress import LOOK_SECONDS, Amount, ProbingProgress, time_left


class Shown:
    def __init__(self):
        self.states: list[tuple[str, str, float]] = []

    def show(self, now: str, rest: str, share: float) -> None:
        self.states.append((now, rest, share))


@pytest.fixture
def probing(monkeypatch):
    """Two models of 1000 tokens in 10 units each, of which `stores` says what is done; the clock is `time`."""
    stores, time = {"a": Amount(1000, 0, 10, 0), "b": Amount(1000, 0, 10, 0)}, [0.0]
    monkeypatch.setattr(study_progress, "amount_of", lambda job: stores[job.variant.name])
    jobs = [SimpleNamespace(variant=SimpleNamespace(name=name)) for name in stores]

    def start() -> tuple[ProbingProgress, Shown]:
        shown = Shown()
        return ProbingProgress(shown, jobs, lambda: time[0]), shown  # type: ignore[arg-type]

    return SimpleNamespace(stores=stores, time=time, jobs=jobs, start=start)


def test_time_left_is_the_pace_times_what_is_left():
    assert time_left(10.0, 100, 300) == pytest.approx(30)
    assert time_left(3.0, 0, 300) is None


def test_all_models_are_counted_and_named(probing):
    progress, shown = probing.start()
    tell = progress.of(probing.jobs[1])
    tell(0, 1000, "vt @512")
    assert shown.states[-1] == ("probing b (model 2 of 2): vt @512", "0 of 20 units", 0)
    probing.time[0] = 4.0
    tell(500, 1000, "vt @1024")
    assert shown.states[-1] == ("probing b (model 2 of 2): vt @1024", "0 of 20 units, 0:12 left", 0.25)


def test_what_was_done_before_is_done_and_no_part_of_the_pace(probing):
    probing.stores["a"] = Amount(1000, 1000, 10, 10)
    probing.stores["b"] = Amount(1000, 500, 10, 5)
    progress, shown = probing.start()
    probing.time[0] = 4.0
    progress.of(probing.jobs[1])(750, 1000, "vt")
    assert shown.states[-1] == ("probing b (model 2 of 2): vt", "15 of 20 units, 0:04 left", 0.875)


def test_other_processes_shorten_it(probing):
    progress, shown = probing.start()
    tell = progress.of(probing.jobs[0])
    probing.stores["b"] = Amount(1000, 600, 10, 6)  # by another process
    probing.time[0] = LOOK_SECONDS + 3
    tell(200, 1000, "vt")
    assert shown.states[-1] == ("probing a (model 1 of 2): vt", "6 of 20 units, 0:12 left", 0.4)
