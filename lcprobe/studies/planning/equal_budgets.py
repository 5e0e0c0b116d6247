"""What is held equal across the training lengths of a study: `match.training` and `match.batch`.

The reference of a run is the run with the same labels at the shortest training length, whose train.tokens and
train.batch_tokens are as configured; those of the others follow from it. What a level of the grid sets itself stays.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from lcprobe.errors import require
from lcprobe.models.config import MatchConfig
from lcprobe.models.matching import Matched
from lcprobe.studies.planning.axes import Axis, Labels
from lcprobe.studies.planning.duplicates import Draft
from lcprobe.training.config import TrainConfig

BUDGET_KEYS = ("tokens", "batch_tokens")


def references(lengths: Mapping[Labels, int], axes: Sequence[Axis]) -> dict[Labels, Labels]:
    """For each run, its reference, which may be itself. lengths: training length by labels."""
    shortest: dict[tuple[str, ...], Labels] = {}
    for labels, length in lengths.items():
        rest = _without_length(labels, axes)
        if rest not in shortest or length < lengths[shortest[rest]]:
            shortest[rest] = labels
    return {labels: shortest[_without_length(labels, axes)] for labels in lengths}


def _without_length(labels: Labels, axes: Sequence[Axis]) -> tuple[str, ...]:
    return tuple(label for label, axis in zip(labels, axes, strict=True) if not axis.sets_training_length)


def training_length(mapping: Mapping[str, Any]) -> int:
    """train.context_length of a mapping that is not checked yet; the default where it has none or a wrong one."""
    length = (mapping.get("train") or {}).get("context_length")
    return length if isinstance(length, int) and not isinstance(length, bool) else TrainConfig.context_length


def kept_keys(patches: Iterable[Mapping[str, Any]]) -> frozenset[str]:
    """The keys of BUDGET_KEYS that levels of the grid set themselves."""
    return frozenset(key for patch in patches for key in BUDGET_KEYS if key in (patch.get("train") or {}))


def budget(reference: TrainConfig, length: int, rules: MatchConfig, kept: Mapping[str, Any]) -> dict[str, Any]:
    """train.batch_tokens and train.tokens at another training length, before costs are known: with `match.training`
    flops as with tokens. kept: the keys that the grid sets, as written. Raises ConfigError where as many tokens as
    the reference's are less than one step."""
    batch = kept.get("batch_tokens", reference.batch_tokens)
    if rules.batch == "rows" and "batch_tokens" not in kept:
        exact = reference.batch_tokens * length / reference.context_length
        batch = int(exact) if exact == int(exact) else exact  # checked as what a user writes
    if "tokens" in kept or not isinstance(batch, int) or batch < 1:
        return {"batch_tokens": batch, "tokens": kept.get("tokens", reference.tokens)}
    if rules.training == "tokens":
        _check_one_step(reference, length, batch)
    steps = reference.steps * (1 if rules.training == "steps" else reference.batch_tokens / batch)
    return {"batch_tokens": batch, "tokens": _tokens(max(round(steps), 1), batch, reference)}


def with_equal_flops(train: TrainConfig, own: Matched, reference: TrainConfig, matched: Matched) -> TrainConfig:
    """The budget that takes as many FLOPs as the reference's, in whole steps. own, matched: the run's and the
    reference's model, each with its cost at its training length. Raises ConfigError for less than one step."""
    _check_one_step(reference, train.context_length, train.batch_tokens, own.cost.flops / matched.cost.flops)
    tokens = reference.steps * reference.batch_tokens * matched.cost.flops / own.cost.flops
    steps = round(tokens / train.batch_tokens)
    changed = replace(train, tokens=_tokens(steps, train.batch_tokens, reference))
    changed.check("train")
    return changed


def _check_one_step(reference: TrainConfig, length: int, batch: int, cost: float = 1.0) -> None:
    """Raises ConfigError where the reference's whole steps buy less than one of `batch` tokens at another length.
    cost: FLOPs of such a token over those of the reference."""
    least = math.ceil(batch * cost / reference.batch_tokens) * reference.batch_tokens
    enough = reference.steps * reference.batch_tokens >= least
    flops = "" if cost == 1 else f", each {cost:.3g} times the FLOPs"
    allowed = f">= {least}, for one step at training length {length} ({batch} tokens{flops})"
    require("train.tokens", reference.tokens, enough, allowed)


def _tokens(steps: int, batch: int, reference: TrainConfig) -> int:
    """Tokens of whole steps. The reference's own are as configured, which need not be whole steps."""
    same = (steps, batch) == (reference.steps, reference.batch_tokens)
    return reference.tokens if same else steps * batch


def budget_notes(drafts: Mapping[str, Draft]) -> list[str]:
    """A note on the settings that the grid sets itself, where there are several training lengths. drafts: by run."""
    if len({draft.config.train.context_length for draft in drafts.values()}) < 2:
        return []
    notes = []
    for key in BUDGET_KEYS:
        names = [name for name, draft in drafts.items() if key in draft.kept]
        if names:
            notes.append(f"train.{key}: as the grid sets it, whatever match has: {', '.join(names)}")
    return notes


def in_words(rules: MatchConfig) -> str:
    """What is held equal, as the plan and the report print it: `tokens (batch in tokens)`."""
    return f"{'FLOPs' if rules.training == 'flops' else rules.training} (batch in {rules.batch})"
