"""Copying: sound in three tokenizers, the string whole, grams once, shares kept, nothing given away."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.seeds import Draws
from lcprobe.tasks.copying import Copying, _with_gram
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.names import NOTHING
from tests.tasks.sound import TOKENIZERS, check_chance, check_no_giveaway, check_shortest, check_sound, made, of_tokenizer

QUIET = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
PLAIN = Formats("corpus", NOTHING, "words")
CONFIGS = [
    {"words": 7},
    {"words": 40, "vocabulary": 9},
    {"share": 0.5, "vocabulary": 16},
    {"share": 1.0},
    {"ask": "gram", "words": 12, "gram": 3},
    {"ask": "gram", "words": 33, "vocabulary": 8},
    {"ask": "gram", "share": 0.9, "vocabulary": 10},
]


@QUIET
@given(
    which=st.sampled_from(TOKENIZERS),
    config=st.sampled_from(CONFIGS),
    haystack=st.sampled_from(["corpus", "noise", "words"]),
    value=st.sampled_from(["words", "numbers", "hex"]),
    length=st.integers(500, 1000),
    depth=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    index=st.integers(0, 300),
    control=st.sampled_from(Copying.axes.controls),
)
def test_sound(materials, which, config, haystack, value, length, depth, index, control):
    m = of_tokenizer(materials, which)
    task = made(Copying, m, **config)
    factors = Factors(Formats(haystack, NOTHING, value), length, depth, index, control)
    e = check_sound(task, m.tokenizer, factors)
    text, q = m.tokenizer.decode(e.ids), e.queries[0]
    context, asked = text.rsplit("Again:", 1)
    assert ("Words:" in context) == (q.needle is not None) == (control in ("none", "zero_distance"))
    if q.needle is None:
        return
    string = context.split("Words: ", 1)[1].split(".", 1)[0].split(" ")
    if config.get("ask") == "gram":
        *gram, answer = asked.split()
        n = len(gram)
        places = [i for i in range(len(string) - n + 1) if string[i : i + n] == gram]
        assert len(places) == 1, "the gram stands once"
        assert string[places[0] + n] == answer == q.answer
        counts = Counter(string)
        assert len(set(counts.values())) == 1, "words that can be answers stand equally often"
        assert answer not in gram
        assert q.chance == 1 / (len(counts) - n) == 1 / len(q.candidates)
    else:
        assert string == asked.split() == q.answer.split()
        assert q.chance == 1.0


@pytest.mark.parametrize("ask", ["all", "gram"])
def test_share_is_kept_at_every_length_and_the_answer_where_the_number_is_set(materials, ask):
    f = Factors(PLAIN, 1, 0.5, 4)
    shared, fixed = made(Copying, materials, ask=ask, share=0.4, vocabulary=8), made(Copying, materials, ask=ask)
    for length in (400, 1000, 4000, 16_000):
        e = shared.episode(replace(f, length=length))
        signal = length - e.haystack_tokens
        assert abs(signal - 0.4 * length) < 60, "up to a round of the vocabulary"
    made_ones = [fixed.episode(replace(f, length=length)).queries[0] for length in (400, 1000, 4000, 16_000)]
    assert len({(q.key, q.answer) for q in made_ones}) == 1


def test_the_string_stands_where_it_should(materials):
    task = made(Copying, materials, words=10)
    for depth in (0.0, 0.4, 1.0):
        for index in range(20):
            e = task.episode(Factors(PLAIN, 600, depth, index))
            assert abs(e.realised_depth - depth) * 600 <= 12
    e = task.episode(Factors(PLAIN, 600, 0.2, 0, "zero_distance"))
    assert e.queries[0].distance < 6


@given(
    rounds=st.integers(1, 30),
    n=st.integers(5, 40),
    size=st.integers(2, 3),
    index=st.integers(0, 10**6),
    u=st.floats(0, 1, exclude_max=True),
)
def test_a_gram_is_put_in_once_and_counts_stay(rounds, n, size, index, u):
    body = np.random.default_rng(index).permutation(np.tile(np.arange(n), rounds))
    begin = int(u * (len(body) - size))
    wanted = Draws("test", index)("gram").distinct(n, size + 1)
    try:
        words = _with_gram(body, wanted, begin, Draws("test", index))
    except EpisodeError:
        assert rounds * n > n**size / 2, "only where a gram cannot but stand twice"
        return
    assert (np.bincount(words, minlength=n) == rounds).all()
    assert words[begin : begin + size + 1].tolist() == wanted
    assert [i for i in range(len(words) - size + 1) if words[i : i + size].tolist() == wanted[:-1]] == [begin]


@pytest.mark.parametrize("config", [{"words": 12}, {"words": 24, "vocabulary": 8}])
def test_blind_guesses_score_the_stated_chance(materials, config):
    task = made(Copying, materials, ask="gram", **config)
    samples = [(e, e.queries[0]) for i in range(600) for e in [task.episode(Factors(PLAIN, 250, (i % 5) / 4, i))]]
    check_no_giveaway(samples, materials.tokenizer)

    def by_count(e, q, best):
        text = materials.tokenizer.decode(e.ids[: q.start]).rsplit(" Again:", 1)[0]
        return best(
            (materials.tokenizer.decode(c).strip() for c in q.candidates), key=lambda name: (text.count(" " + name), name)
        )

    check_chance(lambda e, q: by_count(e, q, max), samples, "most frequent")
    check_chance(lambda e, q: by_count(e, q, min), samples, "least frequent")


def test_the_shortest_length_works_and_one_less_does_not(materials):
    for which in TOKENIZERS:
        for config in CONFIGS:
            check_shortest(made(Copying, of_tokenizer(materials, which), **config), Factors(PLAIN, 1, 0.5, 5))


def test_what_cannot_be_built_is_one_clear_line(materials):
    with pytest.raises(ConfigError, match=r"^task\.words: given 3; allowed: >= gram \+ 2 \(4\)$"):
        made(Copying, materials, words=3)
    with pytest.raises(ConfigError, match=r"^formats\.key: given 'words'; allowed: -"):
        made(Copying, materials).episode(Factors(Formats("corpus", "words", "words"), 400, 0.5, 0))
    often = made(Copying, materials, ask="gram", gram=1, words=80, vocabulary=20)
    with pytest.raises(EpisodeError, match=r"^task\.gram: given 1; allowed: a longer gram"):
        often.episode(Factors(PLAIN, 900, 0.5, 0))
