"""Checkpoints: folders with digests of their files, written atomically. Safetensors and JSON, no pickle.

    step-00001200/  model.safetensors  optimizer.safetensors  state.json  config.yaml  manifest.json

Where processes have parts of the model, each writes its own, and the folder has an index (`tensors`).

The newest folder whose weights and state match its manifest is used. A damaged one is never loaded; training, which
would write beside it, renames it to bad-* and reports it. Who reads checkpoints changes nothing.

config.yaml may be edited: paths in it are those of the machine that trained. Its other settings must stay.
"""

import logging
import os
import re
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from torch import Tensor, nn

from lcprobe.dialect import read_yaml
from lcprobe.errors import CheckpointError, DataError, listed
from lcprobe.files import (
    MANIFEST,
    WEIGHTS,
    digest_file,
    digest_json,
    publish_folder,
    read_json,
    verify_folder,
    write_json,
)
from lcprobe.models.tensor_parallel.split import Piece
from lcprobe.training.ranks import attempted, gathered, is_main, rank, same_for_all
from lcprobe.training.strategies.division import Division, own
from lcprobe.training.tensors.reading import Tensors
from lcprobe.training.tensors.writing import Written, write_indices, write_own, write_whole

CONFIG = "config.yaml"
PLACES = ("corpus", "folder", "tokenizer")
"""Settings of `data` that say where something is: what it is shows by its digest."""
STEP = re.compile(r"step-([0-9]{8,18})")
WHOLE = Division()
"""Of a model that one process has."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a run is. digest: rolling digest of all batches so far; skipped: steps that changed nothing, because of
    gradients that were not finite or of a rewind; spikes: losses that stood out, and losses: of the last steps, which
    the next are compared with; bad_steps: those of the last 1,000 whose gradients were not finite;
    corpus_digest, tokenizer_digest: of what it trains on, empty where unknown; window: sums since the last report
    (see `module`), without which a resumed run's next report would be another one than the uninterrupted run's."""

    step: int = 0
    tokens: int = 0
    digest: str = ""
    skipped: int = 0
    seconds: float = 0.0
    corpus_digest: str = ""
    tokenizer_digest: str = ""
    window: Sequence[float] = ()
    spikes: int = 0
    losses: Sequence[float] = ()
    bad_steps: Sequence[int] = ()


def save_checkpoint(
    folder: Path,
    progress: Progress,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    config_yaml: str,
    keep: int,
    division: Division = WHOLE,
    back: int | None = None,
) -> Path:
    """Write `step-N` into `folder` and remove those that are `superfluous`. Where a model is divided, all processes
    call it, and each writes what it has. Raises OSError, in all of them, when it cannot be written."""
    temporary = folder / f".tmp-{progress.step}-{os.getpid()}"
    final = folder / f"step-{progress.step:08d}"
    facts = {"kind": "checkpoint", "step": progress.step, "settings": settings_digest(config_yaml)}

    def publish(parts: list[Written]) -> Path:
        known = write_indices(temporary, parts) if parts else {}
        write_json(temporary / "state.json", asdict(progress))
        (temporary / CONFIG).write_text(config_yaml, encoding="utf-8")
        publish_folder(temporary, final, facts, known)
        for old in superfluous(checkpoints(folder), keep, back):
            shutil.rmtree(old, ignore_errors=True)
        return final

    try:
        if not division.is_divided:
            _make_anew(temporary)
            write_whole(temporary, model, optimizer)
            return publish([])
        temporary = same_for_all(lambda: _make_anew(temporary))
        parts = gathered(attempted(lambda: write_own(temporary, model, optimizer, division, rank())))
        return same_for_all(lambda: publish([part.value() for part in parts]))
    except SafetensorError as error:  # safetensors raises it for a full disk
        raise OSError(28, f"checkpoint not written ({error})", str(folder)) from None
    finally:
        if is_main():
            shutil.rmtree(temporary, ignore_errors=True)


def superfluous(found: Sequence[tuple[int, Path]], keep: int, back: int | None) -> list[Path]:
    """Those of (step, folder), newest first, that are not kept: the newest `keep`, and for rewinds, which go at least
    `back` steps back, the newest that is so old now, and the oldest that is not, which will be."""
    kept = [*found[:keep]]
    if back is not None and found:
        old = [one for one in found if one[0] <= found[0][0] - back]
        kept += [*old[:1], *[one for one in found if one not in old][-1:]]
    return [path for step, path in found if (step, path) not in kept]


def _make_anew(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of all checkpoints, newest first, not verified."""
    if not folder.is_dir():
        return []
    steps = [
        (int(m.group(1)), path) for path in folder.iterdir() if (m := STEP.fullmatch(path.name)) and path.is_dir()
    ]
    return sorted(steps, reverse=True)


_whole: dict[Path, frozenset[tuple[str, int, int, int]]] = {}
"""Checkpoints that this process has found whole, with what the file system said of their files then."""


def damage_of(checkpoint: Path) -> str | None:
    """Why a checkpoint's weights or state cannot be used; None where they can, whatever config.yaml is now. Files are
    read once in a process, unless they change: those of a large model take minutes."""
    if not (checkpoint / MANIFEST).is_file():
        return f"no {MANIFEST}"
    before, place = _signs(checkpoint), checkpoint.resolve()
    if before and _whole.get(place) == before:
        return None
    damage = verify_folder(checkpoint, without=(CONFIG,))[1]
    if damage is None:
        _whole[place] = before
    return damage


def _signs(checkpoint: Path) -> frozenset[tuple[str, int, int, int]]:
    """Name, size, time and number of each file but config.yaml; nothing where they cannot be asked for."""
    try:
        files = [(path.name, path.stat()) for path in checkpoint.iterdir() if path.name != CONFIG]
    except OSError:
        return frozenset()
    return frozenset((name, file.st_size, file.st_mtime_ns, file.st_ino) for name, file in files)


def set_aside_damaged(folder: Path) -> None:
    """Rename damaged checkpoints that are newer than the newest valid one to bad-*, and delete what killed processes
    were writing. For the process alone that trains in the folder."""
    for leftover in folder.glob(".tmp-*") if folder.is_dir() else []:
        shutil.rmtree(leftover, ignore_errors=True)
    for _, path in checkpoints(folder):
        damage = damage_of(path)
        if damage is None:
            return
        aside = path.with_name(f"bad-{path.name}")
        shutil.rmtree(aside, ignore_errors=True)
        path.rename(aside)
        log.warning("%s is damaged (%s): renamed to %s", path.name, damage, aside.name)


def latest(folder: Path) -> Path | None:
    """The newest valid checkpoint; None where there is none at all. Changes nothing.

    Raises CheckpointError when all are damaged, instead of training from the start again.
    """
    reasons: list[str] = []
    for _, path in checkpoints(folder):
        damage = damage_of(path)
        if damage is None:
            if reasons:
                log.warning("%s: damaged (%s): %s is used", folder, "; ".join(reasons), path.name)
            return path
        reasons.append(f"{path.name}: {damage}")
    earlier = sorted(p.name for p in folder.glob("bad-step-*")) if folder.is_dir() else []
    if reasons or earlier:
        damaged = listed(reasons or earlier, "; " if reasons else ", ")
        # rewinds.json and failures.jsonl beside it would act on a new run
        raise CheckpointError(
            f"{folder}: no valid checkpoint ({damaged}); delete {folder.parent} to train from the start"
        )
    return None


def load_progress(checkpoint: Path) -> Progress:
    """How far the run was at a checkpoint; an earlier version may not have noted everything. Raises CheckpointError
    for one of a newer version."""
    found = read_json(checkpoint / "state.json")
    if unknown := found.keys() - {field.name for field in fields(Progress)}:
        raise CheckpointError(
            f"{checkpoint}: of a newer version, which notes {listed(sorted(unknown), ', ')}; allowed: that version"
        )
    return Progress(**found)


def newest_progress(folder: Path) -> Progress:
    """How far a run was at its newest checkpoint, and what on, by the folder of its checkpoints; nothing where there
    is none. Verifies nothing."""
    for _, path in checkpoints(folder):
        with suppress(OSError, ValueError, TypeError):  # damaged
            return load_progress(path)
    return Progress()


@lru_cache(maxsize=4)
def settings_digest(config_yaml: str) -> str:
    """Digest of the settings in a run's config that its weights depend on, without places of files and folders."""
    written = read_yaml(config_yaml) or {}
    config = {key: written.get(key) for key in ("model", "data", "train", "seed")}
    for section, places in (("data", PLACES), ("train", ("from",))):
        config[section] = {key: value for key, value in (config[section] or {}).items() if key not in places}
    return digest_json(config)


def check_config(checkpoint: Path) -> None:
    """Raises CheckpointError where config.yaml is missing or not that of the weights. Paths in it may have been
    corrected; a checkpoint of a version that did not note what else it had is taken as it is, with a warning."""
    path = checkpoint / CONFIG
    manifest = read_json(checkpoint / MANIFEST)
    if not path.is_file():
        raise CheckpointError(f"{checkpoint}: {CONFIG} is missing; allowed: a checkpoint as train.py wrote it")
    if digest_file(path) == manifest["files"].get(CONFIG, {}).get("sha256"):
        return
    try:
        now = settings_digest(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, ValueError, AttributeError):
        raise CheckpointError(f"{path}: not readable; allowed: a config.yaml as train.py wrote it") from None
    if "settings" not in manifest:
        log.warning("%s was edited: its settings are taken as they are now", path)
    elif now != manifest["settings"]:
        allowed = f"those of the weights, but for {', '.join(f'data.{place}' for place in PLACES)} and train.from"
        raise CheckpointError(f"{path}: edited, with other settings; allowed: {allowed}")


def check_same_corpus(checkpoint: Path, progress: Progress, manifest: Mapping[str, Any]) -> None:
    """Raises DataError where a prepared corpus (its manifest) is not the text, or not with the tokenizer, that a
    checkpoint was trained on.

    Settings do not show it: an edited file keeps its name.
    """
    for what, before, now in (
        ("corpus", progress.corpus_digest, manifest["corpus_digest"]),
        ("tokenizer", progress.tokenizer_digest, manifest["tokenizer_digest"]),
    ):
        if before and before != now:
            given = f"trained on {what} {before[:16]}, data.{what} is now {now[:16]}"
            allowed = f"the {'text' if what == 'corpus' else 'tokenizer'} as it was"
            raise DataError(f"{checkpoint}: {given}; allowed: {allowed} (or another study.name to train again)")


def check_weights(checkpoint: Path, model: nn.Module) -> None:
    """Raises CheckpointError where weights differ from a model's in names, shapes or dtypes. The model may be on the
    meta device."""
    _check_same(Tensors(checkpoint, "model"), model, WHOLE)


@torch.no_grad()
def load_model(checkpoint: Path, model: nn.Module, division: Division = WHOLE) -> None:
    """Copy what this process has of the weights into a built model. Raises CheckpointError as `check_weights`
    does."""
    tensors = Tensors(checkpoint, "model")
    _check_same(tensors, model, division)
    for name, parameter in model.named_parameters():
        _read_into(own(parameter), tensors, name, division.pieces(name, parameter))


@torch.no_grad()
def load_optimizer(
    checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer, division: Division = WHOLE
) -> None:
    """Restore what this process has of AdamW's moments. Raises CheckpointError where they are not of this model."""
    tensors = Tensors(checkpoint, "optimizer")
    left = dict(tensors.entries)
    for name, parameter in model.named_parameters():
        moments = {part: left.pop(f"{part}.{name}", None) for part in ("step", "exp_avg", "exp_avg_sq")}
        missing = [part for part, entry in moments.items() if entry is None]
        if len(missing) == 3:  # never updated: nothing to restore
            continue
        shape = division.shape(name, parameter)
        if missing or any(moments[part].shape != shape for part in ("exp_avg", "exp_avg_sq")):  # type: ignore[union-attr]
            raise CheckpointError(f"{checkpoint}: optimizer state of {name} is incomplete or of another shape")
        state = {"step": tensors.read_whole(f"step.{name}").to(parameter.device)}
        for part in ("exp_avg", "exp_avg_sq"):
            state[part] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
            _read_into(own(state[part]), tensors, f"{part}.{name}", division.pieces(name, parameter))
        optimizer.state[parameter] = state
    if left:
        raise CheckpointError(f"{checkpoint}: optimizer state of unknown parameters {sorted(left)[:3]}")


def _read_into(values: Tensor, tensors: Tensors, name: str, pieces: Sequence[Piece]) -> None:
    """Copy boxes of a whole tensor into what this process has of it."""
    for piece in pieces:
        piece.of_own(values).copy_(tensors.read(name, piece.whole, piece.size))


def _check_same(tensors: Tensors, model: nn.Module, division: Division) -> None:
    parameters, weights, checkpoint = dict(model.named_parameters()), tensors.entries, tensors.folder
    for name in sorted({*parameters, *weights}):
        if name not in weights or name not in parameters:
            which = "lacks" if name not in weights else "has an unknown"
            raise CheckpointError(f"{checkpoint}: {WEIGHTS} {which} {name}; allowed: the tensors of its config.yaml")
        given, dtype = weights[name], parameters[name].dtype
        shape = division.shape(name, parameters[name])
        if shape != given.shape or dtype != given.dtype:
            wanted = f"{dtype} {tuple(shape)}"
            raise CheckpointError(f"{checkpoint}: {name} is {given.dtype} {given.shape}; allowed: {wanted}")
