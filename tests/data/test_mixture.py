"""Batches: a pure function of (seed, step, part), the same however a step is split, with the configured shares."""

import numpy as np
import pytest

from lcprobe.data.config import DataConfig
from lcprobe.data.mixture import Mixture, roll_digest
from lcprobe.errors import ConfigError
from lcprobe.schema import build
from lcprobe.tasks.episode import Factors, Formats

RECIPES = {
    "lines": {"task": {"type": "niah", "n_keys": 2, "n_queries": 2, "template": "line", "digits": 2}},
    "sentences": {"task": {"type": "niah", "n_keys": 1, "digits": 2}, "haystack": ["corpus", "words"]},
}
STAGES = [
    {"until": 0.5, "lm": 0.25, "episodes": {"lines": 1}, "lengths": [0.5]},
    {"until": 1.0, "lm": 0.5, "episodes": {"lines": 1, "sentences": 3}, "lengths": [1, 0.5]},
]


def make(prepared, data_settings, *, parts=1, seed=0, steps=100, rows=8, length=128, preceding=0, **more):
    given = {**data_settings, "recipes": RECIPES, "mixture": STAGES, "answer_weight": 3.0, **more}
    config = build(DataConfig, given, "data")
    return Mixture(
        config, prepared, context_length=length, rows=rows, steps=steps, parts=parts, seed=seed, preceding=preceding
    )


def test_a_step_is_the_same_however_it_is_split(prepared, data_settings):
    whole = make(prepared, data_settings)
    for parts in (2, 4, 8):
        divided = make(prepared, data_settings, parts=parts)
        for step in (0, 51, 99):
            each = [divided.batch(step, part) for part in range(parts)]
            rows = np.concatenate([batch.tokens for batch in each])
            assert np.array_equal(rows, whole.batch(step, 0).tokens)
            assert [digest for batch in each for digest in batch.digests] == whole.batch(step, 0).digests
            assert sum(batch.weight for batch in each) == whole.batch(step, 0).weight


def test_another_process_and_order_give_the_same_batches_and_another_seed_does_not(prepared, data_settings):
    a, b, other = make(prepared, data_settings), make(prepared, data_settings), make(prepared, data_settings, seed=1)
    forward = [a.batch(step, 0).digests for step in range(0, 100, 9)]
    backward = [b.batch(step, 0).digests for step in reversed(range(0, 100, 9))]
    assert forward == backward[::-1]
    assert not [step for step in range(0, 100, 9) if other.batch(step, 0).digests in forward]


def test_shares_lengths_and_weights_are_as_configured(prepared, data_settings):
    m = make(prepared, data_settings)
    text, rows = [0, 0], [0, 0]
    for step in range(100):
        batch, stage = m.batch(step, 0), int(step >= 50)
        assert batch.tokens.size == 8 * 128
        assert batch.tokens.shape[1] == (64 if stage == 0 or step % 2 else 128) == m.seqlen(step)
        text[stage] += int(batch.text_rows.sum()) * batch.tokens.shape[1]
        rows[stage] += batch.tokens.size
        assert set(np.unique(batch.weights[~batch.text_rows])) <= {0.0, 3.0}
        assert (batch.weights[:, 0] == 0).all()
        assert set(np.unique(batch.weights[batch.text_rows])) <= {0.0, 1.0}
    assert abs(text[0] / rows[0] - 0.25) < 0.01
    assert abs(text[1] / rows[1] - 0.5) < 0.01


def test_formats_are_drawn_alike_at_every_length(prepared, data_settings):
    """At a length at which one sample of 20 with a long key and value fits, no format is rarer than elsewhere, and
    every episode is found."""
    task = {"type": "niah", "n_keys": 1, "template": "line", "digits": 2}
    more = {
        "recipes": {"lines": {"task": task, "key": ["words", "uuids"], "value": ["numbers", "uuids"]}},
        "mixture": [{"lm": 0.0, "episodes": {"lines": 1}}],
    }
    long = make(prepared, data_settings, **more, length=512)
    least = long._tasks["lines"].shortest
    uuids = [least(Factors(Formats("corpus", "uuids", "uuids"), 1, 0.5, i, split="train")) for i in range(200)]
    tight = int(np.quantile(uuids, 0.05))
    assert min(uuids) < tight < max(uuids)
    formats = []
    for m in (long, make(prepared, data_settings, **more, length=tight)):
        queries = [m.episode(slot, 0).queries[0] for slot in range(120)]
        formats.append([("-" in query.key, "-" in query.answer) for query in queries])
    assert formats[0] == formats[1]
    assert len(set(formats[0])) == 4


def test_weighted_tokens_of_an_episode_are_its_answers(prepared, data_settings):
    m, tok = make(prepared, data_settings), prepared.tokenizer
    for step in range(10):
        batch = m.batch(step, 0)
        for tokens, weights, is_text in zip(batch.tokens, batch.weights, batch.text_rows, strict=True):
            if is_text:
                continue
            text, answers = tok.decode(tokens), tok.decode(tokens[weights > 0])
            assert tokens[0] == tok.bos_id
            values = answers.split()
            assert len(values) == 2
            for value in values:
                assert text.count(f": {value}") == 2, "once as a needle, once as the answer"


def test_an_epoch_of_text_sees_every_row_once(prepared, data_settings):
    m = make(prepared, data_settings, mixture=[{"lm": 1.0}], length=256, rows=4, steps=10_000)
    seen = [m._text(slot, 256, 1)[0][0].tobytes() for slot in range(m.n_rows)]
    assert len(set(seen)) == m.n_rows
    again = [m._text(slot, 256, 1)[0][0].tobytes() for slot in range(m.n_rows, 2 * m.n_rows)]
    assert set(again) == set(seen)
    assert again != seen, "another order in the next epoch"


def test_document_boundaries_reach_the_batch(prepared, data_settings):
    m = make(prepared, data_settings, mixture=[{"lm": 1.0}], length=256, rows=4, steps=10_000)
    n_starts = 0
    for step in range(m.n_rows // 4):
        batch = m.batch(step, 0)
        inside = (batch.tokens == prepared.tokenizer.bos_id) & (np.arange(256) > 0)
        assert (batch.starts is not None) == inside.any()
        if batch.starts is not None:
            assert np.array_equal(batch.starts, inside)
            assert (batch.weights[inside] == 0).all(), "nothing predicts the start of another document"
            n_starts += int(inside.sum())
    assert n_starts >= 1


@pytest.mark.parametrize("preceding", [0, 1])
def test_joined_documents_have_the_same_tokens_and_weights_and_no_boundaries(prepared, data_settings, preceding):
    own = {"preceding": preceding, "mixture": [{"lm": 1.0, "lengths": [0.5, 1]}], "length": 256}
    apart = make(prepared, data_settings, **own)
    joined = make(prepared, data_settings, documents="joined", **own)
    seen = 0
    for step in range(12):
        a, b = apart.batch(step, 0), joined.batch(step, 0)
        assert np.array_equal(a.tokens, b.tokens)
        assert np.array_equal(a.weights, b.weights)
        assert b.starts is None or not b.starts[:, 1:].any()
        seen += 0 if a.starts is None else int(a.starts[:, 1:].sum())
        assert a.digests == b.digests or preceding
        for row in range(len(b.tokens) if preceding else 0):  # rows come after the text before them
            first = joined._first(step * 8 + row // (256 // b.tokens.shape[1]))
            first += row % (256 // b.tokens.shape[1]) * b.tokens.shape[1]
            n = min(first, b.tokens.shape[1])
            assert np.array_equal(b.before[row, len(b.before[row]) - n :], prepared.tokens(first - n, n))
            assert b.starts[row, 0] == (first == 0)
            assert b.before_starts[row].sum() == (first > 0)
    assert seen > 0, "some rows pack several documents"
    for slot in range(8):
        assert len(joined.starts_in(slot)) == 0
        assert joined.seen_before(slot, 0) == min(preceding * joined.seqlen(0), joined._first(slot))


def test_the_rolling_digest_depends_on_order_and_content():
    a = roll_digest(roll_digest("", ["x"]), ["y"])
    assert a == roll_digest(roll_digest("", ["x"]), ["y"])
    others = [
        roll_digest(roll_digest("", ["y"]), ["x"]),
        roll_digest("", ["x", "y"]),
        roll_digest(roll_digest("", ["x"]), ["z"]),
    ]
    assert len({a, *others}) == 4


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"mixture": [{"lm": 0.5, "episodes": {"lines": 1}, "lengths": [0.25]}]}, "data.mixture[0].episodes.lines"),
        ({"length": 100, "mixture": [{"lm": 1, "lengths": [0.125]}]}, "data.mixture[0].lengths"),
    ],
)
def test_what_does_not_fit_is_named_before_training(prepared, data_settings, more, key):
    with pytest.raises(ConfigError) as caught:
        make(prepared, data_settings, **{"length": 64, **more}).check()
    assert caught.value.key == key
