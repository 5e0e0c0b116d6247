"""The report of `python -m lcprobe_kernels`, and the choice of backends in words."""

import platform
import re
from collections.abc import Iterable, Sequence
from importlib.metadata import PackageNotFoundError, version
from typing import NamedTuple

import torch

from lcprobe_kernels import OPS, backends
from lcprobe_kernels.abilities import ABILITIES, FEATURES
from lcprobe_kernels.choosing import Request
from lcprobe_kernels.errors import ArgumentError
from lcprobe_kernels.peers import PEERS, installed

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "fp64": torch.float64}
HEAD_DIM = 128


def report(chosen: str, ops: Sequence[str] = (), device: str | None = None, dtype: str | None = None) -> list[str]:
    """Lines about the machine, the backends and the ops, for a value of kernels.backend. Raises ArgumentError for
    names that do not exist, and for a backend that does not work on the device."""
    for op in ops:
        if op not in OPS:
            raise ArgumentError("op", repr(op), " | ".join(OPS))
    kind, capability = device_of(device)
    gpu = kind == "cuda"
    check_backend(chosen, gpu)
    dtypes = [dtype_of(dtype)] if dtype is not None else [DTYPES["fp32"], DTYPES["bf16"]]
    name = torch.cuda.get_device_name() if gpu and torch.cuda.is_available() else ""
    lines = [f"torch {torch.__version__}, triton {_version('triton')}, python {platform.python_version()}"]
    lines.append(f"{device or kind}: {name or ('not here' if gpu else _processor())}")
    lines += ["", *table([("backend", "version", "here"), *(_backend(name, gpu) for name in backends.BACKENDS)])]
    requests = {
        (op, needs): [Request(op, kind, of, frozenset(needs), HEAD_DIM, capability) for of in dtypes]
        for op in ops or OPS
        for needs in ((), *((feature,) for feature in (FEATURES[op] if ops else ())))
    }
    rows = [("op", "with", *(short(of) for of in dtypes), "not")]
    for (op, needs), of_dtypes in requests.items():
        taken = [decision(request, chosen, gpu) for request in of_dtypes]
        rows.append((op, FEATURES[op][needs[0]] if needs else "-", *(d.backend for d in taken), taken[-1].against))
    return [*lines, "", *table(rows), "", *reasons(list(ops or OPS))]


class Decision(NamedTuple):
    """backend: that a call takes, or "refused". against: why none of those is taken that `auto` tries before it, or
    why it is refused. reason: why this one is."""

    backend: str
    against: str
    reason: str


def decision(request: Request, chosen: str, gpu: bool) -> Decision:
    """What a call takes with kernels.backend=chosen, in words. gpu: as for `backends.missing`."""
    try:
        choice = backends.choice_for(request, chosen, gpu)
    except ArgumentError as error:
        return Decision("refused", str(error).removeprefix("kernels.backend: given "), "")
    order = list(ABILITIES[request.op])
    before = order[: order.index(choice.backend)] if chosen == "auto" else []
    against = "; ".join(f"{name}: {choice.against[name]}" for name in before if name in choice.against)
    return Decision(choice.backend, against, choice.reason)


def reasons(ops: Sequence[str]) -> list[str]:
    """Why `auto` takes what it takes, and what it leaves to be chosen by name: a line for each op and backend."""
    rows = [("auto tries, in this order", "because")]
    for op in ops:
        for name, ability in ABILITIES[op].items():
            limits = [f"by name only{f' ({key})' if key else ''}: {why}" for key, why in ability.by_name.items()]
            rows.append((f"{op}: {name}", "; ".join([ability.why, *(limits if name not in ("triton",) else [])])))
    return table(rows)


def device_of(name: str | None) -> tuple[str, tuple[int, int] | None]:
    """Type of a device and compute capability, from cpu, cuda or sm_90; None: as here. Raises ArgumentError for
    others."""
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "cpu"
    sm = re.fullmatch(r"sm_(\d+)(\d)", name)
    if sm is not None:
        return "cuda", (int(sm[1]), int(sm[2]))
    if name not in ("cpu", "cuda"):
        raise ArgumentError("--device", repr(name), "cpu | cuda | sm_80, sm_90 ...")
    return name, torch.cuda.get_device_capability() if name == "cuda" and torch.cuda.is_available() else None


def dtype_of(name: str) -> torch.dtype:
    """A dtype by its short name. Raises ArgumentError for others."""
    if name not in DTYPES:
        raise ArgumentError("--dtype", repr(name), " | ".join(DTYPES))
    return DTYPES[name]


def check_backend(chosen: str, gpu: bool) -> None:
    """Raises ArgumentError for a name that is none, or of a backend that does not work on such a device."""
    if chosen not in backends.BACKENDS:
        raise ArgumentError("kernels.backend", repr(chosen), " | ".join(backends.BACKENDS))
    why = backends.missing(chosen, gpu)
    if why is not None:
        raise ArgumentError("kernels.backend", repr(chosen), f"one that works here ({why})")


def table(rows: Iterable[tuple[str, ...]]) -> list[str]:
    """A table in left-aligned columns."""
    rows = list(rows)
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _backend(name: str, gpu: bool) -> tuple[str, str, str]:
    reason = backends.missing(name, gpu)
    slow = name == "triton" and not gpu and reason is None
    works = "yes, in Triton's interpreter (slow, for tests)" if slow else "yes"
    found = installed(name) if name in PEERS else _version("triton") if name == "triton" else ""
    return name, found or "", works if reason is None else f"no: {reason}"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def short(dtype: torch.dtype) -> str:
    """A dtype's short name."""
    return next(name for name, of in DTYPES.items() if of == dtype)
