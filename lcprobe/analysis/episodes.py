"""Episodes that a report shows: which answers, right and wrong, and their prompts in pieces, as plain values.

The sample is chosen here, from the records; prompts are built again where the tasks are, in studies. It is the same
for the same records: of every task the samples have one random order, in which each model's first right and first
wrong answer are taken, so that models are seen at the same samples where they fail alike.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import pyarrow as pa

from lcprobe.analysis.inputs import RunFacts
from lcprobe.seeds import seed_of

MAX_EPISODES = 40
LOSS = 0.1
"""Drop of exact match from that at the training length, from which on something is lost."""
COLUMNS = (
    "model", "task", "haystack", "key_format", "value_format", "control", "length", "depth", "strata", "drawn_depth",
    "index", "query", "exact", "answer", "prediction", "rank", "n_candidates", "episode", "status", "scoring",
    "distance", "prompt_tokens",
)  # fmt: skip

Kind = Literal["text", "target", "value", "fact", "distractor", "picked", "question", "gap"]
"""What a piece of a prompt is: haystack, the target needle and the value in it, a fact that leads to it, another
needle, the needle whose value was printed instead, the question, or how much is left out."""
Why = Literal["trained", "lost", "longest"]
"""The length of an episode: the training length, the first at which something is lost, or the longest."""


@dataclass(frozen=True)
class Piece:
    """A piece of a prompt."""

    text: str
    kind: Kind = "text"


@dataclass(frozen=True)
class Chosen:
    """An answer that is shown. row: its record; COLUMNS."""

    row: Mapping[str, Any]
    why: Why


@dataclass(frozen=True)
class ShownEpisode:
    """An answer with its prompt. row: its record; COLUMNS. n_distractors: needles besides those that are marked
    otherwise."""

    row: Mapping[str, Any]
    why: Why
    pieces: tuple[Piece, ...]
    n_distractors: int

    @property
    def right(self) -> bool:
        """Whether the answer is exact."""
        return bool(self.row["exact"])


@dataclass(frozen=True)
class ShownEpisodes:
    """The episodes of a report by task and model, and why some are not there."""

    episodes: tuple[ShownEpisode, ...] = ()
    left_out: tuple[str, ...] = ()

    def by_task(self) -> dict[str, dict[str, list[ShownEpisode]]]:
        """Task, then model, in the order in which they were chosen."""
        found: dict[str, dict[str, list[ShownEpisode]]] = {}
        for one in self.episodes:
            found.setdefault(one.row["task"], {}).setdefault(one.row["model"], []).append(one)
        return found

    def under(self, names: Mapping[str, str]) -> "ShownEpisodes":
        """The same episodes under the names that a report gives to models, by their own."""
        shown = [
            replace(one, row={**one.row, "model": names.get(one.row["model"], one.row["model"])})
            for one in self.episodes
        ]
        return replace(self, episodes=tuple(shown))


NO_EPISODES = ShownEpisodes()


def choose_episodes(
    records: pa.Table, runs: Sequence[RunFacts], planned: Sequence[Mapping[str, Any]]
) -> list[Chosen]:
    """At most MAX_EPISODES answers, wrong ones first where there is no room for all: of the first seed of every
    model, on every task in its first format without control, at the training length and at the first length at which
    something is lost (the longest where nothing is). planned: cells as in StudyFacts.expected_cells."""
    formats: dict[str, tuple[str, str, str]] = {}
    for cell in planned:
        if cell["control"] == "none":
            formats.setdefault(cell["task"], (cell["haystack"], cell["key_format"], cell["value_format"]))
    models = {run.name: run for run in {(r.group, r.extension, r.template): r for r in reversed(runs)}.values()}
    shown = [run.name for run in runs if run.name in models]
    table = records.select([*COLUMNS])
    keep = pa.array(
        (_column(table, "status") == "ok")
        & (_column(table, "control") == "none")
        & (_column(table, "scoring") != "external")
        & np.isin(_column(table, "model"), shown)
    )
    panels: dict[tuple[str, str], pa.Table] = {}
    table = table.filter(keep)
    task, model = _column(table, "task"), _column(table, "model")
    named = ("haystack", "key_format", "value_format")
    for name, format in formats.items():
        own = np.logical_and.reduce([_column(table, n) == v for n, v in zip(named, format, strict=True)])
        for run in shown:
            mask = own & (task == name) & (model == run)
            if mask.any():
                panels[name, run] = table.filter(pa.array(mask))
    found = [list(_of_panel(panel, models[run].context_length)) for (_, run), panel in panels.items()]
    order = sorted(
        ((rank, number, one) for number, own in enumerate(found) for rank, one in own), key=lambda x: (x[0], x[1])
    )
    kept = sorted(order[:MAX_EPISODES], key=lambda x: (x[1], x[0]))
    return [one for _, _, one in kept]


def _of_panel(panel: pa.Table, context_length: int) -> Iterator[tuple[int, Chosen]]:
    """The answers of one model on one task, each with its rank: those at the loss before those at the training
    length, wrong before right."""
    length, exact = panel["length"].to_numpy(), panel["exact"].to_numpy(zero_copy_only=False).astype(bool)
    lengths = sorted({*length.tolist()})
    trained = max((n for n in lengths if n <= context_length), default=lengths[0])
    accuracy = {n: exact[length == n].mean() for n in lengths}
    longer = [n for n in lengths if n > trained]
    lost = next((n for n in longer if accuracy[n] <= accuracy[trained] - LOSS), None)
    places: list[tuple[int, Why]] = [(trained, "trained")]
    if longer:
        places.insert(0, (longer[-1], "longest") if lost is None else (lost, "lost"))
    rank = 0
    for at, why in places:
        rows = panel.filter(pa.array(length == at))
        hits = rows["exact"].to_numpy(zero_copy_only=False).astype(bool)
        order = _order(rows)
        for right in (False, True):
            first = next((i for i in order if hits[i] == right), None)
            if first is not None:
                yield rank, Chosen(rows.slice(first, 1).to_pylist()[0], why)
            rank += 1


def _order(rows: pa.Table) -> list[int]:
    """The rows of a task at one length in the random order of their samples, which is the same for all models."""
    names = ("index", "query", "depth")
    keys = list(zip(*(np.round(rows[name].to_numpy(), 6).tolist() for name in names), strict=True))
    task, length = rows["task"][0].as_py(), rows["length"][0].as_py()
    return sorted(range(len(keys)), key=lambda i: seed_of("shown episodes", task, length, *keys[i]))


def _column(table: pa.Table, name: str) -> np.ndarray:
    return table[name].to_numpy(zero_copy_only=False)
