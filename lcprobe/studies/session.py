"""Who is probed, with what: folders into checkpoints, checkpoints into one session over one grid."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import torch

from lcprobe.config import Config, parse
from lcprobe.data.prepare import Prepared, prepare
from lcprobe.errors import CheckpointError, ConfigError, EpisodeError
from lcprobe.files import MANIFEST, digest_file, verify_folder
from lcprobe.models.language_model import LanguageModel
from lcprobe.probing.cache import EpisodeCache
from lcprobe.probing.context import run_context
from lcprobe.probing.grid import Plan, TaskSet
from lcprobe.probing.runner import SayLines, Subject, run_plan, say_shared
from lcprobe.probing.scoring import ModelScorer
from lcprobe.probing.store import Store
from lcprobe.records import CONTEXT_SCHEMA
from lcprobe.studies.run import read_run_config
from lcprobe.training.checkpoint import check_same_corpus, latest, load_model, load_progress
from lcprobe.training.module import at_step

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Target:
    """A checkpoint to probe, and the run that it comes from."""

    name: str
    checkpoint: Path
    config: Config
    run_folder: Path | None


def find_targets(folders: list[Path]) -> list[Target]:
    """Study, run or checkpoint folders -> targets. Raises ConfigError for anything else, CheckpointError for a damaged one."""
    found: list[Target] = []
    for folder in folders:
        if (folder / "model.safetensors").is_file():
            run_folder = folder.parent.parent if folder.parent.name == "checkpoints" else None
            found.append(_target(folder, run_folder))
        elif (folder / "checkpoints").is_dir():
            checkpoint = latest(folder / "checkpoints")
            if checkpoint is None:
                raise CheckpointError(f"{folder}: no checkpoint yet; allowed: a run that was trained")
            found.append(_target(checkpoint, folder))
        elif (folder / "study.yaml").is_file():
            runs = sorted(p.parent for p in folder.glob("*/config.yaml") if (p.parent / "checkpoints").is_dir())
            if not runs:
                raise CheckpointError(f"{folder}: no trained run yet; allowed: train.py {folder / 'study.yaml'} first")
            found += find_targets(runs)
        else:
            raise ConfigError("command line", str(folder), "a config, a study folder, a run folder, or a checkpoint folder")
    names = [t.name for t in found]
    twice = {n for n in names if names.count(n) > 1}
    if twice:  # runs of two studies: tell them apart by their folders
        found = [replace(t, name=_long_name(t)) if t.name in twice else t for t in found]
    return found


def _long_name(target: Target) -> str:
    folder = target.run_folder or target.checkpoint
    tail = f"@{target.checkpoint.name}" if target.run_folder is None else ""
    return f"{folder.parent.name}.{folder.name}{tail}"


def _target(checkpoint: Path, run_folder: Path | None) -> Target:
    damage = verify_folder(checkpoint)[1] if (checkpoint / MANIFEST).is_file() else "no manifest.json"
    if damage:
        raise CheckpointError(f"{checkpoint}: {damage}; allowed: a checkpoint as train.py wrote it")
    config = parse(read_run_config(checkpoint))
    return Target(config.study.run or (run_folder or checkpoint).name, checkpoint, config, run_folder)


@dataclass(frozen=True)
class Session:
    """Everything that one `evaluate.py` works with."""

    targets: list[Target]
    config: Config
    out: Path
    store: Store
    tasks: TaskSet
    plan: Plan
    data: Prepared


def open_session(targets: list[Target], config: Config, out: Path) -> Session:
    """Tasks and units for these targets. Raises ConfigError when they were trained at different lengths or tokenizers."""
    first = targets[0].config
    for target in targets[1:]:
        for key in ("tokenizer", "bos"):
            if getattr(target.config.data, key) != getattr(first.data, key):
                given, wanted = (getattr(c.data, key) for c in (target.config, first))
                allowed = f"{wanted!r} as {targets[0].name}, or a report of its own"
                raise ConfigError(f"data.{key}", f"{target.name} has {given!r}", allowed)
        lengths = target.config.train.context_length, first.train.context_length
        if lengths[0] != lengths[1]:
            given = f"{target.name} was trained at {lengths[0]}"
            raise ConfigError("train.context_length", given, f"{lengths[1]} as {targets[0].name}, or a report of its own")
    if not config.probe.tasks or not config.probe.grids:
        raise ConfigError("probe.grids", "nothing to probe", "tasks and grids in the config (configs/probe has some)")
    data = prepare(first.data)
    for target in targets:
        check_same_corpus(target.checkpoint, data.manifest)
    cache = EpisodeCache(Path(first.data.folder) / "episodes", round(config.probe.cache_gb * 1e9))
    tasks = TaskSet(config.probe, data.materials("probe"), cache if cache.limit else None)
    plan = tasks.plan(config.probe.grids, first.train.context_length)
    if not plan.units:
        raise EpisodeError("probe.grids", plan.notes[0] if plan.notes else "no cell", "a grid with at least one cell that fits")
    return Session(targets, config, out, Store(out / "records"), tasks, plan, data)


def probe(session: Session, say: Callable[[str], Any] = SayLines) -> tuple[pa.Table, pa.Table | None]:
    """Probe every target; the records of the whole grid, and of plain text where the config asks for it."""
    tables, text_tables = [], []
    text_store, text = Store(session.out / "context", CONTEXT_SCHEMA), session.config.probe.context
    for target in session.targets:
        model, subject = loaded(target)
        generate = session.config.probe.scoring == "generate"
        chunk, batch_tokens = session.config.probe.chunk, session.config.probe.batch_tokens
        scorer = ModelScorer(model, session.data.tokenizer, device(), chunk, generate, batch_tokens)
        ids = run_plan(
            session.plan,
            session.tasks,
            scorer,
            subject,
            session.store,
            batch_tokens=batch_tokens,
            scoring=session.config.probe.scoring,
            say=say(target.name),
        )
        tables.append(session.store.read(ids))
        say_shared(target.name, tables[-1])
        if text is not None:
            unit = run_context(
                text,
                target.config.train.context_length,
                session.tasks.materials,
                model,
                subject,
                text_store,
                chunk=chunk,
                batch_tokens=batch_tokens,
                device=device(),
            )
            text_tables.append(text_store.read([unit]))
    return pa.concat_tables(tables), pa.concat_tables(text_tables) if text_tables else None


def device() -> str:
    """Where models are probed."""
    return "cuda" if torch.cuda.is_available() else "cpu"


def loaded(target: Target) -> tuple[LanguageModel, Subject]:
    """A target's model, ready to be asked, and who it is."""
    progress = load_progress(target.checkpoint)
    model = LanguageModel(target.config.model)
    load_model(target.checkpoint, model)
    at_step(model, target.config.train, progress.step)
    digest = digest_file(target.checkpoint / "model.safetensors")[:16]
    return model.to(device()).eval(), Subject(target.name, digest, progress.step, progress.tokens)
