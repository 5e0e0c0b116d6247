"""`python -m lcprobe_kernels [--backend NAME]`: this machine, the backends that work on it, and what each op uses
here."""

import argparse
import platform
import sys
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version

import torch

from lcprobe_kernels import OPS, backends
from lcprobe_kernels.errors import ArgumentError

DTYPES = (torch.float32, torch.bfloat16)


def main(arguments: Sequence[str]) -> int:
    """Print the report. Returns 0, or 2 after a one-line error about a backend that does not exist or does not work
    here."""
    parser = argparse.ArgumentParser(prog="python -m lcprobe_kernels", description=(__doc__ or "").split(": ", 1)[1])
    parser.add_argument("--backend", default="auto", metavar="NAME", help=" | ".join(backends.BACKENDS))
    chosen = parser.parse_args(arguments).backend
    try:
        with backends.using(chosen):
            print("\n".join(report(chosen)))
    except ArgumentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def report(chosen: str) -> list[str]:
    """Lines about the machine, then the backends, then the ops with the implementation that the chosen backend gives
    them."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    lines = [f"torch {torch.__version__}, triton {_version('triton')}, python {platform.python_version()}"]
    lines.append(f"{device.type}: {torch.cuda.get_device_name() if device.type == 'cuda' else _processor()}")
    rows = [("backend", "here")]
    rows += [(name, _works(backends.missing(name), name)) for name in backends.BACKENDS]
    lines += ["", *_table(rows)]
    rows = [(f"op, backend {chosen}", *(str(dtype).removeprefix("torch.") for dtype in DTYPES))]
    rows += [(op, *(backends.path_of(op, device, dtype) for dtype in DTYPES)) for op in OPS]
    return [*lines, "", *_table(rows)]


def _works(reason: str | None, name: str) -> str:
    if reason is not None:
        return f"no: {reason}"
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
    """A table in left-aligned columns."""
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
