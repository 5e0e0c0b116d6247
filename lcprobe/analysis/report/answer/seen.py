"""What was seen between models, where no test resolves a difference between any."""

from typing import NamedTuple

from lcprobe.analysis.findings.results import Results
from lcprobe.analysis.report.answer.headline import Score, headline_tables
from lcprobe.analysis.report.wording import MODELS, Sentence
from lcprobe.analysis.stats.estimates import Proportion


class _Seen(NamedTuple):
    """gap: between the lowest seed of the higher model and the highest of the lower one."""

    gap: float
    task: str
    length: int
    higher: str
    lower: str


def seen_between_models(results: Results) -> list[Sentence]:
    """One sentence on the task and length at which two models are farthest apart in all of their seeds; none where
    seeds or intervals overlap everywhere."""
    seen = [
        _Seen(min(_seeds(a)) - max(_seeds(b)), table.task, a.length, _text(first.model, a), _text(second.model, b))
        for table in headline_tables(results)
        for first in table.rows
        for second in table.rows
        for a, b in zip(first.scores, second.scores, strict=True)
        if _above(a, b)
    ]
    if not seen:
        return []
    most = max(seen, key=lambda item: item.gap)
    text = f"{most.task}: seen at {most.length:,} tokens, where models differ most, and not resolved: "
    text += f"{most.higher} above {most.lower}. No finding compares models."
    return [Sentence(MODELS, text, subject=most.task, task=most.task)]


def _above(a: Score, b: Score) -> bool:
    """Whether the interval of a is above that of b, and so are all of its seeds."""
    if not isinstance(a.estimate, Proportion) or not isinstance(b.estimate, Proportion):
        return False
    return a.estimate.low > b.estimate.high and min(_seeds(a)) > max(_seeds(b))


def _seeds(score: Score) -> list[float]:
    return [*score.by_seed] or [score.estimate.value if isinstance(score.estimate, Proportion) else 0.0]


def _text(model: str, score: Score) -> str:
    """`mamba2 0.78 (by seed 0.74 to 0.80)`."""
    value = f"{score.estimate.value:.2f}" if isinstance(score.estimate, Proportion) else ""
    seeds = score.by_seed
    return f"{model} {value}" + (f" (by seed {min(seeds):.2f} to {max(seeds):.2f})" if len(seeds) > 1 else "")
