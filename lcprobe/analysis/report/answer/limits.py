"""Limits of a study, folded by kind: one line each, with the full sentences behind it."""

from collections.abc import Sequence
from dataclasses import dataclass

from lcprobe.analysis.report.wording import Sentence, listed
from lcprobe.words import counted

MAX_NAMES = 4
"""Models or cells that a line names."""


@dataclass(frozen=True)
class Limit:
    """All warnings of one kind. line: such as `Learning rate not tuned: 3 models (mamba2, hybrid, transformerpp)`."""

    kind: str
    line: str
    sentences: tuple[str, ...]


def folded_limits(sentences: Sequence[Sentence]) -> list[Limit]:
    """Warnings among the sentences of a report (`summary.summary`) by kind, in their order."""
    kinds: dict[str, list[Sentence]] = {}
    for sentence in sentences:
        if sentence.warning:
            kinds.setdefault(sentence.kind, []).append(sentence)
    return [Limit(kind, _line(kind, own), tuple(s.text for s in own)) for kind, own in kinds.items()]


def _line(kind: str, sentences: Sequence[Sentence]) -> str:
    names = list(dict.fromkeys(name for s in sentences for name in s.about))
    if not names:
        return kind
    rest = len(names) - MAX_NAMES
    shown = listed(names[:MAX_NAMES]) + (f" and {rest} more" if rest > 0 else "")
    unit = sentences[0].unit
    return f"{kind}: {counted(len(names), unit)} ({shown})" if unit else f"{kind}: {shown}"
