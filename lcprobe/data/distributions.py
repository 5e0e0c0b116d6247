"""How far back a run's training asks, and how far back its tokens can see: quantiles over a sample of its batches.

A nominal length of 8,192 on documents of 500 tokens trains a 500-token model: attention and state are cut where a
document starts. Slots of the mixture (rows of context_length tokens) are sampled evenly over the whole budget; the
sample, and so the result, is a pure function of the mixture.
"""

from collections.abc import Sequence

import numpy as np

from lcprobe.data.mixture import Mixture
from lcprobe.seeds import Draws
from lcprobe.training_data import SHARES, TrainingData

CANDIDATES = 1 << 13
"""Slots whose kind, text or episode, is looked up."""
MOST, MOST_TOKENS = 256, 1 << 20
"""Slots of either kind that are measured, at most, and tokens of them; but at least LEAST slots."""
LEAST = 32


def training_data_of(mixture: Mixture, initial_state: str = "") -> TrainingData:
    """Distributions over the mixture's whole budget. initial_state: name of train.initial_state, or empty."""
    text, episodes = [], []
    for slot in _spread(mixture):
        (text if mixture.kind(slot) is None else episodes).append(slot)
    distances, weights = _distances(mixture, _thinned(mixture, episodes))
    visible, before = _visible(mixture, _thinned(mixture, text))
    return TrainingData(
        needle_distances=quantiles(distances, weights),
        visible=quantiles(visible, np.ones(len(visible))),
        visible_before=quantiles(before, np.ones(len(before))),
        text_share=mixture.text_share,
        distance=", ".join(dict.fromkeys(mixture.distances)),
        initial_state=initial_state,
    )


def quantiles(values: np.ndarray, weights: np.ndarray) -> tuple[float, ...]:
    """The values at SHARES of the weighted distribution: the least one that at least this share is at or below."""
    if not len(values):
        return ()
    levels, at = np.unique(values, return_inverse=True)
    total = np.cumsum(np.bincount(at, weights))
    places = np.searchsorted(total, np.array(SHARES) * total[-1] * (1 - 1e-12))
    return tuple(float(v) for v in levels[places])


def pieces(starts: np.ndarray, context_length: int, seqlen: int) -> np.ndarray:
    """Lengths of the pieces of one row: it is cut where a sequence and where a document begins. starts: tokens of the
    row at which a document does."""
    edges = np.union1d(starts, np.arange(0, context_length + 1, seqlen))
    return np.diff(edges)


def _spread(mixture: Mixture) -> Sequence[int]:
    """Slots, one drawn in every stretch of the budget: evenly spaced ones could be in step with the mixture's own
    low-discrepancy sequence."""
    n = mixture.steps * mixture.rows
    if n <= CANDIDATES:
        return range(n)
    edges = np.arange(CANDIDATES + 1) * n // CANDIDATES
    drawn = Draws("training data", mixture.seed)("slots").uniform(CANDIDATES)
    return (edges[:-1] + (drawn * np.diff(edges)).astype(np.int64)).tolist()


def _thinned(mixture: Mixture, slots: Sequence[int]) -> list[int]:
    n = min(MOST, max(LEAST, MOST_TOKENS // mixture.context_length), len(slots))
    return [slots[(2 * i + 1) * len(slots) // (2 * n)] for i in range(n)]


def _distances(mixture: Mixture, slots: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """Distances of the questions of one sequence of every slot, and how many sequences each stands for."""
    distances, weights = [], []
    for slot in slots:
        per_slot = mixture.context_length // mixture.seqlen(slot // mixture.rows)
        which = Draws("training data", mixture.seed, slot)("sequence").integer(per_slot)
        # questions with an end of their own are not in the training sequence
        asked = [q.distance for q in mixture.episode(slot, which).queries if q.own is None]
        distances += [distance for distance in asked if distance is not None]
        weights += [per_slot] * (len(distances) - len(weights))
    return np.array(distances), np.array(weights)


def _visible(mixture: Mixture, slots: Sequence[int]) -> tuple[np.ndarray, np.ndarray]:
    """For the tokens of the slots' text: length of the piece that each is in, and tokens that it can see before
    itself."""
    whole, before = [np.array([], dtype=np.int64)], [np.array([], dtype=np.int64)]
    for slot in slots:
        seqlen = mixture.seqlen(slot // mixture.rows)
        sizes = pieces(mixture.starts_in(slot), mixture.context_length, seqlen)
        ends = np.cumsum(sizes)
        # text before a sequence is visible to its first piece
        seen = np.array([mixture.seen_before(slot, int(at)) if at % seqlen == 0 else 0 for at in ends - sizes])
        whole.append(np.repeat(sizes + seen, sizes))
        before.append(np.arange(mixture.context_length) - np.repeat(ends - sizes - seen, sizes))
    return np.concatenate(whole), np.concatenate(before)
