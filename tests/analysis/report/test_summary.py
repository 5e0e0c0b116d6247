"""Sentences of the report: the limits of a study come first, and what was not tested is not mentioned."""

import re
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from lcprobe.analysis.findings.results import analyse
from lcprobe.analysis.report.summary import READ_FIRST, TOPICS, summary
from lcprobe.analysis.report.wording import Sentence
from lcprobe.records import CONTEXT_SCHEMA, table_of
from tests.analysis.fabricated import flat, plan, records, run, study, task, text_records, three_models, with_column

CELLS = plan(["single"], lengths=[64, 128, 256], n=40)


def summary_of(runs, behaviour=None, cells=CELLS, change=None, **changes) -> list[Sentence]:
    table = records({r.name: behaviour or flat(0.8) for r in runs}, cells)
    facts = study(runs, [task("single"), task("multikey", 4)], cells, **changes)
    return summary(analyse(facts, change(table) if change else table))


def first(sentences: list[Sentence], word: str) -> Sentence:
    matching = [s for s in sentences if word in s.text]
    assert matching, [s.text for s in sentences]
    return matching[0]


def test_a_clean_study_of_two_models_has_no_warning():
    sentences = summary_of([run("a"), run("b")])
    assert first(sentences, "same tokens in the same order").warning is False
    assert first(sentences, "matched within 0.0%").warning is False
    assert first(sentences, "swept for every model").warning is False


def test_each_training_seed_has_its_own_order():
    """Two seeds of two models: data differ between seeds, and are matched within each."""
    runs = [run("a", seed=0, data_digest="11"), run("b", seed=0, data_digest="11")]
    runs += [run("a2", seed=1, data_digest="22"), run("b2", seed=1, data_digest="22")]
    sentence = first(summary_of(runs), "same tokens in the same order within each seed")
    assert sentence.warning is False
    runs[-1] = run("b2", seed=1, data_digest="33")
    assert "22: a2; 33: b2" in first(summary_of(runs), "NOT matched: the digests").text


def of_lengths(**changes):
    """Two architectures at 64 and 128 tokens, batches of 1,024 tokens, FLOPs per token that grow in one of them."""
    runs = []
    for length, digest in ((64, "11"), (128, "22")):
        for name, slope in (("a", 1.0), ("m", 0.0)):
            facts = {"context_length": length, "data_digest": digest, "batch_tokens": 1024, "architecture": name}
            runs.append(run(f"L{length}-{name}", **facts, flops=2e6 * 6e5 * (1 + slope * length / 128), **changes))
    return runs


def test_digests_are_compared_within_a_training_length():
    runs = of_lengths()
    sentence = first(summary_of(runs), "same tokens in the same order within each training length")
    assert sentence.warning is False
    assert "(data digest 11, 22)" in sentence.text
    runs[-1] = replace(runs[-1], data_digest="33")
    sentence = first(summary_of(runs), "NOT matched: the digests")
    assert "within each training length (22: L128-a; 33: L128-m)" in sentence.text
    assert "L64" not in sentence.text
    assert first(summary_of(runs[1::2]), "No two models have the same training length:").warning


def test_what_is_equal_at_all_training_lengths_is_stated_with_what_differs():
    sentence = first(summary_of(of_lengths()), "Training lengths differ")
    assert (sentence.topic, sentence.warning) == (READ_FIRST, True)
    assert "(64, 128 tokens). Equal at all of them: training tokens, with the batch in tokens." in sentence.text
    assert sentence.text.endswith("FLOPs x1.33 (a), x1 (m); rows per step x0.5.")
    assert not any("Training lengths differ" in s.text for s in summary_of(of_lengths()[:2]))
    doubled = [replace(r, tokens=r.tokens * r.context_length // 64) for r in of_lengths()]
    assert "Training tokens are NOT equal: x2," in first(summary_of(doubled), "Training lengths differ").text
    rows = [replace(r, batch_tokens=16 * r.context_length) for r in doubled]
    text = first(summary_of(rows, held_equal="steps", batch_in="rows"), "Training lengths differ").text
    assert "Equal at all of them: training steps, with the batch in rows." in text
    assert "shortest length: tokens x2; FLOPs x1.33 (a), x1 (m)." in text
    assert "different rules" in first(summary_of(of_lengths(), held_equal=""), "Training lengths differ").text
    old = [replace(r, batch_tokens=0, flops=0.0) for r in of_lengths()]
    text = first(summary_of(old), "Training lengths differ").text
    assert text.endswith("Equal at all of them: training tokens, with the batch in tokens.")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"data_digest": "77" * 16}, "NOT matched: the digests"),
        ({"params": 400_000}, "Parameters are NOT matched: they differ by 20.8%"),
        ({"tuned": "not swept"}, "partly untuned: b: not swept"),
        ({"tuned": "swept, at the edge of the grid"}, "partly untuned: b: swept, at the edge of the grid"),
        ({"tokens": 1_000_000}, "Training tokens differ"),
        ({"skipped_steps": 3}, "or of a spike of the loss: b 3"),
        ({"seed": 1}, "may be seed noise"),
    ],
)
def test_what_limits_a_comparison_is_a_warning_at_the_top(changes, words):
    sentence = first(summary_of([run("a"), run("b", **changes)]), words)
    assert (sentence.topic, sentence.warning) == (READ_FIRST, True)


def test_seeds_are_no_warning_once_there_are_several():
    runs = [run(f"{group}{seed}", group=group, seed=seed) for group in "ab" for seed in (1, 2)]
    sentences = summary_of(runs)
    assert not any("seed noise" in s.text for s in sentences)
    assert first(sentences, "Training seeds per model: a 2, b 2").warning is False


def test_training_seeds_of_one_model_are_no_models():
    """A grid over seeds alone, and runs that are also probed in another way: how many models there are is said."""
    seeds = [run(f"s{seed}", group="run", seed=seed, data_digest=f"{seed}" * 12) for seed in range(3)]
    texts = [s.text for s in summary_of(seeds)]
    assert (
        "One model only (run, 3 training seeds; data digest 000000000000, 111111111111, 222222222222): no models are compared."
        in texts
    )
    assert not any("models were trained" in text or "matched" in text for text in texts)
    untuned = [run(f"s{seed}", group="run", seed=seed, tuned="not swept") for seed in range(3)]
    texts = [s.text for s in summary_of(untuned)]
    assert "The learning rate is untuned: run: not swept. The model may do better at another one (run 0.01)." in texts
    extended = [run("a"), run("a+yarn", group="a", extension="yarn", base="a"), run("b")]
    texts = [s.text for s in summary_of(extended)]
    assert any(text.startswith("Both models were trained on the same tokens in the same order (") for text in texts)
    several = [
        run(f"{group}{seed}", group=group, seed=seed, data_digest=f"{seed}" * 12)
        for group in "abc"
        for seed in (1, 2)
    ]
    texts = [s.text for s in summary_of(several)]
    assert any(
        text.startswith("All 3 models (6 runs) were trained on the same tokens in the same order within each seed (")
        for text in texts
    )


def test_gaps_failures_and_gates_are_reported():
    def broken(table: pa.Table) -> pa.Table:
        failed = (np.array(table["length"]) == 64) & (np.array(table["index"]) == 0)
        return with_column(table, "status", np.where(failed, "oom", "ok"))

    sentences = summary_of([run("a")], change=broken)
    assert first(sentences, "5 of 15 planned cells are incomplete").warning
    assert first(sentences, "5 of 600 queries failed").warning
    assert first(sentences, "No zero-distance control").warning
    cells = CELLS + plan(["single"], lengths=[128], depths=[0.5], n=40, control="zero_distance")
    failed = summary_of([run("a")], flat(0.2), cells)
    assert first(failed, "task not acquired").warning
    assert not any(
        s.topic in ("Past the training length", "Position in the context", "Distance") for s in failed
    )  # no sentence about a failed gate


def test_sentences_come_in_the_order_of_the_topics_and_carry_numbers():
    text = table_of(text_records("mamba2"), CONTEXT_SCHEMA)
    sentences = summary(analyse(*three_models(["words"]), text))
    order = [TOPICS.index(s.topic) for s in sentences]
    assert order == sorted(order)
    assert {TOPICS[i] for i in order} == {*TOPICS} - {"Training length"}  # the study has one
    assert all(re.search(r"\d", s.text) for s in sentences)
    assert not any(
        re.search(r"\d ?%", s.text) for s in sentences if s.topic != READ_FIRST
    )  # proportions come with k/n, not as bare percentages
    assert (
        first(sentences, "mamba2, multikey (corpus/words/words): key look-up not acquired").text.count("chance 0.25")
        == 1
    )
    assert first(sentences, "copies the needle without using the key")
    assert first(sentences, "breaks down at 1,024 tokens even with the needle directly before the question")
    assert first(sentences, "length and not distance is the limit")


def test_control_characters_never_reach_a_terminal():
    sentences = summary_of([run("a\x1b[31m\nb")])
    assert not any("\x1b" in s.text or "\n" in s.text for s in sentences)


def test_of_many_pairs_only_those_that_differ_have_a_sentence(monkeypatch):
    runs = [run(name) for name in "abc"]
    table = records({"a": flat(0.9), "b": flat(0.9), "c": flat(0.3)}, CELLS)
    results = analyse(study(runs, [task("single")], CELLS), table)
    before = [s.text for s in summary(results) if s.topic == "Model comparisons"]
    monkeypatch.setattr("lcprobe.analysis.report.summary.MAX_PAIRS", 0)
    after = [s.text for s in summary(results) if s.topic == "Model comparisons"]
    differ = {(c.task, c.subject) for c in results.of("model") if c.resolved}
    pairs = {(c.task, c.subject) for c in results.of("model")}
    assert 0 < len(differ) < len(pairs) == len(before)
    assert set(after[: len(differ)]) < set(before)
    assert [t for t in after if "other pairs" in t] == after[len(differ) :]
    assert sum(int(t.split(": in ")[1].split()[0]) for t in after[len(differ) :]) == len(pairs) - len(differ)
