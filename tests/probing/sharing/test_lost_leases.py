"""Real processes that are stopped, whose clock jumps, and whose disk is full: nothing wrong is written, and the work is
done once."""

import hashlib
import multiprocessing
import os
import resource
import signal
import sys
import time
from dataclasses import replace

import pytest

from lcprobe.errors import run_command
from lcprobe.locks import Claims, Process, claim, this_process
from lcprobe.probing.config import Grid
from lcprobe.probing.runner import run_plan
from lcprobe.probing.sharing import waiting
from lcprobe.probing.store import MemoryStore, Store
from lcprobe.schema import build
from tests.probing.sharing.test_shared_store import SUBJECT, ByPlace

CONTEXT = multiprocessing.get_context("fork")
BEAT, SILENT = 0.05, 0.6


@pytest.fixture(scope="module")
def plan(tasks):
    grid = {"tasks": ["single", "twice"], "lengths": [1], "depths": 3, "n": 6, "value": ["numbers", "words"]}
    return tasks.plan([build(Grid, grid, "grid")], 64)


@pytest.fixture(scope="module")
def alone(plan, tasks):
    """The records of one process."""
    store = MemoryStore()
    return store.read(run_plan(plan, tasks, ByPlace(), SUBJECT, store, batch_tokens=500))


def content(folder):
    """Digests of what counts in a folder."""
    files = [*folder.glob("*.parquet"), *folder.glob("*.journal")]
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def stops_in_its_second_batch(plan, tasks, folder, away):
    """away: on another machine, as the others see it."""
    if away:
        elsewhere = replace(this_process(), host="node-7", boot="of node-7", namespace="pid:[1]")
        claim.this_process = lambda: elsewhere

    def stop(calls):
        if calls == 1:
            os.kill(os.getpid(), signal.SIGSTOP)

    store = Store(folder, claims=Claims(folder, BEAT, SILENT))
    run_plan(plan, tasks, ByPlace(before=stop), SUBJECT, store, batch_tokens=500)


@pytest.mark.parametrize("away", [True, False])
def test_a_process_that_wakes_after_its_lease_was_taken_writes_nothing(
    plan, tasks, alone, tmp_path, monkeypatch, away
):
    monkeypatch.setattr(waiting, "WAIT_SECONDS", 0.1)
    stopped = CONTEXT.Process(target=stops_in_its_second_batch, args=(plan, tasks, tmp_path, away))
    stopped.start()
    _, status = os.waitpid(stopped.pid, os.WUNTRACED)
    assert os.WIFSTOPPED(status)
    assert list(tmp_path.glob("*.claim")), "it holds a group"
    assert list(tmp_path.glob("*.journal")), "with one batch"
    store = Store(tmp_path, claims=Claims(tmp_path, BEAT, SILENT))
    names = run_plan(plan, tasks, ByPlace(), SUBJECT, store, batch_tokens=500)
    assert store.read(names).equals(alone)
    before = content(tmp_path)
    os.kill(stopped.pid, signal.SIGCONT)
    stopped.join(60)
    assert stopped.exitcode == 0, "it goes on with what is left: nothing"
    assert content(tmp_path) == before
    assert not list(tmp_path.glob("*.claim"))


@pytest.mark.parametrize("jump", [-10 * 365 * 86400, 10 * 365 * 86400])
def test_a_clock_that_jumps_takes_nobodys_lease(tmp_path, monkeypatch, jump):
    """Heartbeats are dated by a file server whose clock is set to another year and back; nobody compares clocks."""
    with monkeypatch.context() as elsewhere:
        there = Process("node-7", 41, "of node-7", "pid:[1]", 1234)
        elsewhere.setattr(claim, "this_process", lambda: there)
        held = Claims(tmp_path, 1e9, SILENT).take("group")
    here, path, ends = Claims(tmp_path, BEAT, SILENT), tmp_path / "group.claim", time.monotonic() + 3 * SILENT
    beats = 0
    while time.monotonic() < ends:
        at = time.time() + (jump if beats % 3 else 0)
        os.utime(path, (at, at))
        beats += 1
        assert isinstance(here.take("group"), Process)
        time.sleep(SILENT / 8)
    assert held.is_kept()
    deadline = time.monotonic() + 20 * SILENT
    while isinstance(taken := here.take("group"), Process):
        assert time.monotonic() < deadline, "its heartbeat stands still now"
        time.sleep(SILENT / 8)
    assert not held.is_kept()
    taken.release()


def with_a_full_disk(plan, tasks, folder, size, log):
    """No file of this process may be larger."""
    sys.stderr = open(log, "w", buffering=1)  # noqa: SIM115
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, resource.RLIM_INFINITY))
    given = (plan, tasks, ByPlace(), SUBJECT, Store(folder))
    os._exit(run_command(lambda: run_plan(*given, batch_tokens=500) and None))


@pytest.mark.parametrize("size", [700, 9_000, 14_000])
def test_a_full_disk_is_one_line_and_the_next_start_goes_on(plan, tasks, alone, tmp_path, size):
    """In a claim, in a batch of the journal, in the file of a unit."""
    folder, log = tmp_path / "records", tmp_path / "log"
    process = CONTEXT.Process(target=with_a_full_disk, args=(plan, tasks, folder, size, log))
    process.start()
    process.join(60)
    assert process.exitcode == 74
    said = log.read_text()
    assert said.startswith("error: input/output: File too large")
    assert said.count("\n") == 1
    assert not list(folder.glob(".*.tmp")), "nothing half-written stays"
    store = Store(folder)
    done = store.units()
    assert len(store.read(done)) == sum(summary.rows for summary in store.summaries().values())
    again = ByPlace()
    assert store.read(run_plan(plan, tasks, again, SUBJECT, store, batch_tokens=500)).equals(alone)
