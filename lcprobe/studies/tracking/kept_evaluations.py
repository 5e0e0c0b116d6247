"""What evaluations have said of a model so far, by question, in a file beside its run: an offline W&B folder cannot
add to an earlier one, so that each has the results of all questions.

Questions that give a value the same name (`eval/multikey@1024` with other episodes) share it: the latest wins. The
same question again replaces what it said.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from lcprobe.files import read_json, write_json
from lcprobe.studies.tracking.eval_values import LENGTH, Values

KEPT = "wandb_eval.json"
"""In a run's folder."""


@dataclass(frozen=True)
class Evaluation:
    """The answer to a question about one model. question: its digest; summary: final values; curves: rows over
    length, see `eval_values`."""

    question: str
    summary: Values
    curves: list[Values]


@dataclass(frozen=True)
class Merged:
    """What several evaluations say together."""

    summary: Values
    curves: list[Values]


def keep(file: Path, new: Evaluation) -> list[str]:
    """Add an evaluation to a file, as its latest; names of values that it replaces of other questions."""
    others = [one for one in read_kept(file) if one.question != new.question]
    before = merged(others).summary
    write_json(file, [asdict(one) for one in (*others, new)])
    return [name for name, value in new.summary.items() if name in before and before[name] != value]


def read_kept(file: Path) -> list[Evaluation]:
    """The evaluations in a file, the latest last; none where it is not there or broken."""
    try:
        return [Evaluation(**one) for one in read_json(file)]
    except (OSError, ValueError, TypeError):
        return []


def merged(evaluations: Sequence[Evaluation]) -> Merged:
    """All of them as one: of a value that several have, the last one's."""
    summary: Values = {}
    rows: dict[float, Values] = {}
    for one in evaluations:
        summary |= one.summary
        for row in one.curves:
            rows.setdefault(row[LENGTH], {}).update(row)
    return Merged(summary, [rows[length] for length in sorted(rows)])
