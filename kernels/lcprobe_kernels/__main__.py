"""`python -m lcprobe_kernels [OP ...]`: this machine, the backends that work on it, and for each op, and with OP for
each of its features, which one a call takes and why not those before it. `python -m lcprobe_kernels CONFIG.yaml ...
[key=value ...]`: the same for the models of a config, by `lcprobe kernels`, whose options it has."""

import argparse
import sys
from collections.abc import Sequence
from importlib.metadata import entry_points

from lcprobe_kernels import OPS, backends
from lcprobe_kernels.errors import ArgumentError
from lcprobe_kernels.report import DTYPES, report

READS_CONFIGS = "lcprobe"
"""The installed command that knows configs and models; this package knows ops."""


def main(arguments: Sequence[str]) -> int:
    """Print the report. Returns 0, or 2 after a one-line error about a name that does not exist, a backend that does
    not work here, or a config without lcprobe to read it."""
    if any("=" in word or word.endswith((".yaml", ".yml")) for word in arguments):
        return _of_config(arguments)
    parser = argparse.ArgumentParser(prog="python -m lcprobe_kernels", description=(__doc__ or "").split(": ", 1)[1])
    parser.add_argument(
        "ops", nargs="*", metavar="OP", help=f"each feature of these: {' | '.join(OPS)}; or a config's file"
    )
    parser.add_argument("--backend", default="auto", metavar="NAME", help=" | ".join(backends.BACKENDS))
    parser.add_argument("--device", metavar="NAME", help="cpu | cuda | sm_80, sm_90 ...; without it, as here")
    parser.add_argument("--dtype", metavar="NAME", help=f"{' | '.join(DTYPES)}; without it, fp32 and bf16")
    given = parser.parse_args(arguments)
    try:
        print("\n".join(report(given.backend, given.ops, given.device, given.dtype)))
    except ArgumentError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def _of_config(arguments: Sequence[str]) -> int:
    commands = entry_points(group="console_scripts", name=READS_CONFIGS)
    if not commands:
        print("error: a config: given without lcprobe; allowed: with it (pip install lcprobe)", file=sys.stderr)
        return 2
    return next(iter(commands)).load()(["kernels", *arguments])


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
