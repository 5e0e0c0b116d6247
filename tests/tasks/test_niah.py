"""Episodes: exact length, exact round trip, one occurrence, pairing across every factor; for three tokenizers."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.schema import build
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.names import CONTROLS
from lcprobe.tasks.niah import NIAH, TEMPLATES, NIAHConfig
from lcprobe.tasks.text.haystack import Materials, TokenStream

pytestmark = pytest.mark.usefixtures("small_pools")
QUIET = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
formats = st.builds(
    Formats,
    st.sampled_from(["corpus", "noise", "words", "needles"]),
    st.sampled_from(["words", "numbers", "uuids", "hex"]),
    st.sampled_from(["words", "numbers", "uuids", "hex"]),
)
configs = st.sampled_from(
    [
        {"n_keys": 1},
        {"n_keys": 4, "template": "line", "digits": 4},
        {"n_keys": 4, "n_queries": 3, "word_pairs": True},
        {"n_keys": 2, "n_values": 3, "word_pairs": True},
        {"n_keys": 3, "question": "start", "word_pairs": True},
    ]
)
depths = st.sampled_from([0.0, 0.1, 0.25, 0.5, 0.9, 1.0])


def task(materials, **config):
    return NIAH(build(NIAHConfig, config, "task"), materials)


def built(niah, factors):
    """The episode, or the example is set aside when it cannot exist (too short, a format with too few strings)."""
    try:
        return niah.episode(factors)
    except EpisodeError:
        assume(False)


@QUIET
@given(
    which=st.sampled_from(["shipped", "llama", "unigram"]),
    config=configs,
    f=formats,
    length=st.integers(40, 700),
    depth=depths,
    index=st.integers(0, 500),
    control=st.sampled_from(CONTROLS),
)
def test_exact_length_exact_text_and_honest_spans(all_materials, which, config, f, length, depth, index, control):
    materials = all_materials[which]
    tok, niah = materials.tokenizer, task(materials, **config)
    factors = Factors(f, length, depth, index, control)
    e = built(niah, factors)
    assert len(e.ids) == length or control == "query_only"
    assert e.queries[-1].start + max(map(len, e.queries[-1].candidates)) <= len(e.ids)
    if tok.bos_id is not None:
        assert e.ids[0] == tok.bos_id
        assert (e.ids[1:] != tok.bos_id).all()
    assert tok.same_after_round_trip(e.ids)
    for q in e.queries:
        assert tok.decode(e.ids[q.start : q.stop]).strip() == q.answer
        assert np.array_equal(q.candidates[0], e.ids[q.start : q.stop])
        assert 0 < q.chance <= 1
        if q.needle is None:
            assert control in ("no_needle", "query_only")
            assert q.distance is None
        else:
            n = len(e.ids[q.start : q.stop]) if config.get("n_values", 1) == 1 else 1
            assert np.array_equal(e.ids[q.needle : q.needle + n], e.ids[q.start : q.start + n])
            assert 0 < q.distance < length
    again = niah.episode(factors)
    assert np.array_equal(again.ids, e.ids), "a sample is a pure function of its factors"


@QUIET
@given(
    which=st.sampled_from(["shipped", "llama"]),
    f=formats,
    length=st.integers(150, 600),
    depth=depths,
    index=st.integers(0, 500),
)
def test_keys_and_values_occur_once_in_the_context(all_materials, which, f, length, depth, index):
    materials = all_materials[which]
    e = built(task(materials, n_keys=3, word_pairs=True), Factors(f, length, depth, index))
    query = e.queries[0]
    ask = TEMPLATES["sentence"].ask.format(key=query.key)
    context = materials.tokenizer.decode(e.ids[: query.start])
    assert context.endswith(ask)
    context = context[: -len(ask)]
    assert context.count(query.key) == 1
    assert context.count(query.answer) == 1


@QUIET
@given(
    f=formats,
    depth=depths,
    index=st.integers(0, 300),
    lengths=st.lists(st.integers(100, 3000), min_size=2, max_size=3),
)
def test_length_depth_and_model_change_nothing_else(materials, f, depth, index, lengths):
    niah = task(materials, n_keys=2, word_pairs=True)
    episodes = [built(niah, Factors(f, length, d, index)) for length in lengths for d in (depth, 0.5)]
    assert len({(e.queries[0].key, e.queries[0].answer) for e in episodes}) == 1
    starts = [e.haystack_start for e in episodes]
    stream = len(materials.stream("words" if f.haystack == "needles" else f.haystack))
    assert all(min((s - starts[0]) % stream, (starts[0] - s) % stream) <= 64 for s in starts), (
        "the offset, but for a few words"
    )


@QUIET
@given(
    index=st.integers(0, 300),
    value=st.sampled_from(["words", "uuids", "hex"]),
    haystack=st.sampled_from(["noise", "words"]),
)
def test_one_format_changes_nothing_of_the_others(materials, index, value, haystack):
    niah = task(materials, n_keys=2, word_pairs=True)
    base = niah.episode(Factors(Formats("corpus", "words", "numbers"), 400, 0.5, index))
    other = niah.episode(Factors(Formats("corpus", "words", value), 400, 0.5, index))
    assert other.queries[0].key == base.queries[0].key
    elsewhere = niah.episode(Factors(Formats(haystack, "words", "numbers"), 400, 0.5, index))
    assert (elsewhere.queries[0].key, elsewhere.queries[0].answer) == (base.queries[0].key, base.queries[0].answer)


@pytest.mark.parametrize("n_keys", [1, 4])
def test_the_target_needle_is_at_its_depth(materials, n_keys):
    niah = task(materials, n_keys=n_keys, digits=4)
    for length in (200, 1000, 4000):
        for depth in (0.0, 0.3, 0.5, 0.8, 1.0):
            for index in range(20):
                for haystack in ("corpus", "noise", "words"):
                    e = niah.episode(Factors(Formats(haystack, "words", "numbers"), length, depth, index))
                    others = sum(stop - start for start, stop in e.needles) * (n_keys - 1) / n_keys
                    # a word, and as many others before it as there happen to be instead of their share
                    most = 12 + max(depth, 1 - depth) * 1.2 * others
                    assert abs(e.realised_depth - depth) * length <= most, (length, depth, index, haystack)
                    if depth == 0.0:
                        assert e.realised_depth == 0.0


def test_zero_distance_is_directly_before_the_question(materials):
    niah = task(materials, n_keys=4)
    for index in range(30):
        f = Factors(Formats("corpus", "words", "numbers"), 300, 0.5, index, "zero_distance")
        e = niah.episode(f)
        (start, stop), q = e.needles[-1], e.queries[0]
        assert start < q.needle < stop
        assert q.distance == 1 + (q.start - stop)  # the needle's full stop, then the question


def test_controls_remove_what_they_say(materials):
    tok, niah = materials.tokenizer, task(materials, n_keys=3)
    for index in range(30):
        base = Factors(Formats("corpus", "words", "numbers"), 300, 0.5, index)
        plain, gone, wrong, bare = (
            niah.episode(replace(base, control=c)) for c in ("none", "no_needle", "wrong_key", "query_only")
        )
        answer = plain.queries[0].answer
        texts = [tok.decode(e.ids[: e.queries[0].start]) for e in (plain, gone, wrong, bare)]
        assert [t.count(answer) for t in texts] == [1, 0, 1, 0]
        assert wrong.queries[0].key != plain.queries[0].key
        assert texts[2].count(wrong.queries[0].key) == 1, "only in the question"
        assert {e.queries[0].answer for e in (gone, wrong, bare)} == {answer}
        assert len(gone.needles) == 2
        assert len(bare.ids) < 40


def test_chance_counts_the_values_left_to_choose_from(materials):
    f = Formats("corpus", "words", "numbers")
    assert [q.chance for q in task(materials, n_keys=1).episode(Factors(f, 300, 0.5, 0)).queries] == [1.0]
    many = task(materials, n_keys=4, n_queries=3).episode(Factors(f, 300, 0.5, 0))
    assert [q.chance for q in many.queries] == [1 / 4, 1 / 3, 1 / 2]
    assert [len(q.candidates) for q in many.queries] == [4, 3, 2]
    lines = task(materials, n_keys=2, word_pairs=True).episode(
        Factors(Formats("needles", "words", "numbers"), 500, 0.5, 0)
    )
    text = materials.tokenizer.decode(lines.ids)
    assert lines.queries[0].chance == 1 / (text.count(" is ") - 1)  # the question says it once more


def test_multivalue_asks_for_all_values_in_order_of_appearance(materials):
    for index in range(20):
        e = task(materials, n_keys=2, n_values=3).episode(
            Factors(Formats("corpus", "words", "numbers"), 400, 0.2, index)
        )
        text = materials.tokenizer.decode(e.ids[: e.queries[0].start])
        places = [text.index(v) for v in e.queries[0].answer.split(" and ")]
        assert len(places) == 3
        assert places == sorted(places)


def test_hex_has_as_many_tokens_as_numbers_and_tokens_can_be_forced(all_materials):
    for materials in all_materials.values():
        niah = task(materials, n_keys=2)
        sizes = {
            kind: {
                len(niah.episode(Factors(Formats("corpus", "words", kind), 400, 0.5, i)).queries[0].candidates[0])
                for i in range(20)
            }
            for kind in ("numbers", "hex")
        }
        assert sizes["hex"] == {len(materials.tokenizer.piece(" 7777777"))}
    forced = task(all_materials["shipped"], n_keys=1, value_tokens=6, word_pairs=True)
    for kind in ("numbers", "hex", "words"):
        found = {
            len(forced.episode(Factors(Formats("corpus", "words", kind), 400, 0.5, i)).queries[0].candidates[0])
            for i in range(20)
        }
        assert found == {6}, kind


def test_samples_differ_in_everything_random(materials):
    niah, f = task(materials, n_keys=4), Formats("corpus", "words", "numbers")
    episodes = [niah.episode(Factors(f, 400, 0.5, i)) for i in range(200)]
    assert len({e.digest for e in episodes}) == 200
    assert len({e.haystack_start for e in episodes}) > 190
    order = {tuple(np.argsort([n[0] for n in e.needles])) for e in episodes}
    assert order == {(0, 1, 2, 3)}
    others = [e.needles for e in episodes]
    assert len({n for n in others}) > 150, "the other needles are elsewhere in every sample"


@pytest.mark.parametrize(
    ("config", "factors", "message"),
    [
        ({}, Factors(Formats("corpus", "words", "numbers"), 20, 0.5, 0), r"^length: given 20; allowed: >= \d+ tokens for 4 needles"),
        ({}, Factors(Formats("corpus", "words", "numbers"), 200, 1.5, 0), r"^depth: given 1\.5; allowed: 0 \.\. 1$"),
        ({}, Factors(Formats("essays", "words", "numbers"), 200, 0.5, 0), r"^formats\.haystack: given 'essays'; allowed: corpus"),
        ({}, Factors(Formats("corpus", "word", "numbers"), 200, 0.5, 0), r"^formats\.key: given 'word'; allowed: words"),
        ({}, Factors(Formats("corpus", "words", "numbers"), 200, 0.5, 0, "none?"), r"^control: given 'none\?'; allowed: none"),
        ({"n_keys": 12, "digits": 1}, Factors(Formats("corpus", "words", "numbers"), 600, 0.5, 0), r"^formats\.value: given '12 distinct"),
        ({}, Factors(Formats("needles", "words", "numbers"), 9000, 0.5, 0), r"^formats: given 'a haystack of more than \d+ needle"),
    ],
)  # fmt: skip
def test_what_cannot_be_built_is_one_clear_line(materials, config, factors, message):
    with pytest.raises(ConfigError, match=message):
        task(materials, **config).episode(factors)


def test_the_shortest_length_works_and_one_less_does_not(all_materials):
    for materials in all_materials.values():
        niah = task(materials, n_keys=2)
        for index in range(10):
            f = Factors(Formats("corpus", "words", "numbers"), 1, 0.5, index)
            least = niah.shortest(f)
            assert len(niah.episode(replace(f, length=least)).ids) == least
            with pytest.raises(EpisodeError, match=f">= {least} tokens"):
                niah.episode(replace(f, length=least - 1))


def test_a_haystack_shorter_than_the_length_goes_round_and_says_so(tokenizer):
    stream = TokenStream.from_text("corpus", " one small text of a few plain words" * 8, tokenizer)
    niah = task(Materials(tokenizer, stream), n_keys=1)
    e = niah.episode(Factors(Formats("corpus", "words", "numbers"), 1000, 0.5, 0))
    assert e.rounds > 5
    assert len(e.ids) == 1000
