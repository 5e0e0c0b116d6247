"""`python -m benchmarks [NAME ...] [key=value ...]`: measure, print a table, write benchmarks/results/*.json.

Speeds are ratios taken in one run: machines differ, and the same machine differs by the hour.
"""

import json
import platform
import sys
import time
from contextlib import suppress
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from benchmarks import (
    cheating,
    cheating_peer,
    coverage,
    episodes,
    exactness,
    generation,
    kernels,
    oracles,
    planted,
    sharing,
    throughput,
)
from lcprobe.errors import ConfigError, run_command, unknown_name
from lcprobe.files import write_json
from lcprobe.studies.console import print_rows
from lcprobe.studies.runtime import keep_memory

BENCHMARKS = {
    "throughput": throughput,
    "episodes": episodes,
    "exactness": exactness,
    "generation": generation,
    "kernels": kernels,
    "sharing": sharing,
    "planted": planted,
    "coverage": coverage,
    "oracles": oracles,
    "cheating": cheating,
    "cheating_peer": cheating_peer,
}
DEFAULT = ("kernels", "throughput", "episodes")
"""What runs without a name: speed. The others run by theirs."""
PACKAGES = (
    "torch", "triton", "mamba-ssm", "causal-conv1d", "flash-linear-attention", "liger-kernel",
    "transformers", "x-transformers", "rotary-embedding-torch", "PoPE-pytorch", "tokenizers", "numpy",
)  # fmt: skip


def device_name() -> str:
    """The processor or GPU, in words."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return f"{names[0] if names else platform.processor()} ({torch.get_num_threads()} threads)"


def versions() -> dict[str, str | None]:
    """Of what is measured and of its peers; None where a package is not installed."""
    found: dict[str, str | None] = dict.fromkeys(PACKAGES)
    for package in PACKAGES:
        with suppress(PackageNotFoundError):
            found[package] = version(package)
    return found


def main(arguments: list[str]) -> int:
    """Run the named benchmarks, or those of speed."""
    names = [a for a in arguments if "=" not in a] or list(DEFAULT)
    options = dict(a.split("=", 1) for a in arguments if "=" in a)
    for name in names:
        if name not in BENCHMARKS:
            raise unknown_name("benchmark", name, BENCHMARKS)
    keep_memory()
    for name in names:
        module = BENCHMARKS[name]
        unknown = set(options) - set(module.OPTIONS)
        if unknown and len(names) == 1:
            raise ConfigError(sorted(unknown)[0], options[sorted(unknown)[0]], " | ".join(module.OPTIONS))
        begin = time.process_time()
        rows: list[dict[str, Any]] = module.measure({k: v for k, v in options.items() if k in module.OPTIONS})
        used = round(time.process_time() - begin)
        print_rows(rows, module.TITLE)
        notes = module.notes(rows) if hasattr(module, "notes") else []  # what a reader of the numbers must know
        print("\n".join(notes))
        today = datetime.now(UTC).date().isoformat()
        facts = {"device": device_name(), "date": today, "CPU seconds": used, "python": platform.python_version(), **versions()}
        kind = "gpu" if torch.cuda.is_available() else "cpu"
        path = Path(__file__).parent / "results" / f"{name}-{kind}.json"
        write_json(path, {"title": module.TITLE, **facts, "notes": notes, "rows": rows})
        print(json.dumps(facts))
        print(f"written: benchmarks/results/{path.name}")
    return 0


if __name__ == "__main__":
    raise SystemExit(run_command(lambda: main(sys.argv[1:])))
