"""Writing what this process has of a model and of its optimiser: all, in one file each, or its own part, with the
boxes that an index tells of. A box that several processes have is told of by the first of them."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from lcprobe.files import INDEX, digest_file, write_json
from lcprobe.models.tensor_parallel.split import Piece
from lcprobe.training.strategies.division import Division, own, reshard
from lcprobe.training.tensors.reading import DTYPES, Stored

STEMS = ("model", "optimizer")
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Written:
    """What a process wrote. files: bytes and digest by name; tensors: by stem and name, shape, dtype and boxes."""

    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    tensors: Mapping[str, Mapping[str, dict[str, Any]]] = field(default_factory=dict)


def write_whole(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Write all tensors, in one file a stem."""
    for stem in STEMS:
        tensors = {name: value for name, _, value in _own_tensors(stem, model, optimizer)}
        save_file(tensors, folder / f"{stem}.safetensors")


def write_own(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, division: Division, rank: int
) -> Written:
    """Write this process's part, durably, and digest it."""
    reshard(model)
    files, found = {}, {}
    parameters = dict(model.named_parameters())
    for stem in STEMS:
        file, tensors, facts = f"{stem}-{rank:05d}.safetensors", {}, {}
        for name, of, value in _own_tensors(stem, model, optimizer):
            if value.dim() == 0:
                shape, pieces = (), [Piece((), (), ())] if rank == 0 else []
            else:
                shape = division.shape(of, parameters[of])
                pieces = [
                    piece
                    for piece in division.pieces(of, parameters[of])
                    if division.is_first(of, parameters[of], piece)
                ]
            if pieces:
                tensors[name] = value
                boxes = [asdict(Stored(file, piece.own, piece.whole, piece.size)) for piece in pieces]
                facts[name] = {"shape": shape, "dtype": NAMES[value.dtype], "boxes": boxes}
        path = folder / file
        save_file(tensors, path)
        with open(path, "rb+") as handle:
            os.fsync(handle.fileno())
        files[file] = {"bytes": path.stat().st_size, "sha256": digest_file(path)}
        found[stem] = facts
    return Written(files, found)


def write_indices(folder: Path, written: list[Written]) -> dict[str, Mapping[str, Any]]:
    """Write the index of each stem from what all processes wrote. Returns the facts of all their files."""
    for stem in STEMS:
        merged: dict[str, dict[str, Any]] = {}
        for one in written:
            for name, fact in one.tensors[stem].items():
                before = merged.setdefault(name, {**fact, "boxes": []})
                before["boxes"] += fact["boxes"]
        write_json(folder / INDEX.format(stem), {"tensors": merged})
    return {name: fact for one in written for name, fact in one.files.items()}


def _own_tensors(stem: str, model: nn.Module, optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, str, Tensor]]:
    """(name, parameter's name, value on the CPU) of what this process has: parameters, or AdamW's moments."""
    for name, parameter in model.named_parameters():
        if stem == "model":
            yield name, name, _on_cpu(parameter)
            continue
        for part, value in optimizer.state.get(parameter, {}).items():
            yield f"{part}.{name}", name, _on_cpu(value)


def _on_cpu(value: Tensor) -> Tensor:
    return own(value.detach()).cpu().contiguous()
