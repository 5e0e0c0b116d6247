"""Reading boxes of a checkpoint's tensors, whichever way they are divided over files."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lcprobe.errors import CheckpointError
from lcprobe.files import INDEX, read_json

DTYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
}
"""Of the tensors of checkpoints, by their names in safetensors."""
FILE = re.compile(r"(model|optimizer)-[0-9]{5,}\.safetensors")


@dataclass(frozen=True)
class Stored:
    """A box of a tensor in a file: where it begins in what the file has under the tensor's name, and in the whole
    tensor, and its size."""

    file: str
    own: tuple[int, ...]
    whole: tuple[int, ...]
    size: tuple[int, ...]


@dataclass(frozen=True)
class Entry:
    """A tensor: shape and dtype of the whole, and its boxes."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    boxes: tuple[Stored, ...]


class Tensors:
    """The tensors of a checkpoint's folder. stem: `model` or `optimizer`. Raises CheckpointError, here and when it
    reads, for files that are missing or no such files."""

    def __init__(self, folder: Path, stem: str):
        self.folder, self.stem = folder, stem
        self._open: dict[str, Any] = {}
        index = folder / INDEX.format(stem)
        self.is_divided = index.is_file()
        self.entries = _indexed(index) if self.is_divided else self._whole(f"{stem}.safetensors")

    def read(self, name: str, begin: Sequence[int], size: Sequence[int]) -> Tensor:
        """A box of a tensor, on the CPU. Raises CheckpointError where no file has part of it."""
        entry = self.entries[name]
        out, left = torch.empty(tuple(size), dtype=entry.dtype), torch.Size(size).numel()
        for box in entry.boxes:
            common = [
                (max(a, b), min(a + n, b + m)) for a, n, b, m in zip(begin, size, box.whole, box.size, strict=True)
            ]
            if any(first >= last for first, last in common):
                continue
            there = tuple(
                slice(o + first - w, o + last - w)
                for (first, last), o, w in zip(common, box.own, box.whole, strict=True)
            )
            here = tuple(slice(first - a, last - a) for (first, last), a in zip(common, begin, strict=True))
            out[here] = self._slice(box.file, name, there)
            left -= out[here].numel()
        if left:
            raise CheckpointError(f"{self.folder}: {name} is not whole in the files of {INDEX.format(self.stem)}")
        return out

    def read_whole(self, name: str) -> Tensor:
        """A whole tensor, on the CPU."""
        shape = self.entries[name].shape
        return self.read(name, (0,) * len(shape), shape)

    def _slice(self, file: str, name: str, where: tuple[slice, ...]) -> Tensor:
        try:
            return self._file(file).get_slice(name)[where] if where else self._file(file).get_tensor(name)
        except (OSError, SafetensorError, IndexError) as error:
            raise CheckpointError(f"{self.folder / file}: not readable ({error})") from None

    def _file(self, file: str) -> Any:
        if file not in self._open:
            try:
                self._open[file] = safe_open(self.folder / file, framework="pt")
            except (OSError, SafetensorError) as error:
                raise CheckpointError(f"{self.folder / file}: not readable ({error})") from None
        return self._open[file]

    def _whole(self, file: str) -> dict[str, Entry]:
        found = {}
        for name, shape, dtype in self._headers(file):
            zeros = (0,) * len(shape)
            found[name] = Entry(shape, dtype, (Stored(file, zeros, zeros, shape),))
        return found

    def _headers(self, file: str) -> Iterator[tuple[str, tuple[int, ...], torch.dtype]]:
        opened = self._file(file)
        for name in opened.keys():  # noqa: SIM118 (not a mapping)
            one = opened.get_slice(name)
            if one.get_dtype() not in DTYPES:
                raise CheckpointError(f"{self.folder / file}: {name} is {one.get_dtype()}; allowed: {list(DTYPES)}")
            yield name, tuple(one.get_shape()), DTYPES[one.get_dtype()]


def _indexed(path: Path) -> dict[str, Entry]:
    """The entries of an index. Raises CheckpointError for one that is malformed."""
    try:
        tensors = read_json(path)["tensors"]
        found = {}
        for name, fact in tensors.items():
            boxes = tuple(
                Stored(box["file"], tuple(box["own"]), tuple(box["whole"]), tuple(box["size"]))
                for box in fact["boxes"]
            )
            found[name] = Entry(tuple(fact["shape"]), DTYPES[fact["dtype"]], boxes)
            if any(FILE.fullmatch(box.file) is None for box in boxes):
                raise ValueError(f"a file that is not beside it, of {name}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"{path}: not readable ({type(error).__name__}: {error})") from None
    return found
