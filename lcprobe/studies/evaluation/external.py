"""External prompts on trained models: lm-eval's tasks (`--harness`) and frozen files (`--frozen`), as tables and
JSON."""

import re
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from lcprobe.analysis.stats.intervals import wilson
from lcprobe.config import Config
from lcprobe.errors import ConfigError
from lcprobe.files import digest_file, digest_json, remove_leftovers, write_json
from lcprobe.merging import Settings
from lcprobe.probing.engines.contract import Continuations
from lcprobe.probing.external.lm_eval import (
    HarnessScore,
    HarnessTasks,
    harness_label,
    harness_model,
    make_tasks,
    require_harness,
    run_task,
)
from lcprobe.probing.frozen import FrozenFile, FrozenScore, read_frozen, score_frozen
from lcprobe.probing.sharing.work import ProbedCheckpoint
from lcprobe.schema import plain
from lcprobe.studies.console import print_rows, say
from lcprobe.studies.evaluation.dividing.checks import check_shared
from lcprobe.studies.evaluation.dividing.follower import follow_first
from lcprobe.studies.evaluation.dividing.loading import load_shared, with_others
from lcprobe.studies.evaluation.dividing.processes import sharing
from lcprobe.studies.evaluation.engines import continuations_of, device
from lcprobe.studies.evaluation.evaluate_study import resolve_targets
from lcprobe.studies.evaluation.jobs.reading_progress import ReadingProgress
from lcprobe.studies.evaluation.targets import Named
from lcprobe.studies.evaluation.variants import Variant, variants_of
from lcprobe.studies.status import versions
from lcprobe.tasks.text.tokenizer import Tokenizer, load_tokenizer

Row = dict[str, Any]
TABLE_TITLES = {"harness": "lm-eval", "frozen": "frozen prompts: RULER's substring rule and exact match"}
TABLE_NOTES = {
    "harness": "low, high: 95 % interval, where a document scores 0 to 1",
    "frozen": "rule: string_match_all or string_match_part; any exact: the continuation begins with one of the "
    "references, "
    "token by token (one is enough even where the rule requires all); alone: the first answer has all references and "
    "nothing else; recall, precision: of the first answer; low, high: 95 % interval",
}


def evaluate_external(
    given: list[Named], settings: Settings, named: Config | None, tasks: list[str], files: list[Path]
) -> None:
    """Run lm-eval's tasks and frozen files on every target; one JSON file per model and task or file, in
    <folder>/harness and <folder>/frozen.

    A file's name ends in a digest of the settings and the checkpoint, so that other settings do not overwrite it.
    Names and files are checked before a model is loaded or anything is written.
    """
    if tasks:
        require_harness()
    frozen = [read_frozen(path) for path in files]
    targets, config, out = resolve_targets(given, settings, named)
    tokenizers = [load_tokenizer(t.config.data.tokenizer, t.config.data.bos) for t in targets]
    if len({t.identity for t in tokenizers}) > 1:
        raise ConfigError("data.tokenizer", "several", "models of one tokenizer, or a command for each")
    tokenizer = tokenizers[0]
    variants, left_out = variants_of(targets, config.pe, config.compat)
    check_shared(variants, config.probe)
    harness = make_tasks(tasks, config.probe.harness, tokenizer.json_text) if tasks else None
    table: dict[str, list[Row]] = {"harness": [], "frozen": []}
    with sharing(config.probe, config.kernels, out) as rank:
        if rank:
            follow_first(config.probe.hang_minutes)
            return
        say(*(f"left out: {note}" for note in left_out))
        for variant in variants:
            with with_others(config.probe):
                for kind, row in _rows(variant, harness, frozen, tokenizer, config, out):
                    table[kind].append(row)
    remove_leftovers(out)
    for kind, rows in table.items():
        if rows:
            print_rows(rows, TABLE_TITLES[kind])
            say(TABLE_NOTES[kind], f"{kind}: {out / kind}")


def _rows(
    variant: Variant,
    harness: HarnessTasks | None,
    frozen: list[FrozenFile],
    tokenizer: Tokenizer,
    config: Config,
    out: Path,
) -> Iterator[tuple[str, Row]]:
    """Kind and row of everything that a model is measured on, each written to its file first."""
    loaded, checkpoint = load_shared(variant, device(), None, config.probe)
    facts = {
        "model": checkpoint.name,
        "checkpoint": checkpoint.digest,
        "tokens_trained": checkpoint.tokens,
        "versions": versions(),
    }
    facts |= {"extension": checkpoint.extension, "precision": checkpoint.precision}
    facts |= {"compat": list(checkpoint.compat.active)}
    progress = ReadingProgress()
    continuer = continuations_of(loaded, config.probe, progress.watch)
    if harness:
        for number, name in enumerate(harness.by_name, start=1):
            progress.what = f"{variant.name}, {name} (task {number} of {len(harness.by_name)})"
            rows, document = _harness(harness, name, continuer, tokenizer, config)
            write_json(
                out / "harness" / _file_name(variant, name, document["settings"], checkpoint),
                {**document, **facts},
            )
            yield from (("harness", {"model": variant.name, **row}) for row in rows)
    for number, file in enumerate(frozen, start=1):
        progress.what = f"{variant.name}, {file.path.name} (file {number} of {len(frozen)})"
        row, document = _frozen(file, continuer, tokenizer, config)
        path = out / "frozen" / _file_name(variant, document["name"], document["settings"], checkpoint)
        write_json(path, {**document, **facts})
        yield "frozen", {"model": variant.name, **row}


def _harness(
    tasks: HarnessTasks, name: str, continuer: Continuations, tokenizer: Tokenizer, config: Config
) -> tuple[list[Row], Row]:
    result = run_task(tasks, name, harness_model(continuer, tokenizer), config.probe.harness)
    rows = [_harness_row(score) for score in result.scores]
    facts = {"label": harness_label(name), "settings": plain(config.probe.harness), "task_versions": result.versions}
    return rows, {**facts, "scores": rows, "samples": result.samples}


def _harness_row(score: HarnessScore) -> Row:
    """A row of the table. Bounds where each document scores 0 .. 1: Wilson's, which are conservative for shares in
    between."""
    low, high = _bounds(sum(score.hits), score.n) if score.hits else (None, None)
    row = {"task": harness_label(score.task), "metric": score.metric, "value": score.value, "low": low, "high": high}
    return row | {"stderr": score.stderr, "n": score.n}


def _frozen(
    file: FrozenFile, continuer: Continuations, tokenizer: Tokenizer, config: Config
) -> tuple[dict[str, Any], dict[str, Any]]:
    settings = config.probe.frozen
    limited = replace(file, prompts=file.prompts[: settings.limit])
    tokens = limited.tokens if settings.tokens is None else settings.tokens
    rule = limited.rule if settings.rule == "auto" else settings.rule
    scores = score_frozen(limited, continuer, tokenizer, tokens, rule)
    digest = digest_file(file.path)
    name = "/".join(file.path.parts[-2:])
    row = {"file": name, "rule": rule, "n": len(scores), **dict(_columns(scores))}
    facts = {"name": f"{file.path.stem}-{digest[:8]}", "file": name, "sha256": digest, "kind": limited.kind}
    facts |= {"settings": {"rule": rule, "tokens": tokens, "limit": settings.limit}}
    facts |= {"summary": row, "prompts": [asdict(score) for score in scores]}
    return row, facts


def _columns(scores: list[FrozenScore]) -> Iterator[tuple[str, float]]:
    """Means over prompts, with Wilson's bounds, which are conservative where a prompt scores a share."""
    for name, title, short in (
        ("ruler", "RULER", "RULER"),
        ("any_exact", "any exact", "any"),
        ("alone", "alone", "alone"),
    ):
        total = sum(float(getattr(score, name)) for score in scores)
        low, high = _bounds(total, len(scores))
        yield from ((title, total / len(scores)), (f"{short} low", low), (f"{short} high", high))
    for name in ("recall", "precision"):
        yield name, sum(getattr(score, name) for score in scores) / len(scores)


def _bounds(total: float, n: int) -> tuple[float, float]:
    low, high = wilson(total, n)
    return float(low), float(high)


def _file_name(variant: Variant, name: str, settings: Row, checkpoint: ProbedCheckpoint) -> str:
    """`mamba2.niah_single_1-0f3a9c21.json`: the digest covers all else that the numbers depend on."""
    depends = {k: v for k, v in checkpoint.facts.items() if k != "name"} | {"settings": settings}
    return re.sub(r"[^A-Za-z0-9._+-]", "_", f"{variant.name}.{name}-{digest_json(depends)[:8]}.json")
