"""Semantic needles: no content word of the question in the needle, one answer, closed sets, sound, nothing given
away.
"""

import re
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.names import CONTROLS, NOTHING
from lcprobe.tasks.semantic import MAX_NEEDLES, Semantic, relations
from lcprobe.tasks.text.haystack import Materials, TokenStream
from lcprobe.tasks.text.tokenizer import read_words
from tests.tasks.checks import TOKENIZERS, build_task, check_no_giveaway, check_shortest, check_sound, materials_for

QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLAIN = Formats("corpus", NOTHING, NOTHING)
FUNCTION = {"the", "a", "of", "in", "at", "to", "for", "is", "had", "beside", "who", "them", "among", "this"}
STEM = 4


def content(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower())) - FUNCTION


def related(question: str, needle: str) -> set[tuple[str, str]]:
    """Content words that are equal, or begin alike."""
    return {
        (a, b)
        for a in content(question)
        for b in content(needle)
        if a == b or (len(a) >= STEM and a[:STEM] == b[:STEM])
    }


def fact_in(needle: str) -> tuple[str, str, str]:
    """(relation, fact in the needle, what it is asked by) of a needle's text."""
    for relation in relations():
        head, tail = relation.needle.split("{}")
        for fact, asked in relation.facts:
            if needle.endswith(head + fact + tail):
                return relation.name, fact, asked
    raise AssertionError(needle)


def test_there_are_enough_facts_and_each_is_queried_by_one_word():
    assert len(relations()) >= 6
    assert sum(len(r.facts) for r in relations()) >= 60
    for r in relations():
        assert len({fact for fact, _ in r.facts}) == len(r.facts)
        assert len({asked for _, asked in r.facts}) > MAX_NEEDLES
        assert r.needle.count("{}") == r.ask.count("{}") == 1


def test_no_content_word_of_a_question_occurs_in_any_needle_of_its_relation():
    for r in relations():
        for _, asked in r.facts:
            for fact, _ in r.facts:
                assert not related(r.ask.format(asked), r.needle.format(fact)), (r.name, asked, fact)


def runs(text: str, n: int) -> set[str]:
    """Every run of n letters inside the words of a text."""
    return {word[i : i + n] for word in content(text) for i in range(len(word) - n + 1)}


def test_a_fact_and_its_query_look_nothing_alike():
    """Tehran and Iran begin differently and still give each other away: tokens inside words count too."""
    assert runs("Tehran", 3) & runs("Iran", 3)
    for r in relations():
        for fact, asked in r.facts:
            assert not runs(fact, 3) & runs(asked, 3), (r.name, fact, asked)
            for other, _ in r.facts:
                assert not runs(r.ask.format(asked), 4) & runs(r.needle.format(other), 4), (r.name, asked, other)


def test_names_are_apart_from_each_other_and_from_all_wording():
    names = read_words("names")
    assert len(set(names)) == len(names) >= 64
    wording = " ".join(r.needle + r.ask + " ".join(sum(r.facts, ())) for r in relations()).lower()
    for name in names:
        assert name.lower() not in wording
        assert not any(name in other for other in names if other != name)


@QUIET
@given(
    which=st.sampled_from(TOKENIZERS),
    n=st.sampled_from([1, 4, MAX_NEEDLES]),
    haystack=st.sampled_from(["corpus", "noise", "words"]),
    length=st.integers(300, 900),
    depth=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    index=st.integers(0, 300),
    control=st.sampled_from(CONTROLS),
)
def test_sound_and_one_answer(materials, which, n, haystack, length, depth, index, control):
    m = materials_for(materials, which)
    f = Factors(Formats(haystack, NOTHING, NOTHING), length, depth, index, control)
    e = check_sound(build_task(Semantic, m, n_needles=n), m.tokenizer, f)
    (q,) = e.queries
    decode = m.tokenizer.decode
    text = decode(e.ids[: q.start])
    needles = [decode(e.ids[lo:hi]) for lo, hi in e.needles]
    assert len(needles) == n - {"no_needle": 1, "query_only": n}.get(control, 0)
    shown = control in ("none", "zero_distance", "wrong_key")
    assert text.count(q.answer) == shown
    facts = [fact_in(needle) for needle in needles]
    assert len({relation for relation, _, _ in facts}) <= 1
    assert len({asked for _, _, asked in facts}) == len(facts), "the question has one answer"
    holding = [needle for needle, (_, _, asked) in zip(needles, facts, strict=True) if asked == q.key]
    if control in ("none", "zero_distance"):
        assert len(holding) == 1
        assert q.answer in holding[0]
        question = text[text.rindex(" The ") :]
        assert q.key in question
        assert not related(question, holding[0])
    else:
        assert holding == []
    assert q.chance == 1 / max(1, len(needles) + (control == "no_needle"))


def test_length_and_depth_change_nothing_else_and_the_needle_is_at_its_depth(materials):
    task = build_task(Semantic, materials)
    for index in range(20):
        episodes = [
            task.episode(Factors(PLAIN, length, depth, index))
            for length in (200, 1000, 5000)
            for depth in (0.0, 0.5, 1.0)
        ]
        assert len({(e.queries[0].key, e.queries[0].answer) for e in episodes}) == 1
        for e, depth in zip(episodes, [0.0, 0.5, 1.0] * 3, strict=True):
            needles = sum(stop - start for start, stop in e.needles)
            assert abs(e.realised_depth - depth) * len(e.ids) <= 8 + needles * max(depth, 1 - depth)
    e = task.episode(Factors(PLAIN, 500, 0.1, 3, "zero_distance"))
    assert e.needles[-1][1] > e.queries[0].start - 16


def test_all_relations_and_names_are_used(materials):
    task = build_task(Semantic, materials)
    episodes = [task.episode(Factors(PLAIN, 300, 0.5, i)) for i in range(400)]
    first = [fact_in(materials.tokenizer.decode(e.ids[slice(*e.needles[0])]))[0] for e in episodes]
    assert set(first) == {r.name for r in relations()}
    assert len({e.queries[0].answer for e in episodes}) > 60


def test_blind_guesses_score_the_stated_chance(materials):
    task = build_task(Semantic, materials)
    # a depth each, evenly: at depth 0 the first name is the answer by definition
    episodes = [task.episode(Factors(PLAIN, 300, (i * 0.6180339887498949) % 1, i)) for i in range(600)]
    check_no_giveaway([(e, e.queries[0]) for e in episodes], materials.tokenizer)


def test_the_shortest_length_works_and_one_less_does_not(materials):
    for which in TOKENIZERS:
        assert check_shortest(build_task(Semantic, materials_for(materials, which)), Factors(PLAIN, 1, 0.5, 5)) < 150


def test_what_cannot_be_built_is_one_clear_line(materials, tokenizer):
    with pytest.raises(ConfigError, match=r"^task\.n_needles: given 9; allowed: 1 \.\. 8$"):
        build_task(Semantic, materials, n_needles=9)
    with pytest.raises(ConfigError, match=r"^formats\.value: given 'words'; allowed: -"):
        build_task(Semantic, materials).episode(Factors(replace(PLAIN, value="words"), 400, 0.5, 0))
    crowded = TokenStream.from_text("corpus", " and ".join(["", *read_words("names"), "so on"]) * 3, tokenizer)
    with pytest.raises(
        EpisodeError, match=r"^formats\.haystack: given '4 of \d+ names'; allowed: fewer needles or another"
    ):
        Semantic(Semantic.Config(), Materials(tokenizer, crowded)).episode(Factors(PLAIN, 400, 0.5, 0))
