"""Any bit of any file of the store may be another one, or the file may end anywhere: never a wrong record, never one
twice; what is lost is named, and done again."""

import io
import json
import multiprocessing
import random
import resource
from dataclasses import asdict
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcprobe.errors import DataError, MemoryLimitError, exit_code_of
from lcprobe.locks import Process, this_process
from lcprobe.probing.store import MemoryStore, Store, compact, unit_file
from lcprobe.probing.store.unit_file import encode
from lcprobe.probing.store.versions import RECORDS
from lcprobe.records import table_of
from tests.probing.store.rows import facts, fill, record, records_of, units


def mutations(raw: bytes, count: int, dice: random.Random, least: int = 0):
    """A file with one bit flipped, or cut, alternately."""
    for trial in range(count):
        if trial % 2:
            yield raw[: dice.randrange(len(raw))]
        else:
            bad = bytearray(raw)
            bad[dice.randrange(least, len(raw))] ^= 1 << dice.randrange(8)
            yield bytes(bad)


def test_a_unit_with_a_changed_bit_or_a_cut_is_set_aside_and_named(tmp_path):
    own = facts("a", "single", 64, n=12)
    store = Store(tmp_path)
    fill(store, {"u": own})
    path = store.path("u")
    raw, table = path.read_bytes(), store.read(["u"])
    silent = 0
    for bad in mutations(raw, 200, random.Random(0)):
        path.write_bytes(bad)
        with pytest.raises(DataError, match=rf"^{path}: damaged \(.*\), set aside as u.bad") as caught:
            silent += not store.read(["u"]).equals(table)
        assert exit_code_of(caught.value) == 75, "the same command goes on"
        assert not store.has("u")
    assert silent == 0


def test_the_footer_and_page_headers_are_sealed(tmp_path):
    """Every bit of the first and last 300 bytes, and of the seal: page checksums say nothing about these."""
    store = Store(tmp_path)
    fill(store, {"u": facts("a", "single", 64, n=1)})
    path = store.path("u")
    raw = path.read_bytes()
    seal = raw.index(b'{"footer"')
    for at in [*range(4, 300, 7), *range(seal - 50, seal + 90, 3), *range(len(raw) - 300, len(raw), 3)]:
        bad = bytearray(raw)
        bad[at] ^= 1 << at % 8
        path.write_bytes(bad)
        with pytest.raises(DataError, match="damaged"):
            store.read(["u"])


def test_any_reader_of_parquet_reads_a_sealed_file(tmp_path):
    tables = [table_of([record("a", "vt", 64, i) for i in range(start, start + 3)]) for start in (0, 3)]
    raw = encode(tables, {"why": "a test"}, RECORDS)
    whole = pq.ParquetFile(io.BytesIO(raw), page_checksum_verification=True)
    assert whole.num_row_groups == 2
    assert whole.read().replace_schema_metadata(None).to_pylist() == [row for t in tables for row in t.to_pylist()]
    assert json.loads(whole.schema_arrow.metadata[b"lcprobe"]) == {"why": "a test"}


def test_a_damaged_pack_loses_no_more_than_a_row_group(tmp_path, monkeypatch):
    monkeypatch.setattr("lcprobe.probing.store.compaction.GROUP_ROWS", 8)
    wanted = {unit: own for unit, own in units(parts=4).items() if own["name"] == "a" and own["task"] == "vt"}
    memory, store = MemoryStore(), Store(tmp_path)
    fill(memory, wanted)
    fill(store, wanted)
    compact(store)
    (path,) = store.packs.folder.glob("*.parquet")
    raw, dice = path.read_bytes(), random.Random(1)
    for bad in mutations(raw, 24, dice):
        for old in [*tmp_path.glob("*.parquet"), *store.packs.folder.iterdir()]:
            old.unlink()
        path.write_bytes(bad)
        again = Store(tmp_path)
        with pytest.raises(DataError, match=r"damaged .*, set aside as .*\.bad; allowed: .*, which redoes"):
            again.read(wanted)
        kept = [unit for unit in wanted if again.has(unit)]
        assert again.read(kept).equals(memory.read(kept)), "what is left is right"
        is_whole = raw.rindex(b'{"footer"') > next((i for i in range(len(bad)) if bad[i] != raw[i]), len(bad))
        if len(bad) == len(raw) and is_whole:
            assert len(kept) == len(wanted) - 2, "a row group has two units here"
        fill(again, {unit: own for unit, own in wanted.items() if not again.has(unit)})
        assert again.read(wanted).equals(memory.read(wanted))


def test_a_damaged_journal_has_right_batches_only(tmp_path):
    store, dice = Store(tmp_path), random.Random(2)
    batches = [records_of(facts("a", "vt", 64, part, n=2)) for part in range(4)]
    for batch in batches:
        store.append("g", batch)
    raw = store.journal("g").read_bytes()
    for bad in mutations(raw, 200, dice):
        store.journal("g").write_bytes(bad)
        kept = store.resume("g")
        assert kept == batches[: len(kept)]
        assert len(kept) < len(batches)
        store.append("g", batches[3])
        assert store.resume("g") == [*kept, batches[3]], "and goes on behind them"


def test_a_damaged_claim_is_taken_over_and_its_owner_knows(tmp_path):
    """Whoever lives under another's damaged claim sees that it is not its own any more; a dead one's becomes free."""
    dice = random.Random(3)
    store = Store(tmp_path)
    mine = store.claim("g")
    path = tmp_path / "g.claim"
    raw = path.read_bytes()
    for bad in mutations(raw, 100, dice):
        path.write_bytes(bad)
        if path.read_bytes() != raw and json_or_none(bad) != json.loads(raw):
            assert not mine.is_kept()
    path.write_bytes(raw)
    assert mine.is_kept()
    mine.release()
    dead = asdict(this_process()) | {"pid": 2**22 + 5, "started": 7, "beats": 15.0}
    for bad in mutations(json.dumps(dead).encode(), 100, dice):
        path.write_bytes(bad)
        holder = store.claim("g")
        if isinstance(holder, Process):  # it names another machine or container now: free after its heartbeat
            assert (holder.host, holder.boot, holder.namespace) != (dead["host"], dead["boot"], dead["namespace"])
        else:
            holder.release()
        path.unlink(missing_ok=True)


def json_or_none(raw):
    try:
        return json.loads(raw)
    except ValueError:
        return None


def test_a_catalog_is_a_cache(tmp_path):
    store, wanted, dice = Store(tmp_path), units(), random.Random(4)
    fill(store, wanted)
    right = store.summaries()
    assert right.keys() == wanted.keys()
    assert {(s.model, s.task, s.length, s.rows) for s in right.values()} == {
        (own["name"], own["task"], own["cells"][0]["length"], 4) for own in wanted.values()
    }
    path = tmp_path / "_catalog.jsonl"
    raw = path.read_bytes()
    for bad in mutations(raw, 20, dice):
        path.write_bytes(bad)
        assert Store(tmp_path).summaries() == right
    path.unlink()
    assert Store(tmp_path).summaries() == right
    before = path.read_bytes()
    assert Store(tmp_path).summaries() == right
    assert path.read_bytes() == before, "every file was opened once"


@pytest.mark.parametrize("packed", [False, True])
def test_what_the_system_cannot_read_now_is_not_taken_for_damage(tmp_path, monkeypatch, packed):
    """Too many open files, a network file system that lost its handle: the file may be whole."""
    store = Store(tmp_path)
    fill(store, {"u": facts("a", "single", 64, n=3), "v": facts("a", "single", 128, n=3)})
    if packed:
        compact(store)
        store = Store(tmp_path)
    table, before = store.read(["u"]), sorted(tmp_path.rglob("*.parquet"))

    def refused(file, start, size):
        raise OSError(116, "Stale file handle")

    with monkeypatch.context() as patch:
        patch.setattr(unit_file, "_bytes", refused)
        with pytest.raises(OSError, match="Stale"):
            store.read(["u"])
    assert sorted(tmp_path.rglob("*.parquet")) == before
    assert store.read(["u"]).equals(table)


def _read_with_little_memory(folder: Path, sender) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + (24 << 20)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    try:
        Store(folder).read(["u"])
        sender.send("read")
    except Exception as error:  # whatever it is: the parent compares it
        sender.send(f"{type(error).__name__}: {error}")


def test_too_little_memory_is_not_damage(tmp_path):
    """Arrow's error is the one that it has for a damaged length."""
    store = Store(tmp_path)
    noise = random.Random(0)
    rows = [record("a", "vt", 64, i) | {"prediction": noise.randbytes(1 << 20).hex()} for i in range(32)]
    store.finish("u", rows, facts("a", "vt", 64))
    receiver, sender = multiprocessing.Pipe(duplex=False)
    child = multiprocessing.get_context("fork").Process(target=_read_with_little_memory, args=(tmp_path, sender))
    child.start()
    said = receiver.recv()
    child.join()
    assert said.startswith(
        f"MemoryLimitError: {store.path('u')}: out of memory while it is read; allowed: more memory"
    )
    assert store.has("u")
    assert len(store.read(["u"])) == 32


@pytest.mark.parametrize(
    ("sealed", "room", "error"),
    [
        (True, True, MemoryLimitError),
        (False, True, DataError),
        (False, False, MemoryLimitError),
    ],
)
def test_a_length_that_nobody_wrote_is_damage(tmp_path, monkeypatch, sealed, room, error):
    """Arrow asks for as much memory as a damaged length says. That of a sealed file is what was written; one of an early
    version, without a seal, is not, where there is memory for all that the file can hold."""
    store = Store(tmp_path)
    fill(store, {"u": facts("a", "single", 64, n=3)})
    if not sealed:
        early = RECORDS.names(1)
        pq.write_table(table_of([record("a", "vt", 64, i) for i in range(3)]).select(early), store.path("u"))
    assert len(store.read(["u"])) == 3

    def no_memory(*args, **kwargs):
        raise pa.ArrowMemoryError("malloc of size 2305843009213693952 failed")

    with monkeypatch.context() as patch:
        patch.setattr(unit_file.pq, "ParquetFile", no_memory)
        if not room:
            patch.setattr(unit_file, "MOST_BYTES_OF_ONE", 1 << 45)
        with pytest.raises(
            error, match="damaged .*set aside as u.bad" if error is DataError else "out of memory while"
        ):
            store.read(["u"])
    assert store.path("u").exists() == (error is MemoryLimitError)
