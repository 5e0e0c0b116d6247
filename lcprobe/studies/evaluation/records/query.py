"""Which records of a study: those that its report is about or all of them, of some models, tasks and lengths.

A unit's summary says which model, task and length it is of, so that files of others are not opened.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TypeVar

import pyarrow as pa
import pyarrow.compute as pc

from lcprobe.errors import ConfigError, DataError, Said, SetAsideError, unknown_name
from lcprobe.probing.store import Store, Summary
from lcprobe.studies.evaluation.report_inputs import REPORT_INPUTS, load_inputs
from lcprobe.words import counted

T = TypeVar("T")
SHOWN = 3
"""Damaged files that an error names."""
STUDY = "study"
"""Column with a study's folder, where records of several studies are in one table."""


@dataclass(frozen=True)
class RecordQuery:
    """models, tasks, lengths: of these; empty: of any. everything: all finished units of the store, also those that
    the report is not about (of another grid, or of an earlier version of a task's code)."""

    models: tuple[str, ...] = ()
    tasks: tuple[str, ...] = ()
    lengths: tuple[int, ...] = ()
    everything: bool = False


@dataclass(frozen=True)
class FoundRecords:
    """table: the records that are whole. lost: a line for each study of which some are not, which says what does them
    again."""

    table: pa.Table
    lost: tuple[str, ...] = ()


def query_records(folder: Path, query: RecordQuery, columns: Sequence[str] | None = None) -> pa.Table:
    """The records of a study's or report's folder, columns of SCHEMA or some of them; where there is no report yet,
    of all units that are finished. Raises DataError without records, for a damaged file, which is set aside, and for
    one that is missing; ConfigError for a model, task or length of which there is none.
    """
    found = find_records([folder], query, columns)
    if found.lost:
        raise DataError("; ".join(found.lost))
    return found.table


def find_records(folders: Sequence[Path], query: RecordQuery, columns: Sequence[str] | None = None) -> FoundRecords:
    """What is whole of the records of one study, or of several with the column `study`. Raises DataError without
    records, ConfigError as `query_records` and for the records of one store twice."""
    owner: dict[tuple[Path, str], int] = {}
    tables, lost = [], list[str]()
    for at, folder in enumerate(folders):
        store, damages = store_of(folder), list[str]()
        units = _whole(partial(_units, folder, store, query.everything), damages)
        other = next((n for unit in units if (n := owner.setdefault((store.folder.resolve(), unit), at)) != at), at)
        if other != at:
            given = Said(f"{folder} has records of {folders[other]} again")
            raise ConfigError("command line", given, "each study once, by itself or by one of its reports")
        tables.append(_matching(store, units, query, columns, damages))
        missing = len(units) - len(_whole(partial(_present, store, units), damages))
        if missing or damages:
            lost.append(_lost(folder, len(units), missing, damages))
    if len(folders) > 1:
        for at, folder in enumerate(folders):
            name = pa.repeat(pa.scalar(str(folder), pa.string()), len(tables[at]))
            tables[at] = tables[at].add_column(0, STUDY, name)
    return FoundRecords(pa.concat_tables(tables), tuple(lost))


def _present(store: Store, units: Sequence[str]) -> list[str]:
    return [unit for unit in units if store.has(unit)]


def _matching(
    store: Store, units: list[str], query: RecordQuery, columns: Sequence[str] | None, damages: list[str]
) -> pa.Table:
    """The records of units that a query asks for; what turns out to be damaged is added to `damages`."""

    def read(wanted: Sequence[str], names: Sequence[str] | None) -> pa.Table:
        return _whole(lambda: store.read(_present(store, wanted), names), damages)

    if not (query.models or query.tasks or query.lengths):
        return read(units, columns)
    every = _whole(store.summaries, damages)
    summaries = {unit: every[unit] for unit in units if unit in every}
    if len(summaries) == len(units):
        _check_names(query, list(summaries.values()))
    wanted = [u for u in units if summaries.get(u, Summary()).may_have(query.models, query.tasks, query.lengths)]
    table = read(wanted, None if columns is None else list(dict.fromkeys([*columns, "model", "task", "length"])))
    for name, values in (("model", query.models), ("task", query.tasks), ("length", query.lengths)):
        if values:
            table = table.filter(pc.is_in(table[name], pa.array(values, table.schema.field(name).type)))
    return table if columns is None else table.select(list(columns))


def _whole(read: Callable[[], T], damages: list[str]) -> T:
    """What is read once every damaged file that stands in the way is set aside; each is added to `damages`."""
    while True:
        try:
            return read()
        except SetAsideError as error:
            damages.append(str(error).partition("; allowed")[0])


def _lost(folder: Path, n: int, missing: int, damages: Sequence[str]) -> str:
    """What is not there of a study, and what does it again."""
    home = Path(os.path.normpath(_home(folder)))
    what = f"{missing:,} of {counted(n, 'unit')} of records" if missing else "some records"
    more = [f"{len(damages) - SHOWN:,} more"] if len(damages) > SHOWN else []
    why = "; ".join([*damages[:SHOWN], *more]) or "set aside as damaged before, or removed"
    again = f"python evaluate.py {home}" if (home / "study.yaml").is_file() else f"the command that made {home}"
    return f"{folder}: without {what}, which are not there ({why}); allowed: {again}, which does them again"


def store_of(folder: Path) -> Store:
    """The store with a study's records. Raises DataError without one."""
    home = _home(folder)
    if not (home / "records").is_dir():
        raise DataError(f"{folder}: no records; allowed: the folder of a study that evaluate.py has probed")
    return Store(home / "records")


def _home(folder: Path) -> Path:
    """The folder of the study that a report in a folder is about, or the folder itself."""
    return folder / load_inputs(folder).home if (folder / REPORT_INPUTS).is_file() else folder


def _units(folder: Path, store: Store, everything: bool) -> list[str]:
    if (folder / REPORT_INPUTS).is_file() and not everything:
        return load_inputs(folder).record_units
    return store.units()


def _check_names(query: RecordQuery, known: Sequence[Summary]) -> None:
    """Raises ConfigError for what no unit is of, unless some unit does not say what it is of."""
    pairs = (
        ("model", query.models, {s.model for s in known}),
        ("task", query.tasks, {s.task for s in known}),
        ("length", query.lengths, {s.length for s in known}),
    )
    for name, wanted, found in pairs:
        for value in wanted:
            if known and value not in found and all(found):
                raise unknown_name(f"--{name}", value, map(str, sorted(found, key=lambda one: (str(type(one)), one))))


def as_query(
    model: str | Sequence[str] | None, task: str | Sequence[str] | None, length: int | Sequence[int] | None
) -> RecordQuery:
    """The query for one, several or (None) any."""
    texts = [() if v is None else (v,) if isinstance(v, str) else tuple(v) for v in (model, task)]
    lengths = () if length is None else (length,) if isinstance(length, int) else tuple(length)
    return replace(RecordQuery(), models=texts[0], tasks=texts[1], lengths=lengths)
