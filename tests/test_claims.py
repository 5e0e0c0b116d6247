"""Claims over a shared folder: at most one process keeps one, whatever order things happen in, and a dead one's is
free."""

import os
import random
import time
from dataclasses import dataclass, field, replace

import pytest

from lcprobe.locks import Claims, Process, claim, this_process, waited_claim

NAMES = ("a", "b")


@dataclass
class Machine:
    """A process on another machine: nobody sees whether it runs. kept: what it believes to have."""

    claims: Claims
    process: Process
    alive: bool = True
    kept: dict = field(default_factory=dict)
    beaten: dict = field(default_factory=dict)


@pytest.fixture
def clock(monkeypatch):
    """The watcher's clock, in the test's hands."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    own = Clock()
    monkeypatch.setattr(claim, "time", own)
    return own


@pytest.mark.parametrize("seed", range(6))
def test_nobody_loses_a_claim_with_a_heartbeat_and_a_dead_ones_is_free_in_time(tmp_path, monkeypatch, clock, seed):
    dice, silent = random.Random(seed), 100.0
    machines = [
        Machine(Claims(tmp_path, 1e9, silent), Process(f"node-{i}", 7, f"boot {i}", "pid:[1]", 5)) for i in range(4)
    ]
    takeovers, died = 0, {}
    for step in range(400):
        clock.now += dice.choice([1.0, 5.0, 20.0])
        for machine in machines:
            if machine.alive:  # the heartbeat, which a thread would do
                for own in machine.kept.values():
                    os.utime(own._held.handle, ns=(step, 10**9 * step))
        machine, name = dice.choice(machines), dice.choice(NAMES)
        if not machine.alive:
            if dice.random() < 0.2:  # started again: all that it had is forgotten
                machine.alive, machine.process = True, replace(machine.process, started=step)
            continue
        if name in machine.kept:
            event = dice.choice(["release", "die", "work", "work"])
            if event == "die":
                died |= dict.fromkeys(machine.kept, clock.now)
                machine.alive, machine.kept = False, {}
            else:
                assert machine.kept[name].is_kept(), "nobody takes over what has a heartbeat"
                if event == "release":
                    machine.kept.pop(name).release()
            continue
        monkeypatch.setattr(claim, "this_process", lambda machine=machine: machine.process)
        taken = machine.claims.take(name)
        if isinstance(taken, Process):
            continue
        holders = [other for other in machines if name in other.kept]
        assert not holders, "it was free, or its process is dead"
        if name in died:
            assert clock.now - died.pop(name) > silent, "not before"
            takeovers += 1
        machine.kept[name] = taken
    assert takeovers >= 3


def test_a_claim_that_cannot_be_seen_is_free_after_the_silence_of_its_heartbeat(tmp_path, monkeypatch, clock):
    there = Process("node-7", 41, "of node-7", "pid:[1]", 1234)
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(claim, "this_process", lambda: there)
        other = Claims(tmp_path, 1e9, 180).take("unit")
    here, holder = Claims(tmp_path, 15, 180), replace(there, beats=1e9, flocked=True)
    assert here.take("unit") == holder
    clock.now += 179
    assert here.live() == {"unit": holder}
    os.utime(tmp_path / "unit.claim", (5, 5))  # a heartbeat, by whatever clock
    clock.now += 179
    assert here.take("unit") == holder
    clock.now += 179
    assert here.take("unit") == holder
    clock.now += 2
    assert here.live() == {}
    taken = here.take("unit")
    assert taken.is_kept()
    assert not other.is_kept(), "it comes back, and sees that it has lost"
    other.release()
    assert taken.is_kept(), "which deletes nothing of ours"
    taken.release()
    assert list(tmp_path.iterdir()) == []


def test_a_lock_without_a_heartbeat_stays(tmp_path, monkeypatch, clock):
    with monkeypatch.context() as elsewhere:
        elsewhere.setattr(claim, "this_process", lambda: Process("node-7", 41, "of node-7", "pid:[1]", 1234))
        Claims(tmp_path, 0.0001, 180).take("unit").release()
        Claims(tmp_path, 1e9, 180).take("unit")
    path = tmp_path / "unit.claim"
    path.write_text(path.read_text().replace("1000000000.0", "0.0"))
    here = Claims(tmp_path, 15, 180)
    for _ in range(3):
        assert isinstance(here.take("unit"), Process)
        clock.now += 1000


def test_a_claim_is_touched_while_it_is_held(tmp_path):
    own = Claims(tmp_path, beat=0.005).take("unit")
    path = tmp_path / "unit.claim"
    os.utime(path, (5, 5))
    while path.stat().st_mtime == 5:
        time.sleep(0.001)
    own.release()
    assert not path.exists()


def test_a_claim_is_free_when_the_block_that_waited_for_it_ends(tmp_path):
    with waited_claim(tmp_path, "report", "it", wait="writes the report"):
        holder = Claims(tmp_path).take("report")
        assert isinstance(holder, Process)
        assert holder.pid == this_process().pid
    assert Claims(tmp_path).live() == {}
