"""What is made from what: a training run uses a data set and makes a checkpoint; an evaluation uses checkpoints and
makes records and a report. Names stay; versions are by content, wherever it is."""

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from lcprobe.config import Config
from lcprobe.files import MANIFEST, digest_json, read_json
from lcprobe.studies.tracking.wandb_tracker import WandbRun
from lcprobe.tracking import Artifact
from lcprobe.training.checkpoint import load_progress

MAX_LABEL = 60
"""Characters of the names of a data set's sources."""


def dataset_of(run: WandbRun) -> Artifact:
    """The prepared corpus of a training run, by the digests of text and tokenizer: no token is read."""
    data: Mapping[str, Any] = run.config["data"]
    digests = {name: str(run.config[name]) for name in ("corpus_digest", "tokenizer_digest")}
    label = "-".join(_label(source) for source in data["corpus"])[:MAX_LABEL]
    facts = {**digests, "tokenizer": str(data["tokenizer"]), "place": os.path.abspath(data["folder"])}
    return Artifact(f"data-{label}", "dataset", digest_json(digests), facts=facts)


def checkpoint_of(config: Config, run_folder: Path, checkpoint: Path) -> Artifact:
    """A checkpoint of a run, without the state of its optimiser."""
    progress = load_progress(checkpoint)
    name = f"{config.study.name}-{config.study.run or run_folder.name}-checkpoint"
    known = read_json(checkpoint / MANIFEST)["files"]
    own = [inside for inside in sorted(known) if not Path(inside).name.startswith("optimizer")]
    digest = digest_json({inside: known[inside]["sha256"] for inside in own})
    facts = {"step": progress.step, "tokens": progress.tokens, "place": str(checkpoint.resolve())}
    return Artifact(name, "checkpoint", digest, {inside: checkpoint / inside for inside in own}, facts)


def records_of(name: str, home: Path) -> Artifact:
    """The records of a study, of tasks and of text."""
    folders = [home / place for place in ("records", "records/packed", "context")]
    files = [path for folder in folders for path in sorted(folder.glob("*.parquet"))]
    return Artifact(f"{name}-records", "records", files=_named(files, home), facts={"place": str(home.resolve())})


def report_of(name: str, html: Path, home: Path) -> Artifact:
    """The page of a report, which has all that it needs, and its tables. Of several reports of a study, each has its
    own name."""
    inside = html.parent.resolve().relative_to(home.resolve()).parts if _is_below(html, home) else ()
    files = [html, *sorted((html.parent / "tables").glob("*.csv"))]
    facts = {"place": str(html.parent.resolve())}
    return Artifact("-".join([name, *inside, "report"]), "report", files=_named(files, html.parent), facts=facts)


def _named(files: Iterable[Path], folder: Path) -> dict[str, Path]:
    return {path.relative_to(folder).as_posix(): path for path in files}


def _is_below(path: Path, home: Path) -> bool:
    return path.resolve().is_relative_to(home.resolve())


def _label(source: Any) -> str:
    """A source of text in a word: its name, or that of its file."""
    given = str(source.get("path", source.get("type", "text")) if isinstance(source, Mapping) else source)
    return Path(given).stem or given
