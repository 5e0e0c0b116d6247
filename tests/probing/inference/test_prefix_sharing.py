"""Prefix sharing: every token of the trie is read once, every prompt to its end, and the scores are those of separate prompts."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lcprobe.probing.config import ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.inference.prefill import prefill
from lcprobe.probing.inference.prefix_sharing import plan_prefill, plan_whole, prefix_batches
from lcprobe.probing.scoring import Item, ModelScorer
from lcprobe.schema import build
from lcprobe.tasks.episode import Factors, Formats
from tests.models.contract_cases import CASES

LINE = {"type": "niah", "template": "line", "digits": 2}
SINGLE, MANY = {**LINE, "n_keys": 1}, {**LINE, "n_keys": 16, "n_queries": 16}


def trie_of(dice, n, length=30):
    """Prompts that branch from a trunk, or from one another, anywhere; some equal, some prefixes of others."""
    prompts = [dice.integers(0, 3, dice.integers(1, length))]
    for _ in range(n - 1):
        parent = prompts[dice.integers(len(prompts))]
        own = dice.integers(0, 3, dice.integers(0, length // 2))
        grown = np.concatenate([parent[: dice.integers(0, len(parent) + 1)], own])
        prompts.append(grown if len(grown) else parent)
    return [prompt.astype(np.int32) for prompt in prompts]


@st.composite
def tries(draw, n=12):
    dice = np.random.default_rng(draw(st.integers(0, 10_000)))
    return trie_of(dice, draw(st.integers(1, n)))


def trie_tokens(prompts):
    return len({tuple(p[:k]) for p in prompts for k in range(1, len(p) + 1)})


@settings(max_examples=300, deadline=None)
@given(prompts=tries(), rows=st.integers(1, 8), call=st.sampled_from([0, 3, 50, 1000]))
def test_the_program_reads_every_prompt_in_few_rows_and_drops_what_it_kept(prompts, rows, call):
    program, states, done = plan_prefill(prompts, rows, call), {}, {}
    for number, step in enumerate(program.steps):
        past = [()] * len(step.prompts)
        if step.before is not None:
            past = states.pop(step.before) if step.last else states[step.before]
            past = past if step.source is None else [past[i] for i in step.source]
        assert len(past) == len(step.prompts) <= rows
        assert {len(p) for p in past} == {step.lo}
        now = [p + tuple(prompts[i][step.lo : step.hi]) for p, i in zip(past, step.prompts, strict=True)]
        assert {len(p) for p in now} == {step.hi}
        for row, i in step.ends:
            assert now[row] == tuple(prompts[i])
            assert done.setdefault(i, number) == number
        if step.kept:
            states[number] = now
    assert not states
    assert sorted(done) == list(range(len(prompts)))
    assert program.tokens == sum(len(s.prompts) * (s.hi - s.lo) for s in program.steps) <= sum(map(len, prompts))
    if call == 0:
        assert program.tokens == trie_tokens(prompts)


@settings(max_examples=100, deadline=None)
@given(prompts=tries(n=20), rows=st.integers(1, 30))
def test_batches_partition_the_prompts_and_keep_shared_prefixes_together(prompts, rows):
    batches = prefix_batches(prompts, rows)
    assert sorted(i for batch in batches for i in batch) == list(range(len(prompts)))
    assert batches == prefix_batches(prompts, rows)
    whole = {frozenset(i for i in batch) for batch in batches if len(batch) > rows}
    for batch in whole:  # larger than `rows` only where all have a common prefix
        assert len({int(prompts[i][0]) for i in batch}) == 1


def test_few_states_wait_in_a_long_sweep():
    """200 depths in at most 8 rows: the trunk waits, and nothing else."""
    text = np.arange(1, 4001, dtype=np.int32)
    at = np.linspace(0, 4000, 200).astype(int)
    prompts = [np.concatenate([text[:p], [0], text[p:], [5]]).astype(np.int32) for p in at]
    waiting, rows, most = set(), {}, 0
    for number, step in enumerate(plan_prefill(prompts, 8).steps):
        if step.last:
            waiting.discard(step.before)
        if step.kept:
            waiting.add(number)
        rows[number] = len(step.prompts)
        most = max(most, sum(rows[n] for n in waiting))
    assert most <= 16


def ends_of(model, prompts, rows, call, chunk):
    """The last hidden vector of every prompt, by a program."""
    logits_of = {}
    with torch.inference_mode():
        for ended, state, last in prefill(
            model, plan_prefill(prompts, rows, call), prompts, chunk, torch.device("cpu")
        ):
            assert len({len(prompts[i]) for i in ended}) == 1
            assert state.position == len(prompts[ended[0]])
            logits_of |= dict(zip(ended, model.logits(last), strict=True))
    return logits_of


@pytest.mark.parametrize("number", range(len(CASES)), ids=map(str, CASES))
def test_shared_logits_equal_those_of_each_prompt_alone(number):
    """Every model has a trie and settings of its own: all settings meet many models."""
    dice, model = np.random.default_rng(number), CASES[number].build().float()
    prompts = trie_of(dice, int(dice.integers(2, 6)))
    rows, call, chunk = (int(dice.choice(levels)) for levels in ((1, 2, 3, 8), (0, 30, 1000), (1, 5, 64)))
    logits_of = ends_of(model, prompts, rows, call, chunk)
    assert sorted(logits_of) == list(range(len(prompts)))
    for i, prompt in enumerate(prompts):
        with torch.no_grad():
            hidden, _ = model.hidden(torch.from_numpy(prompt.astype(np.int64))[None])
            assert (logits_of[i] - model.logits(hidden[0, -1])).abs().max() <= 1e-4


@pytest.fixture(scope="module")
def sets(materials):
    settings = {"single": SINGLE, "four": {**LINE, "n_keys": 4}, "row": MANY, "separate": {**MANY, "separate": True}}
    return TaskSet(build(ProbeConfig, {"tasks": settings}, "probe"), materials)


def items_of(sets, task, length, depths, n):
    items = []
    for index in range(n):
        for depth in depths:
            episode = sets.by_name[task].episode(
                Factors(Formats("corpus", "words", "numbers"), length, float(depth), index)
            )
            items += [Item(episode, query) for query in episode.queries]
    return items


@pytest.mark.parametrize(
    ("task", "depths", "n"),
    [("single", np.linspace(0, 1, 10), 2), ("four", [0, 0.3, 1], 3), ("row", [0.5], 1), ("separate", [0.5], 1)],
)
@pytest.mark.parametrize("batch_tokens", [900, 100_000])
def test_shared_scores_equal_those_of_each_question_alone(trained, sets, task, depths, n, batch_tokens):
    items = items_of(sets, task, 300, depths, n)
    shared = ModelScorer(trained, sets.materials.tokenizer, "cpu", 128, batch_tokens=batch_tokens).score(items)
    alone = [ModelScorer(trained, sets.materials.tokenizer, "cpu", 1024).score([item])[0] for item in items]
    assert [s.read_tokens for s in alone] == [item.query.start for item in items]
    assert sum(s.read_tokens for s in shared) < sum(s.read_tokens for s in alone)
    for a, b in zip(shared, alone, strict=True):
        assert a.log_likelihood == pytest.approx(b.log_likelihood, abs=1e-4)
        assert (a.exact, a.rank, a.prediction, a.first_token) == (b.exact, b.rank, b.prediction, b.first_token)


@pytest.mark.parametrize(
    ("task", "depths", "saved"), [("single", np.arange(1, 21) / 20, 0.45), ("separate", [0.5], 0.90)]
)
def test_prefill_tokens_saved(sets, task, depths, saved):
    """20 depths of a sample, and 16 questions over one context: read once, as long as the grain allows."""
    items = items_of(sets, task, 2048, depths, 4)
    prompts = [item.prompt for item in items]
    program = plan_prefill(prompts, 1000)
    assert 1 - program.tokens / sum(map(len, prompts)) >= saved
    assert program.tokens <= 1.03 * plan_prefill(prompts, 1000, call=0).tokens


@pytest.mark.parametrize(("first", "bound"), [(0, 18 / 40), (1, 19 / 40)])
def test_a_sweep_of_depths_is_read_once_up_to_what_its_depths_allow(sets, first, bound):
    """20 depths of 0 .. 1, or 0.05 .. 1: all depths but the deepest over 20, of the haystack's tokens, and the begin token."""
    steps = 19 if first == 0 else 20
    items = items_of(sets, "single", 2048, [i / steps for i in range(first, first + 20)], 4)
    prompts, haystack = [item.prompt for item in items], items[0].episode.haystack_tokens
    saved = 1 - plan_prefill(prompts, 1000, call=0).tokens / sum(map(len, prompts))
    assert saved == pytest.approx((bound * haystack + 19 / 20) / len(prompts[0]), abs=0.002)
    assert saved < bound
    assert 1 - plan_prefill(prompts, 1000).tokens / sum(map(len, prompts)) > saved - 0.005


def test_questions_of_their_own_end_as_if_each_were_the_only_one(sets, tokenizer):
    for index in range(20):
        factors = Factors(Formats("corpus", "words", "numbers"), 400, 0.5, index)
        one, row = sets.by_name["separate"].episode(factors), sets.by_name["row"].episode(factors)
        assert len(one.ids) == 400 >= max(q.stop for q in one.queries)
        assert len({q.stop - len(q.own) for q in one.queries if q.own is not None}) == 1
        assert [q.key for q in one.queries] == [q.key for q in row.queries]
        assert {q.chance for q in one.queries} == {1 / 16}
        for query in one.queries:
            item = Item(one, query)
            text = tokenizer.decode(item.prompt)
            assert text.endswith(f" {query.key}:")
            assert text.count(query.key) == 2
            assert tokenizer.decode(item.answer).strip() == query.answer
            assert tokenizer.same_after_round_trip(one.sequence(query))
            where = item.prompt[query.needle : query.needle + len(item.answer)]
            assert np.array_equal(where, item.answer)
            assert query.distance == query.start - query.needle - len(item.answer)
            assert len(query.candidates) == 16


def test_whole_prompts_are_read_in_one_step_each_equal_ones_once():
    prompts = [np.array(p) for p in ([1, 2, 3], [1, 2], [1, 2, 3], [1, 5, 3], [9, 9, 9])]
    program = plan_whole(prompts, rows=2)
    assert sorted((step.lo, step.hi, len(step.prompts)) for step in program.steps) == [
        (0, 2, 1),
        (0, 3, 1),
        (0, 3, 2),
    ]
    assert all(step.before is None and not step.kept for step in program.steps)
    for step in program.steps:
        for row, prompt in step.ends:
            assert np.array_equal(prompts[step.prompts[row]], prompts[prompt])
    assert sorted(prompt for step in program.steps for _, prompt in step.ends) == list(range(5))
    assert program.new.tolist() == [3, 2, 0, 3, 3]
