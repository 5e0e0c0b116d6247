"""Questions from files: exact length, whole gold paragraphs, one place for the answer, no guess that beats the stated
chance; and one clear line for what is not a file.
"""

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcprobe.errors import ConfigError, DataError, EpisodeError
from lcprobe.schema import build
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.parts.passage_questions import Passages
from lcprobe.tasks.parts.qa_files import Entry, _hub_entries, read_entries
from lcprobe.tasks.parts.question_pool import MAX_ANSWER, divided
from lcprobe.tasks.qa import QA, QAConfig
from lcprobe.tasks.text.haystack import Materials
from tests.tasks.checks import check_chance, check_not_better
from validation.questions import hotpot, squad
from validation.tokenizers import byte_level, llama_like, unigram

NOTHING = Formats("-", "-", "-")


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    for name, content in (("squad", squad()), ("hotpot", hotpot())):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def build_qa(tokenizer, source, folder):
    return QA(
        build(QAConfig, {"source": source, "path": str(folder / f"{source}.json")}, "task"), Materials(tokenizer)
    )


@pytest.mark.parametrize("source", ["squad", "hotpot"])
@pytest.mark.parametrize("which", ["shipped", "llama", "unigram", "lower"])
def test_exact_and_whole(tokenizer, files, source, which):
    made = {
        "shipped": lambda: tokenizer,
        "llama": llama_like,
        "unigram": unigram,
        "lower": lambda: byte_level(True, True),
    }
    tok = made[which]()
    qa = build_qa(tok, source, files)
    gold = {tok.expressed(entry.question): entry for entry in read_entries(source, str(files / f"{source}.json"))[0]}
    keys = set()
    for index in range(20):
        for length, depth in ((400, 0.0), (401, 0.5), (777, 1.0), (1501, 0.3), (2400, 0.6)):
            f = Factors(NOTHING, length, depth, index)
            e = qa.episode(f)
            (q,) = e.queries
            assert len(e.ids) == length
            assert tok.same_after_round_trip(e.ids)
            text = tok.decode(e.ids[: q.start])
            context = text[: text.rindex(tok.expressed(" Question: "))]
            entry = gold[q.key]
            assert q.answer == tok.expressed(entry.answer) == tok.decode(e.ids[q.start : q.stop]).strip()
            assert length - q.start == MAX_ANSWER, "the prompt's length does not tell the answer's"
            assert context.count(q.answer) == 1
            assert all(context.count(tok.expressed(paragraph)) == 1 for paragraph in entry.gold)
            n = len(tok.piece(" " + q.answer))
            assert q.needle is not None
            assert q.answer in tok.decode(e.ids[q.needle - 1 : q.needle + n + 2]), "evidence points at the answer"
            assert len(q.via) == (source == "hotpot")
            choices = {tok.decode(c).strip() for c in q.candidates}
            assert q.answer in choices
            assert len(choices) == len(q.candidates) <= round(1 / q.chance)
            assert all(choice in context for choice in choices)
            if length > 800:
                assert abs(e.realised_depth - depth) < 0.06 + 200 / length
            assert qa.episode(f).digest == e.digest
        keys.add(q.key)
    assert len(keys) > 10
    assert not any("river" in key or "first name" in key for key in keys), (
        "two paragraphs, or the beginning of another answer"
    )


def asked_about(content):
    """Paragraph -> the answers that can be asked for, as the fixtures are made."""
    if isinstance(content, list):
        of = {}
        for row in content[::2]:
            texts = {title: " ".join(f"{title}: {''.join(parts)}".split()) for title, parts in row["context"]}
            book, author = (texts[title] for title, _ in row["supporting_facts"])
            of |= {author: {row["answer"]: {author, book}}, book: {}}
        return of
    paragraphs = [p for article in content["data"] for p in article["paragraphs"]]
    plain = [
        (" ".join(p["context"].split()), [q["answers"][0]["text"] for q in p["qas"] if q["answers"]])
        for p in paragraphs
    ]
    return {text: {answer: {text} for answer in answers[:2]} for text, answers in plain}


def samples(qa, content, n, length, first=0, split="probe"):
    """(episode, query, paragraphs in order, answers that could be asked for, in order of paragraphs) of samples at
    even depths.
    """
    of, tok = asked_about(content), qa.materials.tokenizer
    for i in range(first, first + n):
        e = qa.episode(Factors(NOTHING, length, (i * 0.6180339887498949) % 1, i, "none", split))
        (q,) = e.queries
        text = tok.decode(e.ids[: q.start])
        there = sorted((t for t in of if t in text), key=text.index)
        yield e, q, there, [a for t in there for a, needed in of[t].items() if needed <= set(there)]


@pytest.mark.parametrize(
    ("source", "length", "n"),
    [
        ("squad", 420, 1000),
        ("hotpot", 600, 1000),
        pytest.param("squad", 420, 3000, marks=pytest.mark.slow),
        pytest.param("hotpot", 600, 3000, marks=pytest.mark.slow),
    ],
)
def test_no_guess_without_the_question_beats_the_stated_chance(tokenizer, files, source, length, n):
    qa, content = build_qa(tokenizer, source, files), json.loads((files / f"{source}.json").read_text())
    of, size = asked_about(content), lambda text: len(tokenizer.piece(" " + text))
    home = {answer: text for text, answers in of.items() for answer in answers}
    seen, asked, beside, together = Counter(), Counter(), Counter(), Counter()
    for _, q, there, _ in samples(qa, content, n // 2, length, 10**6):
        seen.update(there)
        beside.update(pairwise(there))
        together.update((a, b) for i, a in enumerate(there) for b in there[i + 1 :])
        asked[q.answer] += 1
    tests = list(samples(qa, content, n, length))
    for _, q, _, choices in tests:
        assert q.answer in choices
        assert round(1 / q.chance) == len(choices), "as many as could be asked for, no more and no less"

    def neighbours(text, there):
        i = there.index(text)
        return max([beside[a, b] for a, b in pairwise(there[max(0, i - 1) : i + 2])], default=0)

    def of_pair(answer, there):
        needed = [t for t in there if any(answer in a and t in a[answer] for a in of.values())]
        return max((together[a, b] + together[b, a] for a in needed for b in needed if a != b), default=0)

    ranks = {
        "the paragraph with unusual neighbours": lambda a, q, there: -neighbours(home[a], there),
        "the paragraph with usual neighbours": lambda a, q, there: neighbours(home[a], there),
        "the least familiar paragraph": lambda a, q, there: -seen[home[a]],
        "the most familiar paragraph": lambda a, q, there: seen[home[a]],
        "asked most often": lambda a, q, there: asked[a],
        "asked least often": lambda a, q, there: -asked[a],
        "paragraphs that are often together": of_pair,
        "the longest paragraph": lambda a, q, there: size(home[a]),
        "the shortest paragraph": lambda a, q, there: -size(home[a]),
        "an answer that fills the length": lambda a, q, there: -abs(size(a) - (length - q.start)),
        "an answer of usual length": lambda a, q, there: -size(a),
        "the first": lambda a, q, there: -there.index(home[a]),
        "the last": lambda a, q, there: there.index(home[a]),
        "any": lambda a, q, there: 0,
    }
    draw = np.random.default_rng(0)
    known = [((e, q), there, list(draw.permutation(choices))) for e, q, there, choices in tests]
    for what, rank in ranks.items():
        if what == "paragraphs that are often together":
            guesses = {id(q): max(choices, key=lambda a: rank(a, there)) for (_, q), there, choices in known}
        else:
            guesses = {id(q): max(choices, key=lambda a: rank(a, q, there)) for (_, q), there, choices in known}
        check_not_better(lambda e, q: guesses[id(q)], [sample for sample, _, _ in known], what)
    check_chance(lambda e, q: guesses[id(q)], [sample for sample, _, _ in known], "any")


@pytest.mark.parametrize("source", ["squad", "hotpot"])
def test_training_and_probing_share_no_paragraph(tokenizer, files, source):
    qa, content = build_qa(tokenizer, source, files), json.loads((files / f"{source}.json").read_text())
    halves = {}
    for split in ("train", "probe"):
        shown = {t for _, _, there, _ in samples(qa, content, 60, 700, split=split) for t in there}
        asked = {q.key for _, q, _, _ in samples(qa, content, 60, 700, split=split)}
        halves[split] = shown, asked
    for train, probe in zip(halves["train"], halves["probe"], strict=True):
        assert min(len(train), len(probe)) > 10
        assert not train & probe
    documents = [
        {name for entry in qa._source._entries[split] for name in entry.documents} for split in ("train", "probe")
    ]
    assert not documents[0] & documents[1]


@given(
    st.lists(
        st.tuples(
            st.lists(st.integers(0, 30), min_size=1, max_size=3), st.lists(st.integers(0, 40), min_size=1, max_size=2)
        ),
        max_size=40,
    )
)
def test_a_file_is_divided_by_what_belongs_together(entries):
    given_ones = [
        Entry(f"{i}?", "x", tuple(f"text {t}" for t in g), tuple(f"{d}" for d in ds))
        for i, (ds, g) in enumerate(entries)
    ]
    halves = divided(given_ones)
    assert sorted(e.question for half in halves.values() for e in half) == sorted(e.question for e in given_ones)
    for part in ("documents", "gold"):
        probe, train = ({name for e in halves[split] for name in getattr(e, part)} for split in ("probe", "train"))
        assert not probe & train
    assert halves["probe"] or not entries, "one document alone is for probing"
    assert divided(given_ones[::-1]).keys() == halves.keys()


def test_rows_of_the_hub_are_what_files_hold(files):
    content, path = json.loads((files / "squad.json").read_text()), str(files / "squad.json")
    rows = [
        {
            "title": article["title"],
            "context": paragraph["context"],
            "question": asked["question"],
            "answers": {part: [answer[part] for answer in asked["answers"]] for part in ("text", "answer_start")},
        }
        for article in content["data"]
        for paragraph in article["paragraphs"]
        for asked in paragraph["qas"]
    ]
    assert [*_hub_entries("squad", rows, "hf:squad")] == read_entries("squad", path)[0]


def test_a_file_of_one_document_is_for_probing_alone(tmp_path, tokenizer):
    content = squad(20)
    content["data"] = [
        {"title": "all", "paragraphs": [p for article in content["data"] for p in article["paragraphs"]]}
    ]
    (tmp_path / "squad.json").write_text(json.dumps(content))
    qa = build_qa(tokenizer, "squad", tmp_path)
    assert len(qa.episode(Factors(NOTHING, 400, 0.5, 0)).ids) == 400
    with pytest.raises(
        ConfigError, match=r"^path: given .*; allowed: a squad file with train questions about two paragraphs"
    ):
        qa.episode(Factors(NOTHING, 400, 0.5, 0, split="train"))


def test_controls_do_what_they_say(tokenizer, files):
    for source in ("squad", "hotpot"):
        qa = build_qa(tokenizer, source, files)
        for index in range(8):
            base = Factors(NOTHING, 1200, 0.5, index)
            plain, near, gone, wrong, bare = (
                qa.episode(replace(base, control=c))
                for c in ("none", "zero_distance", "no_needle", "wrong_key", "query_only")
            )
            answer = plain.queries[0].answer
            texts = [tokenizer.decode(e.ids[: e.queries[0].start]) for e in (plain, near, gone, wrong, bare)]
            assert [t.count(answer) for t in texts] == [1, 1, 0, 1, 0]
            assert (near.queries[0].distance or 0) < (plain.queries[0].distance or 0)
            assert texts[1].index(answer) > len(texts[1]) - 900
            assert wrong.queries[0].key != plain.queries[0].key
            assert len(bare.ids) < 60


def test_one_episode_for_every_length_or_a_clear_line(tokenizer, files):
    qa = build_qa(tokenizer, "squad", files)
    least = qa.shortest(Factors(NOTHING, 1, 0.5, 3))
    assert len(qa.episode(Factors(NOTHING, least, 0.5, 3)).ids) == least
    with pytest.raises(EpisodeError, match=f">= {least} tokens for question 3 of"):
        qa.episode(Factors(NOTHING, least - 1, 0.5, 3))
    with pytest.raises(
        EpisodeError, match="^length: given '9+.* tokens of other paragraphs.*; allowed: about as many as the"
    ):
        qa.episode(Factors(NOTHING, 1_000_000, 0.5, 3))
    assert qa.text_digest != build_qa(tokenizer, "hotpot", files).text_digest
    for length in range(least, least + 40):
        assert len(qa.episode(Factors(NOTHING, length, 0.5, 3)).ids) == length


@pytest.mark.parametrize(
    ("source", "content", "message"),
    [
        ("squad", "{", r"q\.json: not JSON"),
        ("squad", "[]", r"q\.json: the file has no list 'data'; allowed: SQuAD JSON"),
        ("squad", '{"data": [{"paragraphs": [{"qas": []}]}]}', r"data\[0\]\.paragraphs\[0\] has no text 'context'"),
        (
            "squad",
            '{"data": [{"paragraphs": [{"context": "a", "qas": [{"question": "b"}]}]}]}',
            r"qas\[0\] has no list 'answers'",
        ),
        (
            "squad",
            '{"data": [{"paragraphs": [{"context": "a", "qas": [{"question": "b", "answers": [{"text": "a"}]}]}]}]}',
            r"answers\[0\] has no number 'answer_start'",
        ),
        ("hotpot", "{}", r"q\.json: the file is no list; allowed: HotpotQA"),
        ("hotpot", '[{"question": "a", "answer": "b", "context": []}]', r"\[0\] has no list 'supporting_facts'"),
        (
            "hotpot",
            '[{"question": "a", "answer": "b", "supporting_facts": [1], "context": []}]',
            r"\[0\] has 'supporting_facts' or 'context' that are no pairs",
        ),
    ],
)
def test_what_is_not_of_the_form_names_file_and_field(tmp_path, tokenizer, source, content, message):
    path = tmp_path / "q.json"
    path.write_text(content)
    with pytest.raises(DataError, match=message):
        Passages(source, str(path), tokenizer)


def test_no_file_no_network_and_no_question_are_one_line(tmp_path, tokenizer):
    with pytest.raises(ConfigError, match="^path: given 'nowhere.json'; allowed: an existing SQuAD JSON"):
        Passages("squad", "nowhere.json", tokenizer)
    with pytest.raises(DataError, match="^hf:squad: HF_HUB_OFFLINE is set"):
        Passages("squad", "hf:squad", tokenizer)
    empty = tmp_path / "empty.json"
    empty.write_text('{"data": []}')
    with pytest.raises(
        ConfigError, match="^path: given .*; allowed: a squad file with probe questions about two paragraphs"
    ):
        Passages("squad", str(empty), tokenizer)
