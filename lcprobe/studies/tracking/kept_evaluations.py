"""What evaluations have said of a model so far, by question, in a file beside its run: an offline W&B folder cannot
add to an earlier one, so that each has the results of all questions.

Questions may give values one name (`eval/multikey@1024` with other episodes). What one of them says of a task at a
length stays together, and so does what it says of the task at all lengths (its effective length): the study's own
question keeps its values, then that with more answers, then the latest. The same question again replaces what it
said.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple

from lcprobe.files import read_json, write_json
from lcprobe.studies.tracking.eval_values import LENGTH, Values, place_of

KEPT = "wandb_eval.json"
"""In a run's folder."""
ACCURACY = "/accuracy"


@dataclass(frozen=True)
class Evaluation:
    """The answer to a question about one model. question: its digest; summary: final values; curves: rows over
    length, see `eval_values`; own: whether it is the study's own question, that of its first report."""

    question: str
    summary: Values
    curves: list[Values]
    own: bool = False

    def answers(self, place: tuple[str, int | None]) -> float:
        """Answers that its values of a place are from."""
        panel, length = place
        counts = {place_of(name): n for name, n in self.summary.items() if name.endswith("/n")}
        return sum(n for (of, at), n in counts.items() if of == panel and length in (None, at))


class Shared(NamedTuple):
    """Names of values that a new evaluation has replaced of other questions, and of its own that these keep."""

    replaced: list[str]
    kept: list[str]


@dataclass(frozen=True)
class Merged:
    """What several evaluations say together."""

    summary: Values
    curves: list[Values]


def keep(file: Path, new: Evaluation) -> Shared:
    """Add an evaluation to a file, as its latest; what it shares with those of other questions."""
    others = [one for one in read_kept(file) if one.question != new.question]
    if new.own:
        others = [replace(one, own=False) for one in others]
    before = merged(others).summary
    write_json(file, [asdict(one) for one in (*others, new)])
    after = merged([*others, new]).summary
    differs = [name for name, value in new.summary.items() if name in before and before[name] != value]
    replaced = [name for name in differs if after.get(name) == new.summary[name]]
    return Shared(replaced, [name for name in differs if name not in replaced])


def read_kept(file: Path) -> list[Evaluation]:
    """The evaluations in a file, the latest last; none where it is not there or broken."""
    try:
        return [Evaluation(**one) for one in read_json(file)]
    except (OSError, ValueError, TypeError):
        return []


def merged(evaluations: Sequence[Evaluation]) -> Merged:
    """All of them as one: of every place those values that one question has."""
    said: dict[tuple[str, int | None], Evaluation] = {}
    for one in evaluations:
        for place in _places(one):
            first = said.get(place)
            if first is None or (one.own, one.answers(place)) >= (first.own, first.answers(place)):
                said[place] = one
    summary: Values = {}
    rows: dict[float, Values] = {}
    for one in evaluations:
        summary |= {name: value for name, value in one.summary.items() if said[place_of(name)] is one}
        for row in one.curves:
            own = {
                name: value
                for name, value in row.items()
                if said.get((name.removesuffix(ACCURACY), int(row[LENGTH])), one) is one
            }
            rows.setdefault(row[LENGTH], {}).update(own)
    return Merged(summary, [rows[length] for length in sorted(rows) if len(rows[length]) > 1])


def _places(evaluation: Evaluation) -> Iterator[tuple[str, int | None]]:
    """The places that an evaluation has something to say of: its tasks at each length, and as a whole, for which it
    may have no value."""
    places = dict.fromkeys(map(place_of, evaluation.summary))
    yield from dict.fromkeys((*places, *((panel, None) for panel, _ in places)))
