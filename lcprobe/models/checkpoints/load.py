"""A published checkpoint in a folder -> a LanguageModel, tensor by tensor.

The model is built without memory. Parameters are allocated in the dtype that is asked for, and every tensor is read
piece by piece into its place, so that peak memory is that of the weights and little more.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from lcprobe.errors import CheckpointError, ConfigError, listed
from lcprobe.files import MANIFEST, digest_file, verify_folder
from lcprobe.models.checkpoints import FORMATS
from lcprobe.models.checkpoints.contract import CONFIG_JSON, Format, NotCovered, Places
from lcprobe.models.checkpoints.files import StoredTensor, digest_weights, stored_tensors, weight_files
from lcprobe.models.checkpoints.places import fill, places_of, their_shape
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.schema import build

MAX_CONFIG_BYTES = 1 << 24


@dataclass(frozen=True)
class PublishedFolder:
    """A checkpoint that a format of ours reads. path: of its folder, or of its only file; config_json: as it is
    there; model: its settings in our config; files: those with the weights."""

    path: Path
    format: Format[Any]
    config_json: Mapping[str, Any]
    model: ModelConfig
    files: tuple[Path, ...]

    def digest(self) -> str:
        """Digest of the weights' files; reads them."""
        return digest_weights(list(self.files))


def open_folder(path: Path, settings: Mapping[str, Any] | None = None) -> PublishedFolder | None:
    """The checkpoint in a folder, or in one file; None where no format of ours recognises it. Reads no weights.

    settings: of its format, what the checkpoint does not say. Raises CheckpointError, naming file and key, for a
    config.json or files that cannot be read, NotCovered for a model that our mixers cannot express, and ConfigError
    for settings that the format does not have.
    """
    config = read_config_json(path)
    for name in FORMATS:
        if not FORMATS.convert(name, "format").create().recognises(config, path):
            continue
        found: Format[Any] = FORMATS.convert({"type": name, **(settings or {})}, "settings").create()
        files = weight_files(path)
        if not files:
            raise CheckpointError(f"{path}: no weights; allowed: safetensors, or PyTorch's .bin or .pth")
        try:
            described = found.described(config, {} if config else stored_tensors(files))
            model = build(ModelConfig, found.settings(described), "model")
        except NotCovered as error:
            raise NotCovered(f"{path}/{error}") from None
        except CheckpointError as error:
            raise error if str(error).startswith(str(path)) else CheckpointError(f"{path}/{error}") from None
        except ConfigError as error:
            raise CheckpointError(f"{path}/{CONFIG_JSON}: {error}") from None
        return PublishedFolder(path, found, config, model, tuple(files))
    return None


def read_config_json(path: Path) -> dict[str, Any]:
    """config.json of a folder, empty where there is none. Raises CheckpointError for one that is not a JSON
    object."""
    file = path / CONFIG_JSON
    if not file.is_file():
        return {}
    try:
        if file.stat().st_size > MAX_CONFIG_BYTES:
            raise ValueError("longer than 16 MB")
        config = json.loads(file.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: not JSON ({error})") from None
    if not isinstance(config, dict):
        raise CheckpointError(f"{file}: of type {type(config).__name__}; allowed: an object")
    if not isinstance(config.get("model_type", ""), str):
        raise CheckpointError(f"{file}: model_type: given {config['model_type']!r}; allowed: a name")
    return config


def recognised(path: Path, settings: Mapping[str, Any] | None = None) -> PublishedFolder:
    """`open_folder`, where a format of ours must read it. Raises CheckpointError, naming its model_type."""
    found = open_folder(path, settings)
    if found is None:
        kind = read_config_json(path).get("model_type")
        given = f"model_type {kind!r} in {CONFIG_JSON}" if kind else f"no {CONFIG_JSON} that tells what it is"
        raise CheckpointError(f"{path}: {given}; allowed: a checkpoint of {listed(FORMATS)}")
    return found


def load_published(
    folder: PublishedFolder, dtype: torch.dtype = torch.float32, device: torch.device | str = "cpu"
) -> LanguageModel:
    """The model of a checkpoint, in `dtype` on a device, for evaluation.

    Raises CheckpointError, naming file and tensor, for files that are damaged or do not match what is known of their
    digests, and for tensors that are missing, unexpected, of another shape, or not finite.
    """
    check_digests(folder.path, folder.files)
    stored = stored_tensors(list(folder.files))
    model, places = check_tensors(folder, stored)
    parameters = _allocated(model, dtype, torch.device(device))
    for name, one in stored.items():
        if name in places:
            fill(parameters, places_of(places, name), one)
    for name, original in folder.format.copies(folder.model).items():
        if name in stored and original in stored:
            _check_equal(stored[name], stored[original])
    return model.eval()


def check_tensors(folder: PublishedFolder, stored: Mapping[str, StoredTensor]) -> tuple[LanguageModel, Places]:
    """The model on the meta device, and the place of every tensor. Raises CheckpointError for a tensor that is
    missing, unexpected or of another shape."""
    try:
        with torch.device("meta"):
            model = LanguageModel(folder.model)
    except ConfigError as error:
        raise CheckpointError(f"{folder.path}: {error}") from None
    places, copies = folder.format.places(folder.model), folder.format.copies(folder.model)
    parameters = dict(model.named_parameters())
    for name in places:
        if name not in stored:
            raise CheckpointError(f"{folder.path}: no tensor {name} in {listed([f.name for f in folder.files])}")
    for name, one in stored.items():
        if folder.format.ignored(name) and name not in places:
            continue
        if name not in places and name not in copies:
            raise CheckpointError(f"{one.path}: an unexpected tensor {name}; allowed: those of {folder.format.name}")
        want = their_shape(places_of(places, name if name in places else copies[name]), parameters)
        if one.shape != want:
            raise CheckpointError(f"{one.path}: {name} has shape {list(one.shape)}; allowed: {list(want)}")
    return model, places


def check_digests(path: Path, files: tuple[Path, ...]) -> None:
    """Compare files with the digests that are known of them: those of a manifest, as our exports have, and of the
    hub's cache, which names large files by them. Raises CheckpointError where one differs."""
    if path.is_dir() and (path / MANIFEST).is_file():
        damage = verify_folder(path)[1]
        if damage is not None:
            raise CheckpointError(f"{path}: {damage}")
    for file in files:
        blob = file.resolve()
        in_cache = file.is_symlink() and blob.parent.name == "blobs" and len(blob.name) == 64
        if in_cache and digest_file(blob) != blob.name:
            raise CheckpointError(f"{file}: does not match its digest in the hub's cache; delete it and load again")


def _allocated(model: nn.Module, dtype: torch.dtype, device: torch.device) -> dict[str, Tensor]:
    """Give a model on the meta device memory for its parameters, and return them by name."""
    modules = dict(model.named_modules())
    for name, meta in list(model.named_parameters()):
        owner, _, own_name = name.rpartition(".")
        parameter = nn.Parameter(torch.empty(meta.shape, dtype=dtype, device=device))
        modules[owner].register_parameter(own_name, parameter)
    return dict(model.named_parameters())


def _check_equal(copy: StoredTensor, original: StoredTensor) -> None:
    """Raises CheckpointError where a tied tensor is not the one that it is tied to."""
    if (copy.path, copy.offset) == (original.path, original.offset):
        return
    for (_, one), (_, other) in zip(copy.pieces(), replace(original).pieces(), strict=True):
        if not torch.equal(one, other.to(one.dtype)):
            raise CheckpointError(
                f"{copy.path}: {copy.name} differs from {original.name}, which {CONFIG_JSON} ties it to"
            )
