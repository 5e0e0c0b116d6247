"""Compaction: the files of many units of one model and task become few, smaller together and faster to read.

A pack is written whole and read again before what it replaces is deleted, and a unit counts once wherever it is (see
packs.py): a crash at any moment loses nothing and doubles nothing, and the next compaction deletes what was left.
"""

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa

from lcprobe.errors import DataError, LockedError
from lcprobe.files import remove_leftovers, sync_folder
from lcprobe.locks import Claim, Process, require_kept
from lcprobe.probing.store.disk import Store
from lcprobe.probing.store.packs import Packed, Place
from lcprobe.probing.store.unit_file import Damaged, read_all
from lcprobe.words import counted

GROUP_ROWS, PACK_ROWS = 1 << 16, 1 << 18
"""Records of a row group, which is read as a whole, and of a pack; both have whole units only, and may have one more
than fits."""
NAME = "compaction"
"""Of the claim."""


@dataclass(frozen=True)
class Compacted:
    """units: that are in packs now; files, bytes: of finished units, before and after."""

    units: int
    files: tuple[int, int]
    bytes: tuple[int, int]


def compact(store: Store) -> Compacted:
    """Put the units of each model and task together. Raises LockedError where another process writes into the store
    or compacts it, and DataError as `Store.read`."""
    if not store.folder.is_dir():
        raise DataError(f"{store.folder}: no records; allowed: the folder of a study that evaluate.py has probed")
    claim = store.claim(NAME)
    if isinstance(claim, Process):
        raise LockedError(f"{store.folder}: compacted by {claim}; allowed: one at a time")
    try:
        writers = {str(process) for name, process in store.claims().items() if name != NAME}
        if writers:
            more = f" and {counted(len(writers) - 1, 'other process')}" if len(writers) > 1 else ""
            raise LockedError(f"{store.folder}: {min(writers)}{more} may write; allowed: when nobody does")
        remove_leftovers(store.folder)
        before = _sizes(store)
        _delete_doubles(store)
        for units in _of_one_model_and_task(store):
            _compact(store, units, claim)
        after = _sizes(store)
        return Compacted(len(store.packs.places()), (len(before), len(after)), (sum(before), sum(after)))
    finally:
        claim.release()


def _sizes(store: Store) -> list[int]:
    return [path.stat().st_size for path in [*map(store.path, store.loose()), *store.packs.folder.glob("*.parquet")]]


def _delete_doubles(store: Store) -> None:
    """What a compaction left that was killed between the writing of a pack and the deletion of what it replaced."""
    placed = store.packs.places()
    doubles = {unit: placed[unit] for unit in store.loose() if unit in placed}
    store.packs.read(doubles)  # raises where they cannot be read: then nothing is deleted
    for unit in doubles:
        store.path(unit).unlink(missing_ok=True)
    paths = sorted(store.packs.folder.glob("*.parquet"), key=lambda path: len(store.packs.units_of(path)))
    for path in paths:
        others = {unit for other in paths if other != path for unit in store.packs.units_of(other)}
        if others.issuperset(store.packs.units_of(path)):
            path.unlink()
            store.packs.look()


def _of_one_model_and_task(store: Store) -> Iterator[list[str]]:
    """Units that a pack may have together, each by length: those of files of their own and of packs with room, where
    there are two such files at least."""
    placed = store.packs.places()
    rows: dict[Path, int] = defaultdict(int)
    for place in placed.values():
        rows[place.path] += place.rows
    groups: dict[tuple[str, str], list[tuple[int, str]]] = defaultdict(list)
    for unit, summary in store.summaries().items():
        if unit not in placed or rows[placed[unit].path] < PACK_ROWS:
            groups[summary.model, summary.task].append((summary.length, unit))
    for group in groups.values():
        units = [unit for _, unit in sorted(group)]
        if len({placed[unit].path if unit in placed else store.path(unit) for unit in units}) > 1:
            yield units


def _compact(store: Store, units: list[str], claim: Claim) -> None:
    placed = store.packs.places()
    replaced = {placed[unit].path for unit in units if unit in placed}
    written: set[Path] = set()
    for part in _parts(store, units, placed):
        written.add(_write(store, part, claim))
    require_kept(claim)
    for unit in units:
        store.path(unit).unlink(missing_ok=True)
    for path in replaced - written:
        path.unlink(missing_ok=True)
    sync_folder(store.folder)
    sync_folder(store.packs.folder)
    store.packs.look()


def _parts(store: Store, units: list[str], placed: dict[str, Place]) -> Iterator[list[list[Packed]]]:
    """Row groups of units for one pack after another."""
    groups: list[list[Packed]] = [[]]
    rows = 0
    for unit in units:
        if rows >= PACK_ROWS:
            yield groups
            groups, rows = [[]], 0
        elif sum(len(one.table) for one in groups[-1]) >= GROUP_ROWS:
            groups.append([])
        groups[-1].append(_packed(store, unit, placed.get(unit)))
        rows += len(groups[-1][-1].table)
    yield groups


def _packed(store: Store, unit: str, place: Place | None) -> Packed:
    if place is not None:
        return Packed(unit, store.packs.read({unit: place})[unit], place.facts)
    return Packed(unit, store.read([unit]), store.facts_of(unit))


def _write(store: Store, groups: list[list[Packed]], claim: Claim) -> Path:
    """Write a pack, and read it as it is now on the disk. Raises DataError where it is not what was written."""
    require_kept(claim)
    path = store.packs.write(groups)
    whole = pa.concat_tables([one.table for group in groups for one in group])
    try:
        same = read_all(path, store.kind).equals(whole)
    except Damaged:
        same = False
    if not same:
        path.unlink()
        raise DataError(f"{path}: read otherwise than written, nothing was deleted; allowed: a disk that keeps files")
    return path
