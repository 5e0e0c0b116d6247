"""The watch over workers: dead ones are replaced while there is work, deaths without progress end it, and it stops all
of them when told to, however they end."""

import logging
import os
import random
import signal
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from lcprobe.errors import TOLD_TO_END, Terminated, run_command
from lcprobe.studies.launchers.contract import Launcher, Task
from lcprobe.studies.launchers.watching.watch import END_SECONDS, Watch, WorkersDied

TASK = Task(Path("runs/x"), ("train",), 8, 1, Path("logs"))


@dataclass
class Fake:
    """A worker that ends with its code at its last tick; asked to stop, with 75."""

    world: "World"
    code: int
    ticks: int
    units: int
    stopped: list = field(default_factory=list)
    name = "a worker"

    def exit_code(self):
        if "now" in self.stopped:
            return -9
        if self.stopped and not self.world.stubborn:
            return 75
        if self.ticks > 0:
            return None
        if self.units:
            self.world.done, self.units = min(self.world.total, self.world.done + self.units), 0
        return self.code

    def last_line(self):
        return "its last line"

    def stop(self, now):
        self.stopped.append("now" if now else "ask")


class World(Launcher):
    """plan: (exit code, ticks, units done) of each worker that is started, in order."""

    Config = dict

    def __init__(self, plan, total, places=2, retries=2, stubborn=False):
        super().__init__({})
        self.plan, self.total, self.done = list(plan), total, 0
        self._places, self._retries, self.stubborn = places, retries, stubborn
        self.started, self.at_once = [], 0

    retries = property(lambda self: self._retries)

    def places(self, task):
        return self._places

    def start(self, task, places):
        new = [Fake(self, *(self.plan.pop(0) if self.plan else (0, 1, self.total))) for _ in places]
        self.started += new
        return new

    def sleep(self, seconds):
        for worker in self.started:
            worker.ticks -= 1


def watch(world, **more):
    deaths = []
    own = Watch(
        world, TASK, lambda place: world.done < world.total, lambda: world.done,
        died=lambda code, line: deaths.append((code, line)), sleep=world.sleep, clock=lambda: 0.0, **more,
    )  # fmt: skip
    return own, deaths


def test_dead_workers_are_replaced_as_long_as_there_is_work():
    world = World([(-9, 1, 1), (-9, 2, 1), (1, 2, 1), (75, 1, 0), (0, 3, 3), (0, 9, 3)], total=6)
    own, deaths = watch(world)
    own.run()
    assert world.done == 6
    assert deaths == [(-9, "its last line"), (-9, "its last line"), (1, "its last line")], "75 is no death"


def test_nobody_is_replaced_once_nothing_is_left():
    world = World([(0, 1, 6), (-9, 5, 0)], total=6)
    own, deaths = watch(world)
    own.run()
    assert len(world.started) == 2
    assert deaths == []


@pytest.mark.parametrize("retries", [0, 2])
def test_deaths_without_progress_end_it(retries):
    world = World([(1, 1, 0)] * 50, total=6, places=1, retries=retries)
    own, deaths = watch(world)
    with pytest.raises(WorkersDied, match="its last line"):
        own.run()
    assert len(deaths) == retries + 1
    assert len(world.started) == retries + 1


def test_workers_that_are_killed_again_and_again_leave_what_the_same_command_resumes():
    world = World([(-9, 1, 0)] * 50, total=6, places=1)
    with pytest.raises(
        WorkersDied, match=r"a worker killed by SIGKILL \(mostly for memory\) and work is left"
    ) as error:
        watch(world)[0].run()
    assert error.value.exit_code == 75


def test_one_that_stops_again_and_again_without_anything_done_is_not_replaced_for_ever():
    world = World([(75, 1, 0)] * 50, total=6, places=1)
    own, deaths = watch(world)
    with pytest.raises(WorkersDied):
        own.run()
    assert len(world.started) == len(deaths) == world.retries + 1


def test_many_may_be_stopped_at_once():
    world = World([(75, 1, 0)] * 16, total=6, places=8)
    own, _ = watch(world)
    own.run()
    assert world.done == 6


def test_bad_input_of_a_worker_is_not_tried_again():
    world = World([(2, 1, 0)] * 50, total=6)
    own, deaths = watch(world)
    with pytest.raises(WorkersDied) as error:
        own.run()
    assert error.value.exit_code == 2
    assert str(error.value) == "a worker: its last line", "no advice to repeat the command"
    assert len(deaths) == len(world.started) == 2, "both ended at once, and are noted"
    assert all(worker.stopped == ["now"] for worker in world.started if worker.code != 2 or worker.ticks > 0)


@pytest.mark.parametrize(
    ("number", "error"),
    [
        (signal.SIGINT, KeyboardInterrupt),
        (signal.SIGTERM, Terminated),
        (signal.SIGUSR1, Terminated),
        (signal.SIGHUP, Terminated),
    ],
)
def test_told_to_end_all_are_asked_to_and_waited_for(number, error, caplog):
    world = World([(0, 10**9, 0)] * 9, total=6)
    own, _ = watch(world)
    world.sleep = own.sleep = lambda seconds: os.kill(os.getpid(), number) if not world.started[0].stopped else None
    with caplog.at_level(logging.INFO), pytest.raises(error):
        own.run()
    assert [worker.stopped for worker in world.started] == [["ask"], ["ask"]]
    assert "stopping 2 workers; again: at once" in caplog.text
    assert signal.getsignal(number) is not None


def test_told_twice_all_are_ended_at_once():
    world = World([(0, 10**9, 0)] * 9, total=6, stubborn=True)
    own, _ = watch(world)
    world.sleep = own.sleep = lambda seconds: os.kill(os.getpid(), signal.SIGINT)
    with pytest.raises(KeyboardInterrupt):
        own.run()
    assert [worker.stopped for worker in world.started] == [["ask", "now"], ["ask", "now"]]


def test_whatever_workers_do_it_ends_with_the_work_done_or_says_that_they_died():
    dice = random.Random(1)
    outcomes = set()
    for _ in range(200):
        plan = [(dice.choice([0, 75, -9, 1, 1]), dice.randrange(4), dice.randrange(2)) for _ in range(40)]
        world = World(plan, total=dice.randrange(1, 12), places=dice.randrange(1, 4))
        own, deaths = watch(world)
        try:
            own.run()
            assert world.done == world.total
            outcomes.add("done")
        except WorkersDied:
            assert len(deaths) > world.retries
            outcomes.add("died")
    assert outcomes == {"done", "died"}


def test_one_that_goes_on_when_nothing_is_left_is_ended(caplog):
    """It was stopped, and another has done what it had."""
    world = World([(0, 10**9, 0), (0, 3, 6)], total=6)
    own, deaths = watch(world)
    now = [0.0]

    def sleep(seconds):
        now[0] += 1.0
        World.sleep(world, seconds)

    own.sleep, own.clock = sleep, lambda: now[0]
    own.run()
    assert [worker.stopped for worker in world.started] == [["now"], []]
    assert END_SECONDS <= now[0] <= END_SECONDS + 10
    assert "a worker: ended, as nothing is left and it goes on" in caplog.text
    assert deaths == []


def test_the_death_with_which_the_last_unit_is_given_up_does_not_end_the_watch():
    """Its failure is noted first: then nothing is left, and the command says which unit it was, and why."""
    world, noted = World([(-9, 1, 0)] * 50, total=6, places=1, retries=1), []
    left = lambda place: len(noted) < 2  # noqa: E731
    Watch(
        world, TASK, left, lambda: 0, died=lambda *why: noted.append(why), sleep=world.sleep, clock=lambda: 0.0
    ).run()
    assert len(noted) == len(world.started) == 2


@pytest.mark.parametrize("number", TOLD_TO_END)
def test_any_command_that_is_told_to_end_says_that_it_can_go_on(number):
    assert run_command(lambda: os.kill(os.getpid(), number)) == 75
