"""What holds for an episode of any task: exact length, exact text, honest spans, the same again. And cheap
guesses."""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache

import numpy as np
import pytest

from lcprobe.errors import EpisodeError
from lcprobe.schema import build
from lcprobe.tasks.assembly import Task
from lcprobe.tasks.episode import Episode, Factors, Query
from lcprobe.tasks.text.haystack import Materials, TokenStream
from lcprobe.tasks.text.tokenizer import Tokenizer
from validation.tokenizers import llama_like, unigram

TOKENIZERS = ("shipped", "llama", "unigram")


@lru_cache
def materials_for(materials: Materials, which: str) -> Materials:
    """The same corpus under another tokenizer."""
    if which == "shipped":
        return materials
    tok = {"llama": llama_like, "unigram": unigram}[which]()
    return Materials(tok, TokenStream.from_text("corpus", materials.stream("corpus").text, tok))


def build_task(cls, materials: Materials, **config) -> Task:
    """A task from plain settings, checked; cached by settings."""
    return _build_task(cls, materials, tuple(config.items()))


@lru_cache
def _build_task(cls, materials: Materials, config: tuple) -> Task:
    return cls(build(cls.Config, dict(config), "task"), materials)


def check_exact(task: Task, tok: Tokenizer, factors: Factors) -> Episode:
    """One episode: its length, its text there and back, its answers and the room of others, and the same again."""
    e = task.episode(factors)
    assert len(e.ids) == factors.length or factors.control == "query_only"
    if tok.bos_id is not None:
        assert e.ids[0] == tok.bos_id
        assert (e.ids[1:] != tok.bos_id).all()
    assert tok.same_after_round_trip(e.ids)
    for q in e.queries:
        ids = e.sequence(q)
        assert 0 < q.start < q.stop == len(ids) <= len(e.ids)
        assert q.start + max(map(len, q.candidates)) <= len(e.ids), "any candidate would have had the room"
        assert tok.same_after_round_trip(ids)
        assert tok.decode(ids[q.start :]).strip() == q.answer
        assert np.array_equal(q.candidates[0], ids[q.start :])
        assert len({c.tobytes() for c in q.candidates}) == len(q.candidates)
        assert 0 < q.chance <= 1
        assert (q.needle is None) == (q.distance is None)
        assert q.distance is None or q.distance > 0
    assert all(0 <= lo < hi <= len(e.ids) for lo, hi in e.needles)
    assert 0 <= e.realised_depth <= 1
    assert np.array_equal(task.episode(factors).ids, e.ids), "a sample is a pure function of its factors"
    return e


def check_sound(task: Task, tok: Tokenizer, factors: Factors) -> Episode:
    """`check_exact`, and spans of questions one after the other, each with one value as its answer."""
    e = check_exact(task, tok, factors)
    at = 0
    for q in e.queries:
        assert at < q.start < q.stop
        at = q.stop
        if q.needle is not None:
            assert np.array_equal(e.ids[q.needle : q.needle + q.stop - q.start], e.ids[q.start : q.stop])
            assert q.distance == q.start - q.needle - (q.stop - q.start)
    return e


def check_shortest(task: Task, factors: Factors) -> int:
    """The least length exists, one less is one clear line."""
    least = task.shortest(replace(factors, length=1))
    assert len(task.episode(replace(factors, length=least)).ids) == least
    for length in {1, least // 2, least - 1}:
        with pytest.raises(EpisodeError, match=rf"^length: given {length}; allowed: >= \d+ tokens"):
            task.episode(replace(factors, length=length))
    return least


def check_chance(guess: Callable[[Episode, Query], str], samples: list[tuple[Episode, Query]], what: str) -> None:
    """A guess is right as often as stated, within four standard errors."""
    right = np.array([guess(e, q) == q.answer for e, q in samples])
    stated = np.array([q.chance for _, q in samples])
    error = max(np.sqrt((stated * (1 - stated)).sum()), 1.0)
    assert abs(right.sum() - stated.sum()) < 4 * error, f"{what}: {right.mean():.3f}, stated {stated.mean():.3f}"


def check_not_better(guess: Callable[[Episode, Query], str], samples: list[tuple[Episode, Query]], what: str) -> None:
    """A guess is right at most as often as stated, within four standard errors."""
    right = np.array([guess(e, q) == q.answer for e, q in samples])
    stated = np.array([q.chance for _, q in samples])
    error = max(np.sqrt((stated * (1 - stated)).sum()), 1.0)
    assert right.sum() - stated.sum() < 4 * error, f"{what}: {right.mean():.3f}, stated {stated.mean():.3f}"


def check_no_giveaway(samples: list[tuple[Episode, Query]], tok: Tokenizer) -> None:
    """First, last, nearest and median candidate of the text, and the one at the most usual place, are right by chance
    alone.
    """

    def places(e: Episode, q: Query) -> list[str]:
        text = tok.decode(e.ids[: q.start])
        names = {tok.decode(c).strip() for c in q.candidates}
        return sorted((n for n in names if n in text), key=text.index)

    ranked = {id(q): places(e, q) for e, q in samples}
    half = len(samples) // 2
    first_half, second_half = samples[:half], samples[half:]
    usual: dict[int, int] = {}
    for _, q in first_half:
        if q.answer in ranked[id(q)]:
            place = ranked[id(q)].index(q.answer)
            usual[place] = usual.get(place, 0) + 1
    best = max(usual, key=lambda place: usual[place])
    check_chance(lambda e, q: ranked[id(q)][0], samples, "first")
    check_chance(lambda e, q: ranked[id(q)][-1], samples, "last")
    check_chance(lambda e, q: ranked[id(q)][len(ranked[id(q)]) // 2], samples, "middle")
    check_chance(lambda e, q: ranked[id(q)][min(best, len(ranked[id(q)]) - 1)], second_half, "usual place")
