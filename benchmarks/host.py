"""The host of a training step on a GPU: CPU time of the Python side of a micro-batch, by kind of layer.

A model of tiny sizes is trained on a CPU, under bfloat16 autocast: its arithmetic takes next to nothing, so that what
is left is the work of the interpreter, of autograd and of PyTorch's dispatcher, which a GPU's host has too. Our ops
run their real Triton launchers up to the launch itself, which is counted and left out. A micro-batch of n layers
takes a + b n; b is fitted through two depths, in turn, with the least of several rounds each. What is not in it: the
time of a launch (PyTorch's kernels are called here as well, on a CPU), and collectives of processes.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from lcprobe_kernels import backends

from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import build
from lcprobe.training.compiling import compile_blocks
from lcprobe.training.config import TrainConfig
from lcprobe.training.optim import make_optimizer

TITLE = "the host of a training step, by kind of layer: CPU time and Triton launches of a forward and backward pass"
OPTIONS = ("rounds", "ways")
GROUP = ("kind", "compiled")
DEPTHS = (2, 10)
CONV = {"type": "attention", "head_dim": 16, "d_conv": 4, "positional": {"type": "rope", "fraction": 0.5}}
LAYOUTS = {"mamba2": "mamba2", "attention": "attention", "attention, d_conv 4": "with_conv", "mlp": "attention+mlp"}
"""Kinds of layers, and the block that has one; that of an MLP is what it adds to an attention."""
MODEL = {
    "d_model": 32,
    "d_ff": 64,
    "vocab_size": 64,
    "mixers": {
        "mamba2": {"head_dim": 16, "d_state": 16},
        "attention": {"head_dim": 16},
        "with_conv": CONV,
    },
}
LENGTH = 16


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per kind of layer, uncompiled and compiled (minutes of compiling). options: rounds (15); ways
    (eager,compiled)."""
    rounds = int(options.get("rounds", 15))
    rows: list[dict[str, Any]] = []
    for way in options.get("ways", "eager,compiled").split(","):
        found = _layers(way == "compiled", rounds)
        base = found["attention"]
        for kind, values in found.items():
            own = {name: v - base[name] if kind == "mlp" else v for name, v in values.items()}
            figures = {name: round(value, 3) for name, value in own.items()}
            rows.append({"kind": kind, "compiled": way == "compiled", **figures})
            print(rows[-1], flush=True)
    return rows


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """What 64 layers of Mamba2 and 32 of Transformer++ take, the depths at 2.7 B."""
    of = {(row["kind"], row["compiled"]): row for row in rows}
    models = {"mamba2 x 64": {"mamba2": 64}, "attention+mlp x 32": {"attention": 32, "mlp": 32}}
    lines = []
    for compiled in sorted({compiled for _, compiled in of}):
        for name, layers in models.items():
            parts = [(n, of[kind, compiled]) for kind, n in layers.items()]
            python, launches = (sum(n * row[key] for n, row in parts) for key in ("ms", "launches"))
            lines.append(
                f"{name}, {'compiled' if compiled else 'uncompiled'}: {python:.0f} ms a micro-batch and "
                f"{launches:.0f} Triton launches"
            )
    return lines


def _layers(compiled: bool, rounds: int) -> dict[str, dict[str, float]]:
    """By kind of layer, what one more block takes. All models take turns, so that a busy moment meets all of them."""
    steps = {(kind, n): _Steps(layout, n, compiled) for kind, layout in LAYOUTS.items() for n in DEPTHS}
    passes, updates = ({key: [] for key in steps} for _ in range(2))
    counts: dict[tuple[str, int], int] = {}
    with launchers_without_launches() as launched:
        for turn in range(rounds + 3):  # the first ones compile, warm up, and make moments
            for key, one in steps.items():
                before = launched[0]
                passed, updated = _timed(one.micro_batch), _timed(one.update)
                counts[key] = launched[0] - before
                if turn > 2:
                    passes[key].append(passed)
                    updates[key].append(updated)
    low, high = DEPTHS
    each = lambda of, kind: (of[kind, high] - of[kind, low]) / (high - low)  # noqa: E731
    passed, updated = ({key: 1000 * min(times) for key, times in of.items()} for of in (passes, updates))
    return {
        kind: {
            "ms": each(passed, kind),
            "launches": each(counts, kind),
            "clip and AdamW, ms": each(updated, kind),
            "rest of a micro-batch, ms": passed[kind, low] - low * each(passed, kind),
        }
        for kind in LAYOUTS
    }


class _Steps:
    """A model, with what its steps do."""

    def __init__(self, layout: str, depth: int, compiled: bool):
        config = build(ModelConfig, {**MODEL, "layout": f"{layout} x {depth}"}, "model")
        self.model = LanguageModel(config).initialise(0)
        if compiled:
            compile_blocks(self.model)
        train = build(TrainConfig, {"context_length": LENGTH, "batch_tokens": LENGTH, "tokens": LENGTH}, "train")
        self.optimizer = make_optimizer(train, self.model)
        self.tokens = torch.zeros(1, LENGTH, dtype=torch.int64)
        self.starts = (torch.arange(LENGTH) == LENGTH // 2)[None]  # two documents, which do not see each other
        self.weights, self.predicted = torch.ones(1, LENGTH), torch.arange(LENGTH - 1)

    def micro_batch(self) -> None:
        """Forward and backward."""
        with torch.autocast("cpu", torch.bfloat16):
            loss, *_ = self.model.loss(self.tokens, self.weights, starts=self.starts, predicted=self.predicted)
        loss.backward()

    def update(self) -> None:
        """Clip and take the optimiser's step."""
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0, foreach=True)
        self.optimizer.step()
        self.optimizer.zero_grad()


def _timed(call: Callable[[], None]) -> float:
    begin = time.process_time()
    call()
    return time.process_time() - begin


@contextmanager
def launchers_without_launches() -> Iterator[list[int]]:
    """Inside, ops on a CPU take the path of a GPU through Triton's launchers, which launch nothing, and
    counts what they would."""
    from triton.runtime import driver
    from triton.runtime.jit import JITFunction

    launched = [0]

    def count(self: Any, *args: Any, grid: Any, warmup: bool = False, **options: Any) -> None:
        launched[0] += 1

    with ExitStack() as stack:
        stack.enter_context(patch.object(JITFunction, "run", count))
        stack.enter_context(patch.object(driver, "_active", _Driver()))
        stack.enter_context(backends.assuming("triton"))
        yield launched


class _Driver:
    """In place of a GPU's driver: limits of an H100."""

    def __init__(self) -> None:
        self.utils = self

    def get_current_device(self) -> int:
        return 0

    def get_device_properties(self, device: int) -> dict[str, int]:
        return {"max_shared_mem": 232_448, "multiprocessor_count": 132}
