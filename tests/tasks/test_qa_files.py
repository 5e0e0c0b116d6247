"""Questions from files: exact length, whole gold paragraphs, one place for the answer; and one clear line for what is not a file."""

import json
from dataclasses import replace

import pytest

from benchmarks.tokenizers import llama_like, unigram
from lcprobe.choices import build
from lcprobe.errors import ConfigError, DataError, EpisodeError
from lcprobe.seeds import Stream
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.haystack import Materials
from lcprobe.tasks.passages import Passages
from lcprobe.tasks.qa import QA, QAConfig
from lcprobe.tasks.qa_files import read_entries
from lcprobe.tasks.tokenizer import read_words

NOTHING = Formats("-", "-", "-")


def sentences(draw, n):
    words = read_words("fillers")
    return " ".join(" ".join(draw.pick(words) for _ in range(5 + draw.integer(8))).capitalize() + "." for _ in range(n))


def squad(n=30):
    """n paragraphs about villages; each founder is named once, the river in two paragraphs."""
    paragraphs = []
    nouns = read_words("nouns")
    for i in range(n):
        draw = Stream("squad", i)
        founder, year, river = f"{nouns[i]} Founder".title(), str(1400 + 7 * i), f"River {nouns[200 + i // 2]}"
        context = f"{sentences(draw, 2)} It was founded by {founder} in  {year}.\n{sentences(draw, 2)} It lies at the {river}."
        asked = [("Who founded village", founder), ("When was it founded, village", year), ("At which river is village", river)]
        qas = [
            {"id": f"{i}-{k}", "question": f"{q} {i}?", "answers": [{"text": a, "answer_start": context.index(a)}]}
            for k, (q, a) in enumerate(asked)
        ]
        qas.append({"id": f"{i}-no", "question": "Who cannot be known?", "is_impossible": True, "answers": []})
        paragraphs.append({"context": context, "qas": qas})
    return {"version": "x", "data": [{"title": "villages", "paragraphs": paragraphs[: n // 2]}, {"title": "more", "paragraphs": paragraphs[n // 2 :]}]}  # fmt: skip


def hotpot(n=16):
    """Books by authors: "where was the author of B born" needs two of four paragraphs."""
    rows, nouns = [], read_words("nouns")
    for i in range(n):
        draw = Stream("hotpot", i)
        book, author, town = f"The {nouns[i]}".title(), f"{nouns[40 + i]} Writer".title(), f"{nouns[80 + i]} Town".title()
        context = [
            [book, [f"{book} is a book by {author}.", f" {sentences(draw, 2)}"]],
            [f"Lake {i}", [sentences(draw, 2)]],
            [author, [f"{author} was born in {town}.", f" {sentences(draw, 2)}"]],
            [f"Hill {i}", [sentences(draw, 2)]],
        ]
        facts = [[book, 0], [author, 0]]
        rows.append({"_id": str(i), "question": f"Where was the author of {book} born?", "answer": town, "supporting_facts": facts, "context": context})  # fmt: skip
        rows.append({"_id": f"{i}y", "question": "Is it a book?", "answer": "yes", "supporting_facts": facts, "context": context})
    return rows


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("questions")
    for name, content in (("squad", squad()), ("hotpot", hotpot())):
        (folder / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
    return folder


def made(tokenizer, source, folder):
    return QA(build(QAConfig, {"source": source, "path": str(folder / f"{source}.json")}, "task"), Materials(tokenizer))


@pytest.mark.parametrize("source", ["squad", "hotpot"])
@pytest.mark.parametrize("which", ["shipped", "llama", "unigram"])
def test_exact_and_whole(tokenizer, files, source, which):
    tok = {"shipped": lambda: tokenizer, "llama": llama_like, "unigram": unigram}[which]()
    qa = made(tok, source, files)
    gold = {entry.question: entry for entry in read_entries(source, str(files / f"{source}.json"))[0]}
    keys = set()
    for index in range(20):
        for length, depth in ((400, 0.0), (401, 0.5), (777, 1.0), (3000, 0.3), (9001, 0.6)):
            f = Factors(NOTHING, length, depth, index)
            e = qa.episode(f)
            (q,) = e.queries
            assert len(e.ids) == length
            assert tok.same_after_round_trip(e.ids)
            text = tok.decode(e.ids[: q.start])
            context = text[: text.rindex(" Question: ")]
            entry = gold[q.key]
            assert q.answer == entry.answer == tok.decode(e.ids[q.start : q.stop]).strip()
            assert context.count(q.answer) == 1
            assert all(context.count(paragraph) == 1 for paragraph in entry.gold)
            n = len(tok.piece(" " + q.answer))
            assert q.needle is not None
            assert q.answer in tok.decode(e.ids[q.needle - 1 : q.needle + n + 2]), "evidence points at the answer"
            assert len(q.via) == (source == "hotpot")
            assert len(q.candidates) - 1 <= round(1 / q.chance) - 1
            assert 0 < q.chance <= 1  # 1 where no other question of the file is answered in this context
            if length > 800:
                assert abs(e.realised_depth - depth) < 0.04 + 100 / length
            assert qa.episode(f).digest == e.digest
        keys.add(q.key)
    assert len(keys) == (20 if source == "squad" else 16)
    assert not any("river" in key for key in keys), "its answer stands in two paragraphs"


def test_controls_do_what_they_say(tokenizer, files):
    for source in ("squad", "hotpot"):
        qa = made(tokenizer, source, files)
        for index in range(8):
            base = Factors(NOTHING, 1200, 0.5, index)
            plain, near, gone, wrong, bare = (
                qa.episode(replace(base, control=c)) for c in ("none", "zero_distance", "no_needle", "wrong_key", "query_only")
            )
            answer = plain.queries[0].answer
            texts = [tokenizer.decode(e.ids[: e.queries[0].start]) for e in (plain, near, gone, wrong, bare)]
            assert [t.count(answer) for t in texts] == [1, 1, 0, 1, 0]
            assert (near.queries[0].distance or 0) < (plain.queries[0].distance or 0)
            assert texts[1].index(answer) > len(texts[1]) - 900
            assert wrong.queries[0].key != plain.queries[0].key
            assert len(bare.ids) < 60


def test_one_episode_for_every_length_or_a_clear_line(tokenizer, files):
    qa = made(tokenizer, "squad", files)
    least = qa.shortest(Factors(NOTHING, 1, 0.5, 3))
    assert len(qa.episode(Factors(NOTHING, least, 0.5, 3)).ids) == least
    with pytest.raises(EpisodeError, match=f">= {least} tokens for question 3 of"):
        qa.episode(Factors(NOTHING, least - 1, 0.5, 3))
    with pytest.raises(EpisodeError, match="^length: given '9+.* tokens of other paragraphs'; allowed: <= 32 times"):
        qa.episode(Factors(NOTHING, 1_000_000, 0.5, 3))
    assert qa.digest != made(tokenizer, "hotpot", files).digest
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
    with pytest.raises(DataError, match="^hf:squad: not reachable"):
        Passages("squad", "hf:squad", tokenizer)
    empty = tmp_path / "empty.json"
    empty.write_text('{"data": []}')
    with pytest.raises(ConfigError, match="a squad file with questions whose answers occur in one paragraph alone"):
        Passages("squad", str(empty), tokenizer)
