"""Mutants: does a test fail if a line of a kernel is wrong?

A mutant is one replacement of text in `kernels/`. Each is written into a copy of the repository, where the tests of
its op run in Triton's interpreter until one fails: the mutant is killed. One that survives is a hole in the tests, or
is no fault and says why (`Mutant.why`).
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from lcprobe.errors import ConfigError
from validation.mutants.mutant import Mutant
from validation.mutants.scans import SCANS
from validation.mutants.softmax import SOFTMAX

TITLE = "mutants: faults in the kernels that the tests see"
OPTIONS = ("ops", "part", "seconds")
MUTANTS: tuple[Mutant, ...] = (*SCANS, *SOFTMAX)
ROOT = Path(__file__).resolve().parents[2]
COPIED = ("kernels", "lcprobe", "tests", "validation", "benchmarks", "pyproject.toml")
"""What the tests of kernels need."""


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per mutant. options: ops (comma-separated), part (i/n: every n-th mutant, from the i-th), seconds (of a
    mutant's tests: what takes longer, hangs)."""
    ops = options["ops"].split(",") if "ops" in options else sorted({m.op for m in MUTANTS})
    for op in ops:
        if op not in {m.op for m in MUTANTS}:
            raise ConfigError("ops", op, ", ".join(sorted({m.op for m in MUTANTS})))
    first, _, every = options.get("part", "0/1").partition("/")
    if not (first.isdigit() and every.isdigit() and int(first) < int(every)):
        raise ConfigError("part", options["part"], "i/n, 0 <= i < n")
    seconds = options.get("seconds", "1800")
    if not seconds.isdigit() or not int(seconds):
        raise ConfigError("seconds", seconds, "an integer >= 1")
    chosen = [m for m in MUTANTS if m.op in ops][int(first) :: int(every)]
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        copy = copied(Path(folder))
        for mutant in chosen:
            rows.append(judged(mutant, copy, int(seconds)))
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
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__", "results"))
        else:
            shutil.copy(source, folder / name)
    return folder


def judged(mutant: Mutant, copy: Path, seconds: int) -> dict[str, Any]:
    """A row: run the mutant's tests in the copy, and put the file back. Raises ConfigError for tests that do not
    run."""
    path = copy / mutant.path
    before, start = path.read_text(encoding="utf-8"), time.perf_counter()
    path.write_text(mutant.applied(before), encoding="utf-8")
    try:
        code, failed = _tested(mutant.tests, copy, seconds)
    finally:
        path.write_text(before, encoding="utf-8")
    if code not in (0, 1, None):
        raise ConfigError(f"tests of {mutant.path}", f"exit status {code}: {failed}", "tests that run")
    verdict = "killed" if code != 0 else "equivalent" if mutant.why else "SURVIVED"
    return {
        "op": mutant.op,
        "file": mutant.path.rpartition("/")[2],
        "old": " ".join(mutant.old.split()),
        "new": " ".join(mutant.new.split()),
        "verdict": verdict,
        "by": failed or mutant.why,
        "seconds": round(time.perf_counter() - start),
    }


def _tested(tests: tuple[str, ...], copy: Path, seconds: int) -> tuple[int | None, str]:
    """pytest's exit status (None: out of time) and the first test that failed."""
    environment = os.environ | {
        "TRITON_INTERPRET": "1",
        "OMP_NUM_THREADS": "1",
        "PYTHONPATH": f"{copy}{os.pathsep}{copy / 'kernels'}",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    command = [sys.executable, "-m", "pytest", "-n0", "-x", "-q", "--no-header", "--tb=no", "-p", "no:cacheprovider"]
    try:
        done = subprocess.run(
            [*command, *tests],
            env=environment,
            cwd=copy,
            capture_output=True,
            text=True,
            check=False,
            timeout=seconds,
        )
    except subprocess.TimeoutExpired:
        return None, f"more than {seconds} seconds"
    names = [line for line in done.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    first = names[0].split(" ")[1].rpartition("::")[2] if names else done.stdout.strip().splitlines()[-1:]
    return done.returncode, str(first) if done.returncode else ""
