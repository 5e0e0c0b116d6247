"""Compaction: the same records in fewer files, whatever kills it, and nobody notices but the disk."""

import multiprocessing
import os
import threading

import pyarrow.parquet as pq
import pytest

from lcprobe.errors import DataError, LockedError
from lcprobe.probing.store import MemoryStore, Store, compact, compaction
from tests.probing.store.rows import fill, units

CONTEXT = multiprocessing.get_context("fork")


@pytest.fixture
def small(monkeypatch):
    """Row groups and packs of a few records."""
    monkeypatch.setattr(compaction, "GROUP_ROWS", 8)
    monkeypatch.setattr(compaction, "PACK_ROWS", 24)


def in_memory(wanted):
    memory = MemoryStore()
    fill(memory, wanted)
    return memory.read(wanted)


def test_units_stay_finished_and_their_records_the_same(tmp_path, small):
    wanted = units(parts=5)
    store = Store(tmp_path)
    watching = Store(tmp_path)
    fill(store, wanted)
    assert watching.has(next(iter(wanted)))
    done = compact(store)
    assert (done.units, done.files[0]) == (len(wanted), len(wanted))
    assert done.files[1] == len(list(store.packs.folder.glob("*.parquet"))) == 8
    assert not store.loose()
    for reader in (store, watching, Store(tmp_path)):
        assert all(reader.has(unit) for unit in wanted)
        assert reader.units() == sorted(wanted)
        assert reader.read(reversed(wanted)).equals(in_memory(dict(reversed(wanted.items()))))
    assert {(s.model, s.task) for s in store.summaries().values()} == {
        (w["name"], w["task"]) for w in wanted.values()
    }
    for path in store.packs.folder.glob("*.parquet"):
        assert len({(p.summary.model, p.summary.task) for p in store.packs.units_of(path).values()}) == 1
    assert compact(store).files == (8, 8), "and again changes nothing"


def test_other_readers_see_each_record_once(tmp_path, small):
    wanted = units()
    store = Store(tmp_path)
    fill(store, wanted)
    rows = len(in_memory(wanted))
    for _ in range(2):
        assert len(pq.read_table(tmp_path)) == rows
        duckdb = pytest.importorskip("duckdb")
        ((counted,),) = duckdb.sql(f"select count(*) from '{tmp_path}/**/*.parquet'").fetchall()
        assert counted == rows
        compact(store)


def test_what_is_finished_later_goes_into_packs_with_room(tmp_path, small):
    early, late = units(parts=2), {k: v for k, v in units(parts=5).items() if v["part"] > 1}
    store = Store(tmp_path)
    fill(store, early)
    compact(store)
    fill(store, late)
    assert store.read(units(parts=5)).equals(in_memory(units(parts=5)))
    assert compact(store).files == (4 + len(late), 8)
    assert Store(tmp_path).read(units(parts=5)).equals(in_memory(units(parts=5)))


def killed_at(folder, step, sent):
    """A compaction in a process that dies at its file operation number `step`."""
    count, replace, unlink = [0], os.replace, os.unlink

    def dies(operation):
        def call(*given, **more):
            if count[0] == step:
                os._exit(9)
            count[0] += 1
            return operation(*given, **more)

        return call

    os.replace, os.unlink = dies(replace), dies(unlink)
    compact(Store(folder))
    sent.send(count[0])
    os._exit(0)


def test_killed_at_any_operation_it_has_lost_nothing_and_doubled_nothing(tmp_path, small):
    wanted = units(parts=3)
    wanted = {unit: own for unit, own in wanted.items() if own["name"] == "a" and own["task"] == "vt"}
    right, step, kills = in_memory(wanted), 0, 0
    while True:
        folder = tmp_path / str(step)
        fill(Store(folder), dict(list(wanted.items())[:3]))
        compact(Store(folder))
        fill(Store(folder), dict(list(wanted.items())[3:]))
        receive, send = CONTEXT.Pipe(duplex=False)
        process = CONTEXT.Process(target=killed_at, args=(folder, step, send))
        process.start()
        process.join(60)
        after = Store(folder)
        assert after.units() == sorted(wanted)
        assert after.read(wanted).equals(right)
        assert sum(s.rows for s in after.summaries().values()) == len(right)
        if process.exitcode == 0:
            break
        assert process.exitcode == 9
        kills += 1
        if step % 3 == 0:
            compact(after)
            assert not after.loose()
            assert sum(s.rows for s in Store(folder).summaries().values()) == len(right)
            inside = [u for p in after.packs.folder.glob("*.parquet") for u in after.packs.units_of(p)]
            assert sorted(inside) == sorted(wanted), "no unit is in two packs"
            assert Store(folder).read(wanted).equals(right)
        step += 1
    assert kills > 6
    assert receive.recv() == kills


def test_readers_see_whole_tables_while_it_runs(tmp_path, small):
    wanted = units(parts=4)
    store, right, seen = Store(tmp_path), in_memory(wanted), []
    fill(store, wanted)
    ended = threading.Event()

    def watch():
        reader = Store(tmp_path)
        while not ended.is_set():
            seen.append(reader.read(wanted).equals(right))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        compact(store)
    finally:
        ended.set()
        watcher.join()
    assert seen
    assert all(seen)


def test_refused_while_somebody_may_write(tmp_path):
    store = Store(tmp_path)
    fill(store, units())
    claim = store.claim("group")
    with pytest.raises(LockedError, match=r"process \d+ on .* may write; allowed: when nobody does$"):
        compact(Store(tmp_path))
    claim.release()
    other = store.claim(compaction.NAME)
    with pytest.raises(LockedError, match="compacted by process"):
        compact(Store(tmp_path))
    other.release()
    assert len(store.loose()) == len(units())
    with pytest.raises(DataError, match="no records"):
        compact(Store(tmp_path / "none"))


def test_what_cannot_be_read_again_replaces_nothing(tmp_path, monkeypatch):
    store, wanted = Store(tmp_path), units()
    fill(store, wanted)
    monkeypatch.setattr(compaction, "read_all", lambda path, kind: kind.schema.empty_table())
    with pytest.raises(DataError, match="read otherwise than written, nothing was deleted"):
        compact(store)
    assert sorted(store.loose()) == sorted(wanted)
    assert Store(tmp_path).read(wanted).equals(in_memory(wanted))
