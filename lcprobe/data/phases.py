"""Phases of training: stretches of the budget with one stage of the mixture and one context length.

The stages of `data.mixture` and those of `train.length_schedule` each divide the budget; a phase is a part of both.
Batches and every check of a config read the sequence lengths of training from here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lcprobe.data.config import Stage
from lcprobe.lengths import LengthStage


@dataclass(frozen=True)
class Phase:
    """until: share of the budget at which it ends. stage: number in data.mixture. context_length: scheduled tokens.
    seqlens: tokens per sequence, one per step in turn."""

    until: float
    stage: int
    context_length: int
    seqlens: list[int]


def phases(mixture: Sequence[Stage], context_length: int, schedule: Sequence[LengthStage]) -> list[Phase]:
    """All phases in order; those without a step are among them.

    Raises ConfigError for a scheduled length that rows of context_length tokens cannot be split into, and for lengths
    of a stage that sequences of the scheduled length cannot be split into.
    """
    schedule = schedule or [LengthStage()]
    scheduled = [s.tokens(context_length, f"train.length_schedule[{i}]") for i, s in enumerate(schedule)]
    found = []
    for until in sorted({s.until for s in (*mixture, *schedule)}):
        stage, at = number_at(mixture, until), number_at(schedule, until)
        seqlens = mixture[stage].seqlens(context_length, f"data.mixture[{stage}]", scheduled[at])
        found.append(Phase(until, stage, scheduled[at], seqlens))
    return found


def number_at(stages: Sequence[Stage | LengthStage | Phase], progress: float) -> int:
    """The number of the stage that this share of the budget belongs to: the first that ends at or after it."""
    return next((i for i, stage in enumerate(stages) if progress <= stage.until), len(stages) - 1)
