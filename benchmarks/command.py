"""Implements `python -m benchmarks` and `python -m validation`: measure, print a table, write results/*.json."""

import json
import os
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch

from lcprobe.errors import ConfigError, unknown_name
from lcprobe.files import write_json
from lcprobe.studies.console import print_rows
from lcprobe.studies.runtime import keep_memory
from lcprobe.studies.status import package_versions

PEER_PACKAGES = (
    "torch", "triton", "mamba-ssm", "causal-conv1d", "flash-linear-attention", "liger-kernel",
    "transformers", "x-transformers", "rotary-embedding-torch", "PoPE-pytorch", "tokenizers", "numpy",
)  # fmt: skip


Rows = list[dict[str, Any]]


def no_notes(rows: Rows) -> list[str]:
    """No notes, for a table that needs none."""
    return []


@dataclass(frozen=True)
class Measurement:
    """A named measurement.

    options: the keys that `measure` accepts from the command line. measure: options -> rows with equal keys.
    notes: what a reader of the numbers must know, printed and written with them. group: columns; rows that are alike
    in them belong together: a run of some groups keeps the others that were written, of the same packages.
    """

    title: str
    options: tuple[str, ...]
    measure: Callable[[dict[str, str]], Rows]
    notes: Callable[[Rows], list[str]] = no_notes
    group: tuple[str, ...] = ()


def cpu_seconds() -> float:
    """CPU time of this process and of its children that have ended, in seconds."""
    return sum(os.times()[:4])


def device_name() -> str:
    """The name of the processor or GPU."""
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(":")[1].strip() for line in lines if "model name" in line]
    return f"{names[0] if names else platform.processor()} ({torch.get_num_threads()} threads)"


def run_measurements(
    known: Mapping[str, Measurement], default: tuple[str, ...], folder: Path, arguments: list[str]
) -> int:
    """Run the measurements named in `arguments`, or the default ones; results go to `folder`/results.

    Raises ConfigError for an unknown name or option.
    """
    names = [a for a in arguments if "=" not in a] or list(default)
    options = dict(a.split("=", 1) for a in arguments if "=" in a)
    for name in names:
        if name not in known:
            raise unknown_name(f"python -m {folder.name}", name, known)
    keep_memory()
    for name in names:
        measurement = known[name]
        unknown = set(options) - set(measurement.options)
        if unknown and len(names) == 1:
            raise ConfigError(sorted(unknown)[0], options[sorted(unknown)[0]], " | ".join(measurement.options))
        begin = cpu_seconds()
        rows = measurement.measure({k: v for k, v in options.items() if k in measurement.options})
        used = round(cpu_seconds() - begin)
        packages = {**dict.fromkeys(PEER_PACKAGES), **package_versions(PEER_PACKAGES)}  # None: not installed
        path = folder / "results" / f"{name}-{'gpu' if torch.cuda.is_available() else 'cpu'}.json"
        if measurement.group:
            rows = with_other_groups(rows, measurement.group, path, packages)
        print_rows(rows, measurement.title)
        notes = measurement.notes(rows)
        print("\n".join(notes))
        today = datetime.now(UTC).date().isoformat()
        facts = {
            "device": device_name(),
            "date": today,
            "CPU seconds": used,
            "python": platform.python_version(),
            **packages,
        }
        write_json(path, {"title": measurement.title, **facts, "notes": notes, "rows": rows})
        print(json.dumps(facts))
        print(f"written: {folder.name}/results/{path.name}")
    return 0


def with_other_groups(rows: Rows, group: tuple[str, ...], path: Path, packages: Mapping[str, str | None]) -> Rows:
    """The rows, and those at `path` of groups that have none among them; sorted by group. Nothing is kept of other
    versions of packages."""
    before = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {"rows": []}
    of = lambda row: tuple(row[column] for column in group)  # noqa: E731
    measured = {of(row) for row in rows}
    same = all(before.get(name) == version for name, version in packages.items())
    kept = [row for row in before["rows"] if same and of(row) not in measured]
    return sorted(kept + rows, key=of)
