"""State tracking: the answer by stepping through the text, classes balanced exactly, no symbol and no place gives it
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
from lcprobe.tasks.names import NOTHING
from lcprobe.tasks.state_tracking import PLACES, StateTracking
from tests.tasks.checks import TOKENIZERS, build_task, check_chance, check_shortest, check_sound, materials_for

QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLAIN = Formats(NOTHING, NOTHING, NOTHING)
GROUPS = sorted(PLACES)


def stepped(text: str) -> tuple[list[str], str]:
    """The symbols of a text and the answer to its question, one symbol after the other."""
    symbols = re.search(r"(?:Bits|Moves):([\d ]+)\.", text).group(1).split()
    if "Bits" in text:
        answers = ("even", "odd") if text.endswith("The number of ones is") else ("left", "right")
        return symbols, answers[sum(map(int, symbols)) % 2]
    ball = int(re.search(r"The ball in (\d) ends in$", text).group(1))
    for move in symbols:
        ball = int(move[ball - 1])
    return symbols, str(ball)


@QUIET
@given(
    which=st.sampled_from(TOKENIZERS),
    group=st.sampled_from(GROUPS),
    steps=st.sampled_from([None, 1, 2, 17]),
    length=st.integers(150, 900),
    index=st.integers(0, 500),
)
def test_sound_and_the_answer_of_stepping_through(materials, which, group, steps, length, index):
    m = materials_for(materials, which)
    e = check_sound(
        build_task(StateTracking, m, group=group, steps=steps), m.tokenizer, Factors(PLAIN, length, 0.5, index)
    )
    (q,) = e.queries
    symbols, answer = stepped(m.tokenizer.decode(e.ids[: q.start]))
    assert answer == q.answer
    assert steps is None or len(symbols) == steps
    assert q.chance == 1 / PLACES[group] == 1 / len(q.candidates)
    if steps is None:
        assert e.haystack_tokens <= 12, "all of the context is signal, up to two symbols"


@pytest.mark.parametrize("group", GROUPS)
def test_neither_the_place_of_the_answer_nor_the_number_of_symbols_tells_it(materials, group):
    for which in TOKENIZERS:
        m = materials_for(materials, which)
        task = build_task(StateTracking, m, group=group)
        queries = [task.episode(Factors(PLAIN, 200, 0.5, i)).queries[0] for i in range(24)]
        assert len({q.start for q in queries}) == 1
        assert len({len(c) for q in queries for c in q.candidates}) == 1, "answers have equally many tokens"


@pytest.mark.parametrize("group", GROUPS)
def test_answers_are_balanced_exactly_and_the_same_at_every_length(materials, group):
    task, k = build_task(StateTracking, materials, group=group), PLACES[group]
    short = [task.episode(Factors(PLAIN, 200, 0.5, i)).queries[0] for i in range(20 * k)]
    assert set(Counter(q.answer for q in short).values()) == {20}
    assert len({tuple(q.answer for q in short[i : i + k]) for i in range(0, 20 * k, k)}) > 1, "in an order of its own"
    for i in range(0, 20 * k, 9):
        q = task.episode(Factors(PLAIN, 3000, 0.5, i)).queries[0]
        assert (q.key, q.answer) == (short[i].key, short[i].answer)


@pytest.mark.parametrize("group", GROUPS)
def test_a_longer_word_begins_with_a_shorter_one_and_symbols_are_uniform(materials, group):
    task, decode = build_task(StateTracking, materials, group=group), materials.tokenizer.decode
    short, long = (
        stepped(decode(e.ids[: e.queries[0].start]))[0]
        for e in (task.episode(Factors(PLAIN, n, 0.5, 1)) for n in (300, 20_000))
    )
    assert long[: len(short) - 1] == short[:-1]
    counts = np.array(list(Counter(long).values()))
    kinds = {"parity": 2, "s3": 6, "s5": 120}[group]
    assert len(counts) == kinds
    expected = len(long) / kinds
    assert ((counts - expected) ** 2 / expected).sum() < kinds + 6 * np.sqrt(2 * kinds), "chi-square"


@pytest.mark.parametrize("group", GROUPS)
def test_parts_of_the_word_tell_nothing(materials, group):
    """The state after all but the first, all but the last, and the middle third; the first and the last symbol."""
    task, decode = build_task(StateTracking, materials, group=group), materials.tokenizer.decode
    samples = []
    for i in range(500):
        e = task.episode(Factors(PLAIN, 160, 0.5, i))
        samples.append((e, e.queries[0]))

    def over(part):
        def guess(e, q):
            text = decode(e.ids[: q.start])
            symbols, _ = stepped(text)
            head, tail = text.split(" ".join(symbols))
            return stepped(head + " ".join(part(symbols)) + tail)[1]

        return guess

    n = slice
    for what, part in {
        "first gone": n(1, None),
        "last gone": n(0, -1),
        "first": n(0, 1),
        "last": n(-1, None),
        "middle": n(5, 15),
    }.items():
        check_chance(over(lambda s, part=part: s[part]), samples, what)
    common = Counter(q.answer for _, q in samples).most_common(1)[0][0]
    check_chance(lambda e, q: common, samples, "most frequent class")


def test_it_is_no_retrieval(materials):
    for group in GROUPS:
        task = build_task(StateTracking, materials, group=group)
        assert not task.has_keys
        assert task.axes.fitted(Formats("corpus", "words", "numbers")) == PLAIN
        assert all(q.needle is None for q in task.episode(Factors(PLAIN, 200, 0.5, 0)).queries)


def test_the_shortest_length_works_and_one_less_does_not(materials):
    for which in TOKENIZERS:
        for group in GROUPS:
            for steps in (None, 9):
                task = build_task(StateTracking, materials_for(materials, which), group=group, steps=steps)
                assert check_shortest(task, Factors(PLAIN, 1, 0.5, 5)) < 100


def test_what_cannot_be_built_is_one_clear_line(materials):
    with pytest.raises(ConfigError, match=r"^task\.steps: given 0; allowed: >= 1 or null$"):
        build_task(StateTracking, materials, steps=0)
    with pytest.raises(ConfigError, match=r"^formats\.haystack: given 'corpus'; allowed: -"):
        build_task(StateTracking, materials).episode(
            replace(Factors(PLAIN, 300, 0.5, 0), formats=Formats("corpus", "-", "-"))
        )
