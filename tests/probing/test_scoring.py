"""Scores: teacher forcing equals greedy decoding on every sample, chunks change nothing, ranks and hits mean what they say."""

import weakref

import numpy as np
import pytest
import torch

from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.state import HoldsTensors
from lcprobe.probing import scoring
from lcprobe.probing.config import ProbeConfig
from lcprobe.probing.engines.contract import ProbedModel
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.inference.token_scores import score_tokens
from lcprobe.probing.scoring import Item, ModelScorer
from lcprobe.schema import build
from lcprobe.tasks.episode import Factors, Formats


def items_of(tasks, task, n, length=100, value="numbers", **more):
    items = []
    for index in range(n):
        f = Factors(Formats("corpus", "words", value), length, (index % 5) / 4, index, **more)
        episode = tasks.by_name[task].episode(f)
        items += [Item(episode, query) for query in episode.queries]
    return items


def score(model, tasks, items, chunk=1024, generate=False):
    return ModelScorer(model, tasks.materials.tokenizer, "cpu", chunk, generate).score(items)


def greedy_by_hand(model, prompt, n):
    """One row at a time, the whole sequence again for every token."""
    ids = torch.from_numpy(prompt.astype(np.int64))[None]
    with torch.no_grad():
        for _ in range(n):
            hidden, _ = model.hidden(ids)
            ids = torch.cat([ids, model.logits(hidden[:, -1]).argmax(-1)[:, None]], dim=1)
    return ids[0, len(prompt) :].numpy()


@pytest.mark.parametrize("which", ["trained", "untrained"])
def test_teacher_forced_exact_match_equals_greedy_generation_on_every_sample(request, which, tasks):
    model = request.getfixturevalue(which)
    seen = []
    for task in ("single", "multikey", "twice"):
        items = items_of(tasks, task, 120)
        forced, greedy = score(model, tasks, items), score(model, tasks, items, generate=True)
        assert [s.exact for s in forced] == [s.exact for s in greedy]
        assert [s.prediction for s in forced] == [s.prediction for s in greedy]
        seen += [s.exact for s in forced]
    if which == "trained":
        assert 0.03 < np.mean(seen) < 1, "the comparison needs hits and misses"


def test_greedy_equals_decoding_by_hand(trained, tasks):
    items = items_of(tasks, "multikey", 25)
    for item, s in zip(items, score(trained, tasks, items, generate=True), strict=True):
        by_hand = greedy_by_hand(trained, item.prompt, len(item.answer))
        assert s.prediction == tasks.materials.tokenizer.decode(by_hand).strip()
        assert s.exact == np.array_equal(by_hand, item.answer)


def test_scores_equal_a_plain_forward_pass(trained, tasks):
    items = items_of(tasks, "multikey", 30, value="hex")
    for item, s in zip(items, score(trained, tasks, items), strict=True):
        with torch.no_grad():
            hidden, _ = trained.hidden(torch.from_numpy(item.episode.ids[: item.query.stop].astype(np.int64))[None])
            logs = trained.logits(hidden[0, item.query.start - 1 : -1]).log_softmax(-1)
        target = torch.from_numpy(item.answer.astype(np.int64))
        assert s.log_likelihood == pytest.approx(float(logs.gather(-1, target[:, None]).sum()), abs=2e-4)
        right = (logs.argmax(-1) == target).numpy()
        assert s.token_accuracy == right.mean()
        assert s.exact == right.all()
        assert s.first_token == right[0]


@pytest.mark.parametrize("chunk", [1, 7, 64])
def test_chunked_prefill_changes_nothing(trained, tasks, chunk):
    items = items_of(tasks, "multikey", 12, length=150)
    whole, cut = score(trained, tasks, items), score(trained, tasks, items, chunk=chunk)
    for a, b in zip(whole, cut, strict=True):
        assert (a.exact, a.rank, a.prediction) == (b.exact, b.rank, b.prediction)
        assert a.log_likelihood == pytest.approx(b.log_likelihood, abs=1e-4)


@pytest.mark.parametrize("copied", [1, 40_000])
def test_candidates_in_parts_have_the_same_scores(untrained, tasks, monkeypatch, copied):
    """Copies of the state of a long prompt are large: fewer of them are made at once."""
    items, widths = items_of(tasks, "multikey", 6), []
    whole = score(untrained, tasks, items)
    continued = ModelScorer._continue

    def note(self, state, last, ids):
        widths.append(len(ids))
        return continued(self, state, last, ids)

    monkeypatch.setattr(ModelScorer, "_continue", note)
    monkeypatch.setattr(scoring, "COPIED_BYTES", copied)
    parts = score(untrained, tasks, items)
    assert max(widths) < 18, "of six times three candidates"
    assert copied > 1 or max(widths) == 1
    for a, b in zip(whole, parts, strict=True):
        assert (a.exact, a.rank, a.prediction) == (b.exact, b.rank, b.prediction)
        assert a.log_likelihood == pytest.approx(b.log_likelihood, abs=1e-4)


class Counted(ProbedModel):
    """A model whose states are counted while they are alive. most: of all that were alive at a time."""

    def __init__(self, model):
        self.model, self.alive, self.most = model, weakref.WeakSet(), 0

    def counted(self, state):
        own = CountedState(self, state)
        self.alive.add(own)
        self.most = max(self.most, len(self.alive))
        return own

    def new_state(self, batch, length=None):
        return self.counted(self.model.new_state(batch, length))

    def hidden(self, tokens, *, state):
        hidden, after = self.model.hidden(tokens, state=state.state)
        return hidden, self.counted(after)

    def logits(self, hidden):
        return self.model.logits(hidden)


class CountedState(HoldsTensors):
    def __init__(self, model, state):
        self.model, self.state = model, state

    def rows(self, index):
        return self.model.counted(self.state.rows(index))

    def tensors(self):
        return self.state.tensors()


def test_a_long_prompt_has_two_states_at_a_time(untrained, tasks, monkeypatch):
    """Its own, and the one that a candidate continues: also while the next prompt is read."""
    monkeypatch.setattr(scoring, "COPIED_BYTES", 1)
    items, counted = items_of(tasks, "multikey", 3, value="hex"), Counted(untrained)
    tokenizer = tasks.materials.tokenizer
    singly = ModelScorer(counted, tokenizer, "cpu", 32, batch_tokens=1)
    scores = singly.score(items)
    assert counted.most == 2
    for a, b in zip(score(untrained, tasks, items), scores, strict=True):
        assert (a.exact, a.rank, a.prediction) == (b.exact, b.rank, b.prediction)
        assert a.log_likelihood == pytest.approx(b.log_likelihood, abs=1e-4)


def test_rank_and_distractor_hit(trained, tasks):
    items = items_of(tasks, "multikey", 150)
    scores = score(trained, tasks, items)
    decode = tasks.materials.tokenizer.decode
    for item, s in zip(items, scores, strict=True):
        others = [decode(c).strip() for c in item.query.candidates[1:]]
        assert s.distractor_hit == (s.prediction in others)
        assert 1 <= s.rank <= 3
        if s.exact:
            assert s.rank == 1
            assert s.prediction == item.query.answer
    assert {s.rank for s in scores} > {1}, "a half-trained model takes another value for the true one now and then"


class Stateless:
    """The state of a model that remembers nothing."""

    def rows(self, index):
        return self


class CountsUp(ProbedModel):
    """A model of the three methods that are required: predicts token t + 1 after token t."""

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size

    def new_state(self, batch, length=None):
        return Stateless()

    def hidden(self, tokens, *, state):
        return torch.nn.functional.one_hot((tokens + 1) % self.vocab_size, self.vocab_size).float(), state

    def logits(self, hidden):
        return hidden * 10


def test_a_table_model_is_scored_by_hand(tasks):
    """Exact only where the answer happens to count upwards."""
    scorer = ModelScorer(CountsUp(tasks.materials.tokenizer.vocab_size), tasks.materials.tokenizer, "cpu", 64)
    items = items_of(tasks, "single", 40)
    for item, s in zip(items, scorer.score(items), strict=True):
        before = np.concatenate([item.prompt[-1:], item.answer[:-1]])
        hits = before + 1 == item.answer
        assert s.token_accuracy == hits.mean()
        assert s.exact == hits.all()


@pytest.mark.parametrize("value", ["words", "uuids"])
def test_a_table_with_as_many_positions_as_tokens_is_enough_whatever_is_the_answer(materials, value):
    """Candidates that are longer than the answer are read too, and had no position ("given 129; allowed <= 128")."""
    settings = {"n_keys": 2, "word_pairs": True}
    config = {
        "one": settings,
        "row": {**settings, "n_queries": 2},
        "own": {**settings, "n_queries": 2, "separate": True},
    }
    config = {name: {"type": "niah", "template": "line", **more} for name, more in config.items()}
    tasks = TaskSet(build(ProbeConfig, {"tasks": config}, "probe"), materials)
    n = 190
    sizes = {"layout": "attention", "d_model": 16, "vocab_size": 4096, "mixers": {"attention": {"head_dim": 16}}}
    given = {**sizes, "positional": {"type": "learned", "max_length": n}}
    model = LanguageModel(build(ModelConfig, given, "model")).initialise(0).eval()
    assert model.max_length == n
    for name in config:
        items = items_of(tasks, name, 8, length=n, value=value)
        sizes_of = {len(c) - len(item.answer) for item in items for c in item.query.candidates}
        assert max(sizes_of) > 0 > min(sizes_of)
        for generate in (False, True):
            assert len(score(model, tasks, items, generate=generate)) == len(items)


class NoNumbers:
    """A model whose logits are NaN: torch says that their argmax is token 0."""

    max_length = selection = None
    needs_length = rereads = False

    def __init__(self, vocab_size):
        self.vocab_size = vocab_size

    def new_state(self, batch, length=None):
        return self

    def rows(self, index):
        return self

    def prompt_ended(self, state):
        return state

    def hidden(self, tokens, *, state):
        return tokens[..., None].float(), state

    def logits(self, hidden):
        return torch.full((*hidden.shape[:-1], self.vocab_size), float("nan"))


def test_answers_without_a_likelihood_are_wrong_and_rank_last(tasks):
    tokenizer, items = tasks.materials.tokenizer, items_of(tasks, "multikey", 6)
    for generate in (False, True):
        for item, s in zip(
            items, score(NoNumbers(tokenizer.vocab_size), tasks, items, generate=generate), strict=True
        ):
            assert np.isnan(s.log_likelihood)
            assert (s.exact, s.first_token, s.token_accuracy) == (False, False, 0.0)
            assert s.rank == len(item.query.candidates) > 1
    _, right = score_tokens(NoNumbers(9), torch.zeros(1, 2, 1), torch.tensor([[0, 1]]))
    assert not right.any()
    choices = [np.array([np.nan, -1.0]), np.array([-1.0, -1.0])]
    s = scoring.score_answer(items[0], items[0].answer[:2], np.array([True, True]), choices, True, tokenizer)
    assert (s.exact, s.rank) == (False, 2)
