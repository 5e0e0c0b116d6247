"""Several tokenizers in one study: equal texts are proven by digest, unequal ones are never paired, and lengths and
training lengths are counted in the same tokens.
"""

from dataclasses import replace

import pyarrow as pa
import pytest

from lcprobe.analysis.findings.results import Results, analyse
from lcprobe.analysis.findings.tokenizers import NOT_PAIRED, length_note
from lcprobe.analysis.report.page.chapters import sections
from lcprobe.analysis.report.summary import summary
from lcprobe.analysis.report.tables import all_tables
from lcprobe.errors import DataError
from tests.analysis.fabricated import flat, plan, records, run, study, task, with_column

LENGTHS = (32, 64, 128, 256)
FIRST, SECOND = "1111" * 4, "2222" * 4
NAMES = {"words": FIRST, "bytes": SECOND}


def two(equal_length: str, rate: float = 2.0, texts: bool = True) -> tuple:
    """Two models trained on 128 of their own tokens; the second has `rate` tokens where the first has one."""
    cells = plan(["single"], lengths=LENGTHS, depths=(0.0, 1.0), n=60)
    runs = [run(name, tokenizer=digest) for name, digest in NAMES.items()]
    made = []
    for name, p in (("words", 0.8), ("bytes", 0.4)):
        table = records({name: flat(p)}, cells)
        length = table["length"].to_pylist()
        own = rate if name == "bytes" and equal_length == "text" else 1.0
        table = with_column(table, "tokenizer", [NAMES[name]] * len(table))
        table = with_column(table, "equal_length", [equal_length] * len(table))
        table = with_column(table, "episode_tokens", [round(n * own) for n in length])
        if not texts or equal_length == "tokens":
            table = with_column(table, "text", [f"{name} {text}" for text in table["text"].to_pylist()])
        made.append(table)
    return study(runs, [task("single")], cells, equal_length=equal_length), pa.concat_tables(made)


@pytest.fixture(scope="module")
def by_notion() -> dict[str, Results]:
    return {notion: analyse(*two(notion)) for notion in ("tokens", "text")}


def test_models_of_different_tokenizers_are_paired_only_over_the_same_text(by_notion):
    refused = by_notion["tokens"].of("model", "model cell")
    assert {c.refused for c in refused} == {NOT_PAIRED}
    assert all(c.p is None and c.difference is None for c in refused)
    tested = by_notion["text"].of("model", "model cell")
    assert {c.verdict for c in tested} == {"higher on these runs"}
    assert {c.kind for c in tested} == {"model", "model cell"}


def test_contrasts_inside_a_model_are_tested_under_either_notion(by_notion):
    inside = [[(c.subject, c.p) for c in r.of("length")] for r in by_notion.values()]
    assert all(p is not None for _, p in inside[0])
    assert [s for s, _ in inside[0]].count("words on single") == [s for s, _ in inside[1]].count("words on single")


def test_a_training_length_is_counted_in_the_tokens_of_a_length(by_notion):
    """128 own tokens of the second model are the text of 64 tokens of the first."""
    trained = {n: {e.where.model: e.context_length for e in r.extrapolations} for n, r in by_notion.items()}
    assert trained == {"tokens": {"words": 128, "bytes": 128}, "text": {"words": 128, "bytes": 64}}
    (own,) = (r for r in by_notion["text"].study.runs if r.name == "bytes")
    assert (own.context_length, own.own_context_length) == (64, 128)
    tables = all_tables(by_notion["text"])
    assert {row["model"]: row["context_length"] for row in tables["models"]} == {"words": 128, "bytes": 128}
    for row in tables["cells"]:
        rate = 2 if row["model"] == "bytes" else 1
        assert row["episode_tokens"] == rate * row["length"]
        assert row["multiple"] == row["episode_tokens"] / 128
    for row in tables["extrapolation"]:
        if row["effective_length"] is not None:
            assert row["effective_own_tokens"] == row["effective_length"] * (2 if row["model"] == "bytes" else 1)


def test_a_sample_of_two_texts_is_refused_where_they_are_to_be_equal():
    with pytest.raises(DataError, match=r"^records: 480 of 480 episodes are different texts .*task single"):
        analyse(*two("text", texts=False))
    facts, table = two("text")
    texts = table["text"].to_pylist()
    texts[7] = "another"
    with pytest.raises(DataError, match=r"1 of 480 episodes are different texts .*index 7\)"):
        analyse(facts, with_column(table, "text", texts))


def test_records_of_another_notion_or_tokenizer_are_refused():
    facts, table = two("text")
    with pytest.raises(DataError, match="given equal_length tokens; allowed: text"):
        analyse(facts, two("tokens")[1])
    wrong = [FIRST] * len(table)
    with pytest.raises(DataError, match=f"bytes under tokenizer {FIRST}; allowed: {SECOND}"):
        analyse(facts, with_column(table, "tokenizer", wrong))


def test_tables_and_captions_name_the_notion(by_notion):
    for notion, results in by_notion.items():
        note = length_note(results.study)
        assert ("the same text for all" in note) == (notion == "text")
        tables = all_tables(results)
        for name in ("cells", "extrapolation", "contrasts"):
            assert {row["equal_length"] for row in tables[name]} == {notion}, name
        captions = {t.title: t.caption for s in sections(results, []) for t in s.tables}
        for title in ("Effective length", "Extrapolation", "Pairs of models", "All cells"):
            assert note in captions[title], title
        assert "Tokens are each model's own." in captions["Effective reach and half-life"]


def test_the_summary_says_which_tokenizers_and_what_is_equal(by_notion):
    said = {n: " ".join(s.text for s in summary(r) if "tokenizer" in s.text) for n, r in by_notion.items()}
    for text in said.values():
        assert FIRST[:12] in text
        assert "0.250 tokens per character" in text
    assert "480 episodes, digests equal" in said["text"]
    assert "bytes 128 of its own, 64 here" in said["text"]
    assert "0.500 tokens per character" in said["text"]
    assert "digests equal" not in said["tokens"]
    assert "not compared by paired tests" in said["tokens"]
    pairs = [s.text for s in summary(by_notion["tokens"]) if NOT_PAIRED in s.text]
    assert [text.count(NOT_PAIRED) for text in pairs] == [1]
    assert f"(256 tokens): {NOT_PAIRED}." in pairs[0]


def test_one_tokenizer_is_not_mentioned():
    cells = plan(["single"], lengths=LENGTHS, n=20)
    facts = study([run("a"), run("b")], [task("single")], cells)
    results = analyse(facts, records({"a": flat(0.5), "b": flat(0.5)}, cells))
    assert length_note(facts) == ""
    assert not any("tokenizer" in sentence.text for sentence in summary(results))
    assert {c.refused for c in results.of("model")} == {None}


@pytest.mark.parametrize(("equal_length", "refused"), [("tokens", {NOT_PAIRED}), ("text", {None})])
def test_training_lengths_of_two_tokenizers_are_contrasted_over_the_same_text_alone(equal_length, refused):
    facts, table = two(equal_length)
    runs = [replace(r, architecture="one", context_length=n) for r, n in zip(facts.runs, (64, 256), strict=True)]
    found = analyse(replace(facts, runs=runs), table).of("training length")
    assert len(found) == len(LENGTHS)
    assert {c.refused for c in found} == refused
