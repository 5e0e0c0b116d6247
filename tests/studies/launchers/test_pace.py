"""How long a study still takes, against a simulation of workers that take the longest piece that is left."""

import random
from pathlib import Path

import pytest

from lcprobe.studies.launchers.watching.pace import makespan, seconds_left, share_done
from lcprobe.studies.launchers.watching.state import StudyState, UnitState, Worker


def unit(name, state, size=1.0, kind="run", group="g", **more):
    return UnitState(kind, name, group, state, size, **more)


def study(*units, idle=0):
    return StudyState(Path("runs/s"), units, idle)


def simulated(times, workers):
    """Second by second."""
    waiting, busy, now = sorted(times), [0] * workers, 0
    while waiting or any(busy):
        busy = [waiting.pop() if not left and waiting else left for left in busy]
        busy = [max(0, left - 1) for left in busy]
        now += 1
    return now


def test_the_rest_is_shared_out_as_workers_take_it():
    dice = random.Random(0)
    for _ in range(50):
        times = [dice.randrange(1, 30) for _ in range(dice.randrange(1, 12))]
        workers = dice.randrange(1, 5)
        assert makespan(times, workers) == simulated(times, workers)


def test_paces_are_those_of_the_same_model_else_of_all():
    done = [
        unit("a0", "done", 2.0, share=1.0, seconds=20.0, group="a"),
        unit("b0", "done", 1.0, share=1.0, seconds=40.0, group="b"),
    ]
    assert seconds_left(study(*done)) == 0
    assert seconds_left(study(*done, unit("a1", "waiting", 2.0, group="a"))) == pytest.approx(20)
    assert seconds_left(study(*done, unit("c", "waiting", 3.0, group="c"))) == pytest.approx(3 * 60 / 3)
    half = unit("b1", "running", 1.0, share=0.5, pace=0.01, group="b", workers=(Worker("h", 1, ""),))
    assert seconds_left(study(*done, half)) == pytest.approx(50), "its own pace"
    two = study(*done, half, unit("a1", "waiting", 2.0, group="a"), idle=1)
    assert seconds_left(two) == pytest.approx(50), "the idle one takes the other"
    assert seconds_left(study(unit("a", "waiting"))) is None
    assert seconds_left(study(unit("a", "failed", why="w"))) == 0


def test_trials_come_before_runs_and_both_before_the_probe():
    units = [
        unit("t0", "done", 1.0, "trial", share=1.0, seconds=10.0), unit("t1", "waiting", 1.0, "trial"),
        unit("r0", "done", 5.0, share=1.0, seconds=50.0), unit("r1", "waiting", 5.0),
        unit("m0", "running", 100.0, "model", group="m0", share=0.5, pace=0.01, workers=(Worker("h", 1, ""), Worker("h", 2, ""))),
        unit("m1", "waiting", 100.0, "model", group="m1"),
    ]  # fmt: skip
    # one worker of two at a trial, then one at a run; models are shared out: .5 and 1 at .005 a second and worker
    assert seconds_left(study(*units)) == pytest.approx(10 + 50 + (100 + 200) / 2)
    assert share_done(units) == pytest.approx((6 / 12 + 50 / 200) / 2)
    assert share_done([unit("a", "done", share=1.0)]) == 1.0
