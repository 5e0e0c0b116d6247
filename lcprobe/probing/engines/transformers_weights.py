"""What transformers does not check of weights: bytes that have changed, numbers that are not finite, and tensors that
are missing, left over or misshapen, each named with its file, as the loader of our own mixers does.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from lcprobe.errors import CheckpointError, listed
from lcprobe.models.checkpoints.files import StoredTensor, is_finite, shards_of, stored_tensors, weight_files
from lcprobe.models.checkpoints.load import check_digests, read_config_json

EXPLICIT = "transformers_weights"
"""The key of config.json that names a file of weights instead of the usual ones."""
OLD_PICKLE = b"\x80"
"""How files of PyTorch before 1.6 begin. They have no checksums; transformers reads them without code."""
SHOWN = 3
"""Tensors of a kind of fault that are named."""


def checked_weights(folder: Path) -> dict[str, StoredTensor]:
    """The tensors in the files that transformers will read, by name; without those of old pickles.

    Digests are compared where they are known, and checksums where the files have them, for which they are read once.
    Raises CheckpointError, naming file and tensor, for files that are damaged or hold a pickle with code.
    """
    files = _files(folder)
    check_digests(folder, tuple(files))
    stored = stored_tensors([path for path in files if not _is_old(path)], any_kind=True)
    for one in {(one.path, one.offset): one for one in stored.values() if one.checksum}.values():
        for _ in one.pieces():
            pass
    return stored


def check_report(folder: Path, report: Mapping[str, Any], stored: Mapping[str, StoredTensor]) -> None:
    """Raises CheckpointError for tensors that are missing, misshapen or not known to the class: scores would be those
    of another model. report: of `from_pretrained`."""
    names = sorted({one.path.name for one in stored.values()})
    missing = sorted(map(str, report.get("missing_keys") or ()))
    if missing:
        raise CheckpointError(f"{folder}: no tensor {_first(missing)} in {listed(names) or 'its files'}")
    misshapen: list[tuple[str, tuple[int, ...], tuple[int, ...]]] = sorted(report.get("mismatched_keys", ()))
    for name, given, wanted in misshapen:
        where = _path(folder, name, stored)
        raise CheckpointError(f"{where}: {name} has shape {list(given)}; allowed: {list(wanted)}")
    unexpected = sorted(map(str, report.get("unexpected_keys") or ()))
    if unexpected:
        where, what = _path(folder, unexpected[0], stored), _first(unexpected)
        raise CheckpointError(f"{where}: a tensor that the class does not have: {what}; allowed: those of the class")


def check_finite(folder: Path, model: torch.nn.Module, stored: Mapping[str, StoredTensor]) -> None:
    """Raises CheckpointError for numbers that are not finite. The model's own tensors are looked at, which are in
    memory already; the file of a bad one is sought only then."""
    bad = next((name for name, tensor in model.state_dict().items() if not is_finite(tensor)), None)
    if bad is None:
        return
    for one in stored.values():
        for _ in one.pieces():  # raises where it is
            pass
    dtype = str(model.state_dict()[bad].dtype).removeprefix("torch.")
    raise CheckpointError(f"{folder}: {bad}: numbers that are not finite in {dtype}; allowed: finite ones")


def _files(folder: Path) -> list[Path]:
    """The files that transformers reads."""
    explicit = read_config_json(folder).get(EXPLICIT)
    if not isinstance(explicit, str):
        return weight_files(folder)
    path = folder / explicit
    return shards_of(path) if path.is_file() and path.suffix == ".json" else weight_files(path)


def _is_old(path: Path) -> bool:
    with path.open("rb") as file:
        return path.suffix != ".safetensors" and file.read(1) == OLD_PICKLE


def _path(folder: Path, name: str, stored: Mapping[str, StoredTensor]) -> Path:
    """The file with a tensor; the folder, for classes whose names are not those of their files."""
    return stored[name].path if name in stored else folder


def _first(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return listed(names[:SHOWN], ", ") + more
