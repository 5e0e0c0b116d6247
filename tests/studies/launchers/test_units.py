"""Units of work taken by several workers, with failures and kills: each is done once, nothing is lost, and what cannot
be done is tried as often as the rules say."""

import multiprocessing
import os
import random
import time
from contextlib import closing
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from lcprobe.errors import ConfigError, NumericsError, StoppedEarly
from lcprobe.locks import Claims, this_process
from lcprobe.studies.launchers.work.failures import (
    Failure,
    append_failure,
    failure_of,
    read_failures,
    reason_to_give_up,
)
from lcprobe.studies.launchers.work.reports import Reporter, read_reports
from lcprobe.studies.launchers.work.units import Kept, Rules, take_all, unfinished

FORK = multiprocessing.get_context("fork")


@dataclass
class Fake:
    """A unit of some steps, each a line of a file. ends: what happens at a step, the first time that it is reached."""

    study: Path
    name: str
    steps: int = 3
    needs: tuple[str, ...] = ()
    ends: dict[int, object] = field(default_factory=dict)
    kind: str = "train"
    settings: str = "s"

    def __post_init__(self):
        self.claims = (Claims(self.study), self.name)
        self.failures = self.study / self.name / "failures.jsonl"
        self.lines = self.study / f"{self.name}.lines"

    def progress(self) -> int:
        return len(self.lines.read_text().splitlines()) if self.lines.exists() else 0

    def is_done(self) -> bool:
        return self.progress() >= self.steps

    def run(self, kept: Kept, report: Reporter) -> None:
        while not self.is_done():
            step = self.progress()
            kept()
            report.at(done=step, total=self.steps)
            end, mark = self.ends.get(step), self.study / f"{self.name}.{step}.met"
            if end is not None and not (mark.exists() and mark.read_text() == "once"):
                mark.write_text("always" if isinstance(end, tuple) else "once")
                end = end[0] if isinstance(end, tuple) else end
                if end == "kill":
                    os.kill(os.getpid(), 9)
                raise end
            with open(self.lines, "a") as file:
                file.write(f"{os.getpid()}\n")


def rules(study: Path, retries: int = 2, launch: int = 1) -> Rules:
    return Rules(study, launch, retries)


def once(study: Path, units: list[Fake], retries: int = 2) -> dict[str, Failure]:
    with closing(Reporter(study)) as report:
        return take_all(units, rules(study, retries), report, sleep=lambda s: None)


def test_what_fails_is_tried_again_from_where_it_was_and_the_reason_kept(tmp_path):
    unit = Fake(tmp_path, "a", 4, ends={0: OSError("no such disk"), 2: ValueError("two\nlines")})
    assert once(tmp_path, [unit]) == {}
    assert unit.progress() == 4
    noted = read_failures(unit.failures, "a")
    assert [(f.at, f.exit, f.why) for f in noted] == [(0, 74, "no such disk"), (2, 1, "lines")]
    assert all((f.host, f.pid, f.launch) == (this_process().host, os.getpid(), 1) for f in noted)
    assert read_reports(tmp_path) == {}


@pytest.mark.parametrize("retries", [0, 1, 3])
def test_a_unit_is_given_up_after_so_many_failures_without_progress(tmp_path, retries):
    unit = Fake(tmp_path, "a", 5, ends={1: OSError("first"), 3: (OSError("always"),)})
    lost = once(tmp_path, [unit, Fake(tmp_path, "b")], retries)
    assert lost.keys() == {"a"}
    assert Fake(tmp_path, "b").is_done()
    noted = read_failures(unit.failures, "a")
    at = 3 if retries else 1  # without retries the first failure is the last
    assert unit.progress() == at
    assert [f.at for f in noted].count(at) == retries + 1
    later = Rules(tmp_path, 2, retries)
    assert later.given_up(unit) is None, "a later launch tries again"


@pytest.mark.parametrize(
    ("error", "code"), [(NumericsError("gradients are not finite"), 4), (ConfigError("k", 1, "2"), 2)]
)
def test_bad_input_and_numerics_are_not_tried_again(tmp_path, error, code):
    unit = Fake(tmp_path, "a", ends={1: (error,)})
    needing = [Fake(tmp_path, "b", needs=("a",)), Fake(tmp_path, "c", needs=("b",)), Fake(tmp_path, "d")]
    lost = once(tmp_path, [*needing, unit])
    assert {name: (why.exit, why.at) for name, why in lost.items()} == {"a": (code, 1)}
    assert len(read_failures(unit.failures, "a")) == 1
    assert [one.progress() for one in needing] == [0, 0, 3], "what needs it is not begun"
    later = Rules(tmp_path, 2, 2)
    assert (later.given_up(unit) is None) == (code == 2), "numerics would be the same again"
    assert (f"{unit.failures} is deleted" in str(lost["a"])) == (code == 4)
    assert later.given_up(replace(unit, settings="lower lr")) is None, "and not with other settings"
    unit.failures.unlink()
    assert later.given_up(unit) is None


def test_units_wait_for_what_they_need(tmp_path):
    order = [Fake(tmp_path, "c", needs=("b",)), Fake(tmp_path, "b", needs=("a",)), Fake(tmp_path, "a")]
    begun = []
    for unit in order:
        unit.run = lambda kept, report, unit=unit: (begun.append(unit.name), Fake.run(unit, kept, report))
    assert once(tmp_path, order) == {}
    assert begun == ["a", "b", "c"]


def test_a_worker_that_is_told_to_end_leaves_its_unit_without_a_failure(tmp_path):
    for error in (StoppedEarly("saved at step 1"), KeyboardInterrupt()):
        unit = Fake(tmp_path, type(error).__name__, ends={1: error})
        with pytest.raises(type(error)):
            once(tmp_path, [unit])
        assert not unit.failures.exists()
        assert unit.claims[0].live() == {}
        assert once(tmp_path, [unit]) == {}
        assert unit.is_done()


def test_torn_and_foreign_lines_of_failures_are_passed_over(tmp_path):
    path, one = tmp_path / "failures.jsonl", failure_of("a", this_process(), 1, "why", 3, 1, "s")
    append_failure(path, one)
    one = replace(one, file=str(path))
    whole = path.read_bytes()
    for cut in range(1, len(whole)):
        path.write_bytes(whole + whole[:cut] if cut < len(whole) - 1 else whole)
        append_failure(path, one)
        assert read_failures(path, "a") == [one, one]
        assert read_failures(path, "b") == []
    path.write_bytes(b'[]\n3\n{"unit": "a"}\n\xff\n' + whole)
    assert read_failures(path, "a") == [one]


def test_giving_up_is_monotone_in_retries(tmp_path):
    """Whatever happened: with more retries a unit that is not given up stays so, and progress forgives."""
    dice = random.Random(0)
    for _ in range(300):
        noted = [
            Failure("a", "", "", 1, dice.choice([None, 1, 74]), "", dice.randrange(3), dice.randrange(1, 3))
            for _ in range(dice.randrange(6))
        ]
        given_up = [reason_to_give_up(noted, 1, retries, "") is not None for retries in range(7)]
        assert given_up == sorted(given_up, reverse=True)
        own = [one for one in noted if one.launch == 1]
        assert given_up[0] == bool(own)
        further = Failure("a", "", "", 1, 1, "", 99, 1)
        assert reason_to_give_up([*noted, further], 1, 1, "") is None


def worker(study: Path, units: list[Fake]) -> None:
    try:
        with closing(Reporter(study)) as report:
            take_all(units, rules(study), report, sleep=lambda s: time.sleep(0.01))
    finally:
        os._exit(0)


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=pytest.mark.slow) for seed in (1, 2))])
def test_workers_that_are_killed_lose_nothing_and_do_nothing_twice(tmp_path, seed):
    dice = random.Random(seed)
    units = [
        Fake(tmp_path, f"u{i}", dice.randrange(1, 5), needs=() if i < 4 or dice.random() < 0.6 else (f"u{i - 4}",))
        for i in range(12)
    ]
    for unit in dice.sample(units, 6):
        unit.ends = {dice.randrange(unit.steps): dice.choice(["kill", "kill", OSError("disk")])}
    kills = sum(end == "kill" for unit in units for end in unit.ends.values())
    running = [FORK.Process(target=worker, args=(tmp_path, units)) for _ in range(3)]
    for process in running:
        process.start()
    died = 0
    while running:
        process = running.pop(0)
        process.join(60)
        assert process.exitcode in (0, -9)
        if process.exitcode == -9:
            died += 1
            again = FORK.Process(target=worker, args=(tmp_path, units))
            again.start()
            running.append(again)
    assert died == kills
    assert unfinished(units, rules(tmp_path)) == ([], {})
    for unit in units:
        assert unit.progress() == unit.steps, "each step once"
        wanted = {"kill": "its process is gone", "disk": "disk"}
        noted = [f.why for f in read_failures(unit.failures, unit.name)]
        assert noted == [wanted["kill" if end == "kill" else "disk"] for end in unit.ends.values()]
    assert [path for path in tmp_path.glob("*.claim")] == []
    assert read_reports(tmp_path) == {}
