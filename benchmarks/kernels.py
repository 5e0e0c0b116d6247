"""Every op, forward and backward, beside each peer that can be imported here: first correctness, then speed.

A case is checked against its reference; a wrong one is reported and not timed. Then our implementation and the peers
run in several interleaved rounds, and the median is reported. The floor is the least time that this machine's matrix
products (float32 on a CPU, bfloat16 on a GPU) or copies need for the work, both measured in the same run; "share of
floor" is the floor over our time.
"""

import statistics
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

import torch
from lcprobe_kernels import OPS

from benchmarks.ops.case import Case
from lcprobe.errors import ConfigError, unknown_name

TITLE = "kernels: forward and backward, milliseconds"
OPTIONS = ("ops", "rounds", "budget")
MAX_ERROR = {"float32": 1e-4, "float16": 1e-2, "bfloat16": 5e-2}
"""The relative error up to which a case is correct: kernels accumulate in float32, inputs and outputs are rounded."""
SAMPLE = 0.005
"""Seconds that one measurement covers at least, so that clock resolution and launch overhead do not matter."""


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per case and peer. options: ops (comma-separated), rounds (at most), budget (seconds for all of it)."""
    names = options["ops"].split(",") if "ops" in options else list(OPS)
    for name in names:
        if name not in OPS:
            raise unknown_name("op", name, OPS)
    rounds, budget = _number(options, "rounds", 9), _number(options, "budget", 300)
    gpu = torch.cuda.is_available()
    machine, rows = Machine(gpu), []
    end = time.perf_counter() + budget
    for i, name in enumerate(names):
        until = _share(end, len(names) - i)
        cases = import_module(f"benchmarks.ops.{name}").cases(gpu)
        for j in range(len(cases)):
            case, cases[j] = cases[j], None  # frees its tensors when it is done
            machine.measure()
            rows += _case(case, rounds, _share(until, len(cases) - j), gpu)
            print(" ".join(str(rows[-1][key]) for key in ("op", "shape", "dtype", "ours ms", "error")), flush=True)
    return [machine.judge(row) for row in rows]


class Machine:
    """The fastest matrix products and copies measured during the run. clock: seconds, on a CPU."""

    def __init__(self, gpu: bool, clock: Callable[[], float] = time.perf_counter):
        self.gpu, self.clock, self.flops, self.bytes = gpu, clock, 0.0, 0.0
        size, dtype, self.device = (8192, torch.bfloat16, "cuda") if gpu else (1024, torch.float32, "cpu")
        self.a = torch.ones(size, size, dtype=dtype, device=self.device)
        self.b = torch.empty_like(self.a)

    def measure(self) -> None:
        """Measure both again, which takes about a tenth of a second."""
        source = torch.ones(2**29 if self.gpu else 2**24, device=self.device)
        target = torch.empty_like(source)
        for _ in range(3):
            product = timed(lambda: torch.mm(self.a, self.a, out=self.b), 1, self.gpu, self.clock)
            copy = timed(lambda: target.copy_(source), 1, self.gpu, self.clock)
            self.flops = max(self.flops, 2 * len(self.a) ** 3 / product)
            self.bytes = max(self.bytes, 2 * source.nbytes / copy)

    def judge(self, row: dict[str, Any]) -> dict[str, Any]:
        """A row with its share of the floor, from the measurements of the whole run."""
        ours, flops, moved = row["ours ms"], row.pop("flops"), row.pop("bytes")
        floor = 1e3 * max(flops / self.flops, moved / self.bytes)
        row["share of floor"] = None if ours is None else f"{floor / ours:.0%}"
        return row | {"GFLOP/s": round(self.flops / 1e9), "GB/s": round(self.bytes / 1e9)}


def timed(run: Callable[[], object], times: int, gpu: bool, clock: Callable[[], float] = time.perf_counter) -> float:
    """Seconds of one run, over `times` of them; by `clock` on a CPU."""
    if gpu:
        begin, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
        begin.record()
        for _ in range(times):
            run()
        end.record()
        end.synchronize()
        return begin.elapsed_time(end) / 1e3 / times
    start = clock()
    for _ in range(times):
        run()
    return (clock() - start) / times


def _case(case: Case, rounds: int, until: float, gpu: bool) -> list[dict[str, Any]]:
    """Rows of a case. Every candidate runs twice at least, once to warm up; if the time `until` is reached, with
    fewer rounds."""
    facts = {"op": case.op, "shape": case.shape, "dtype": case.dtype}
    cost = {"flops": case.flops, "bytes": case.bytes}
    error, wrong = _error(case)
    if wrong:
        unmeasured = {"ours ms": None, "peer": "", "peer ms": None, "ratio": None}
        return [facts | unmeasured | {"error": error, "rounds": 0} | cost]
    runs, failed = {"": case.run, **case.peers}, {}
    repeats: dict[str, int] = {}
    for name, run in list(runs.items()):
        try:
            run()  # compiles, tunes, allocates
            repeats[name] = max(1, min(100, int(SAMPLE / timed(run, 1, gpu))))
        except Exception as problem:  # a peer that fails is a row, not the end of the run
            if not name:
                raise
            failed[name] = _line(problem)
            del runs[name]
    times: dict[str, list[float]] = {name: [] for name in runs}
    done = 0
    while not done or (done < rounds and time.perf_counter() < until):
        for name, run in runs.items():
            times[name].append(timed(run, repeats[name], gpu))
        done += 1
    medians = {name: 1e3 * statistics.median(t) for name, t in times.items()}
    ours = medians.pop("")
    rows: list[dict[str, Any]] = [
        {"peer": name, "peer ms": _digits(ms), "ratio": f"{ms / ours:.2f}"} for name, ms in medians.items()
    ]
    rows += [{"peer": name, "peer ms": why, "ratio": None} for name, why in failed.items()]
    rows = rows or [{"peer": "", "peer ms": None, "ratio": None}]
    return [facts | {"ours ms": _digits(ours)} | row | {"error": error, "rounds": done} | cost for row in rows]


def _error(case: Case) -> tuple[str, bool]:
    """The relative error as text, and whether it is too large."""
    try:
        error = case.check()
    except Exception as problem:
        return f"WRONG: {_line(problem)}", True
    wrong = not error <= MAX_ERROR[case.dtype]  # NaN is wrong
    return f"{'WRONG ' if wrong else ''}{error:.1e}", wrong


def _line(problem: Exception) -> str:
    """An error in one short line."""
    return f"{type(problem).__name__}: {problem}".splitlines()[0][:100]


def _digits(milliseconds: float) -> float:
    """Rounded to three significant digits."""
    return float(f"{milliseconds:.3g}")


def _share(end: float, left: int) -> float:
    """The time until which the next of `left` equal parts may run."""
    now = time.perf_counter()
    return now + max(0.0, end - now) / left


def _number(options: dict[str, str], name: str, otherwise: int) -> int:
    text = options.get(name, str(otherwise))
    if not text.isdigit() or not int(text):
        raise ConfigError(name, text, "an integer >= 1")
    return int(text)
