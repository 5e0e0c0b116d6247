"""Records of the store, checked and turned into panels: this module alone decides what counts as a trial."""

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from lcprobe.analysis.findings.cells import SCORES, Measured, NeedleTrials, Panel, PanelKey
from lcprobe.analysis.findings.tokenizers import in_tokens_of_reference, tokenizers_of
from lcprobe.analysis.inputs import StudyFacts
from lcprobe.errors import DataError, listed, shown
from lcprobe.records import NAMES
from lcprobe.tasks.episode import Formats

PANEL_COLUMNS = ("model", "task", "haystack", "key_format", "value_format", "control")


def load_records(study: StudyFacts, records: pa.Table) -> Measured:
    """Panels of the records, with the plan.

    Raises DataError for missing columns, a mixture of suites, or of versions of one task's code where the study names
    none, duplicate rows, one length in several numbers of strata, and what `tokenizers_of` raises. Rows of another
    version of a task's code than the study's are left out and noted. Only rows with status `ok` are trials; the
    others are counted. Of several steps of a model the last counts, and `teacher_forced` takes precedence over
    `generate` (exact match agrees by construction); omitted rows are noted.
    """
    missing = [name for name in NAMES if name not in records.column_names]
    if missing:
        raise DataError(f"records: columns {listed(missing, ', ')} are missing; allowed: tables of records.SCHEMA")
    notes: list[str] = []
    runs = [run.name for run in study.runs]
    models, model = _codes(records, "model")
    table = _where(records, np.isin(models, runs)[model] if models else model > 0)
    if len(table) < len(records):
        unknown = sorted(set(models) - set(runs))
        notes.append(f"{len(records) - len(table)} rows of models outside the study are ignored ({shown(unknown)})")
    table = _of_current_code(study, table, notes)
    table = _last_step(table, notes)
    suites = _codes(table, "suite")[0]
    if len(suites) > 1:
        raise DataError(f"records: given suites {listed(suites, ', ')}; allowed: one suite (their samples differ)")
    tokenizers = tokenizers_of(study, table)
    study = in_tokens_of_reference(study, table)
    table, panel_code = _one_scoring(table, notes)
    failed = int((texts(table, "status") != "ok").sum())
    panels = {}
    edges = [0, *(np.nonzero(np.diff(panel_code))[0] + 1).tolist(), len(table)]
    for start, stop in pairwise(edges) if len(table) else []:
        part = table.slice(start, stop - start)
        model, task, haystack, key_format, value_format, control = (part[name][0].as_py() for name in PANEL_COLUMNS)
        where = PanelKey(model, task, Formats(haystack, key_format, value_format), control)
        panels[where] = _panel(where, part)
    return Measured(study, panels, _planned(study), tuple(notes), table, failed, tokenizers)


def _planned(study: StudyFacts) -> dict[tuple[str, Formats, str], dict[int, dict[float, int]]]:
    plan: dict[tuple[str, Formats, str], dict[int, dict[float, int]]] = {}
    for row in study.expected_cells:
        format = Formats(row["haystack"], row["key_format"], row["value_format"])
        lengths = plan.setdefault((row["task"], format, row["control"]), {})
        lengths.setdefault(int(row["length"]), {})[round(float(row["depth"]), 6)] = int(row["n"])
    return plan


def _panel(where: PanelKey, part: pa.Table) -> Panel:
    length, depth, index, divided = (part[name].to_numpy() for name in ("length", "depth", "index", "strata"))
    lengths, i = np.unique(length, return_inverse=True)
    strata = np.zeros(len(lengths), np.int64)
    strata[i] = divided
    if np.any(strata[i] != divided):
        raise DataError(
            f"records: one length in several numbers of strata ({where.model}, {where.task}); allowed: one"
        )
    depths, j = np.unique(np.round(depth, 6), return_inverse=True)
    samples, c = np.unique(index, return_inverse=True)
    ok = texts(part, "status") == "ok"
    exact = numbers(part, "exact")
    if np.isnan(exact[ok]).any():
        raise DataError(
            f"records: a row with status ok has no score ({where.model}, {where.task}); allowed: true or false"
        )
    shape = (len(lengths), len(depths), len(samples))

    def summed(weight: np.ndarray) -> np.ndarray:
        flat = np.ravel_multi_index((i, j, c), shape)
        return np.rint(np.bincount(flat, weight, minlength=int(np.prod(shape)))).astype(np.int64).reshape(shape)

    columns = {name: numbers(part, name) for name in SCORES if name != "log_likelihood_per_token"}
    columns["log_likelihood_per_token"] = numbers(part, "log_likelihood") / np.maximum(
        numbers(part, "answer_tokens"), 1
    )
    scores, cell = {}, i * len(depths) + j
    for name in SCORES:
        use = ok & ~np.isnan(columns[name])
        total = np.bincount(cell[use], columns[name][use], minlength=shape[0] * shape[1]).reshape(shape[:2])
        count = np.bincount(cell[use], minlength=shape[0] * shape[1]).reshape(shape[:2])
        scores[name] = (total, count)
    hit = np.where(ok, exact, 0.0)
    has_needle = ok & (columns["distance"] >= 0)
    return Panel(
        where=where,
        lengths=tuple(lengths.tolist()),
        depths=tuple(depths.tolist()),
        strata=tuple(strata.tolist()),
        index=samples,
        hits=summed(hit),
        trials=summed(ok.astype(float)),
        failed=summed((~ok).astype(float)),
        scores=scores,
        needle_trials=NeedleTrials(*(x[has_needle] for x in (columns["distance"], c, hit, cell))),
    )


def _of_current_code(study: StudyFacts, table: pa.Table, notes: list[str]) -> pa.Table:
    """The rows whose episodes were made by the version of their task that the study names."""
    of_task = {task.name: task.code for task in study.tasks if task.code}
    (tasks, task), (codes, code) = _codes(table, "task"), _codes(table, "task_code")
    pair = task * max(len(codes), 1) + code
    counts = np.bincount(pair, minlength=len(tasks) * len(codes)).reshape(len(tasks), len(codes))
    rows = {(tasks[i], codes[j]): int(counts[i, j]) for i, j in np.argwhere(counts).tolist()}
    old = {key: n for key, n in sorted(rows.items()) if key[1] != of_task.get(key[0], key[1])}
    for (name, version), n in old.items():
        notes.append(f"{name}: {n} rows of other code of the task ({version}; now {of_task[name]}) are left out")
    kept = [key for key in rows if key not in old]
    mixed = sorted({name for name, _ in kept if sum(name == other for other, _ in kept) > 1})
    if mixed:
        raise DataError(
            f"records: given several versions of the code of {listed(mixed, ', ')}; allowed: one of each task"
        )
    is_kept = np.array([[(a, b) not in old for b in codes] for a in tasks], bool).reshape(-1)
    return _where(table, is_kept[pair])


def _last_step(table: pa.Table, notes: list[str]) -> pa.Table:
    (models, model), step = _codes(table, "model"), np.nan_to_num(numbers(table, "step"))
    newest = np.full(len(models), -np.inf)
    np.maximum.at(newest, model, step)
    last = step == newest[model]
    if not last.all():
        notes.append(
            f"{int((~last).sum())} rows of earlier checkpoints are left out: only the last step of a model counts"
        )
    return _where(table, last)


def _where(table: pa.Table, kept: np.ndarray) -> pa.Table:
    """Some rows; the table itself where it is all of them: a million rows are copied once, if at all."""
    return table if kept.all() else table.filter(pa.array(kept))


def _one_scoring(table: pa.Table, notes: list[str]) -> tuple[pa.Table, np.ndarray]:
    """Every query once, sorted by its factors so that the order of files has no effect, and a code per panel."""
    panel = _combined([_codes(table, name) for name in PANEL_COLUMNS])
    key = _combined([_levels(table, name) for name in ("length", "depth", "index", "query")], panel)
    generated = texts(table, "scoring") == "generate"
    superseded = generated & np.isin(key, key[~generated])
    if superseded.any():
        notes.append(
            f"{int(superseded.sum())} generated answers are left out where teacher forcing scored the same query"
        )
    key = key[~superseded]
    order = np.argsort(key, kind="stable")
    repeated = int((np.diff(key[order]) == 0).sum())
    if repeated:
        raise DataError(f"records: {repeated} queries occur more than once; allowed: one row per query")
    rows = np.nonzero(~superseded)[0][order]
    return table.take(pa.array(rows)), panel[rows]


def _combined(factors: Sequence[tuple[Sequence | np.ndarray, np.ndarray]], start: np.ndarray | int = 0) -> np.ndarray:
    code = np.asarray(start, np.int64)
    for levels, codes in factors:
        code = code * max(len(levels), 1) + codes
    return code


def _levels(table: pa.Table, name: str) -> tuple[np.ndarray, np.ndarray]:
    """Sorted levels of a column of numbers, to six decimals, and (n_rows,) codes: only levels are sorted."""
    encoded = _encoded(table[name].cast(pa.float64()))
    levels, place = np.unique(np.round(encoded.dictionary.to_numpy(zero_copy_only=False), 6), return_inverse=True)
    return levels, place[encoded.indices.to_numpy()]


def _encoded(column: pa.ChunkedArray) -> pa.DictionaryArray:
    """A column's values as numbers of its levels, in one piece."""
    encoded = column.dictionary_encode().unify_dictionaries().combine_chunks()
    if isinstance(encoded, pa.ChunkedArray):
        encoded = encoded.chunk(0) if encoded.num_chunks else pa.array([], column.type).dictionary_encode()
    return encoded


def _codes(table: pa.Table, name: str) -> tuple[list[str], np.ndarray]:
    """Sorted levels and (n_rows,) codes of a text column, "" for null; a million rows have a handful of names."""
    encoded = _encoded(pc.fill_null(table[name].cast(pa.string()), ""))
    levels = encoded.dictionary.to_pylist()
    order = sorted(range(len(levels)), key=levels.__getitem__)
    place = np.empty(len(levels), np.int64)
    place[order] = np.arange(len(levels))
    return [levels[i] for i in order], place[encoded.indices.to_numpy()]


def texts(table: pa.Table, name: str) -> np.ndarray:
    """A column as (n_rows,) Python strings, "" for null."""
    levels, codes = _codes(table, name)
    return np.array([*levels, ""], dtype=object)[codes]


def numbers(table: pa.Table, name: str) -> np.ndarray:
    """A column as (n_rows,) float64, NaN for null."""
    return table[name].cast(pa.float64()).to_numpy()
