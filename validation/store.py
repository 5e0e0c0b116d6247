"""The records store under many writers that are killed: a million records by four processes, of which one or another
is killed with SIGKILL at a random moment, sixty times, each time with another started in its place; then what a
reader sees, before and after compaction.

A scorer without a model makes the records, a pure function of the unit and the sample. Everything else is what the
runner does: claim a unit, go on with its journal, append batches, finish it, release it, with the question whether
the claim is kept before each write.
"""

# pyright: reportAttributeAccessIssue=false
# pyarrow.compute makes its functions when it is imported

import multiprocessing
import os
import random
import resource
import signal
import time
from collections.abc import Callable
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pyarrow.compute as pc

from benchmarks.command import Rows
from lcprobe.analysis.findings.load_records import load_records
from lcprobe.analysis.inputs import RunFacts, StudyFacts, TaskFacts
from lcprobe.errors import require
from lcprobe.locks import Process, require_kept
from lcprobe.probing.store import Store, compact, unit_id
from lcprobe.records import Record
from lcprobe.seeds import Stream
from lcprobe.studies.evaluation.records.counts import COLUMNS, count_rows
from lcprobe.studies.evaluation.records.query import RecordQuery, query_records

TITLE = "the records store: many writers, kills, reading and compaction"
OPTIONS = ("rows", "writers", "kills", "seed")
MODELS, TASKS, LENGTHS = (
    ("a", "b", "c", "d"),
    ("single", "multikey", "vt", "qa", "cwe"),
    (512, 1024, 2048, 4096, 8192),
)
DEPTHS, BATCH = 10, 125
KEY = ("model", "task", "haystack", "control", "length", "depth", "index", "query")
CONTEXT = multiprocessing.get_context("fork")
Facts = dict[str, Any]


def measure(options: dict[str, str]) -> Rows:
    """What was written, by whom, what was lost or doubled, and the costs of reading: a row for each."""
    wanted = {name: int(options.get(name, usual)) for name, usual in
              (("rows", 1_000_000), ("writers", 4), ("kills", 60), ("seed", 0))}  # fmt: skip
    require("rows", wanted["rows"], wanted["rows"] >= 1000, "1000 or more")
    units = _units(wanted["rows"])
    with TemporaryDirectory() as folder:
        home = Path(folder)
        many, took = _many_writers(
            home / "many" / "records", units, **{k: wanted[k] for k in ("writers", "kills", "seed")}
        )
        began = time.perf_counter()
        one = Store(home / "one" / "records")
        _write(one, units, list(units))
        alone_s = time.perf_counter() - began
        whole = Store(home / "many" / "records").read(units)
        keys = whole.group_by(list(KEY)).aggregate([([], "count_all")])["count_all"]
        distinct, most = len(keys), pc.max(keys).as_py()
        row: dict[str, Any] = {
            "records": len(whole),
            "writers": wanted["writers"],
            **many,
            "lost": wanted["rows"] // 1000 * 1000 - distinct,
            "twice": len(whole) - distinct if most > 1 else 0,
            "as one writer's": whole.equals(one.read(units)),
            "s, four writers": round(took, 1),
            "s, one writer": round(alone_s, 1),
        }
        del whole
        row |= _reading(home / "many", units, "")
        done = compact(Store(home / "many" / "records"))
        row |= {"files": done.files[0], "files, compacted": done.files[1]}
        row |= {"MB": _mb(done.bytes[0]), "MB, compacted": _mb(done.bytes[1])}
        row |= _reading(home / "many", units, ", compacted")
        row["as one writer's, compacted"] = Store(home / "many" / "records").read(units).equals(one.read(units))
        row["largest MB of memory"] = round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3)
    return [{"measured": name, "value": value} for name, value in row.items()]


def notes(rows: Rows) -> list[str]:
    """What the rows say."""
    return [
        "kills: SIGKILL of a writer that is at work, when a random unit is finished; another starts in its place. "
        "resumed: journals of killed writers that had whole batches, which were not scored again",
        "lost, twice: of the keys (model, task, ..., sample, question)",
        "CPU s: of this process, on a machine that others use too. query: counts of one model and task (a twentieth "
        "of the records); read: all columns of all records; report: what a report makes of them before statistics",
    ]


def _units(rows: int) -> dict[str, Facts]:
    """Facts of the units of 1000 records, by id: as many as `rows` need."""
    found = []
    cells = list(product(range((rows - 1) // (1000 * 100) + 1), LENGTHS, TASKS, MODELS))
    for part, length, task, model in cells[: rows // 1000]:
        own = {"name": model, "checkpoint": "c" * 16, "suite": "6", "task": task, "code": "d" * 16, "part": part}
        depths = [(k + 0.5) / DEPTHS for k in range(DEPTHS)]
        at = {"task": task, "haystack": "corpus", "key_format": "words", "value_format": "numbers", "control": "none"}
        own["cells"] = [at | {"length": length, "depth": d, "strata": DEPTHS, "n": 1000 // DEPTHS} for d in depths]
        found.append(own)
    return {unit_id(own): own for own in found}


def _records(unit: str, facts: Facts) -> list[Record]:
    """The records of a unit, a pure function of its facts."""
    n, model, task = 1000 // DEPTHS, facts["name"], facts["task"]
    rate = {"a": 0.9, "b": 0.7, "c": 0.5, "d": 0.3}[model]
    rolls, jitter = Stream("store", unit).uniform(1000).tolist(), Stream("jitter", facts["part"]).uniform(n).tolist()
    rows = []
    for k, cell in enumerate(facts["cells"]):
        length, depth = cell["length"], cell["depth"]
        for i in range(n):
            index, right = facts["part"] * n + i, rolls[k * n + i] < rate
            drawn = (k + jitter[i]) / DEPTHS
            rows.append({
                "model": model, "checkpoint": "c" * 16, "step": 1953, "tokens": 2_000_000, "engine": "native",
                "extension": "none", "factor": 1.0, "suite": "6", "task": task, "task_code": "d" * 16,
                "haystack": "corpus", "key_format": "words", "value_format": "numbers", "control": "none",
                "length": length, "depth": depth, "strata": DEPTHS, "drawn_depth": drawn, "index": index, "query": 0,
                "tokenizer": "e" * 16, "equal_length": "tokens", "episode_tokens": length, "characters": 4 * length,
                "text": f"{(index * 2654435761 + length) % 2**64:016x}", "template": "none",
                "realised_depth": round(drawn * length) / length, "distance": round((1 - drawn) * length) + 10,
                "hops": 0, "via_distance": None, "rounds": length / 1e6, "haystack_start": 97 * index,
                "prompt_tokens": length - 4, "answer_tokens": 4, "chance": 0.25, "n_candidates": 4, "exact": right,
                "first_token": right, "token_accuracy": 1.0 if right else 0.25,
                "log_likelihood": -20 * rolls[k * n + i], "rank": 1 if right else 2 + i % 3,
                "distractor_hit": not right, "answer": f" {index * 7919 % 9000 + 1000}",
                "prediction": f" {(index * 7919 + (not right)) % 9000 + 1000}", "continuation": None,
                "substring": None, "scoring": "teacher_forced", "status": "ok", "batch": BATCH,
                "read_tokens": length - 4, "episode": f"{unit}"[:8] + f"{index:08x}",
            })  # fmt: skip
    return rows


def _write(
    store: Store, units: dict[str, Facts], order: list[str], resumed: Callable[[], None] = lambda: None
) -> bool:
    """Do what is free of the units, in some order, as the runner does; whether nothing is left."""
    left = False
    for unit in order:
        if store.has(unit):
            continue
        claim = store.claim(unit)
        if isinstance(claim, Process):
            left = True
            continue
        try:
            if store.has(unit):
                continue
            rows, known = _records(unit, units[unit]), [record for batch in store.resume(unit) for record in batch]
            if known:
                resumed()
            for start in range(len(known), len(rows), BATCH):
                require_kept(claim)
                store.append(unit, rows[start : start + BATCH])
                known += rows[start : start + BATCH]
            require_kept(claim)
            store.finish(unit, known, units[unit])
        finally:
            claim.release()
    return not left


def _writer(folder: Path, units: dict[str, Facts], seed: int, resumed: Any) -> None:
    order, store = list(units), Store(folder)
    random.Random(seed).shuffle(order)

    def count() -> None:
        with resumed.get_lock():
            resumed.value += 1

    while not _write(store, units, order, count):
        time.sleep(0.05)
    os._exit(0)


def _many_writers(
    folder: Path, units: dict[str, Facts], writers: int, kills: int, seed: int
) -> tuple[dict[str, int], float]:
    """Write all units with several processes and kill some of them; how many were, how many journals were gone on
    with, and the seconds that it took."""
    folder.mkdir(parents=True)
    dice, resumed, started = random.Random(seed), CONTEXT.Value("i", 0), 0
    at = sorted(dice.sample(range(1, len(units)), min(kills, len(units) - 1)))
    live: list[Any] = []
    killed, began = 0, time.perf_counter()
    while True:
        ended = [one for one in live if not one.is_alive()]
        for one in ended:
            one.join()
            live.remove(one)
            if one.exitcode not in (0, -signal.SIGKILL):
                raise RuntimeError(f"a writer ended with {one.exitcode}")
        finished = sum(entry.name.endswith(".parquet") for entry in os.scandir(folder))
        if finished == len(units) and not live:
            break
        while len(live) < writers and finished < len(units):
            process = CONTEXT.Process(target=_writer, args=(folder, units, 1000 * seed + started, resumed))
            process.start()
            live, started = [*live, process], started + 1
        if at and finished >= at[0] and live:
            at.pop(0)
            victim = dice.choice(live)
            if victim.is_alive():
                os.kill(victim.pid, signal.SIGKILL)
                killed += 1
        time.sleep(dice.uniform(0.01, 0.06))
    return {"kills": killed, "journals resumed": resumed.value}, time.perf_counter() - began


def _reading(home: Path, units: dict[str, Facts], when: str) -> dict[str, float]:
    """CPU seconds of a query, of the same again, of reading everything, and of what a report makes of it first."""
    records = home / "records"
    query = RecordQuery(("b",), ("vt",))

    def ask() -> int:
        return sum(row["records"] for row in count_rows(query_records(home, query, COLUMNS)))

    costs: dict[str, float] = {}
    if not when:
        (records / "_catalog.jsonl").unlink()
        costs["query without catalog, CPU s"] = _timed(ask)[0]
    costs[f"query{when}, CPU s"], found = _timed(ask)
    costs[f"counts of all{when}, CPU s"] = _timed(lambda: count_rows(query_records(home, RecordQuery(), COLUMNS)))[0]
    costs[f"read{when}, CPU s"], table = _timed(lambda: Store(records).read(units))
    if found != len(table.filter(pc.and_(pc.equal(table["model"], "b"), pc.equal(table["task"], "vt")))):
        raise RuntimeError("the query lacks records")
    if not when:
        costs["report, CPU s"] = _timed(lambda: load_records(_study(units), table))[0]
        costs["MB in memory"] = _mb(table.nbytes)
    return costs


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    began = time.process_time()
    value = work()
    return round(time.process_time() - began, 2), value


def _mb(count: int) -> float:
    return round(count / 1e6, 1)


def _study(units: dict[str, Facts]) -> StudyFacts:
    runs = [RunFacts(m, m, "none", 0, 512, 1, 1, 1, None, None, "0" * 32, 0, "c" * 16, "swept") for m in MODELS]
    tasks = [TaskFacts(name, name, 0.25, True, "") for name in TASKS]
    cells: dict[tuple[Any, ...], dict[str, Any]] = {}
    for own in units.values():
        for cell in own["cells"] if own["name"] == MODELS[0] else ():
            key = (cell["task"], cell["length"], cell["depth"])
            cells[key] = cell | {"n": cell["n"] + cells.get(key, {"n": 0})["n"]}
    return StudyFacts("store", runs, tasks, [], 0.0, [], {}, "", list(cells.values()))
