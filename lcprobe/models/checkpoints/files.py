"""Tensors in the files of a published checkpoint: names, shapes and offsets first, numbers piece by piece.

    model.safetensors      model.safetensors.index.json with shards
    pytorch_model.bin      pytorch_model.bin.index.json with shards      one .pth, .pt or .bin

PyTorch's files are unpickled with `weights_only=True` onto fake tensors, which know their offset in the file: no code
runs, and no number is read. Numbers are then read with plain file reads, so that memory holds one piece at a time,
where a memory-mapped file counts as a whole.
"""

import json
import math
import re
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from lcprobe.errors import CheckpointError, listed
from lcprobe.files import digest_file, digest_json, read_json

PIECE_BYTES = 16 << 20
"""Bytes that are read at a time."""
SAFETENSORS, PYTORCH = "model.safetensors", "pytorch_model.bin"
PYTORCH_SUFFIXES = (".pth", ".pt", ".bin")
DTYPES = {"F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16}
"""Numbers of weights by their name in safetensors. Others, such as quantised ones, our mixers do not read."""
OTHER_DTYPES = {
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8,
    "BOOL": torch.bool, "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
}  # fmt: skip
"""What files hold besides: masks, positions, quantised weights."""


@dataclass(frozen=True)
class StoredTensor:
    """A tensor in a file. offset: of its first byte; checksum: CRC-32 of its bytes, 0 where the file has none."""

    name: str
    path: Path
    dtype: torch.dtype
    shape: tuple[int, ...]
    offset: int
    checksum: int = 0

    @property
    def bytes(self) -> int:
        """Its size."""
        return prod(self.shape) * self.dtype.itemsize

    def pieces(self) -> Iterator[tuple[int, Tensor]]:
        """Its rows in pieces, (index of the first row, rows); a tensor without dimensions is one row. The next piece
        overwrites the last one's memory.

        Raises CheckpointError for a file that ends before the tensor does, bytes that do not match their checksum,
        and numbers that are not finite.
        """
        shape = self.shape or (1,)
        row_bytes = prod(shape[1:]) * self.dtype.itemsize
        step = max(1, PIECE_BYTES // max(1, row_bytes))
        buffer = bytearray(min(step, max(1, shape[0])) * row_bytes)
        checksum = 0
        with open(self.path, "rb", buffering=0) as file:
            file.seek(self.offset)
            for first in range(0, shape[0], step):
                n = min(step, shape[0] - first)
                view = memoryview(buffer)[: n * row_bytes]
                if not _filled(file, view):
                    raise CheckpointError(f"{self.path}: {self.name}: the file ends before the tensor does")
                checksum = zlib.crc32(view, checksum) if self.checksum else 0
                piece = torch.frombuffer(view, dtype=self.dtype).view(n, *shape[1:])
                if not is_finite(piece):
                    raise CheckpointError(f"{self.path}: {self.name}: numbers that are not finite")
                yield first, piece
        if self.checksum and checksum != self.checksum:
            raise CheckpointError(f"{self.path}: {self.name}: the bytes do not match the file's checksum")

    def whole(self) -> Tensor:
        """The tensor, in memory of its own. Raises CheckpointError as `pieces` does."""
        out = torch.empty(self.shape or (1,), dtype=self.dtype)
        for first, piece in self.pieces():
            out[first : first + len(piece)] = piece
        return out.view(self.shape)


def is_finite(piece: Tensor) -> bool:
    """Whether all numbers are, of DTYPES; the extremes, which are NaN where any is, take a thirtieth of isfinite's
    time."""
    if piece.numel() == 0 or piece.dtype not in DTYPES.values():
        return True
    return all(math.isfinite(float(end)) for end in piece.aminmax())


def _filled(file: Any, view: memoryview) -> bool:
    """Read until a buffer is full; False where the file ends first."""
    while view.nbytes:
        n = file.readinto(view)
        if not n:
            return False
        view = view[n:]
    return True


def weight_files(path: Path) -> list[Path]:
    """The files with a checkpoint's weights, given its folder or one file; empty where there are none.

    Raises CheckpointError for an index that cannot be read or names a file that is not there.
    """
    if path.is_file():
        return [path] if path.suffix in (".safetensors", *PYTORCH_SUFFIXES) else []
    for name in (SAFETENSORS, PYTORCH):
        if (path / name).is_file():
            return [path / name]
        index = path / f"{name}.index.json"
        if index.is_file():
            return shards_of(index)
    single = sorted(p for p in path.glob("*") if p.suffix == ".pth") if path.is_dir() else []
    return single if len(single) == 1 else []


def shards_of(index: Path) -> list[Path]:
    """The files that an index names. Raises CheckpointError as `weight_files` does."""
    try:
        names = sorted(set(read_json(index)["weight_map"].values()))
        shards = [index.parent / name for name in names]
    except (ValueError, KeyError, TypeError, AttributeError):
        raise CheckpointError(f"{index}: not an index of shards; allowed: a mapping with weight_map") from None
    for name, shard in zip(names, shards, strict=True):
        if Path(name).name != name:
            raise CheckpointError(f"{index}: a shard {name!r}; allowed: names of files beside the index")
        if not shard.is_file():
            raise CheckpointError(f"{shard}: missing, but named in {index.name}")
    return shards


def stored_tensors(files: list[Path], any_kind: bool = False) -> dict[str, StoredTensor]:
    """The tensors in files, by name, in the files' order. Raises CheckpointError for files that are damaged, hold a
    pickle with code or something other than numbers, and for a name that two files have.

    any_kind: for checks of what others load: tensors of OTHER_DTYPES, too, and of any strides, whose `pieces` are
    then in the order of the file.
    """
    dtypes = DTYPES | OTHER_DTYPES if any_kind else DTYPES
    found: dict[str, StoredTensor] = {}
    for path in files:
        in_safetensors = path.suffix == ".safetensors"
        own = _in_safetensors(path, dtypes) if in_safetensors else _in_pytorch(path, dtypes, any_strides=any_kind)
        twice = found.keys() & own.keys()
        if twice:
            raise CheckpointError(f"{path}: {min(twice)} is in {found[min(twice)].path.name}, too")
        found |= own
    return found


def _in_safetensors(path: Path, dtypes: Mapping[str, torch.dtype]) -> dict[str, StoredTensor]:
    try:
        with safe_open(path, framework="pt"):  # the library checks the header, and that the file is whole
            pass
        with open(path, "rb") as file:
            size = int.from_bytes(file.read(8), "little")
            header = json.loads(file.read(size))
    except (SafetensorError, ValueError) as error:
        raise CheckpointError(f"{path}: not a whole safetensors file ({error})") from None
    header.pop("__metadata__", None)
    found = {}
    for name, fact in sorted(header.items(), key=lambda item: item[1]["data_offsets"]):
        if fact["dtype"] not in dtypes:
            raise CheckpointError(f"{path}: {name}: numbers of type {fact['dtype']}; allowed: {listed(dtypes)}")
        offset = 8 + size + fact["data_offsets"][0]
        found[name] = StoredTensor(name, path, dtypes[fact["dtype"]], tuple(fact["shape"]), offset)
    return found


def _in_pytorch(path: Path, dtypes: Mapping[str, torch.dtype], any_strides: bool) -> dict[str, StoredTensor]:
    from torch._subclasses.fake_tensor import FakeTensorMode  # slow to import

    if not zipfile.is_zipfile(path):
        raise CheckpointError(f"{path}: truncated, or not of PyTorch 1.6 or later; allowed: what torch.save writes")
    try:
        with FakeTensorMode():
            state = torch.load(path, weights_only=True)
        checksums = _checksums(path)
    except UnpicklingError as error:
        found = re.search(r"GLOBAL (\S+)", str(error))
        code = f" ({found[1]})" if found else ""
        raise CheckpointError(f"{path}: refused: a pickle with code{code}; allowed: tensors by name") from None
    except (RuntimeError, zipfile.BadZipFile, EOFError, ValueError, KeyError) as error:
        raise CheckpointError(f"{path}: damaged ({' '.join(str(error).split())[:200]})") from None
    if not isinstance(state, Mapping):
        raise CheckpointError(f"{path}: an object of type {type(state).__name__}; allowed: tensors by name")
    tensors = {}
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise CheckpointError(f"{path}: {name} is of type {type(tensor).__name__}; allowed: a tensor")
        if tensor.dtype not in dtypes.values():
            raise CheckpointError(f"{path}: {name}: numbers of type {tensor.dtype}; allowed: {listed(dtypes)}")
        if not any_strides and not tensor.is_contiguous():
            raise CheckpointError(f"{path}: {name} is stored with strides {tensor.stride()}; allowed: contiguous")
        begin: int = tensor.untyped_storage()._checkpoint_offset  # type: ignore[attr-defined]
        offset = begin + int(tensor.storage_offset()) * tensor.element_size()
        checksum, size = checksums.get(offset, (0, 0))
        whole = size == tensor.numel() * tensor.element_size()
        stored = StoredTensor(str(name), path, tensor.dtype, tuple(tensor.shape), offset, checksum if whole else 0)
        tensors[str(name)] = stored
    return dict(sorted(tensors.items(), key=lambda item: item[1].offset))


def _checksums(path: Path) -> dict[int, tuple[int, int]]:
    """CRC-32 and size of every record in a zip file, by the offset of its first byte. Writers may leave it 0."""
    found = {}
    with zipfile.ZipFile(path) as archive, open(path, "rb") as file:
        for record in archive.infolist():
            file.seek(record.header_offset + 26)
            name, extra = (int.from_bytes(file.read(2), "little") for _ in range(2))
            found[record.header_offset + 30 + name + extra] = (record.CRC, record.file_size)
    return found


def digest_weights(files: list[Path]) -> str:
    """Digest of the files with a checkpoint's weights, over their names and bytes."""
    return digest_json({path.name: digest_file(path) for path in files})
