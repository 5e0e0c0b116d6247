"""Packs: files with many units of one model and task, in the folder packed/ of a store.

    packed/<id>.parquet     row groups of whole units; the file's facts say which units, in order, with their rows

A unit counts once, wherever it is: in a file of its own first, else in the first pack by name. So a crash between the
writing of a pack and the deletion of what it replaces changes nothing.
"""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa

from lcprobe.errors import SetAsideError
from lcprobe.files import digest_json, write_atomic
from lcprobe.probing.store.summary import Summary, summary_of
from lcprobe.probing.store.unit_file import Damaged, Opened, encode, open_unit, read_group
from lcprobe.probing.store.versions import Kind

PACKED = "packed"
AGAIN = "evaluate.py (or lcprobe score) again"
"""What makes records: not every command that reads them."""


@dataclass(frozen=True)
class Place:
    """Where a unit is in a pack: rows `start` to `start + rows` of a row group. facts: what its records depend on."""

    path: Path
    group: int
    start: int
    rows: int
    facts: dict[str, Any]

    @property
    def summary(self) -> Summary:
        """What its records are of."""
        return summary_of(self.facts, self.rows)


@dataclass(frozen=True)
class Packed:
    """A unit that goes into a pack."""

    unit: str
    table: pa.Table
    facts: dict[str, Any]


class Packs:
    """The packs of a store's folder, as this process has seen them."""

    def __init__(self, folder: Path, kind: Kind):
        self.folder, self._kind = folder / PACKED, kind
        self._places: dict[Path, dict[str, Place]] = {}

    def find(self, unit: str) -> Place | None:
        """Where a unit is; None: in no pack. Raises SetAsideError naming a damaged pack, which is set aside."""
        return self._known(unit) or (self._known(unit) if self.look() else None)

    def look(self) -> bool:
        """Look for packs that came and went; whether there are others now. Raises SetAsideError as `find`."""
        paths = set(self.folder.glob("*.parquet"))
        gone, new = self._places.keys() - paths, sorted(paths - self._places.keys())
        for path in gone:
            del self._places[path]
        for path in new:
            try:
                file = pa.OSFile(str(path))
                self._places[path] = _places(open_unit(path, file, self._kind))
            except FileNotFoundError:  # replaced by a larger one just now
                continue
            except Damaged as error:
                raise set_aside(path, str(error), "its units") from None
        return bool(gone or new)

    def places(self) -> dict[str, Place]:
        """Every unit of every pack. Raises SetAsideError as `find`."""
        self.look()
        found: dict[str, Place] = {}
        for path in sorted(self._places):
            found = {**self._places[path], **found}
        return found

    def units_of(self, path: Path) -> dict[str, Place]:
        """The units of one pack."""
        return self._places.get(path, {})

    def read(self, places: dict[str, Place], columns: Sequence[str] | None = None) -> dict[str, pa.Table]:
        """The records of units, by id: tables that share their columns. Raises FileNotFoundError where a pack was
        replaced since, and SetAsideError naming what is damaged: the rest of that pack is kept."""
        wanted: dict[Path, dict[int, dict[str, Place]]] = defaultdict(lambda: defaultdict(dict))
        for unit, place in places.items():
            wanted[place.path][place.group][unit] = place
        found: dict[str, pa.Table] = {}
        for path, groups in wanted.items():
            file = pa.OSFile(str(path))
            try:
                opened = open_unit(path, file, self._kind)
                for number, units in sorted(groups.items()):
                    table = read_group(opened, file, self._kind, number, columns)
                    found |= {unit: table.slice(place.start, place.rows) for unit, place in units.items()}
            except Damaged as error:
                raise self._saved(path, str(error)) from None
        return found

    def write(self, groups: Sequence[Sequence[Packed]]) -> Path:
        """Write a pack with a row group for each group of units, durably; it counts from then on."""
        units = [unit for group in groups for unit in group]
        tables = [pa.concat_tables([unit.table for unit in group]) for group in groups]
        facts = {"groups": [[[u.unit, len(u.table), u.facts] for u in group] for group in groups]}
        path = self.folder / f"{digest_json([unit.unit for unit in units])[:16]}.parquet"
        write_atomic(path, encode(tables, facts, self._kind))
        return path

    def _known(self, unit: str) -> Place | None:
        return next((self._places[path][unit] for path in sorted(self._places) if unit in self._places[path]), None)

    def _saved(self, path: Path, reason: str) -> SetAsideError:
        """Write what can be read of a damaged pack as files of their own, and set the pack aside."""
        lost: list[str] = []
        with pa.OSFile(str(path)) as file:
            try:
                opened = open_unit(path, file, self._kind)
            except Damaged:
                return set_aside(path, reason, "its units")
            places = _places(opened)
            for number in range(opened.metadata.num_row_groups):
                units = {unit: place for unit, place in places.items() if place.group == number}
                try:
                    table = read_group(opened, file, self._kind, number, None)
                except Damaged:
                    lost += units
                    continue
                for unit, place in units.items():
                    own, target = table.slice(place.start, place.rows), self.folder.parent / f"{unit}.parquet"
                    if not target.exists():
                        write_atomic(target, encode([own], place.facts, self._kind))
        del self._places[path]
        return set_aside(path, reason, f"{len(lost)} of its {len(places)} units, the others are kept")


def _places(opened: Opened) -> dict[str, Place]:
    """Raises Damaged for facts that are no pack's."""
    found: dict[str, Place] = {}
    try:
        for number, group in enumerate(opened.facts["groups"]):
            start = 0
            for unit, rows, facts in group:
                found[unit] = Place(opened.path, number, start, rows, facts)
                start += rows
            if start != opened.metadata.row_group(number).num_rows:
                raise Damaged("another number of rows than its units have")
    except (KeyError, TypeError, ValueError, IndexError):
        raise Damaged("not a pack of units") from None
    return found


def set_aside(path: Path, reason: str, what: str) -> SetAsideError:
    """Rename a damaged file, so that its units are not finished any more; the error that says so."""
    aside = path.with_suffix(".bad")
    if path.exists():
        path.replace(aside)
    return SetAsideError(
        f"{path}: damaged ({reason}), set aside as {aside.name}; allowed: {AGAIN}, which redoes {what}"
    )
