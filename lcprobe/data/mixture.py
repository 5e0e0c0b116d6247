"""Training batches: a pure function of (config, seed, step, part), independent of the architecture.

slot     one row of context_length tokens; slot number g = step x rows + index within the step
kind     corpus text or an episode recipe, by a low-discrepancy sequence over g, so that shares hold early
text     row permuted(g) of the corpus: an epoch has each row at most once, and there is no state to save
length   the step's part of context_length: every row is split into sequences of that length
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import product

import numpy as np

from lcprobe.data.config import DataConfig, Stage
from lcprobe.data.phases import Phase, number_at, phases
from lcprobe.data.prepare import Prepared
from lcprobe.errors import ConfigError, DataError, EpisodeError
from lcprobe.files import digest_bytes
from lcprobe.lengths import LengthStage
from lcprobe.seeds import Draws, permuted
from lcprobe.tasks.episode import Episode, Factors, Formats
from lcprobe.tasks.parts.placement import depths_of

GOLDEN_RATIO_64 = 11400714819323198485
"""2^64 / golden ratio: multiples of it, mod 2^64, fill the circle as evenly as possible (Knuth 6.4)."""
RETRIES = 256
"""Samples tried for one training episode: few may fit at the least length of its formats. 8 bits of a sample's
number."""
MAX_KEPT_TOKENS = 1 << 22
"""Tokens of a whole budget whose batches are kept in memory for the next model: 50 MB."""


@dataclass(frozen=True)
class Batch:
    """One part of a step. tokens: (rows, seqlen) int64; weights: (rows, seqlen) float32, loss weight of each token;
    starts: (rows, seqlen) bool, where documents start, None where no row has a start after its first token;
    text_rows: (rows,) bool, False for episodes. before: (rows, n) int64, the text before each row, and before_starts:
    (rows, n) bool, both where the mixture has preceding text; a row without any has starts True at its first
    token."""

    tokens: np.ndarray
    weights: np.ndarray
    starts: np.ndarray | None
    text_rows: np.ndarray
    before: np.ndarray | None = None
    before_starts: np.ndarray | None = None

    @property
    def digests(self) -> list[str]:
        """Digest of each row's tokens and weights, all that a model is trained on: the same however rows are divided
        over parts."""
        each = [self.tokens.astype("<u4"), self.weights.astype("<f4")]
        each += [] if self.before is None else [self.before.astype("<u4")]
        return [digest_bytes(*(array[row].tobytes() for array in each)) for row in range(len(self.tokens))]

    @property
    def weight(self) -> float:
        """Sum of the weights."""
        return float(self.weights.sum(dtype=np.float64))


class Mixture:
    """Batches of a study. `parts` splits a step over accumulation and processes; every split gives the same step."""

    def __init__(
        self,
        config: DataConfig,
        data: Prepared,
        *,
        context_length: int,
        rows: int,
        steps: int,
        parts: int,
        seed: int,
        preceding: int = 0,
        schedule: Sequence[LengthStage] = (),
    ):
        """rows: of context_length tokens per step, over all parts. preceding: text before each sequence, in lengths
        of a sequence. schedule: train.length_schedule.

        Raises ConfigError for sizes that do not divide each other, DataError for a corpus shorter than a row.
        """
        if rows % parts:
            raise ConfigError("train.batch_tokens", rows * context_length, f"a multiple of {parts} x context_length")
        self._phases = phases(config.mixture, context_length, schedule)
        self.config, self.data, self.seed, self.steps = config, data, seed, steps
        self.context_length, self.rows, self.parts, self.preceding = context_length, rows, parts, preceding
        self.n_rows = data.n_tokens // context_length
        if not self.n_rows:
            raise DataError(f"{data.folder}: {data.n_tokens} tokens; allowed: at least one row of {context_length}")
        self._materials = data.materials("train")
        self._tasks, self._fixed_formats = {}, {}
        for name, recipe in config.recipes.items():
            if any(name in stage.episodes for stage in config.mixture):
                self._tasks[name] = recipe.task.create(self._materials)
                self._fixed_formats[name] = recipe.task.formats
        self.keeps = steps * rows * context_length <= MAX_KEPT_TOKENS
        """Whether batches are kept in memory for the next model."""
        self._kept: dict[tuple[int, int], Batch] = {}

    def seqlen(self, step: int) -> int:
        """Tokens per sequence in this step."""
        seqlens = self._phase(step).seqlens
        return seqlens[step % len(seqlens)]

    def batch(self, step: int, part: int) -> Batch:
        """One part of one step. Raises EpisodeError where a recipe does not fit the step's length."""
        batch = self._kept.get((step, part)) or self._batch(step, part)
        if self.keeps:
            self._kept[step, part] = batch
        return batch

    def _batch(self, step: int, part: int) -> Batch:
        seqlen = self.seqlen(step)
        per_slot, per_part = self.context_length // seqlen, self.rows // self.parts
        rows, text_rows, firsts = [], [], []
        for number in range(part * per_part, (part + 1) * per_part):
            slot = step * self.rows + number
            name = self.kind(slot)
            text_rows += [name is None] * per_slot
            if name is None:
                rows += self._text(slot, seqlen, per_slot)
                firsts += [self._first(slot) + i * seqlen for i in range(per_slot)]
            else:
                rows += [self._episode_row(slot, i) for i in range(per_slot)]
                firsts += [None] * per_slot
        starts = np.stack([r[2] for r in rows])
        tokens, weights = np.stack([r[0] for r in rows]), np.stack([r[1] for r in rows])
        if not self.preceding:
            return Batch(tokens, weights, starts if starts.any() else None, np.array(text_rows))
        before = np.zeros((len(rows), self.preceding * seqlen), dtype=np.int64)
        before_starts = np.zeros(before.shape, dtype=bool)
        for row, first in enumerate(firsts):
            starts[row, 0] = not self._before(first, before[row], before_starts[row])
        return Batch(tokens, weights, starts, np.array(text_rows), before, before_starts)

    @property
    def _joined(self) -> bool:
        return self.config.documents == "joined"

    @property
    def text_share(self) -> float:
        """Share of the rows of the whole budget that are corpus text."""
        stages = (self.config.mixture[phase.stage] for phase in self._phases)
        shares = np.array([stage.lm if stage.episodes else 1.0 for stage in stages])
        ends = [phase.until for phase in self._phases[:-1]]
        return float(shares[np.searchsorted(ends, (np.arange(self.steps) + 0.5) / self.steps)].mean())

    @property
    def distances(self) -> list[str]:
        """How far back the recipes in use ask, one each: their `distance`, or `as the task` where it has no say."""
        return [
            self.config.recipes[name].distance if task.axes.distance else "as the task"
            for name, task in self._tasks.items()
        ]

    def kind(self, slot: int) -> str | None:
        """Name of a slot's recipe; None for corpus text."""
        stage = self._stage(slot // self.rows)
        u = (slot * GOLDEN_RATIO_64 & (2**64 - 1)) / 2**64
        if u < stage.lm or not stage.episodes:
            return None
        total = sum(stage.episodes.values())
        at = (u - stage.lm) / (1 - stage.lm) * total
        for name, weight in stage.episodes.items():
            at -= weight
            if at < 0:
                return name
        return next(reversed(stage.episodes))

    def episode(self, slot: int, which: int) -> Episode:
        """Sequence number `which` of a slot of episodes. Raises EpisodeError where it does not fit."""
        name, seqlen = self.kind(slot), self.seqlen(slot // self.rows)
        assert name is not None, "a slot of text"
        return self._episode(name, slot * (self.context_length // seqlen) + which, seqlen)

    def starts_in(self, slot: int) -> np.ndarray:
        """(n,) tokens of a slot of text at which documents start that do not see what is before them; none where
        documents are joined."""
        return np.empty(0, dtype=np.int64) if self._joined else self._document_starts(slot)

    def _document_starts(self, slot: int) -> np.ndarray:
        """(n,) tokens of a slot of text at which documents start."""
        first, documents = self._first(slot), self.data.starts
        low, high = np.searchsorted(documents, [first, first + self.context_length])
        return documents[low:high] - first

    def seen_before(self, slot: int, at: int) -> int:
        """Tokens of its document, or of the text where documents are joined, that precede the sequence at token `at`
        of a slot of text, as far as the batch includes them."""
        first, documents = self._first(slot) + at, self.data.starts
        start = 0 if self._joined else int(documents[np.searchsorted(documents, first, side="right") - 1])
        return min(self.preceding * self.seqlen(slot // self.rows), first - start)

    def check(self) -> None:
        """Build a few episodes of every recipe at every length that it is used at. Raises ConfigError naming the
        recipe."""
        for stage, seqlen in sorted({(phase.stage, n) for phase in self._phases for n in phase.seqlens}):
            for name in self.config.mixture[stage].episodes:
                try:
                    for index in range(4):
                        self._episode(name, index, seqlen)
                except EpisodeError as error:
                    where = f"data.mixture[{stage}].episodes.{name}"
                    raise ConfigError(where, f"{seqlen} tokens", f"{error.key} {error.allowed}") from None

    def warm(self) -> None:
        """Build an episode of every recipe in each of its formats, so that the texts and pools of strings that they
        are made of are tokenised now: processes that are forked from this one share them."""
        for name, task in self._tasks.items():
            recipe = self.config.recipes[name]
            phases_of = [phase for phase in self._phases if name in self.config.mixture[phase.stage].episodes]
            seqlen = max(n for phase in phases_of for n in phase.seqlens)
            for levels in dict.fromkeys(
                task.axes.fitted(replace(Formats(*each), **self._fixed_formats[name]))
                for each in product(recipe.haystack, recipe.key, recipe.value)
            ):
                with suppress(EpisodeError):  # a rare format that does not fit: its batch says so
                    self._episode_in(levels, name, 0, seqlen)

    def _phase(self, step: int) -> Phase:
        return self._phases[number_at(self._phases, (step + 0.5) / self.steps)]

    def _stage(self, step: int) -> Stage:
        return self.config.mixture[self._phase(step).stage]

    def _text(self, slot: int, seqlen: int, per_slot: int) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        first = self._first(slot)
        tokens = self.data.tokens(first, self.context_length)
        weights = np.ones(self.context_length, dtype=np.float32)
        starts = np.zeros(self.context_length, dtype=bool)
        starts[self.starts_in(slot)] = True
        weights[self._document_starts(slot)] = 0  # nothing before a document predicts its first token
        starts[::seqlen] = False  # nothing comes before a row's first token
        weights[::seqlen] = 0
        return list(zip(*(a.reshape(per_slot, seqlen) for a in (tokens, weights, starts)), strict=True))

    def _first(self, slot: int) -> int:
        """Position in the corpus of a slot's first token."""
        epoch, index = divmod(slot, self.n_rows)
        return permuted(index, self.n_rows, "rows", self.seed, epoch) * self.context_length

    def _before(self, first: int | None, tokens: np.ndarray, starts: np.ndarray) -> bool:
        """Fill in the text before a row in its document, or before a row where documents are joined, and return
        whether there is any. first: None for an episode."""
        documents = self.data.starts
        if first is None or first == 0:
            return False
        if not self._joined and documents[np.searchsorted(documents, first, side="right") - 1] == first:
            return False
        n = min(first, len(tokens))
        tokens[-n:] = self.data.tokens(first - n, n)
        if not self._joined:
            low, high = np.searchsorted(documents, [first - n, first])
            starts[documents[low:high] - (first - len(tokens))] = True
        starts[len(tokens) - n] = True  # the filling before it is not of the corpus
        return True

    def _episode_row(self, slot: int, which: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        episode = self.episode(slot, which)
        seqlen = len(episode.ids)
        weights = np.full(seqlen, self.config.context_weight, dtype=np.float32)
        weights[0] = 0
        for query in episode.queries:
            if query.own is None:
                weights[query.start : query.stop] = self.config.answer_weight
        return episode.ids.astype(np.int64), weights, np.zeros(seqlen, dtype=bool)

    def _episode(self, name: str, index: int, seqlen: int) -> Episode:
        recipe = self.config.recipes[name]
        # kept over attempts: where formats were drawn again, those with short samples would be more frequent
        draw = Draws("train", self.seed, name, index, 0)
        formats = Formats(*(draw("format", f).pick(getattr(recipe, f)) for f in ("haystack", "key", "value")))
        formats = self._tasks[name].axes.fitted(replace(formats, **self._fixed_formats[name]))
        return self._episode_in(formats, name, index, seqlen)

    def _episode_in(self, formats: Formats, name: str, index: int, seqlen: int) -> Episode:
        recipe, task = self.config.recipes[name], self._tasks[name]
        last: EpisodeError | None = None
        for attempt in range(RETRIES):
            draw = Draws("train", self.seed, name, index, attempt)
            number = (self.seed << 48) + (index << 8) + attempt
            depth = float(depths_of(recipe.distance, draw("depth").uniform(1), seqlen)[0])
            try:
                return task.episode(Factors(formats, seqlen, depth, number, split="train", distance=recipe.distance))
            except EpisodeError as error:
                last = error
        assert last is not None
        raise last


def roll_digest(digest: str, rows: list[str]) -> str:
    """The digest after a step, from the previous one and the step's rows in order: equal digests mean equal data so
    far."""
    return digest_bytes(digest.encode(), *(row.encode() for row in rows))
