"""Continuations of prompts of any lengths equal one prompt at a time, whole, through the plain forward pass."""

import copy
from contextlib import contextmanager

import numpy as np
import pytest
import torch

from lcprobe.choices import choose
from lcprobe.errors import EpisodeError
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.extend.contract import ExtensionContext, extended
from lcprobe.probing.engines.contract import ProbedModel
from lcprobe.probing.inference.continuation import Continuer

LENGTHS = [1, 17, 17, 40, 64, 65]


def draw(n, seed):
    return np.random.default_rng(seed).integers(5, 4000, n).tolist()


def forward(model, ids):
    with torch.no_grad():
        hidden, _ = model.hidden(torch.tensor([ids]))
        return model.logits(hidden[0]).log_softmax(-1)


@pytest.mark.parametrize(("chunk", "batch_tokens"), [(1024, 10**6), (7, 200), (64, 90), (1, 10**6)])
def test_likelihoods_equal_a_plain_forward_pass(untrained, chunk, batch_tokens):
    pairs = [(draw(n, i), draw(1 + i % 5, 100 + i)) for i, n in enumerate(LENGTHS)]
    pairs += [(pairs[3][0], draw(6, 7)), (pairs[3][0], draw(1, 8)), (pairs[3][0], draw(30, 9))]  # shared contexts
    scores = Continuer(untrained, "cpu", chunk, batch_tokens).likelihoods(pairs)
    for (context, continuation), (likelihood, right) in zip(pairs, scores, strict=True):
        logs = forward(untrained, context + continuation)[len(context) - 1 : -1]
        expected = logs.gather(-1, torch.tensor(continuation)[:, None])[:, 0].numpy()
        np.testing.assert_allclose(likelihood, expected, atol=2e-4)
        assert right.tolist() == (logs.argmax(-1) == torch.tensor(continuation)).tolist()


@pytest.mark.parametrize(("chunk", "batch_tokens"), [(1024, 10**6), (7, 200), (64, 90)])
def test_greedy_equals_decoding_by_hand_and_stops_early(untrained, chunk, batch_tokens):
    prompts, steps = [draw(n, i) for i, n in enumerate(LENGTHS)], [3 + i % 4 for i in range(len(LENGTHS))]
    expected = []
    for prompt, n in zip(prompts, steps, strict=True):
        ids = list(prompt)
        for _ in range(n):
            ids.append(int(forward(untrained, ids)[-1].argmax()))
        expected.append(ids[len(prompt) :])
    continuer = Continuer(untrained, "cpu", chunk, batch_tokens)
    assert continuer.greedy(prompts, steps, lambda *_: False) == expected
    stop = expected[3][1]
    cut = [one[: one.index(stop) + 1] if stop in one else one for one in expected]
    assert continuer.greedy(prompts, steps, lambda _, ids: ids[-1] == stop) == cut
    assert cut != expected


def test_a_call_tells_how_much_is_read_until_all_is(untrained):
    """Of contexts that several pairs share once; the batches are those of the memory."""
    told: list[tuple[int, int]] = []

    @contextmanager
    def watch(total):
        yield lambda read: told.append((read, total))

    continuer = Continuer(untrained, "cpu", 64, 90, watch)
    prompts = [draw(n, i) for i, n in enumerate(LENGTHS)]
    total = sum(LENGTHS)
    continuer.likelihoods([(prompt, [7]) for prompt in [*prompts, prompts[-1]]])
    continuer.greedy(prompts, [1] * len(prompts), lambda *_: False)
    half = len(told) // 2
    assert told[:half] == told[half:]
    read = [tokens for tokens, _ in told[:half]]
    assert read == sorted(read)
    assert {whole for _, whole in told} == {total}
    assert (read[0], read[-1]) == (0, total)
    assert len(read) > 3


@pytest.mark.parametrize(("chunk", "batch_tokens"), [(1024, 10**6), (7, 200), (64, 90)])
def test_a_model_that_needs_the_length_gets_each_prompts_own(untrained, chunk, batch_tokens):
    """yarn with an open factor: prompt and longest continuation are declared, whatever else is in the batch."""
    model = copy.deepcopy(untrained)
    choice = choose(EXTENSIONS, {"type": "yarn"}, "pe.extend")
    extended(model, choice.create(), ExtensionContext(8))
    pairs = [(draw(n, i), draw(1 + i % 5, 100 + i)) for i, n in enumerate(LENGTHS)]
    pairs += [
        (pairs[3][0], draw(6, 7)),
        (pairs[3][0], draw(1, 8)),
    ]  # a shared context: one length for all that follows it
    longest = [max(len(c) for same, c in pairs if same == context) for context, _ in pairs]
    scores = Continuer(model, "cpu", chunk, batch_tokens).likelihoods(pairs)
    differs = 0.0
    for (context, continuation), n, (likelihood, _) in zip(pairs, longest, scores, strict=True):
        hidden, _ = model.hidden(torch.tensor([context + continuation]), length=len(context) + n)
        logs = model.logits(hidden[0]).log_softmax(-1)[len(context) - 1 : -1]
        expected = logs.gather(-1, torch.tensor(continuation)[:, None])[:, 0].detach().numpy()
        np.testing.assert_allclose(likelihood, expected, atol=2e-4)
        as_trained = forward(untrained, context + continuation)[len(context) - 1 : -1]
        differs = max(differs, float((as_trained - logs).detach().abs().max()))
    assert differs > 1e-2
    steps = [2 + i % 3 for i in range(len(LENGTHS))]
    prompts = [context for context, _ in pairs[: len(LENGTHS)]]
    alone = [
        Continuer(model, "cpu", 1024, 10**6).greedy([p], [n], lambda *_: False)[0]
        for p, n in zip(prompts, steps, strict=True)
    ]
    assert Continuer(model, "cpu", chunk, batch_tokens).greedy(prompts, steps, lambda *_: False) == alone


def test_out_of_memory_halves_the_batch_and_one_that_never_fits_is_named(untrained):
    """The same back-off as the runner's; tokens of an interrupted batch are not repeated."""

    class Small(ProbedModel):
        new_state, logits = untrained.new_state, untrained.logits

        def __init__(self, rows):
            self.rows, self.failed = rows, 0

        def hidden(self, tokens, *, state):
            if tokens.shape[0] > self.rows or (tokens.shape[1] == 1 and tokens.shape[0] > max(self.rows - 1, 1)):
                self.failed += 1
                raise torch.OutOfMemoryError("out of memory")
            return untrained.hidden(tokens, state=state)

    pairs = [(draw(20, i), draw(1 + i % 3, 50 + i)) for i in range(7)]
    prompts, steps = [context for context, _ in pairs], [3] * 7
    small = Small(2)
    scores = Continuer(small, "cpu", 64, 10**6).likelihoods(pairs)
    for (a, b), (c, d) in zip(scores, Continuer(untrained, "cpu", 64, 10**6).likelihoods(pairs), strict=True):
        np.testing.assert_allclose(a, c, atol=2e-4)
        assert b.tolist() == d.tolist()
    assert small.failed
    whole = Continuer(untrained, "cpu", 64, 10**6).greedy(prompts, steps, lambda *_: False)
    assert Continuer(Small(2), "cpu", 64, 10**6).greedy(prompts, steps, lambda *_: False) == whole
    with pytest.raises(EpisodeError, match="length: given '20 tokens'"):
        Continuer(Small(0), "cpu", 64, 10**6).greedy(prompts, steps, lambda *_: False)


def test_a_shared_context_is_read_once(untrained):
    seen = []

    class Counts(ProbedModel):
        new_state, logits = untrained.new_state, untrained.logits

        def hidden(self, tokens, *, state):
            seen.append(tokens.numel())
            return untrained.hidden(tokens, state=state)

    context = draw(300, 0)
    Continuer(Counts(), "cpu", 1024, 10**6).likelihoods([(context, draw(2, i)) for i in range(8)])
    assert sum(seen) == 300 + 8 * 2


def test_nothing_is_cut(untrained):
    class Short(ProbedModel):
        new_state, hidden, logits = untrained.new_state, untrained.hidden, untrained.logits
        max_length = 100

    continuer = Continuer(Short(), "cpu", 1024, 10**6)
    assert len(continuer.greedy([draw(95, 0)], [5], lambda *_: False)[0]) == 5
    with pytest.raises(EpisodeError, match="<= 100"):
        continuer.greedy([draw(96, 0)], [5], lambda *_: False)
    with pytest.raises(EpisodeError, match="<= 100"):
        continuer.likelihoods([(draw(99, 0), draw(2, 1))])
    with pytest.raises(EpisodeError, match="at least one token"):
        continuer.likelihoods([([], draw(2, 1))])
