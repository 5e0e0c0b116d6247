"""RULER's substring score beside exact match: greedy text past the answer, without any effect on the other scores."""

from dataclasses import fields, replace

import numpy as np
import pytest
import torch

from lcprobe.errors import ConfigError
from lcprobe.probing.config import ProbeConfig
from lcprobe.probing.grid import Grid, TaskSet
from lcprobe.probing.policies.planted import Planted, noise, perfect
from lcprobe.probing.runner import ProbedCheckpoint, run_plan
from lcprobe.probing.scoring import Item, ModelScorer, Score
from lcprobe.probing.store import MemoryStore
from lcprobe.probing.substring import BUDGETS, CONTINUATION, Continuation, budget_of, substring_score
from lcprobe.schema import build
from lcprobe.tasks.episode import Factors, Formats


def items_of(tasks, task, n, tokens):
    made = []
    for index in range(n):
        episode = tasks.by_name[task].episode(Factors(Formats("corpus", "words", "numbers"), 100, index / n, index))
        for number, query in enumerate(episode.queries):
            asked = Continuation(tokens + number, (query.answer,)) if tokens else None
            made.append(Item(episode, query, asked))
    return made


def greedy_by_hand(model, prompt, n):
    ids = torch.from_numpy(prompt.astype(np.int64))[None]
    with torch.no_grad():
        for _ in range(n):
            hidden, _ = model.hidden(ids)
            ids = torch.cat([ids, model.logits(hidden[:, -1]).argmax(-1)[:, None]], dim=1)
    return ids[0, len(prompt) :].numpy()


@pytest.mark.parametrize("generate", [False, True])
def test_continuations_are_greedy_text_and_leave_every_other_score_alone(trained, tasks, generate):
    tokenizer = tasks.materials.tokenizer
    scorer = ModelScorer(trained, tokenizer, "cpu", 64, generate)
    plain = scorer.score(items_of(tasks, "twice", 15, 0))
    items = items_of(tasks, "twice", 15, 9)
    both = scorer.score(items)
    assert all(s.continuation is None and s.substring is None for s in plain)
    for item, one, other in zip(items, plain, both, strict=True):
        same = {f.name for f in fields(Score)} - {"continuation", "substring", "log_likelihood"}
        assert {n: getattr(one, n) for n in same} == {n: getattr(other, n) for n in same}
        assert other.log_likelihood == pytest.approx(one.log_likelihood, abs=1e-5)
        ids = greedy_by_hand(trained, item.prompt, item.continuation.tokens)
        ends = np.flatnonzero(ids == tokenizer.bos_id)
        assert other.continuation == tokenizer.decode(ids[: ends[0]] if len(ends) else ids)
        assert other.substring == substring_score(other.continuation, item.continuation.references, "all")
        assert other.substring == 1 or not other.exact, "the answer is within the first tokens"


def test_no_token_is_asked_of_a_model_past_its_positions(trained, tasks, monkeypatch):
    items, end = items_of(tasks, "single", 3, 60), 104
    monkeypatch.setattr(type(trained), "max_length", property(lambda self: end))
    read = []
    inner = trained.hidden

    def hidden(tokens, *, state=None):
        read.append(tokens.shape[1])
        return inner(tokens, state=state)

    monkeypatch.setattr(trained, "hidden", hidden)
    scores = ModelScorer(trained, tasks.materials.tokenizer, "cpu", 1024).score(items)
    longest = max(end - len(item.prompt) for item in items)
    assert read.count(1) <= 2 * longest
    assert all(score.continuation is not None for score in scores)


def test_rulers_numbers_by_kind_of_task():
    assert [budget_of("ruler", task) for task in ("niah", "vt", "cwe", "fwe", "qa", "mqar")] == [
        128,
        30,
        120,
        50,
        32,
        128,
    ]
    assert budget_of(7, "vt") == 7
    assert budget_of(None, "vt") == 0
    for wrong in (0, True, "many", 1.5, 5000):
        with pytest.raises(ConfigError, match=r"given .*; allowed: tokens \(1 .. 4096\), ruler"):
            CONTINUATION.convert(wrong, "probe.continuation")


def test_records_of_a_task_with_several_values_have_shares_of_them(materials):
    """An oracle prints all values or another key's: 1 and 0; half of them in the text is a half."""
    several = {"type": "niah", "template": "line", "digits": 3, "n_keys": 2, "n_values": 4}
    made = {}
    for continuation in (None, "ruler"):
        config = build(ProbeConfig, {"tasks": {"values": several}, "continuation": continuation}, "probe")
        tasks = TaskSet(config, materials)
        plan = tasks.plan([build(Grid, {"lengths": ["200t"], "n": 20, "depths": 1}, "grid")], 64)
        scorer, store = Planted(noise(0.5), tasks.tokenizer), MemoryStore()
        units = run_plan(plan, tasks, scorer, ProbedCheckpoint("oracle", "none", 0, 0), store)
        made[continuation] = set(units), store.read(units).to_pylist()
    assert not made[None][0] & made["ruler"][0], "records with and without a continuation are different work"
    assert {r["substring"] for r in made[None][1]} == {None}
    assert [r["substring"] for r in made["ruler"][1]] == [float(r["exact"]) for r in made["ruler"][1]]
    assert {r["exact"] for r in made["ruler"][1]} == {True, False}
    task = tasks.by_name["values"]
    values = task.references(made["ruler"][1][0]["answer"])
    assert len(values) == 4
    assert substring_score(f"{values[2]}; {values[0]}", values, "all") == 0.5


def test_planted_models_without_a_continuation_have_no_substring_score(tasks):
    items = items_of(tasks, "single", 4, 0)
    assert {s.substring for s in Planted(perfect, tasks.tokenizer).score(items)} == {None}
    asked = [replace(item, continuation=Continuation(5, (item.query.answer,))) for item in items]
    assert {s.substring for s in Planted(perfect, tasks.tokenizer).score(asked)} == {1.0}


def test_the_published_budgets_are_those_of_the_study():
    from lcprobe.analysis.published.tables import ruler_tasks

    assert {name.split("_")[0]: task.new_tokens for name, task in ruler_tasks().items()} == BUDGETS
