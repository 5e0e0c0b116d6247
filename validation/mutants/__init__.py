"""Mutants: does a test fail if a line of a kernel is wrong?

A mutant is one replacement of text in `kernels/`. Each is written into a copy of the repository, where the tests of
its op run in Triton's interpreter until one fails: the mutant is killed. One that survives is a hole in the tests, or
is no fault and says why (`Mutant.why`). A test that kills must pass without the mutant.
"""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from lcprobe.errors import ConfigError, unknown_name
from validation.mutants.mutant import Mutant
from validation.mutants.scans import SCANS
from validation.mutants.softmax import SOFTMAX
from validation.mutants.workers import Order, tested

TITLE = "mutants: faults in the kernels that the tests see"
OPTIONS = ("ops", "only", "seconds")
GROUP = ("op", "file", "old", "new")
MUTANTS: tuple[Mutant, ...] = (*SCANS, *SOFTMAX)
ROOT = Path(__file__).resolve().parents[2]
COPIED = ("kernels", "tests", "pyproject.toml")
"""What the tests of kernels need."""


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per mutant. options: ops (comma-separated), only (text that the mutant replaces, or a part of it),
    seconds (of a mutant's tests: what takes longer, hangs). Raises ConfigError for a test that fails without a
    mutant."""
    known = dict.fromkeys(mutant.op for mutant in MUTANTS)
    ops = options["ops"].split(",") if "ops" in options else list(known)
    for op in ops:
        if op not in known:
            raise unknown_name("ops", op, known)
    seconds = options.get("seconds", "1800")
    if not seconds.isdigit() or not int(seconds):
        raise ConfigError("seconds", seconds, "an integer >= 1")
    os.environ["TRITON_INTERPRET"] = "1"  # which Triton looks at when it is imported, in the workers
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder))
        for op in ops:
            order = Order()
            for mutant in MUTANTS:
                if mutant.op == op and options.get("only", "") in mutant.old:
                    rows.append(judged(mutant, copy, int(seconds), order))
                    print(" | ".join(str(value) for value in rows[-1].values()), flush=True)
    return rows


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """How many were killed, and what survived unexplained."""
    count = {
        verdict: sum(row["verdict"] == verdict for row in rows) for verdict in ("killed", "equivalent", "SURVIVED")
    }
    told = ", ".join(f"{n} {verdict}" for verdict, n in count.items())
    return [f"{len(rows)} mutants: {told}"]


def copied(folder: Path) -> Path:
    """A copy of the repository's code in `folder`."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


def judged(mutant: Mutant, copy: Path, seconds: int, order: Order) -> dict[str, Any]:
    """A row: run the mutant's tests in the copy, and put the file back; the first time that a test kills, run it
    again without the mutant. Raises ConfigError where it fails there too, and for tests that do not run."""
    path = copy / mutant.path
    before = path.read_text(encoding="utf-8")
    path.write_text(mutant.applied(before), encoding="utf-8")
    try:
        outcome = tested(mutant.tests, copy, seconds, order)
    finally:
        path.write_text(before, encoding="utf-8")
    if outcome.code not in (0, 1, None):
        raise ConfigError(f"tests of {mutant.path}", f"exit status {outcome.code}", "tests that run")
    if outcome.failed and outcome.failed not in order.sound:
        without = tested((outcome.failed,), copy, seconds, order)
        if without.code != 0:
            raise ConfigError(outcome.failed, "failed without a mutant", "a test that passes without one")
        order.sound.add(outcome.failed)
    verdict = "killed" if outcome.code != 0 else "equivalent" if mutant.why else "SURVIVED"
    return {
        "op": mutant.op,
        "file": mutant.path.rpartition("/")[2],
        "old": " ".join(mutant.old.split()),
        "new": " ".join(mutant.new.split()),
        "verdict": verdict,
        "by": outcome.failed.rpartition("/")[2] or mutant.why,
        "CPU seconds": round(outcome.seconds, 1),
    }
