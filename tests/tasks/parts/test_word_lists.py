"""Lists to be counted: exact shares at every length, another layout for every sample, chance as stated."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.tasks.cwe import CWE
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.fwe import FWE
from lcprobe.tasks.names import KINDS
from tests.tasks.checks import TOKENIZERS, build_task, check_chance, check_shortest, check_sound, materials_for

QUIET = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
COMMON, FREQUENT = Formats("-", "words", "-"), Formats("-", "-", "words")


def listed(tok, e):
    """The list's words, read off the text."""
    text = tok.decode(e.ids[: e.queries[0].start])
    return text[
        text.index("List:") + 5 : text.index(". In this list,")
    ].split()  # a text may begin with it, without a space


@QUIET
@given(
    which=st.sampled_from(TOKENIZERS),
    config=st.sampled_from([{}, {"common": 3, "rare": 5, "ratio": 5, "questions": 3}]),
    key=st.sampled_from(KINDS),
    length=st.integers(60, 4000),
    index=st.integers(0, 500),
    control=st.sampled_from(CWE.axes.controls),
)
def test_common_words_occur_ratio_times_as_often_at_every_length(
    materials, which, config, key, length, index, control
):
    m = materials_for(materials, which)
    task = build_task(CWE, m, **config)
    f = Factors(Formats("-", key, "-"), length, 0.5, index, control)
    least = task.shortest(f)
    if length < least:
        with pytest.raises(EpisodeError, match=f"^length: given {length}; allowed: >= {least} tokens for a list of"):
            task.episode(f)
        return
    e = check_sound(task, m.tokenizer, f)
    assert [q.chance for q in e.queries] == [0.5] * task.config.questions
    assert len({q.key for q in e.queries}) == task.config.questions
    if control == "query_only":
        return
    counts = Counter(listed(m.tokenizer, e))
    times, cfg = sorted(counts.values()), task.config
    assert len(times) == cfg.common + cfg.rare
    if control == "no_needle":
        assert len(set(times)) == 1
        return
    assert times == [times[0]] * cfg.rare + [cfg.ratio * times[0]] * cfg.common
    assert all((counts[q.key] == times[-1]) == (q.answer == "large") for q in e.queries)


@QUIET
@given(
    which=st.sampled_from(TOKENIZERS),
    config=st.sampled_from([{}, {"top": 5, "others": 4}, {"top": 1, "ratio": 3}]),
    value=st.sampled_from(KINDS),
    length=st.integers(60, 4000),
    index=st.integers(0, 500),
    control=st.sampled_from(FWE.axes.controls),
)
def test_frequent_words_follow_the_ladder_at_every_length(materials, which, config, value, length, index, control):
    m = materials_for(materials, which)
    task = build_task(FWE, m, **config)
    f = Factors(Formats("-", "-", value), length, 0.5, index, control)
    least = task.shortest(f)
    if length < least:
        with pytest.raises(EpisodeError, match=f"^length: given {length}; allowed: >= {least} tokens for a list of"):
            task.episode(f)
        return
    e = check_sound(task, m.tokenizer, f)
    if control != "none":
        return
    counts, cfg = Counter(listed(m.tokenizer, e)), task.config
    times = [n for _, n in counts.most_common()]
    assert times == [times[-1] * rate for rate in cfg.ladder]
    left = sum(times)
    for q, (word, n) in zip(e.queries, counts.most_common(cfg.top), strict=True):
        assert (q.answer, q.chance) == (word, pytest.approx(n / left))
        left -= n


def test_words_and_labels_are_the_same_at_every_length_and_the_list_ends_are_as_well_as_full(materials):
    for cls, f in ((CWE, COMMON), (FWE, FREQUENT)):
        task = build_task(cls, materials)
        for index in range(20):
            episodes = [task.episode(Factors(f, length, 0.5, index)) for length in (200, 777, 5000)]
            assert len({tuple((q.key, q.answer, q.chance) for q in e.queries) for e in episodes}) == 1
            per_pass = {CWE: 40, FWE: 34}[cls] * 3
            assert all(e.haystack_tokens < per_pass for e in episodes), "what is no whole pass is before the list"


def test_labels_are_fair_coins_that_nothing_foretells(materials):
    task = build_task(CWE, materials)
    episodes = [task.episode(Factors(COMMON, 200, 0.5, index)) for index in range(400)]
    samples = [(e, q) for e in episodes for q in e.queries]
    check_chance(lambda e, q: "large", samples, "one label")
    later = [(e, q) for e in episodes for q in e.queries[1:]]
    before = {id(q): p.answer for e in episodes for p, q in zip(e.queries, e.queries[1:], strict=False)}
    check_chance(lambda e, q: before[id(q)], later, "the label before")
    check_chance(lambda e, q: {"large": "small", "small": "large"}[before[id(q)]], later, "the other label")


def test_any_place_of_the_list_names_a_frequent_word_by_its_share(materials):
    task, tok = build_task(FWE, materials), materials.tokenizer
    for length in (140, 1200):
        episodes = [task.episode(Factors(FREQUENT, length, 0.5, index)) for index in range(700)]
        lists = {id(e): listed(tok, e) for e in episodes}
        samples = [(e, q) for e in episodes for q in e.queries]
        for what, place in (("first", 0.0), ("early", 0.21), ("middle", 0.5), ("late", 0.8), ("last", 1.0)):

            def named(e, q, place=place):
                names = {tok.decode(c).strip() for c in q.candidates}
                words = [w for w in lists[id(e)] if w in names]
                return words[round(place * (len(words) - 1))]

            check_chance(named, samples, f"{what} at {length}")


def test_every_sample_has_a_layout_of_its_own(materials):
    for cls, f in ((CWE, COMMON), (FWE, FREQUENT)):
        task, layouts = build_task(cls, materials), []
        for index in range(60):
            words = listed(materials.tokenizer, task.episode(Factors(f, 500, 0.5, index)))
            rank = {word: i for i, (word, _) in enumerate(Counter(words).most_common())}
            layouts.append(np.array([rank[word] < 3 for word in words]))
        assert len({layout.tobytes() for layout in layouts}) == 60
        agreement = np.mean([(a == b).mean() for a, b in zip(layouts, layouts[1:], strict=False)])
        share = np.mean(layouts)
        assert abs(agreement - (share**2 + (1 - share) ** 2)) < 0.05, "as often as two independent ones"


def test_neighbours_are_as_likely_as_their_shares_say(materials):
    task, pairs, singles = build_task(FWE, materials, top=1, ratio=4, others=4), Counter(), Counter()
    for index in range(60):
        words = listed(materials.tokenizer, task.episode(Factors(FREQUENT, 3000, 0.5, index)))
        most = Counter(words).most_common(1)[0][0]
        pairs.update((a == most, b == most) for a, b in zip(words, words[1:], strict=False))
        singles.update(word == most for word in words)
    share, total = singles[True] / singles.total(), pairs.total()
    assert share == 0.5
    assert abs(pairs[True, True] / total - share**2) < 4 * 0.5 / total**0.5


def test_the_shortest_length_exists_and_one_less_does_not(materials):
    for which in TOKENIZERS:
        for cls, f in ((CWE, COMMON), (FWE, FREQUENT)):
            assert check_shortest(build_task(cls, materials_for(materials, which)), Factors(f, 1, 0.5, 3)) < 260


@pytest.mark.parametrize(
    ("cls", "config", "message"),
    [
        (CWE, {"common": 4, "questions": 5}, r"^task\.questions: given 5; allowed: <= common and rare \(4\)$"),
        (CWE, {"ratio": 1}, r"^task\.ratio: given 1; allowed: 2 \.\. 100$"),
        (FWE, {"top": 6}, r"^task\.top: given 6; allowed: 1 \.\. 5$"),
        (FWE, {"others": 0}, r"^task\.others: given 0; allowed: 1 \.\. 1000$"),
    ],
)
def test_settings_that_cannot_be_are_one_clear_line(materials, cls, config, message):
    with pytest.raises(ConfigError, match=message):
        build_task(cls, materials, **config)


def test_more_words_than_there_are_and_factors_that_do_not_apply_are_one_clear_line(materials):
    with pytest.raises(
        EpisodeError, match=r"^formats\.value: given '903 different words of 3 tokens'; allowed: at most \d+"
    ):
        build_task(FWE, materials, others=900).episode(Factors(FREQUENT, 9000, 0.5, 0))
    with pytest.raises(ConfigError, match=r"^formats\.haystack: given 'corpus'; allowed: -$"):
        build_task(CWE, materials).episode(Factors(replace(COMMON, haystack="corpus"), 500, 0.5, 0))
