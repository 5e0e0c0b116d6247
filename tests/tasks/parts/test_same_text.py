"""The same text under another tokenizer: equal characters, equal answers, and spans and distances as brute force
finds them in the decoded text.
"""

from functools import cache
from itertools import product

import numpy as np
import pytest

from lcprobe.data.make_tokenizer import train_tokenizer
from lcprobe.data.sources.sotu import speeches
from lcprobe.tasks import TASKS
from lcprobe.tasks.episode import Episode, Factors, Formats
from lcprobe.tasks.parts.episode_text import episode_text, without_bos
from lcprobe.tasks.parts.same_text import NotSameText, in_tokens_of
from lcprobe.tasks.presets import choose_task
from lcprobe.tasks.text.tokenizer import Tokenizer
from validation.tokenizers import llama_like, numbers_in_threes, unigram
from validation.variants import variants

pytestmark = pytest.mark.usefixtures("small_pools")
CASES = {**{name: {"type": name} for name in TASKS}, **variants()}


@cache
def small() -> Tokenizer:
    """A byte-level BPE of 600 entries: more tokens for the same text than the shipped one."""
    return Tokenizer(train_tokenizer([text for i, text in enumerate(speeches()) if i % 12 == 0], 600))


OTHERS = {"small": small, "llama": llama_like, "unigram": unigram, "threes": numbers_in_threes}


def pairs(name, reference, other, n=2):
    """Episodes of a case at a length, depth and format of each sample's own, in both tokenizers."""
    choice = choose_task(CASES[name], "task")
    task = choice.create(reference)
    made = []
    for index in range(n):
        dice = np.random.default_rng([index, len(name)])
        wanted = {
            "haystack": dice.choice(["corpus", "words", "noise"]),
            "key": dice.choice(["words", "numbers"]),
            "value": dice.choice(["numbers", "words", "uuids", "hex"]),
            **choice.formats,
        }
        levels = [str(wanted[f]) if wanted[f] in task.axes.levels(f) else task.axes.levels(f)[0] for f in wanted]
        control = str(dice.choice(task.axes.controls))
        factors = Factors(Formats(*levels), 1, float(dice.uniform()), index, control)
        length = task.shortest(factors) + int(dice.integers(0, 200))
        episode = task.episode(Factors(factors.formats, length, factors.depth, index, control))
        made.append((episode, in_tokens_of(other, episode, reference.tokenizer)))
    return made


def char_of(tokenizer: Tokenizer, ids: np.ndarray, token: int) -> int:
    """Characters before a token, by decoding all that precedes it."""
    return len(tokenizer.text_of(without_bos(ids[:token], tokenizer)))


@pytest.mark.parametrize(
    ("name", "which"),
    [
        *((name, "small") for name in CASES),
        *product(("niah", "vt", "qa", "cwe", "copying"), ("llama", "unigram", "threes")),
    ],
)
def test_characters_answers_and_distances_are_those_of_the_text(name, which, all_haystacks):
    reference, other = all_haystacks["shipped"], OTHERS[which]()
    tok = reference.tokenizer
    for a, b in pairs(name, reference, other):
        assert tok.text_of(without_bos(a.ids, tok)) == other.text_of(without_bos(b.ids, other))
        assert episode_text(a, tok) == episode_text(b, other)
        assert (b.ids[0] == other.bos_id) == (other.bos_id is not None)
        assert other.same_after_round_trip(b.ids)
        for p, q in zip(a.queries, b.queries, strict=True):
            check_question(a, p, tok, b, q, other)
        for (start, stop), (first, last) in zip(a.needles, b.needles, strict=True):
            chars = [char_of(tok, a.ids, at) for at in (start, stop)]
            own = [char_of(other, b.ids, at) for at in (first, first + 1, last - 1, last)]
            assert own[0] <= chars[0] < own[1], "the first token holds the first character"
            assert own[2] < chars[1] <= own[3], "the last token holds the last character"


def check_question(a: Episode, p, tok: Tokenizer, b: Episode, q, other: Tokenizer) -> None:
    """One question: its text, its answer, the values to choose from, and the distance by counting tokens."""
    before, after = a.sequence(p), b.sequence(q)
    assert tok.text_of(without_bos(before, tok)) == other.text_of(without_bos(after, other))
    assert other.same_after_round_trip(after)
    assert (p.key, p.answer, p.chance) == (q.key, q.answer, q.chance)
    assert other.text_of(after[q.start :]) == tok.text_of(before[p.start :])
    assert [tok.text_of(c) for c in p.candidates] == [other.text_of(c) for c in q.candidates]
    assert np.array_equal(q.candidates[0], after[q.start :])
    assert (q.needle is None) == (p.needle is None)
    if p.needle is None or p.distance is None or q.needle is None:
        return
    end_of_value = char_of(tok, a.ids, p.start - p.distance)
    reading, tokens = 0, 0
    while reading < q.start and (
        reading < (other.bos_id is not None) or char_of(other, after, reading) < end_of_value
    ):
        reading += 1
    tokens = q.start - reading
    assert q.distance == tokens, "tokens that begin after the value and before the answer"
    value = char_of(tok, a.ids, p.needle)
    assert char_of(other, after, q.needle) <= value < char_of(other, after, q.needle + 1)
    assert len(p.via) == len(q.via)
    assert set(q.via) <= {start for start, _ in b.needles}


def test_a_tokenizer_that_loses_text_is_refused_with_its_reason(materials, tokenizer):
    task = choose_task({"type": "niah"}, "task").create(materials)
    episode = task.episode(Factors(Formats("corpus", "words", "numbers"), 300, 0.5, 0))
    lossy = Tokenizer(tokenizer.json_text.replace('"normalizer":null', '"normalizer":{"type":"Lowercase"}'))
    assert lossy.digest != tokenizer.digest
    with pytest.raises(NotSameText, match="one that changes the text"):
        in_tokens_of(lossy, episode, tokenizer)


def test_the_digest_sees_one_character_and_where_separate_questions_begin(materials, tokenizer):
    task = choose_task({"type": "niah"}, "task").create(materials)
    first, second = (task.episode(Factors(Formats("corpus", "words", "numbers"), 300, 0.5, i)) for i in range(2))
    assert episode_text(first, tokenizer).digest != episode_text(second, tokenizer).digest
    text = episode_text(first, tokenizer)
    assert text.characters == len(tokenizer.decode(first.ids[1:]))
