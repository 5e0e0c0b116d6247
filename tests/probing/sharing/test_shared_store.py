"""Several processes work on one store: every unit once, nothing of a killed one lost, nothing written by one that lost
its claim."""

import json
import multiprocessing
import os
import random
import time
from dataclasses import asdict

import pytest

from lcprobe.locks import Process
from lcprobe.probing.config import Grid
from lcprobe.probing.runner import ProbedCheckpoint, run_free, run_plan
from lcprobe.probing.scoring import Score
from lcprobe.probing.sharing.work import work_of
from lcprobe.probing.store import MemoryStore, Store
from lcprobe.schema import build

CONTEXT = multiprocessing.get_context("fork")
SUBJECT = ProbedCheckpoint("m", "0" * 16, 1, 2)
ELSEWHERE = Process("node-7", 41, "of node-7", "pid:[1]", 1234, "2026-11-30 05:00:00", beats=15.0)


class ByPlace:
    """A scorer without a model: right iff the needle is among the last 60 tokens. Writes what it has scored to a log."""

    def __init__(self, log=None, seconds=0.0, before=lambda calls: None):
        self.log, self.seconds, self.before, self.calls = log, seconds, before, 0

    def score(self, items):
        self.before(self.calls)
        self.calls += 1
        time.sleep(self.seconds)
        if self.log is not None:
            with open(self.log, "a") as file:
                file.write("".join(f"{item.episode.digest} {item.number}\n" for item in items))
        hits = [item.query.distance is not None and item.query.distance < 60 for item in items]
        return [Score(h, h, float(h), -1.0 - i, 1, False, "x") for i, h in enumerate(hits)]


@pytest.fixture(scope="module")
def plan(tasks):
    grid = {
        "tasks": ["single", "multikey", "twice"],
        "lengths": [1, 2],
        "depths": 3,
        "n": 6,
        "value": ["numbers", "words"],
    }
    return tasks.plan([build(Grid, grid, "grid")], 64)


@pytest.fixture(scope="module")
def alone(plan, tasks):
    """The records of one process."""
    store = MemoryStore()
    return store.read(run_plan(plan, tasks, ByPlace(), SUBJECT, store, batch_tokens=500))


def work_on(plan, tasks, folder, seconds, kill_at=None):
    """One of several processes; killed before its call number kill_at."""

    def kill(calls):
        if calls == kill_at:
            os.kill(os.getpid(), 9)

    scorer = ByPlace(folder / f"{os.getpid()}.log", seconds, kill)
    run_plan(plan, tasks, scorer, SUBJECT, Store(folder), batch_tokens=500)


def started(*arguments):
    process = CONTEXT.Process(target=work_on, args=arguments)
    process.start()
    return process


def scored(folder):
    """The questions that each process scored, in the order of its log."""
    return {path.stem: path.read_text().split("\n")[:-1] for path in folder.glob("*.log")}


def records(plan, tasks, folder):
    again = ByPlace()
    store = Store(folder)
    table = store.read(run_plan(plan, tasks, again, SUBJECT, store, batch_tokens=500))
    assert again.calls == 0, "everything was finished"
    return table


def test_processes_that_share_a_store_score_every_question_once(plan, tasks, alone, tmp_path):
    others = [started(plan, tasks, tmp_path, 0.005) for _ in range(3)]
    for other in others:
        other.join(60)
        assert other.exitcode == 0
    done = scored(tmp_path)
    assert sorted(q for own in done.values() for q in own) == sorted({q for own in done.values() for q in own})
    assert len(done) == 3, "each of them did something"
    assert sum(map(len, done.values())) == alone.num_rows
    assert records(plan, tasks, tmp_path).equals(alone)
    assert {path.suffix for path in tmp_path.iterdir()} == {".parquet", ".jsonl", ".log"}, (
        "no claim and no journal is left"
    )


def test_what_a_killed_process_leaves_is_taken_over_with_its_journal(plan, tasks, alone, tmp_path):
    """The others are waiting for it or still at work when it dies; only the batch that it was in is scored again."""
    dice = random.Random(0)
    killed = [started(plan, tasks, tmp_path, 0.005, dice.randrange(1, 9)) for _ in range(3)]
    survivor = started(plan, tasks, tmp_path, 0.005)
    for other in killed:
        other.join(60)
        assert other.exitcode == -9
    survivor.join(60)
    assert survivor.exitcode == 0
    questions = [q for own in scored(tmp_path).values() for q in own]
    assert len(questions) == len(set(questions)) == alone.num_rows, "they were killed between two batches"
    assert records(plan, tasks, tmp_path).equals(alone)


def test_a_process_that_lost_its_claim_writes_nothing_more(plan, tasks, alone, tmp_path):
    """It was stopped for so long that another machine has taken its units over, and comes back."""
    store, work = Store(tmp_path), work_of(plan, tasks, SUBJECT, "teacher_forced")
    first = work.groups[0]

    def taken_over(calls):
        if calls == 1:
            (tmp_path / f"{first.name}.claim").write_text(json.dumps(asdict(ELSEWHERE)))

    run_free(work, ByPlace(before=taken_over), SUBJECT, store, batch_tokens=500, scoring="teacher_forced")
    assert [group.name for group in work.left(store)] == [first.name]
    assert len(store.resume(first.name)) == 1, "the batch before"
    assert store.claims() == {first.name: ELSEWHERE}
    again = ByPlace()
    run_free(work, again, SUBJECT, store, batch_tokens=500, scoring="teacher_forced")
    assert again.calls == 0, "the other machine may still be at it"
    (tmp_path / f"{first.name}.claim").unlink()
    run_free(work, again, SUBJECT, store, batch_tokens=500, scoring="teacher_forced")
    assert records(plan, tasks, tmp_path).equals(alone)


def test_batches_that_two_processes_wrote_to_one_journal_count_once(plan, tasks, alone, tmp_path):
    """Without flock on the file system two may hold a claim for a moment."""
    store, work = Store(tmp_path), work_of(plan, tasks, SUBJECT, "teacher_forced")

    class Stop(Exception):
        pass

    def stop(calls):
        if calls == 2:
            raise Stop

    with pytest.raises(Stop):
        run_plan(plan, tasks, ByPlace(before=stop), SUBJECT, store, batch_tokens=500)
    (journal,) = tmp_path.glob("*.journal")
    journal.write_bytes(journal.read_bytes() * 2)
    run_free(work, ByPlace(), SUBJECT, store, batch_tokens=500, scoring="teacher_forced")
    assert records(plan, tasks, tmp_path).equals(alone)


def test_progress_names_the_work_of_others(plan, tasks, tmp_path):
    store, work = Store(tmp_path), work_of(plan, tasks, SUBJECT, "teacher_forced")
    first, labels = work.groups[0], []
    (tmp_path / f"{first.name}.claim").write_text(json.dumps(asdict(ELSEWHERE)))
    run_free(
        work, ByPlace(), SUBJECT, store, batch_tokens=500, scoring="teacher_forced",
        progress=lambda done, label: labels.append(label),
    )  # fmt: skip
    assert labels[0] == f"{work.groups[1].label}; others: {first.label} (process 41 on node-7)"
    assert not work.has_free(store, store.claims())
    assert work.claimed(store.claims()) == {first.label: ELSEWHERE}


def test_journals_of_others_are_not_discarded(tasks, tmp_path):
    store = Store(tmp_path)
    for name in ("theirs", "old"):
        store.append(name, [{"a": 1}])
    (tmp_path / "theirs.claim").write_text(json.dumps(asdict(ELSEWHERE)))
    (tmp_path / "dead.claim").write_text(json.dumps(asdict(Process("", 0))))
    store.discard_all()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["theirs.claim", "theirs.journal"]
