"""Locks: one holder at a time; a lock of a process that is gone is taken over, one that cannot be judged is explained."""

import json
import multiprocessing
import os
import time
from contextlib import contextmanager
from dataclasses import asdict, replace

import pytest

from lcprobe.errors import LockedError
from lcprobe.locks import Process, claim, folder_lock, is_gone, lock, process, this_process, waited_claim

CONTEXT = multiprocessing.get_context("fork")
HERE = this_process()
OTHER_CONTAINER = "pid:[1]"


def hold(folder, ready, release):
    with folder_lock(folder):
        ready.set()
        release.wait(20)


def test_two_processes_never_lock_one_folder_and_a_dead_processs_lock_is_taken_over(tmp_path):
    ready, release = CONTEXT.Event(), CONTEXT.Event()
    other = CONTEXT.Process(target=hold, args=(tmp_path, ready, release))
    other.start()
    assert ready.wait(20)
    with pytest.raises(LockedError, match=f"process {other.pid}"), folder_lock(tmp_path):
        pass
    other.kill()
    other.join()
    with folder_lock(tmp_path):
        assert json.loads((tmp_path / ".owner").read_text())["pid"] == os.getpid()
    assert not (tmp_path / ".owner").exists()


@pytest.mark.parametrize(
    ("holder", "gone"),
    [
        (HERE, False),
        (replace(HERE, started=HERE.started - 1), True),  # the number came back, here
        (replace(HERE, pid=os.getppid(), started=1), True),  # ... and as that of another process
        (replace(HERE, pid=os.getppid(), started=process.started_at(os.getppid())), False),
        (replace(HERE, pid=2**22 + 1), True),  # above the largest number of Linux
        (replace(HERE, boot="of an earlier time"), True),
        (replace(HERE, host="node-7", boot="of node-7"), None),
        (replace(HERE, host="node-7"), False),  # the same boot: the machine was renamed
        (replace(HERE, pid=1, namespace=OTHER_CONTAINER), None),
        (Process(HERE.host, 1), None),  # as earlier versions wrote it: 1 runs in every container
        (Process(HERE.host, HERE.pid), True),
        (Process("node-7", 1), None),
        (Process(), True),
    ],
)
def test_a_process_is_judged_by_machine_boot_and_start(holder, gone):
    assert is_gone(holder) is gone


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 3}', '{"pid": "x", "host": null}', "\0" * 80])
def test_a_damaged_lock_holds_nobody(tmp_path, content):
    (tmp_path / ".owner").write_text(content)
    with folder_lock(tmp_path):
        assert json.loads((tmp_path / ".owner").read_text())["boot"] == HERE.boot
    assert list(tmp_path.iterdir()) == []


def test_a_lock_of_another_machine_is_explained(tmp_path):
    there = Process("node-7", 41, "of node-7", "pid:[4026531836]", 1234, "2026-11-30 05:00:00")
    (tmp_path / ".owner").write_text(json.dumps(asdict(there)))
    with pytest.raises(LockedError) as caught, folder_lock(tmp_path):
        pass
    assert str(caught.value) == (
        f"{tmp_path}: locked by process 41 on node-7 since 2026-11-30 05:00:00, which cannot be seen from here: "
        f"delete {tmp_path}/.owner if it is gone; allowed: one process per folder"
    )


def test_another_container_is_judged_by_its_flock(tmp_path):
    ready, release = CONTEXT.Event(), CONTEXT.Event()
    other = CONTEXT.Process(target=hold_in_a_container, args=(tmp_path, ready, release))
    other.start()
    assert ready.wait(20)
    with pytest.raises(LockedError, match="process 1 on "), folder_lock(tmp_path):
        pass
    other.kill()
    other.join()
    with folder_lock(tmp_path):
        pass


def hold_in_a_container(folder, ready, release):
    own = replace(this_process(), pid=1, namespace=OTHER_CONTAINER)
    claim.this_process = lambda: own
    hold(folder, ready, release)


def test_a_lock_is_not_taken_twice_by_one_process(tmp_path):
    with folder_lock(tmp_path), pytest.raises(LockedError, match=f"process {os.getpid()}"), folder_lock(tmp_path):
        pass


def enter(folder, log):
    for _ in range(20):
        with waited_claim(folder, "x", "it", wait="counts"):
            with open(log, "a") as file:
                file.write("in\n")
            time.sleep(0.001)
            with open(log, "a") as file:
                file.write("out\n")


def test_processes_that_wait_enter_one_after_the_other(tmp_path, monkeypatch):
    """Also where all of them find a dead process's lock."""
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.001)
    folder = tmp_path / "locked"
    folder.mkdir()
    (folder / "x.claim").write_text(json.dumps(asdict(replace(HERE, started=1))))
    others = [CONTEXT.Process(target=enter, args=(folder, tmp_path / "log")) for _ in range(3)]
    for other in others:
        other.start()
    for other in others:
        other.join(60)
        assert other.exitcode == 0
    assert (tmp_path / "log").read_text() == "in\nout\n" * 60
    assert list(folder.iterdir()) == []


def test_a_process_that_waits_says_for_whom(tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.01)
    ready, release = CONTEXT.Event(), CONTEXT.Event()
    other = CONTEXT.Process(target=hold, args=(tmp_path, ready, release))
    other.start()
    assert ready.wait(20)
    monkeypatch.setattr(time, "sleep", lambda seconds: (release.set(), other.join()))
    with caplog.at_level("INFO"), waited_claim(tmp_path, "", "runs/data/x", wait="prepares it", ending=".owner"):
        pass
    assert [r.getMessage().partition(" since")[0] for r in caplog.records] == [
        f"runs/data/x: waiting for process {other.pid} on {HERE.host}"
    ]
    assert caplog.text.rstrip().endswith("which prepares it")


def test_a_killed_process_that_nobody_has_waited_for_is_gone():
    other = CONTEXT.Process(target=time.sleep, args=(60,))
    other.start()
    named = Process(HERE.host, other.pid, HERE.boot, HERE.namespace, process.started_at(other.pid))
    assert is_gone(named) is False
    os.kill(other.pid, 9)
    os.waitid(os.P_PID, other.pid, os.WEXITED | os.WNOWAIT)  # it has ended, and stays in the table
    assert is_gone(named) is True
    other.join()


def test_of_two_machines_that_see_one_dead_holder_at_once_one_has_its_lock(tmp_path, monkeypatch):
    path, looks = tmp_path / "x.claim", []
    path.write_text(json.dumps(asdict(Process("dead", 1, "b", "n", 1, "then", False, 15.0))))
    first, second = (replace(this_process(), host=host) for host in ("first", "second"))
    real = lock.holder_of

    @contextmanager
    def unguarded(folder):  # an flock does not reach another machine
        yield

    def gone(holder, _):
        return holder.host == "dead"

    for quicker_after in range(1, 4):  # between any two looks of the second machine
        path.write_text(json.dumps(asdict(Process("dead", quicker_after, "b", "n", 1, "then", False, 15.0))))
        looks.clear()
        taken = []

        def looked_at(at, after=quicker_after, taken=taken):
            found = real(at)
            looks.append(at)
            if len(looks) == after and not taken:
                taken.append(None)
                taken[0] = lock.take(path, first, gone)
            return found

        with monkeypatch.context() as patched:
            patched.setattr(lock, "_guard", unguarded)
            patched.setattr(lock, "holder_of", looked_at)
            late = lock.take(path, second, gone)
            both = [one for one in (*taken, late) if isinstance(one, lock.Held)]
        assert len(both) == 1
        assert both[0].is_kept()
        both[0].release()
    assert not list(tmp_path.iterdir())
