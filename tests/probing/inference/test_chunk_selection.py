"""Prompts read in pieces: every token is in one, the surest one is answered from, and what fits is read as it is."""

import copy

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lcprobe.choices import choose
from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.extend.contract import ExtensionContext, extended
from lcprobe.models.extend.select import ChunkSelectConfig, PromptChunks
from lcprobe.probing.config import ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.inference.chunk_selection import select_chunks
from lcprobe.probing.inference.continuation import Continuer
from lcprobe.probing.scoring import Item, ModelScorer
from lcprobe.schema import build
from lcprobe.tasks.episode import Factors, Formats

SETTINGS = {"tail": 20, "overlap": 6}
CONTEXT = 96


def in_pieces(model, **settings):
    choice = choose(EXTENSIONS, {"type": "chunk_select", **settings}, "pe.extend")
    return extended(copy.deepcopy(model), choice.create(), ExtensionContext(CONTEXT))


@given(
    n=st.integers(1, 400),
    room=st.integers(1, 9),
    context=st.integers(60, 128),
    head=st.integers(0, 3),
    tail=st.integers(1, 20),
    overlap=st.integers(0, 16),
)
def test_every_token_is_in_a_piece_and_pieces_fit(n, room, context, head, tail, overlap):
    prompt = np.arange(n)
    pieces = PromptChunks(context, ChunkSelectConfig(tail, head, overlap)).pieces(prompt, room)
    if n + room <= context:
        assert len(pieces) == 1
        assert pieces[0] is prompt
        return
    assert {len(piece) for piece in pieces} == {context - room}
    assert set(np.concatenate(pieces)) == set(prompt)
    for piece in pieces:
        assert piece[:head].tolist() == prompt[:head].tolist()
        assert piece[-tail:].tolist() == prompt[-tail:].tolist()
        assert (np.diff(piece[head:-tail]) == 1).all()
    firsts = [piece[head] for piece in pieces]
    assert firsts == sorted(firsts)
    assert (np.diff(firsts) <= context - room - head - tail - overlap).all()


@pytest.fixture(scope="module")
def items(materials):
    tasks = TaskSet(
        build(ProbeConfig, {"tasks": {"multi": {"type": "niah", "template": "line", "digits": 2}}}, "probe"),
        materials,
    )
    items = []
    for length in (64, 96, 300):
        factors = [
            Factors(Formats("corpus", "words", "numbers"), length, d, i) for i in range(3) for d in (0.0, 0.5, 1.0)
        ]
        items += [Item(episode, episode.queries[0]) for episode in map(tasks.by_name["multi"].episode, factors)]
    return items


@pytest.fixture(scope="module")
def model(untrained):
    return copy.deepcopy(untrained).double()


def surest(model, pieces):
    """By hand: each piece alone, all of it at once."""
    entropies = []
    for piece in pieces:
        logits = model.logits(model.hidden(torch.from_numpy(piece.astype(np.int64))[None])[0][0, -1])
        p = torch.softmax(logits.double(), -1)
        entropies.append(float(-(p * p.log()).sum()))
    return pieces[int(np.argmin(entropies))]


@pytest.mark.parametrize(("chunk", "batch_tokens"), [(1024, 10**6), (7, 200)])
@torch.inference_mode()
def test_scores_are_those_of_the_surest_piece_alone(model, tokenizer, items, chunk, batch_tokens):
    cut = in_pieces(model, **SETTINGS)
    scores = ModelScorer(cut, tokenizer, "cpu", chunk, batch_tokens=batch_tokens).score(items)
    as_trained = ModelScorer(model, tokenizer, "cpu", chunk, batch_tokens=batch_tokens).score(items)
    differs = 0.0
    for item, score, whole in zip(items, scores, as_trained, strict=True):
        pieces = cut.selection.pieces(item.prompt, len(item.answer))
        ids = np.concatenate([surest(model, pieces), item.answer]).astype(np.int64)
        logs = model.logits(model.hidden(torch.from_numpy(ids)[None])[0][0]).log_softmax(-1)
        n = len(item.answer)
        expected = logs[-n - 1 : -1].gather(-1, torch.from_numpy(ids[-n:])[:, None]).sum()
        assert score.log_likelihood == pytest.approx(float(expected), abs=1e-5)
        if len(item.prompt) + n <= CONTEXT:
            assert (score.log_likelihood, score.rank) == (whole.log_likelihood, whole.rank)
        else:
            differs = max(differs, abs(score.log_likelihood - whole.log_likelihood))
    assert differs > 1e-3
    read = sum(score.read_tokens for score in scores if score.read_tokens)
    assert read > sum(score.read_tokens for score in as_trained if score.read_tokens)


@torch.inference_mode()
def test_continuations_follow_the_surest_piece_the_same_one_for_all_choices(model, items):
    cut = in_pieces(model, **SETTINGS)
    prompts = [item.prompt for item in items[-4:]]
    pairs = [(p, list(range(10, 10 + n))) for p in prompts for n in (1, 5)]
    scores = Continuer(cut, "cpu", 64, 10**4).likelihoods(pairs)
    read = select_chunks(cut, prompts, [5] * len(prompts), 64, torch.device("cpu"), 10**4)[0]
    assert {len(p) for p in read} == {CONTEXT - 5}
    expected = Continuer(model, "cpu", 64, 10**4).likelihoods(
        [(p, c) for p, (_, c) in zip(np.repeat(read, 2, 0), pairs, strict=True)]
    )
    for (a, b), (c, d) in zip(scores, expected, strict=True):
        np.testing.assert_allclose(a, c, atol=1e-6)
        assert b.tolist() == d.tolist()
    decoded = Continuer(cut, "cpu", 64, 10**4).greedy(prompts, [5] * len(prompts), lambda *_: False)
    assert decoded == Continuer(model, "cpu", 64, 10**4).greedy(read, [5] * len(read), lambda *_: False)


def test_what_cannot_be_cut_is_one_line(model, items):
    with pytest.raises(ConfigError, match="pe.extend.tail: given 90; allowed: head \\+ tail \\+ overlap below"):
        in_pieces(model, tail=90)
    cut = in_pieces(model, tail=70, overlap=20)
    with pytest.raises(EpisodeError, match="pe.extend: given 'chunk_select with chunks of 20'"):
        cut.selection.pieces(items[-1].prompt, 5)
    with pytest.raises(ConfigError, match="overlap"):
        in_pieces(model, overlap=-1)
