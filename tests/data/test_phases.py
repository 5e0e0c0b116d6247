"""Phases: the stages of the mixture and of the length schedule over one budget, against each step on its own."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcprobe.data.config import DataConfig, Stage
from lcprobe.data.mixture import Mixture
from lcprobe.data.phases import phases
from lcprobe.errors import ConfigError
from lcprobe.lengths import LengthStage, in_tokens, multiples, schedule_text
from lcprobe.schema import build

LENGTH = 128
LINES = {"lines": {"task": {"type": "niah", "n_keys": 2, "template": "line", "digits": 2}}}


def make(prepared, data_settings, schedule, *, mixture=None, steps=40, parts=1):
    given = {**data_settings, "recipes": LINES, "mixture": mixture or [{"lm": 1.0}]}
    config = build(DataConfig, given, "data")
    stages = [LengthStage(until, length) for until, length in schedule]
    return Mixture(config, prepared, context_length=LENGTH, rows=4, steps=steps, parts=parts, seed=0, schedule=stages)


shares = st.lists(st.integers(1, 99), max_size=3, unique=True).map(
    lambda found: [*(i / 100 for i in sorted(found)), 1.0]
)


@given(shares, shares, st.integers(1, 60), st.data())
def test_every_step_has_the_stage_and_the_length_that_its_middle_is_in(stages, lengths, steps, data):
    mixture = [
        Stage(until, 1.0, {}, multiples(*data.draw(st.sampled_from([[1], [0.5, 1], [0.25]])))) for until in stages
    ]
    schedule = [
        LengthStage(until, data.draw(st.sampled_from([*multiples(0.25, 0.5, 1), *in_tokens(32)])))
        for until in lengths
    ]
    found = phases(mixture, LENGTH, schedule)
    assert [p.until for p in found] == sorted({*stages, *lengths})
    for step in range(steps):
        middle = (step + 0.5) / steps
        phase = next(p for p in found if middle <= p.until)
        stage = next(i for i, until in enumerate(stages) if middle <= until)
        length = next(s.length for s in schedule if middle <= s.until)
        tokens = int(length.number if length.in_tokens else length.number * LENGTH)
        assert (phase.stage, phase.context_length) == (stage, tokens)
        assert phase.seqlens == [int(own.number * tokens) for own in mixture[stage].lengths]


def test_a_schedule_changes_the_cuts_and_neither_the_text_nor_the_tokens_of_a_batch(prepared, data_settings):
    plain = make(prepared, data_settings, [])
    with_schedule = make(
        prepared, data_settings, [(0.25, *multiples(0.25)), (0.5, *in_tokens(64)), (1, *multiples(1))]
    )
    for step in range(40):
        batch = with_schedule.batch(step, 0)
        seqlen = 32 if step < 10 else 64 if step < 20 else 128
        assert batch.tokens.shape == (4 * LENGTH // seqlen, seqlen)
        assert np.array_equal(batch.tokens.ravel(), plain.batch(step, 0).tokens.ravel())
        assert (batch.weights[:, 0] == 0).all(), "nothing comes before a sequence"
        assert seqlen < LENGTH or batch.digests == plain.batch(step, 0).digests


def test_lengths_of_the_mixture_are_parts_of_the_scheduled_length_or_tokens_up_to_it(prepared, data_settings):
    mixture = [
        {"lm": 0.5, "episodes": {"lines": 1}, "lengths": [1, 0.5]},
    ]
    halves = make(prepared, data_settings, [(0.5, *multiples(0.5)), (1, *multiples(1))], mixture=mixture)
    assert [halves.seqlen(step) for step in (0, 1, 20, 21)] == [64, 32, 128, 64]
    halves.check()
    tokens = make(
        prepared, data_settings, [(0.5, *multiples(0.25)), (1, *multiples(1))], mixture=[{"lm": 1.0, "lengths": ["64t", "16t"]}]
    )  # fmt: skip
    assert [tokens.seqlen(step) for step in (0, 1, 20, 21)] == [32, 16, 64, 16]


def test_a_step_of_a_schedule_is_the_same_however_it_is_split(prepared, data_settings):
    mixture, schedule = [{"lm": 0.5, "episodes": {"lines": 1}}], [(0.5, *multiples(0.5)), (1, *multiples(1))]
    whole, divided = (make(prepared, data_settings, schedule, mixture=mixture, parts=p) for p in (1, 4))
    for step in (0, 19, 20, 39):
        rows = np.concatenate([divided.batch(step, part).tokens for part in range(4)])
        assert np.array_equal(rows, whole.batch(step, 0).tokens)


@pytest.mark.parametrize(
    ("lengths", "schedule", "message"),
    [
        (["64t"], [(0.5, *in_tokens(32)), (1, *multiples(1))], None),
        ([0.25], [(0.5, *in_tokens(2)), (1, *multiples(1))], r"^data.mixture\[0\].lengths: given 0.25; allowed: a multiple"),
        (["48t"], [], r"^data.mixture\[0\].lengths: given '48t'; allowed: a divisor of context_length \(128\)"),
        (["256t"], [(0.5, *in_tokens(32)), (1, *multiples(1))], r"^data.mixture\[0\].lengths: given '256t'; allowed: a divisor of 32"),
        ([1], [(0.5, *in_tokens(48)), (1, *multiples(1))], r"^train.length_schedule\[0\].length: given '48t'; allowed: a divisor"),
        ([1], [(0.5, *multiples(2)), (1, *multiples(1))], r"^train.length_schedule\[0\].length: given 2.0; allowed: a divisor"),
    ],
)  # fmt: skip
def test_what_cannot_be_split_is_one_clear_line(lengths, schedule, message):
    mixture = [build(Stage, {"lm": 1.0, "lengths": lengths}, "data.mixture[0]")]
    stages = [LengthStage(until, length) for until, length in schedule]
    if message is None:
        assert [p.seqlens for p in phases(mixture, LENGTH, stages)] == [[32], [64]]
        return
    with pytest.raises(ConfigError, match=message):
        phases(mixture, LENGTH, stages)


def test_a_schedule_in_words():
    stages = [LengthStage(0.25, *multiples(0.25)), LengthStage(0.5, *in_tokens(64)), LengthStage()]
    assert schedule_text(stages, 128) == "32 until 0.25, 64 until 0.5, then 128"
    assert schedule_text([], 128) == ""
