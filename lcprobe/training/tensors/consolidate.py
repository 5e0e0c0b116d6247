"""The single-file form of a checkpoint whose tensors are divided over several: written, or only digested, tensor by
tensor, with the very bytes that one process would have written.

safetensors: eight bytes of the header's length, the header (JSON, padded with spaces to eight bytes), and the
tensors, wider dtypes first, then by name.
"""

import hashlib
import json
import os
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

from lcprobe.files import INDEX, MANIFEST, digest_file, read_json, sync_folder, write_json
from lcprobe.locks import process_tag
from lcprobe.training.tensors.reading import Tensors
from lcprobe.training.tensors.writing import NAMES, STEMS

ORDER = [torch.int64, torch.float64, torch.float32, torch.bfloat16, torch.float16]
"""Dtypes in the order in which safetensors writes them."""


def weights_digest(checkpoint: Path) -> str:
    """SHA-256 of the weights in the single-file form, in which every division of the same weights is the same.
    Raises CheckpointError for files that cannot be read."""
    if not (checkpoint / INDEX.format("model")).is_file():
        return digest_file(checkpoint / "model.safetensors")
    digest = hashlib.sha256()
    for chunk in _bytes_of(Tensors(checkpoint, "model")):
        digest.update(chunk)
    return digest.hexdigest()


def consolidate(checkpoint: Path) -> bool:
    """Bring a checkpoint into the single-file form, in place; False: it is in it. It can be used at any moment: new
    files first, then the manifest, then the removal of the index, which readers look for, and of the parts.

    Raises CheckpointError for files that cannot be read, OSError where there is no room.
    """
    divided = [Tensors(checkpoint, stem) for stem in STEMS if (checkpoint / INDEX.format(stem)).is_file()]
    manifest = read_json(checkpoint / MANIFEST)
    if not divided:
        return False
    parts = {INDEX.format(one.stem) for one in divided}
    for one in divided:
        parts |= {box.file for entry in one.entries.values() for box in entry.boxes}
        path = checkpoint / f"{one.stem}.safetensors"
        temporary = checkpoint / f".{path.name}.{process_tag()}.tmp"
        try:
            with open(temporary, "wb") as file:
                for chunk in _bytes_of(one):
                    file.write(chunk)
                file.flush()
                os.fsync(file.fileno())
            os.replace(temporary, path)
        finally:
            temporary.unlink(missing_ok=True)
        manifest["files"][path.name] = {"bytes": path.stat().st_size, "sha256": digest_file(path)}
    sync_folder(checkpoint)
    parts |= {name for name in manifest["files"] if name.startswith(tuple(f"{stem}-" for stem in STEMS))}
    manifest["files"] = {name: fact for name, fact in manifest["files"].items() if name not in parts}
    write_json(checkpoint / MANIFEST, manifest)
    for name in sorted(parts, key=lambda name: not name.endswith(".json")):
        (checkpoint / name).unlink(missing_ok=True)
    sync_folder(checkpoint)
    return True


def _bytes_of(tensors: Tensors) -> Iterator[bytes]:
    """The bytes of the single file."""
    entries = sorted(tensors.entries.items(), key=lambda item: (ORDER.index(item[1].dtype), item[0]))
    header, end = {}, 0
    for name, entry in entries:
        begin, end = end, end + torch.Size(entry.shape).numel() * entry.dtype.itemsize
        header[name] = {"dtype": NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": [begin, end]}
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    yield len(text).to_bytes(8, "little") + text
    for name, _ in entries:
        yield _raw(tensors.read_whole(name))


def _raw(tensor: Tensor) -> bytes:
    return tensor.reshape(-1).view(torch.uint8).numpy().tobytes()
