"""Prompts of a few answers, built again and cut into pieces: needles, distractors, question, and text around them.

An episode is built from the factors of its record and shown only if its tokens have the record's digest.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa

from lcprobe.analysis.episodes import Chosen, Kind, Piece, ShownEpisode, ShownEpisodes, choose_episodes
from lcprobe.analysis.inputs import StudyFacts
from lcprobe.errors import LcprobeError
from lcprobe.probing.grid import TaskSet
from lcprobe.tasks.assembly import Task
from lcprobe.tasks.episode import Episode, Factors, Formats, Query
from lcprobe.tasks.parts.episode_text import without_bos
from lcprobe.tasks.parts.layout import EMPTY, Sample
from lcprobe.tasks.text.tokenizer import Tokenizer

KEPT = 16
"""Tokens of the haystack that are shown on either side of what is marked, and at both ends."""
MAX_NEEDLES = 12
"""Needles besides the target that are marked: the one that was printed, then those next to the target."""
MAX_PIECE, MAX_CHARACTERS = 4_000, 200_000
"""Characters of one piece, and of all prompts together."""


class Mark(NamedTuple):
    """Tokens from start to stop of a prompt, and what they are."""

    start: int
    stop: int
    kind: Kind


def shown_episodes(study: StudyFacts, records: pa.Table, tasks_of: Callable[[str], TaskSet]) -> ShownEpisodes:
    """The episodes that a report shows. records: of SCHEMA, those that it is about. tasks_of: the tasks that a model
    of this name was asked."""
    shown: list[ShownEpisode] = []
    left_out: dict[str, int] = {}
    total = 0
    for chosen in choose_episodes(records, study.runs, study.expected_cells):
        made = _shown(chosen, tasks_of(chosen.row["model"]))
        if isinstance(made, str):
            left_out[made] = left_out.get(made, 0) + 1
            continue
        total += sum(len(piece.text) for piece in made.pieces)
        if total > MAX_CHARACTERS:
            break
        shown.append(made)
    return ShownEpisodes(tuple(shown), tuple(f"{n} not shown: {reason}" for reason, n in left_out.items()))


def _shown(chosen: Chosen, tasks: TaskSet) -> ShownEpisode | str:
    """An answer with its prompt; why there is none."""
    row = chosen.row
    name, formats = row["task"], Formats(row["haystack"], row["key_format"], row["value_format"])
    factors = Factors(formats, row["length"], row["drawn_depth"], row["index"], row["control"])
    if name not in tasks.by_name:
        return f"{name} is no task of this study"
    try:
        episode = tasks.episode(name, factors)
    except LcprobeError as error:
        return f"{name}: the prompt cannot be built again ({error})"
    if episode.digest != row["episode"]:
        return f"{name}: the prompt that is built now is another one"
    query = episode.queries[row["query"]]
    marks = _marks(episode, query, tasks.tokenizer, row)
    question = _question(tasks.by_name[name], factors, episode, row["query"], tasks.tokenizer)
    marks += question
    shown = _chosen_marks(marks, query)
    others = sum(mark.kind in ("distractor", "picked") for mark in marks)
    return ShownEpisode(row, chosen.why, _pieces(episode, query, shown, tasks.tokenizer), others)


def _marks(episode: Episode, query: Query, tokenizer: Tokenizer, row: Mapping[str, Any]) -> list[Mark]:
    """Every needle of an episode, from the view of one question."""
    marks: list[Mark] = []
    value: tuple[int, int] | None = None
    if query.needle is not None and query.distance is not None:
        value = query.needle, query.start - query.distance
    printed = row["prediction"] or ""
    for start, stop in episode.needles:
        if value is not None and start <= value[0] < stop:
            marks += [Mark(start, value[0], "target"), Mark(*value, "value"), Mark(value[1], stop, "target")]
        elif start in query.via:
            marks.append(Mark(start, stop, "fact"))
        else:
            picked = not row["exact"] and _has(tokenizer.text_of(episode.ids[start:stop]), printed)
            marks.append(Mark(start, stop, "picked" if picked else "distractor"))
    if value is not None and not any(mark.kind == "value" for mark in marks):
        marks.append(Mark(*value, "value"))
    return [mark for mark in marks if mark.start < mark.stop]


def _has(text: str, printed: str) -> bool:
    """Whether a needle has what was printed, as words of its own."""
    return bool(printed) and re.search(rf"(?<!\w){re.escape(printed)}(?!\w)", text) is not None


def _question(task: Task[Any], factors: Factors, episode: Episode, number: int, tokenizer: Tokenizer) -> list[Mark]:
    """Where the question is, and its words at the start of the prompt where it is asked there; empty where it cannot
    be told. The words are those of the task's layout, in whose tokens the episode need not be."""
    query, marks = episode.queries[number], list[Mark]()
    sample = Sample(task.seed_names, factors, 0, task.materials)
    layout = task.layout(sample)
    question = layout.questions[number]
    turn = sample.frame.between if layout.separate or not number else EMPTY
    ask = np.concatenate([question.ask[: question.asked], turn, question.ask[question.asked :]])
    sequence = episode.sequence(query)
    first = len(sample.bos) + len(sample.frame.before)
    opening = layout.opening
    if len(opening) and np.array_equal(sequence[first : first + len(opening)], opening):
        marks.append(Mark(first, first + len(opening), "question"))
    words = task.materials.tokenizer.text_of(ask)
    for start in range(query.start - 1, max(query.start - 4 * len(ask), 0) - 1, -1):
        if words and tokenizer.text_of(sequence[start : query.start]) == words:
            marks.append(Mark(start, query.start, "question"))
            break
    return marks


def _chosen_marks(marks: list[Mark], query: Query) -> list[Mark]:
    """The marks that are shown, in order of appearance: of other needles at most MAX_NEEDLES."""
    at = query.start if query.needle is None else query.needle
    others = [mark for mark in marks if mark.kind in ("distractor", "picked")]
    near = sorted(others, key=lambda mark: (mark.kind != "picked", abs(mark.start - at)))[:MAX_NEEDLES]
    return sorted(mark for mark in marks if mark in near or mark not in others)


def _pieces(episode: Episode, query: Query, marks: list[Mark], tokenizer: Tokenizer) -> tuple[Piece, ...]:
    """The prompt of a question: what is marked, and the text between, shortened in its middle."""
    ids = episode.sequence(query)[: query.start]
    begin = len(ids) - len(without_bos(ids, tokenizer))
    pieces: list[Piece] = []
    for mark in [*marks, Mark(len(ids), len(ids), "text")]:
        if mark.start > begin:
            pieces += _text(ids[begin : mark.start], tokenizer)
        if mark.stop > max(mark.start, begin):
            text = tokenizer.text_of(ids[max(mark.start, begin) : mark.stop])
            blank = text[: len(text) - len(text.lstrip())]
            inside = mark.kind == "value" and pieces and pieces[-1].kind == "target"
            pieces += [Piece(blank, "target" if inside else "text"), Piece(_cut(text[len(blank) :]), mark.kind)]
        begin = max(begin, mark.stop)
    return tuple(piece for piece in pieces if piece.text)


def _text(ids: np.ndarray, tokenizer: Tokenizer) -> list[Piece]:
    """Text that nothing marks: both ends of a long one, whose tokens may end inside a character."""
    hidden = len(ids) - 2 * KEPT
    if hidden <= KEPT:
        return [Piece(_cut(tokenizer.text_of(ids)))]
    first, last = tokenizer.text_of(ids[:KEPT]).rstrip("�"), tokenizer.text_of(ids[-KEPT:]).lstrip("�")
    return [Piece(_cut(first)), Piece(f"{hidden:,} tokens", "gap"), Piece(_cut(last))]


def _cut(text: str) -> str:
    return text if len(text) <= MAX_PIECE else f"{text[: MAX_PIECE // 2]} … {text[-MAX_PIECE // 2 :]}"
