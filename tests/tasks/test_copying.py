"""Copying: sound in three tokenizers, the string whole, every gram once, shares kept, nothing given away."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.tasks.copying import Copying
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.names import NOTHING
from tests.tasks.checks import (
    TOKENIZERS,
    build_task,
    check_chance,
    check_no_giveaway,
    check_not_better,
    check_shortest,
    check_sound,
    materials_for,
)

QUIET = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLAIN = Formats("corpus", NOTHING, "words")
CONFIGS = [
    {"words": 7},
    {"words": 40, "vocabulary": 9},
    {"share": 0.5, "vocabulary": 16},
    {"share": 1.0},
    {"ask": "gram", "words": 12, "gram": 3},
    {"ask": "gram", "words": 33, "vocabulary": 8},
    {"ask": "gram", "words": 6, "gram": 1},
    {"ask": "gram", "share": 0.9, "vocabulary": 10, "gram": 3},
]


@QUIET
@given(
    which=st.sampled_from(TOKENIZERS),
    config=st.sampled_from(CONFIGS),
    haystack=st.sampled_from(["corpus", "noise", "words"]),
    value=st.sampled_from(["words", "numbers", "hex"]),
    length=st.integers(650, 1100),
    depth=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    index=st.integers(0, 300),
    control=st.sampled_from(Copying.axes.controls),
)
def test_sound(materials, which, config, haystack, value, length, depth, index, control):
    m = materials_for(materials, which)
    task = build_task(Copying, m, **config)
    factors = Factors(Formats(haystack, NOTHING, value), length, depth, index, control)
    e = check_sound(task, m.tokenizer, factors)
    q = e.queries[0]
    text = m.tokenizer.decode(e.ids[: q.stop])
    context, asked = text.rsplit("Again:", 1)
    assert ("Words:" in context) == (q.needle is not None) == (control in ("none", "zero_distance"))
    if q.needle is None:
        return
    string = context.split("Words: ", 1)[1].split(".", 1)[0].split(" ")
    if config.get("ask") == "gram":
        *gram, answer = asked.split()
        n, size = len(gram), len(m.tokenizer.piece(" " + q.answer))
        places = [i for i in range(len(string) - n + 1) if string[i : i + n] == gram]
        assert len(places) == 1, "the gram occurs once"
        assert string[places[0] + n] == answer == q.answer
        follow, grams = string[n :: n + 1], [tuple(string[i : i + n]) for i in range(0, len(string), n + 1)]
        assert len(set(grams)) == len(grams) == len(follow), "as does any"
        assert len(set(Counter(follow).values())) == 1, "words that can be answers occur equally often"
        assert not set(follow) & {word for g in grams for word in g}
        assert {len(m.tokenizer.piece(" " + word)) for word in follow} == {size}, (
            "the length left does not tell the answer"
        )
        assert q.chance == 1 / len(set(follow)) == 1 / len(q.candidates)
    else:
        assert string == asked.split() == q.answer.split()
        assert q.chance == 1.0


@pytest.mark.parametrize("ask", ["all", "gram"])
def test_share_is_kept_at_every_length_and_the_answer_where_the_number_is_set(materials, ask):
    f = Factors(PLAIN, 1, 0.5, 4)
    shared, fixed = (
        build_task(Copying, materials, ask=ask, share=0.4, vocabulary=8, gram=4),
        build_task(Copying, materials, ask=ask),
    )
    for length in (400, 1000, 4000, 16_000):
        e = shared.episode(replace(f, length=length))
        signal = length - e.haystack_tokens
        assert abs(signal - 0.4 * length) < 120, "up to a round of the vocabulary"
    episodes = [fixed.episode(replace(f, length=length)).queries[0] for length in (400, 1000, 4000, 16_000)]
    assert len({(q.key, q.answer) for q in episodes}) == 1


def test_the_string_is_at_its_depth(materials):
    task = build_task(Copying, materials, words=10)
    for depth in (0.0, 0.4, 1.0):
        for index in range(20):
            e = task.episode(Factors(PLAIN, 600, depth, index))
            assert abs(e.realised_depth - depth) * 600 <= 12
    e = task.episode(Factors(PLAIN, 600, 0.2, 0, "zero_distance"))
    assert e.queries[0].distance < 6


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    words=st.integers(0, 60),
    vocabulary=st.integers(0, 12),
    gram=st.integers(0, 5),
    kind=st.sampled_from(["words", "numbers"]),
    index=st.integers(0, 300),
)
def test_what_passes_the_check_can_be_built(materials, words, vocabulary, gram, kind, index):
    try:
        task = build_task(Copying, materials, ask="gram", words=words, vocabulary=vocabulary, gram=gram)
    except ConfigError as error:
        assert error.key in ("task.words", "task.vocabulary", "task.gram")
        assert min(words, vocabulary) < 2 or gram < 1 or words > vocabulary**gram
        return
    q = task.episode(Factors(Formats("words", NOTHING, kind), 1500, 0.5, index)).queries[0]
    assert q.chance == 1 / min(words, vocabulary)


GUESSES = {
    "not in the gram": lambda string, gram, pick: pick([w for w in string if w not in gram]),
    "not among the first either": lambda string, gram, pick: pick([w for w in string[len(gram) :] if w not in gram]),
    "the first not in the gram": lambda string, gram, pick: next(w for w in string if w not in gram),
    "the first with a gram before it": lambda string, gram, pick: next(
        w for w in string[len(gram) :] if w not in gram
    ),
    "the last not in the gram": lambda string, gram, pick: [w for w in string if w not in gram][-1],
    "one of the last two": lambda string, gram, pick: pick([w for w in string[-2:] if w not in gram] or string[-1:]),
    "one that follows a gram": lambda string, gram, pick: pick(string[len(gram) :: len(gram) + 1]),
    "the first that does": lambda string, gram, pick: string[len(gram)],
    "the last that does": lambda string, gram, pick: string[-1],
}


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"words": 4},
        pytest.param({"words": 8, "gram": 4}, marks=pytest.mark.slow),
        {"words": 24, "vocabulary": 8},
        pytest.param({"words": 6, "gram": 1}, marks=pytest.mark.slow),
        {"share": 0.6, "vocabulary": 6},
    ],
)
def test_who_knows_the_words_but_does_not_look_them_up_scores_chance(materials, config):
    task, tok, draw = (
        build_task(Copying, materials, ask="gram", **config),
        materials.tokenizer,
        np.random.default_rng(0),
    )
    samples = [(e, e.queries[0]) for i in range(900) for e in [task.episode(Factors(PLAIN, 250, (i * 0.618) % 1, i))]]
    texts = {id(q): tok.decode(e.ids[: q.start]).rsplit(" Words: ", 1)[1].split(" Again: ") for e, q in samples}
    for what, guess in GUESSES.items():
        said = {}
        for key, (string, gram) in texts.items():
            said[key] = guess(
                string.split(".")[0].split(), gram.split(), lambda found: found[draw.integers(len(found))]
            )
        check_not_better(lambda e, q: said[id(q)], samples, what)


@pytest.mark.parametrize("config", [{"words": 12}, {"words": 24, "vocabulary": 8}])
def test_blind_guesses_score_the_stated_chance(materials, config):
    task = build_task(Copying, materials, ask="gram", **config)
    samples = [(e, e.queries[0]) for i in range(600) for e in [task.episode(Factors(PLAIN, 250, (i % 5) / 4, i))]]
    check_no_giveaway(samples, materials.tokenizer)

    def by_count(e, q, best):
        text = materials.tokenizer.decode(e.ids[: q.start]).rsplit(" Again:", 1)[0]
        return best(
            (materials.tokenizer.decode(c).strip() for c in q.candidates),
            key=lambda name: (text.count(" " + name), name),
        )

    check_chance(lambda e, q: by_count(e, q, max), samples, "most frequent")
    check_chance(lambda e, q: by_count(e, q, min), samples, "least frequent")


def test_the_shortest_length_works_and_one_less_does_not(materials):
    for which in TOKENIZERS:
        for config in CONFIGS:
            check_shortest(build_task(Copying, materials_for(materials, which), **config), Factors(PLAIN, 1, 0.5, 5))


def test_what_cannot_be_built_is_one_clear_line(materials):
    with pytest.raises(ConfigError, match=r"^task\.words: given 1; allowed: >= 2$"):
        build_task(Copying, materials, words=1)
    with pytest.raises(ConfigError, match=r"^formats\.key: given 'words'; allowed: -"):
        build_task(Copying, materials).episode(Factors(Formats("corpus", "words", "words"), 400, 0.5, 0))
    with pytest.raises(
        ConfigError, match=r"^task\.words: given 60; allowed: at most 6 with a gram of 1 and a vocabulary of 6"
    ):
        build_task(Copying, materials, ask="gram", gram=1, words=60, vocabulary=6)
    long = build_task(Copying, materials, ask="gram", gram=1, share=0.5, vocabulary=20)
    with pytest.raises(
        EpisodeError, match=r"^length: given 2000; allowed: <= \d+ tokens for a share of 0\.5, or a longer gram"
    ) as caught:
        long.episode(Factors(PLAIN, 2000, 0.5, 0))
    most = int(str(caught.value).split("<= ")[1].split()[0])
    assert len(long.episode(Factors(PLAIN, most, 0.5, 0)).ids) == most
