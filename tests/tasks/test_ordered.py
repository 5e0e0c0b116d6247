"""Ordered near-duplicates: sound, the target value is the n-th of its key, numbers are queried equally often, nothing is given
away.
"""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcprobe.errors import ConfigError
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.names import CONTROLS, KINDS
from lcprobe.tasks.ordered import ORDINALS, Ordered
from tests.tasks.checks import TOKENIZERS, build_task, check_chance, check_shortest, check_sound, materials_for

QUIET = settings(max_examples=50, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLAIN = Formats("corpus", "words", "numbers")


def values_of(text: str, key: str) -> list[str]:
    """Values of a key in order of appearance, read from the text."""
    return [rest.split(".", 1)[0] for rest in text.split(f"he value for {key} is ")[1:]]


@QUIET
@given(
    which=st.sampled_from(TOKENIZERS),
    config=st.sampled_from([{}, {"n_keys": 2, "repeats": 2}, {"n_keys": 3, "repeats": 3, "word_pairs": True}]),
    f=st.builds(
        Formats, st.sampled_from(["corpus", "noise", "words"]), st.sampled_from(KINDS), st.sampled_from(KINDS)
    ),
    length=st.integers(1800, 2400),
    index=st.integers(0, 300),
    control=st.sampled_from(CONTROLS),
)
def test_sound_and_the_nth_value_of_its_key(materials, which, config, f, length, index, control):
    m = materials_for(materials, which)
    task = build_task(Ordered, m, **config)
    e = check_sound(task, m.tokenizer, Factors(f, length, 0.5, index, control))
    (q,) = e.queries
    nth, key = q.key.split(" ", 1)
    text = m.tokenizer.decode(e.ids[: q.start])
    assert text.endswith(f"The {nth} value for {key} is")
    found = values_of(text, key)
    if control in ("none", "zero_distance"):
        assert len(found) == task.config.repeats
        assert found[ORDINALS.index(nth)] == q.answer
        assert text.count(q.answer) == 1
        assert 1 / (task.config.repeats * task.config.n_keys) <= q.chance <= 1 / task.config.n_keys
    else:
        assert found == []
        assert text.count(q.answer) == (control == "wrong_key")


def test_every_number_is_queried_equally_often_and_at_every_length_the_same(materials):
    task = build_task(Ordered, materials, repeats=5)
    episodes = [task.episode(Factors(PLAIN, 700, 0.5, i)).queries[0] for i in range(100)]
    assert set(Counter(q.key.split()[0] for q in episodes).values()) == {20}
    for i in range(0, 100, 7):
        q = task.episode(Factors(PLAIN, 5000, 0.5, i)).queries[0]
        assert (q.key, q.answer) == (episodes[i].key, episodes[i].answer)


def test_zero_distance_is_directly_before_the_question(materials):
    for index in range(20):
        e = build_task(Ordered, materials).episode(Factors(PLAIN, 600, 0.5, index, "zero_distance"))
        assert e.needles[-1][1] > e.queries[0].start - 20
        assert e.queries[0].distance < 100


@pytest.mark.parametrize(
    "config", [{}, {"n_keys": 2, "repeats": 3}, pytest.param({"repeats": 8}, marks=pytest.mark.slow)]
)
def test_the_kth_value_of_any_key_scores_the_stated_chance(materials, config):
    task = build_task(Ordered, materials, **config)
    samples = [(e, e.queries[0]) for i in range(800) for e in [task.episode(Factors(PLAIN, 1200, 0.5, i))]]
    rng = np.random.default_rng(0)

    def kth_of_some_key(e, q):
        text = materials.tokenizer.decode(e.ids[: q.start])
        keys = sorted(set(re.findall(r"The value for (\S+) is", text)))
        return values_of(text, keys[rng.integers(len(keys))])[ORDINALS.index(q.key.split()[0])]

    check_chance(kth_of_some_key, samples, "the k-th value of some key")


@pytest.mark.parametrize("config", [{"n_keys": 2}, {"n_keys": 2, "repeats": 3}])
def test_blind_guesses_score_the_stated_chance(materials, config):
    task = build_task(Ordered, materials, **config)
    samples = [(e, e.queries[0]) for i in range(600) for e in [task.episode(Factors(PLAIN, 500, 0.5, i))]]
    # finding the key without counting is right once in `repeats`
    keyed = [(e, replace(q, chance=1 / task.config.repeats)) for e, q in samples]

    def last_of_key(e, q):
        return values_of(materials.tokenizer.decode(e.ids[: q.start]), q.key.split()[1])[-1]

    check_chance(last_of_key, keyed, "the key's last value")


def test_the_shortest_length_works_and_one_less_does_not(materials):
    for which in TOKENIZERS:
        check_shortest(build_task(Ordered, materials_for(materials, which)), Factors(PLAIN, 1, 0.5, 5))
    assert build_task(Ordered, materials, n_keys=2, repeats=3).shortest(Factors(PLAIN, 1, 0.5, 0)) < 150


def test_what_cannot_be_built_is_one_clear_line(materials):
    with pytest.raises(ConfigError, match=r"^task\.repeats: given 1; allowed: 2 \.\. 10$"):
        build_task(Ordered, materials, repeats=1)
    with pytest.raises(ConfigError, match=r"^formats\.haystack: given 'needles'; allowed: corpus"):
        build_task(Ordered, materials).episode(Factors(replace(PLAIN, haystack="needles"), 900, 0.5, 0))
