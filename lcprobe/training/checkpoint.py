"""Checkpoints: folders with digests of their files, written atomically. Safetensors and JSON, no pickle.

    step-00001200/  model.safetensors  optimizer.safetensors  state.json  config.yaml  manifest.json

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
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lcprobe.dialect import read_yaml
from lcprobe.errors import CheckpointError, DataError, listed
from lcprobe.files import MANIFEST, digest_file, digest_json, publish_folder, read_json, verify_folder, write_json

CONFIG = "config.yaml"
PLACES = ("corpus", "folder", "tokenizer")
"""Settings of `data` that say where something is: what it is shows by its digest."""
STEP = re.compile(r"step-([0-9]{8,18})")
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Progress:
    """How far a run is. digest: rolling digest of all batches so far; skipped: steps with non-finite gradients;
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


def save_checkpoint(
    folder: Path, progress: Progress, model: nn.Module, optimizer: torch.optim.Optimizer, config_yaml: str, keep: int
) -> Path:
    """Write `step-N` into `folder` and remove all but the newest `keep`. Raises OSError when it cannot be written."""
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".tmp-{progress.step}-{os.getpid()}"
    shutil.rmtree(temporary, ignore_errors=True)
    temporary.mkdir()
    try:
        save_file(_tensors(model), temporary / "model.safetensors")
        save_file(_moments(model, optimizer), temporary / "optimizer.safetensors")
        write_json(temporary / "state.json", asdict(progress))
        (temporary / CONFIG).write_text(config_yaml, encoding="utf-8")
        final = folder / f"step-{progress.step:08d}"
        facts = {"kind": "checkpoint", "step": progress.step, "settings": settings_digest(config_yaml)}
        publish_folder(temporary, final, facts)
    except SafetensorError as error:  # safetensors raises it for a full disk
        raise OSError(28, f"checkpoint not written ({error})", str(folder)) from None
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    for _, old in checkpoints(folder)[keep:]:
        shutil.rmtree(old, ignore_errors=True)
    return final


def checkpoints(folder: Path) -> list[tuple[int, Path]]:
    """(step, folder) of all checkpoints, newest first, not verified."""
    if not folder.is_dir():
        return []
    steps = [
        (int(m.group(1)), path) for path in folder.iterdir() if (m := STEP.fullmatch(path.name)) and path.is_dir()
    ]
    return sorted(steps, reverse=True)


def damage_of(checkpoint: Path) -> str | None:
    """Why a checkpoint's weights or state cannot be used; None where they can, whatever config.yaml is now."""
    if not (checkpoint / MANIFEST).is_file():
        return f"no {MANIFEST}"
    return verify_folder(checkpoint, without=(CONFIG,))[1]


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
        raise CheckpointError(f"{folder}: no valid checkpoint ({damaged}); delete the folder to train from the start")
    return None


def load_progress(checkpoint: Path) -> Progress:
    """How far the run was at a checkpoint."""
    return Progress(**read_json(checkpoint / "state.json"))


def newest_progress(folder: Path) -> Progress:
    """How far a run was at its newest checkpoint, and what on, by the folder of its checkpoints; nothing where there
    is none. Verifies nothing."""
    for _, path in checkpoints(folder):
        with suppress(OSError, ValueError, TypeError):  # damaged
            return load_progress(path)
    return Progress()


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
    _check_same(checkpoint, model, _read(checkpoint / "model.safetensors"))


def load_model(checkpoint: Path, model: nn.Module) -> None:
    """Copy weights into a built model. Raises CheckpointError as `check_weights` does."""
    weights = _read(checkpoint / "model.safetensors")
    _check_same(checkpoint, model, weights)
    model.load_state_dict(weights, strict=True)


def load_optimizer(checkpoint: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
    """Restore AdamW's moments. Raises CheckpointError where they are not of this model."""
    saved = _read(checkpoint / "optimizer.safetensors")
    for name, parameter in model.named_parameters():
        moments = {part: saved.pop(f"{part}.{name}", None) for part in ("step", "exp_avg", "exp_avg_sq")}
        missing = [part for part, value in moments.items() if value is None]
        if len(missing) == 3:  # never updated: nothing to restore
            continue
        if missing or moments["exp_avg"].shape != parameter.shape:  # type: ignore[union-attr]
            raise CheckpointError(f"{checkpoint}: optimizer state of {name} is incomplete or of another shape")
        optimizer.state[parameter] = {k: v.to(parameter.device) for k, v in moments.items() if v is not None}
    if saved:
        raise CheckpointError(f"{checkpoint}: optimizer state of unknown parameters {sorted(saved)[:3]}")


def _tensors(model: nn.Module) -> dict[str, Tensor]:
    return {name: p.detach().cpu().contiguous() for name, p in model.named_parameters()}


def _moments(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    moments = {}
    for name, parameter in model.named_parameters():
        for part, value in optimizer.state.get(parameter, {}).items():
            moments[f"{part}.{name}"] = value.detach().cpu().contiguous()
    return moments


def _read(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (OSError, SafetensorError) as error:
        raise CheckpointError(f"{path}: not readable ({error})") from None


def _check_same(checkpoint: Path, model: nn.Module, weights: dict[str, Tensor]) -> None:
    parameters = dict(model.named_parameters())
    for name in sorted({*parameters, *weights}):
        if name not in weights or name not in parameters:
            which = "lacks" if name not in weights else "has an unknown"
            raise CheckpointError(
                f"{checkpoint}: model.safetensors {which} {name}; allowed: the tensors of its config.yaml"
            )
        given, allowed = weights[name], parameters[name]
        if allowed.shape != given.shape or allowed.dtype != given.dtype:
            wanted = f"{allowed.dtype} {tuple(allowed.shape)}"
            raise CheckpointError(f"{checkpoint}: {name} is {given.dtype} {tuple(given.shape)}; allowed: {wanted}")
