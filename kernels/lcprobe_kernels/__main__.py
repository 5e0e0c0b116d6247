"""`python -m lcprobe_kernels [--backend NAME]`: this machine, the backends that work on it, and what each op takes here."""

import argparse
import platform
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

import torch

from lcprobe_kernels import backends
from lcprobe_kernels.errors import ArgumentError

DTYPES = (torch.float32, torch.bfloat16)


def main(arguments: Sequence[str]) -> int:
    """Print the report. Returns 0, or 2 after one line about a backend that there is not, or not here."""
    parser = argparse.ArgumentParser(prog="python -m lcprobe_kernels", description=(__doc__ or "").split(": ", 1)[1])
    parser.add_argument("--backend", default="auto", metavar="NAME", help=" | ".join(backends.BACKENDS))
    chosen = parser.parse_args(arguments).backend
    try:
        with backends.using(chosen):
            print("\n".join(report(chosen)))
    except ArgumentError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def report(chosen: str) -> list[str]:
    """Lines: the machine, then backends, then ops under the backend that is in force."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lines = [f"torch {torch.__version__}, triton {_version('triton')}, python {platform.python_version()}"]
    lines.append(f"{device.type}: {torch.cuda.get_device_name() if device.type == 'cuda' else _processor()}")
    rows = [("backend", "here")]
    rows += [(name, _works(backends.missing(name), name)) for name in backends.BACKENDS]
    lines += ["", *_table(rows)]
    rows = [(f"op, backend {chosen}", *(str(dtype).removeprefix("torch.") for dtype in DTYPES))]
    rows += [(op, *(path(op, device, dtype) for dtype in DTYPES)) for op in backends.PEERS]
    return [*lines, "", *_table(rows)]


def path(op: str, device: torch.device, dtype: torch.dtype) -> str:
    """What an op runs for such tensors: as it says itself where it has more to say than `backends.path_of`."""
    module = f"lcprobe_kernels.{op}"
    own = getattr(import_module(module), "path", None) if find_spec(module) is not None else None
    return backends.path_of(op, device, dtype) if own is None else own(device, dtype)


def _works(why_not: str | None, name: str) -> str:
    if why_not is not None:
        return f"no: {why_not}"
    slow = name == "triton" and backends.interpreting()
    return "yes, in Triton's interpreter (slow, for tests)" if slow else "yes"


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


def _processor() -> str:
    return f"{platform.processor() or platform.machine()}, {torch.get_num_threads()} threads"


def _table(rows: Sequence[tuple[str, ...]]) -> list[str]:
    """Left-aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
