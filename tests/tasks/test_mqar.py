"""Associative recall: sound in three tokenizers, pairs once, packed, gaps and distances as stated, nothing given
away.
"""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.mqar import MQAR
from tests.tasks.checks import TOKENIZERS, build_task, check_no_giveaway, check_shortest, check_sound, materials_for

pytestmark = pytest.mark.usefixtures("small_pools")
QUIET = settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLAIN = Formats("corpus", "words", "numbers")


@QUIET
@given(
    which=st.sampled_from(TOKENIZERS),
    config=st.sampled_from(
        [{}, {"pairs": 12, "gaps": "uniform", "n_queries": 2}, {"share": 0.6, "n_queries": 1}, {"share": 1.0}]
    ),
    f=st.builds(
        lambda haystack, strings: Formats(haystack, *strings),
        st.sampled_from(["corpus", "noise", "words"]),
        st.sampled_from([("words", "numbers"), ("numbers", "hex"), ("hex", "words"), ("words", "uuids")]),
    ),
    length=st.integers(800, 1500),
    index=st.integers(0, 300),
    control=st.sampled_from(MQAR.axes.controls),
)
def test_sound(materials, which, config, f, length, index, control):
    m = materials_for(materials, which)
    e = check_sound(build_task(MQAR, m, **config), m.tokenizer, Factors(f, length, 0.5, index, control))
    text = m.tokenizer.decode(e.ids[: e.queries[0].start])
    shown = control != "no_needle"
    for number, q in enumerate(e.queries):
        assert text.count(q.key) == shown + (number == 0), "in its pair, and in its question"
        assert text.count(q.answer) == shown
        assert (q.needle is not None) == shown


def test_pairs_grow_with_length_where_a_share_is_set_and_stay_where_a_number_is(materials):
    f = Factors(PLAIN, 1, 0.5, 3)
    by_share, by_number = build_task(MQAR, materials, share=0.5), build_task(MQAR, materials, pairs=8)
    counts = []
    for length in (400, 800, 1600, 3200, 12_800):
        e = by_share.episode(replace(f, length=length))
        shown = re.findall(r" [\w-]+: \d+;", materials.tokenizer.decode(e.ids[: e.queries[0].start]))
        pairs = sum(map(len, materials.tokenizer.pieces(shown)))
        assert length / 2 - 30 < pairs <= length / 2
        counts.append(1 / e.queries[0].chance)
        assert by_number.episode(replace(f, length=length)).queries[0].chance == 1 / 8
    assert np.allclose(np.array(counts[1:]) / counts[:-1], [2, 2, 2, 4], rtol=0.15)
    assert {round(1 / q.chance) for q in by_number.episode(replace(f, length=900)).queries} == {8, 7, 6, 5}


def test_length_and_format_change_nothing_else(materials):
    task = build_task(MQAR, materials)
    base = [(q.key, q.answer) for q in task.episode(Factors(PLAIN, 400, 0.5, 7)).queries]
    for length in (300, 1000, 20_000):
        assert [(q.key, q.answer) for q in task.episode(Factors(PLAIN, length, 0.5, 7)).queries] == base
    other = task.episode(Factors(replace(PLAIN, value="hex"), 400, 0.5, 7))
    assert [q.key for q in other.queries] == [key for key, _ in base]


def test_power_gaps_are_mostly_short_and_uniform_ones_even(materials):
    middle = {}
    for gaps in ("power", "uniform"):
        task = build_task(MQAR, materials, gaps=gaps, n_queries=3)
        episodes = [task.episode(Factors(PLAIN, 4000, 0.5, i)) for i in range(100)]
        # text between the end of the pairs and a question that is not the last
        end = [max(hi for _, hi in e.needles) for e in episodes]
        after = np.array([q.start - stop for e, stop in zip(episodes, end, strict=True) for q in e.queries[:-1]])
        middle[gaps] = np.median(after)
        assert all(3950 < e.queries[-1].stop <= 4000 for e in episodes)
    assert middle["power"] < 500
    assert 1300 < middle["uniform"] < 2500


def test_zero_distance_asks_right_after_the_pairs(materials):
    e = build_task(MQAR, materials, n_queries=2).episode(Factors(PLAIN, 600, 0.5, 1, "zero_distance"))
    assert e.needles[-1][1] > e.queries[0].start - 20
    assert all(q.distance is not None and q.distance < 60 for q in e.queries)


@pytest.mark.parametrize("config", [{"n_queries": 2}, {"share": 0.7, "n_queries": 1}])
def test_blind_guesses_score_the_stated_chance(materials, config):
    task = build_task(MQAR, materials, gaps="uniform", **config)
    samples = [(e, q) for i in range(400) for e in [task.episode(Factors(PLAIN, 400, 0.5, i))] for q in e.queries]
    check_no_giveaway(samples, materials.tokenizer)


def test_the_shortest_length_works_and_one_less_does_not(materials):
    for which in TOKENIZERS:
        for config in ({}, {"share": 0.5}):
            check_shortest(build_task(MQAR, materials_for(materials, which), **config), Factors(PLAIN, 1, 0.5, 5))


def test_what_cannot_be_built_is_one_clear_line(materials):
    with pytest.raises(ConfigError, match=r"^task\.pairs: given 2; allowed: >= n_queries \(4\)$"):
        build_task(MQAR, materials, pairs=2)
    with pytest.raises(ConfigError, match=r"^task\.share: given 1\.5; allowed: > 0"):
        build_task(MQAR, materials, share=1.5)
    with pytest.raises(ConfigError, match=r"^control: given 'wrong_key'; allowed: none \| zero_distance"):
        build_task(MQAR, materials).episode(Factors(PLAIN, 400, 0.5, 0, "wrong_key"))
    with pytest.raises(ConfigError, match=r"^formats\.haystack: given 'needles'"):
        build_task(MQAR, materials).episode(Factors(replace(PLAIN, haystack="needles"), 400, 0.5, 0))
    with pytest.raises(EpisodeError, match=r"^formats: given 'a haystack of more than \d+ needle-like lines'"):
        build_task(MQAR, materials, digits=2, share=0.9).episode(Factors(PLAIN, 2000, 0.5, 0))
