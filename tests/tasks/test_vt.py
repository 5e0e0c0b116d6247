"""Variable tracking: every episode solved by an interpreter of its text, hop by hop; nothing given away by places."""

import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.vt import VT
from tests.tasks.checks import (
    TOKENIZERS,
    build_task,
    check_chance,
    check_no_giveaway,
    check_shortest,
    check_sound,
    materials_for,
)

QUIET = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLAIN = Formats("noise", "words", "numbers")
STATEMENT = re.compile(r"\bVAR ([\w-]+) is (VAR )?([\w-]+);")


def statements(tok, e):
    """(name, whether a variable is assigned, what is assigned) in the order of the text."""
    text = tok.decode(e.ids[: e.queries[0].start])
    return [(m[1], m[2] is not None, m[3]) for m in STATEMENT.finditer(text)]


def solved(found, name):
    """The value of a variable and how many assignments it took, reading the text once from left to right."""
    known = {}
    for left, from_variable, right in found:
        assert left not in known
        value, hops = known[right] if from_variable else (right, -1)
        known[left] = value, hops + 1
    return known[name]


@QUIET
@given(
    which=st.sampled_from(TOKENIZERS),
    config=st.sampled_from([{}, {"chains": 2, "hops": 4}, {"hops": 1, "word_pairs": True}]),
    haystack=st.sampled_from(["corpus", "noise", "words"]),
    key=st.sampled_from(["words", "hex"]),
    value=st.sampled_from(["numbers", "words", "uuids"]),
    length=st.integers(450, 900),
    depth=st.sampled_from([0.0, 0.3, 0.5, 0.9, 1.0]),
    index=st.integers(0, 500),
    control=st.sampled_from(VT.axes.controls),
)
def test_sound_and_solved_by_following_the_chain(
    materials, which, config, haystack, key, value, length, depth, index, control
):
    m = materials_for(materials, which)
    task = build_task(VT, m, **config)
    try:
        e = check_sound(task, m.tokenizer, Factors(Formats(haystack, key, value), length, depth, index, control))
    except EpisodeError as error:
        assert error.key in ("formats.key", "formats.value")  # prose with most of the nouns in it
        return
    found, query, size = statements(m.tokenizer, e), e.queries[0], task.config.hops + 1
    whole = {"none", "zero_distance", "wrong_key"}
    n = task.config.chains * size
    assert len(found) == {"query_only": 0, "no_needle": n - 1}.get(control, n)
    assert len(e.needles) == len(found)
    names = [name for name, _, _ in found]
    assert len(set(names)) == len(names)
    if control in ("none", "zero_distance"):
        assert solved(found, query.key) == (query.answer, task.config.hops)
    if control in whole:
        values = {right for _, from_variable, right in found if not from_variable}
        assert {m.tokenizer.decode(c).strip() for c in query.candidates} == values
        assert query.chance == 1 / task.config.chains
    assert (query.key in names) == (control not in ("wrong_key", "query_only"))
    assert (query.needle is not None) == (control in whole)


def test_a_chain_is_in_the_order_of_its_hops_from_its_depth_on(materials):
    task, tok = build_task(VT, materials, hops=3), materials.tokenizer
    for length in (600, 3000):
        for depth in (0.0, 0.2, 0.5, 0.8):
            for index in range(15):
                e = task.episode(Factors(PLAIN, length, depth, index))
                solved(
                    statements(tok, e), e.queries[0].key
                )  # raises KeyError where a variable is used before it is known
                # where later statements are crowded out by the end, the chain begins before its depth by their tokens at most
                begun = e.queries[0].start
                tokens = sum(
                    stop - start for start, stop in e.needles if start >= round(e.realised_depth * 0.9 * begun)
                )
                assert abs(e.realised_depth - depth) * length <= tokens, (length, depth, index)
                assert e.needles[0][0] >= 1
    last = task.episode(Factors(PLAIN, 600, 1.0, 0))
    names = [name for name, _, _ in statements(tok, last)]
    assert names[-1] == last.queries[0].key, "at depth 1 the target chain is all that follows"
    assert last.queries[0].distance < 60


def test_zero_distance_is_the_target_chain_alone_before_the_question(materials):
    task, tok = build_task(VT, materials), materials.tokenizer
    for index in range(20):
        e = task.episode(Factors(PLAIN, 500, 0.4, index, "zero_distance"))
        assert solved(statements(tok, e)[-3:], e.queries[0].key) == (e.queries[0].answer, 2)
        assert e.needles[-1][1] == e.queries[0].start - len(tok.piece(f" VAR {e.queries[0].key} has the value"))


@QUIET
@given(index=st.integers(0, 300), depth=st.sampled_from([0.0, 0.5, 1.0]), value=st.sampled_from(["numbers", "uuids"]))
def test_length_depth_and_value_format_change_nothing_else(materials, index, depth, value):
    task, tok = build_task(VT, materials), materials.tokenizer
    base = task.episode(Factors(PLAIN, 400, 0.3, index))
    links = [(a, b) for a, is_link, b in statements(tok, base) if is_link]
    for length in (700, 5000):
        e = task.episode(Factors(replace(PLAIN, value=value), length, depth, index))
        assert e.queries[0].key == base.queries[0].key
        assert sorted((a, b) for a, is_link, b in statements(tok, e) if is_link) == sorted(links)
        if value == "numbers":
            assert e.queries[0].answer == base.queries[0].answer


def test_places_give_nothing_away(materials):
    task, tok = build_task(VT, materials, chains=3, hops=2), materials.tokenizer
    depths = np.random.default_rng(0).uniform(size=1200)
    episodes = [task.episode(Factors(PLAIN, 400, d, i)) for i, d in enumerate(depths)]
    samples = [(e, e.queries[0]) for e in episodes]
    check_no_giveaway(samples, tok)
    firsts = {id(e): [r for _, is_link, r in statements(tok, e) if not is_link] for e in episodes}
    check_chance(lambda e, q: firsts[id(e)][len(e.ids) % 3], samples, "any value")
    assert len({e.digest for e in episodes}) == 1200


def test_the_shortest_length_exists_and_one_less_does_not(materials):
    for which in TOKENIZERS:
        least = check_shortest(
            build_task(VT, materials_for(materials, which), chains=2, hops=2), Factors(PLAIN, 1, 0.5, 3)
        )
        assert least < 150


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"chains": 1}, r"^task\.chains: given 1; allowed: 2 \.\. 16 \(one of them a distractor at least\)$"),
        ({"hops": 0}, r"^task\.hops: given 0; allowed: 1 \.\. 16$"),
        ({"hop": 2}, r"^task\.hop: an unknown key"),
    ],
)
def test_settings_that_cannot_be_are_one_clear_line(materials, config, message):
    with pytest.raises(ConfigError, match=message):
        build_task(VT, materials, **config)
    with pytest.raises(ConfigError, match=r"^formats\.haystack: given 'needles'; allowed: corpus"):
        build_task(VT, materials).episode(Factors(Formats("needles", "words", "numbers"), 400, 0.5, 0))
