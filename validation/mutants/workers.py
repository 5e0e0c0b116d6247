"""Tests of a copy of the repository, in a process forked off one that has imported torch and Triton already.

Starting pytest takes longer than most tests here. What failed most often, by the time that it takes, runs first.
"""

import multiprocessing
import sys
import time
from collections import Counter
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from os import devnull
from pathlib import Path
from typing import Any

PRELOADED = [
    "hypothesis",
    "numpy",
    "pytest",
    "scipy",
    "torch",
    "torch._dynamo",
    "triton",
    "triton.runtime.interpreter",
]
SKIPPED = (
    "not torch and not reference and not gradcheck and not peer and not registered and not compile and not opcheck "
    "and not float64"
)
"""Tests that run none of Triton's kernels, or do so for another reason."""
SEE_NO_TRITON = "not gradcheck and not compiled and not opcheck"
"""The same for an op without Triton's kernels."""


@dataclass(frozen=True)
class Outcome:
    """pytest's exit status (None: out of time), the first test that failed (""; none, or it is not known), and the
    CPU time."""

    code: int | None
    failed: str
    seconds: float


@dataclass
class Order:
    """What was seen of each test so far: failures, CPU seconds, and which pass without a mutant."""

    failures: Counter[str] = field(default_factory=Counter)
    seconds: dict[str, float] = field(default_factory=dict)
    sound: set[str] = field(default_factory=set)

    def rank(self, test: str, guess: float) -> float:
        """Small first: failures a second, where each has had half of one before it was seen. guess: of its CPU
        seconds."""
        return -(self.failures[test] + 0.5) / self.seconds.get(test, guess)


def tested(tests: tuple[str, ...], copy: Path, seconds: int, order: Order) -> Outcome:
    """Run tests of the copy until one test fails; `order` learns from it."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(PRELOADED)
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=_run, args=(tests, str(copy), order, theirs))
    process.start()
    theirs.close()
    try:
        code, failed, took, total = ours.recv() if ours.poll(seconds) else (None, "", {}, float(seconds))
    except EOFError:
        code, failed, took, total = None, "", {}, 0.0  # it died
    process.kill()
    process.join()
    order.seconds |= took
    order.failures[failed] += bool(code)
    return Outcome(code, failed, total)


class _Watch:
    """A plugin of pytest that sorts the tests, and notes their times and the first failure."""

    def __init__(self, order: Order):
        self.order, self.failed, self.took, self._begin = order, "", dict[str, float](), 0.0

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        items.sort(
            key=lambda item: self.order.rank(item.nodeid, 20.0 if item.get_closest_marker("hypothesis") else 1.0)
        )

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._begin = time.process_time()

    def pytest_runtest_logfinish(self, nodeid: str) -> None:
        self.took[nodeid] = time.process_time() - self._begin

    def pytest_runtest_logreport(self, report: Any) -> None:
        self._note(report)

    def pytest_collectreport(self, report: Any) -> None:
        self._note(report)

    def _note(self, report: Any) -> None:
        if report.failed and not self.failed:
            self.failed = report.nodeid


def _run(tests: tuple[str, ...], copy: str, order: Order, result: Connection) -> None:
    """In the forked process: what is imported from here on is the copy's."""
    import hypothesis
    import pytest
    import torch

    assert "lcprobe_kernels" not in sys.modules
    begin, watch = time.process_time(), _Watch(order)
    sys.path[:0] = [copy, f"{copy}/kernels"]
    sys.dont_write_bytecode = True
    torch.set_num_threads(1)
    # a failure is one, whatever the smallest case is
    phases = (hypothesis.Phase.explicit, hypothesis.Phase.generate)
    hypothesis.settings.register_profile("mutants", phases=phases, database=None, report_multiple_bugs=False)
    hypothesis.settings.load_profile("mutants")
    wanted = SEE_NO_TRITON if "gated_linear" in tests[0] else SKIPPED
    options = ["-x", "-q", "--tb=no", "-o", "addopts=", "--import-mode=importlib", f"--rootdir={copy}"]
    options += ["-p", "no:cacheprovider", "-p", "no:xdist", f"--confcutdir={copy}/tests/kernels"]
    with open(devnull, "w") as nowhere, redirect_stdout(nowhere), redirect_stderr(nowhere):
        code = pytest.main(
            [*options, "-k", wanted, "-m", "not slow and not gpu", *(f"{copy}/{t}" for t in tests)], [watch]
        )
    result.send((int(code), watch.failed, watch.took, time.process_time() - begin))
