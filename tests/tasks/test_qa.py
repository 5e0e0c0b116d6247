"""The generated world: exact episodes, balanced places, one fact for each, and guesses that score the stated
chance."""

import re
from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lcprobe.analysis.stats.intervals import wilson
from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.schema import build
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.names import CONTROLS
from lcprobe.tasks.parts.generated_facts import FactBank
from lcprobe.tasks.qa import QA, QAConfig

QUIET = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
HAYSTACKS = ("corpus", "noise", "words", "needles")
PLACE = re.compile(r" (\w+ \w+) is in the (\w+)\.")
OWNER = re.compile(r" The ([\w-]+) is with (\w+ \w+)\.")


def task(materials, **config):
    return QA(build(QAConfig, config, "task"), materials)


def factors(haystack, length, depth, index, control="none"):
    return Factors(Formats(haystack, "-", "-"), length, depth, index, control)


def context_of(materials, episode):
    """The text before the question."""
    text = materials.tokenizer.decode(episode.ids[: episode.queries[-1].start])
    return text[: text.rindex(" Where is")]


@QUIET
@given(
    which=st.sampled_from(["shipped", "llama", "unigram"]),
    config=st.sampled_from([{}, {"hops": 2}, {"labels": 3, "per_label": 2}, {"hops": 2, "labels": 2}]),
    haystack=st.sampled_from(HAYSTACKS),
    length=st.integers(60, 900),
    depth=st.sampled_from([0.0, 0.3, 0.5, 1.0]),
    index=st.integers(0, 300),
    control=st.sampled_from(CONTROLS),
)
def test_exact_length_exact_text_and_honest_spans(
    all_materials, which, config, haystack, length, depth, index, control
):
    materials = all_materials[which]
    tok, qa = materials.tokenizer, task(materials, **config)
    f = factors(haystack, length, depth, index, control)
    try:
        e = qa.episode(f)
    except EpisodeError as error:
        assert "tokens for" in str(error)
        assume(False)
    assert len(e.ids) == length or control == "query_only"
    assert tok.same_after_round_trip(e.ids)
    (q,) = e.queries
    assert q.stop == len(e.ids), "places have equally many tokens"
    assert tok.decode(e.ids[q.start : q.stop]).strip() == q.answer
    assert q.chance == 1 / qa.config.labels == 1 / len(q.candidates)
    gone = control in ("no_needle", "query_only")
    assert (q.needle is None) == gone
    assert len(q.via) == (qa.config.hops - 1) * (not gone)
    if q.needle is not None:
        assert np.array_equal(e.ids[q.needle : q.needle + q.stop - q.start], e.ids[q.start : q.stop])
        assert q.distance == q.start - q.needle - (q.stop - q.start)
        for at in q.via:
            assert (
                tok.decode(e.ids[at : at + 30])
                .strip()
                .startswith(f"The {q.key} is with" if control == "none" else "The ")
            )
    assert np.array_equal(qa.episode(f).ids, e.ids), "a sample is a pure function of its factors"


@pytest.mark.parametrize("hops", [1, 2])
@pytest.mark.parametrize("haystack", ["corpus", "needles"])
def test_the_context_says_the_answer_once_and_places_are_balanced(all_materials, hops, haystack):
    for materials in (all_materials["shipped"], all_materials["llama"]):
        qa = task(materials, hops=hops, labels=3, per_label=2)
        for index in range(25):
            e = qa.episode(factors(haystack, 700, (index % 5) / 4, index))
            query, context = e.queries[0], context_of(materials, e)
            places, owners = dict(PLACE.findall(context)), dict(OWNER.findall(context))
            assert len(places) == len(PLACE.findall(context)), "no person twice"
            assert len(owners) == len(OWNER.findall(context)), "no thing twice"
            person = query.key if hops == 1 else owners[query.key]
            assert places[person] == query.answer
            assert context.count(person) == hops
            assert hops == 1 or context.count(query.key) == 1
            counts = Counter(places.values())
            if haystack == "corpus":
                assert set(counts.values()) == {2}
                assert not any(context.count(place) > 2 for place in counts), "no place in the haystack"
            else:
                assert len(counts) == 3, "the other sentences use the same places"
                assert len(places) > 10


def test_length_depth_and_control_change_nothing_else(materials):
    for hops in (1, 2):
        qa = task(materials, hops=hops)
        for haystack in HAYSTACKS:
            for index in range(5):
                episodes = [qa.episode(factors(haystack, n, d, index)) for n in (250, 900, 4000) for d in (0.0, 0.7)]
                assert len({(e.queries[0].key, e.queries[0].answer) for e in episodes}) == 1
                assert {tuple(map(tuple, e.queries[0].candidates)) for e in episodes} == {
                    tuple(map(tuple, episodes[0].queries[0].candidates))
                }


def test_the_target_fact_is_at_its_depth_and_the_first_hop_anywhere(materials):
    qa, ranks = task(materials, hops=2), []
    for index in range(80):
        for depth in (0.0, 0.5, 1.0):
            e = qa.episode(factors("corpus", 1000, depth, index))
            assert abs(e.realised_depth - depth) < 0.08  # as many facts before it as there happen to be
            if depth == 0.5:
                ranks.append(e.queries[0].via[0] / 1000)
    assert 0.35 < np.mean(ranks) < 0.65
    assert min(ranks) < 0.15 < 0.85 < max(ranks)


def test_controls_do_what_they_say(materials):
    for hops in (1, 2):
        qa = task(materials, hops=hops)
        for index in range(12):
            base = factors("corpus", 400, 0.5, index)
            plain, near, gone, wrong = (
                qa.episode(replace(base, control=c)) for c in ("none", "zero_distance", "no_needle", "wrong_key")
            )
            key, answer = plain.queries[0].key, plain.queries[0].answer
            assert context_of(materials, near).endswith(f" is in the {answer}.")
            assert hops == 1 or f" The {key} is with" in context_of(materials, near)[-110:]
            assert answer not in context_of(materials, gone)
            assert key not in context_of(materials, gone)
            assert wrong.queries[0].key not in context_of(materials, wrong)
            assert wrong.queries[0].answer == answer


POLICIES = {
    "first place": lambda places, thing_at: places[0][1],
    "last place": lambda places, thing_at: places[-1][1],
    "middle place": lambda places, thing_at: places[len(places) // 2][1],
    "most frequent place": lambda places, thing_at: Counter(p for _, p in places).most_common(1)[0][0],
    "alphabetical": lambda places, thing_at: min(p for _, p in places),
    "place nearest to the thing": lambda places, thing_at: min(places, key=lambda p: abs(p[0] - thing_at))[1],
    "next place after the thing": lambda places, thing_at: next(
        (p for at, p in places if at > thing_at), places[0][1]
    ),
}


@pytest.mark.parametrize(
    ("hops", "haystack"),
    [
        (1, "words"),
        (2, "needles"),
        *(pytest.param(*pair, marks=pytest.mark.slow) for pair in ((1, "needles"), (2, "words"))),
    ],
)
def test_guesses_score_the_stated_chance(materials, hops, haystack):
    qa, n, draw = task(materials, hops=hops), 1200, np.random.default_rng(0)
    hits: Counter[str] = Counter()
    for index in range(n):
        e = qa.episode(factors(haystack, 500, draw.uniform(), index))
        context = context_of(materials, e)
        places = [(m.start(), m.group(2)) for m in PLACE.finditer(context)]
        thing_at = (
            context.index(f" The {e.queries[0].key} is with") if hops == 2 else int(draw.integers(len(context)))
        )
        for name, policy in POLICIES.items():
            hits[name] += policy(places, thing_at) == e.queries[0].answer
    for name in POLICIES:
        low, high = wilson(hits[name], n, z=3.1)  # 95 % over all policies and the four cases together
        assert low <= 1 / 4 <= high, (name, hits[name] / n)


def test_how_a_bank_grew_does_not_show(tokenizer):
    places = np.stack([FactBank(tokenizer, 2, "t")._example] * 2)
    slow, fast = FactBank(tokenizer, 2, "t"), FactBank(tokenizer, 2, "t")
    for n in (0, 50, 3000, 30_000):
        grown = slow.run(7, n, ["Nobody Here"], places, 1)
    assert np.array_equal(grown.ids, fast.run(7, 30_000, ["Nobody Here"], places, 1).ids)
    assert tokenizer.same_after_round_trip(grown.ids)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"hops": 3}, r"^task\.hops: given 3; allowed: 1 \| 2"),
        ({"labels": 1}, r"^task\.labels: given 1; allowed: 2 \.\. 16"),
        ({"source": "squad"}, r"^task\.path: given None; allowed: a file with source"),
        ({"path": "x.json"}, r"^task\.path: given 'x\.json'; allowed: a file with source"),
        ({"source": "squad", "path": "x", "hops": 2}, r"^task\.hops: given 2; allowed: 1 with source: squad"),
        ({"source": "squadd"}, r"did you mean 'squad'"),
    ],
)
def test_bad_settings_are_one_clear_line(config, message):
    with pytest.raises(ConfigError, match=message):
        build(QAConfig, config, "task")


def test_the_shortest_length_works_and_one_less_does_not(all_materials):
    for materials in all_materials.values():
        for hops in (1, 2):
            qa = task(materials, hops=hops)
            for index in range(6):
                f = factors("corpus", 1, 0.5, index)
                least = qa.shortest(f)
                assert len(qa.episode(replace(f, length=least)).ids) == least
                with pytest.raises(EpisodeError, match=f">= {least} tokens"):
                    qa.episode(replace(f, length=least - 1))
