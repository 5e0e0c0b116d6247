"""Somebody's own file: their number under each scorer, their lengths, what is around their text; and broken files."""

import json
from dataclasses import replace

import pytest

from lcprobe.errors import DataError
from lcprobe.probing.explain.outputs import Expected, Output, contradictions, facts_of_outputs, read_outputs
from lcprobe.probing.explain.protocol import Protocol
from lcprobe.tasks.text.tokenizer import load_tokenizer

CONTINUATIONS = [" 12; and so on", " it is 12", " 13 or 12", " 13"]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture
def tokenizer():
    return load_tokenizer("shipped")


def test_their_number_under_each_scorer(tmp_path, tokenizer):
    rows = [{"prompt": "The code is 12. It is", "continuation": c, "answers": ["12"]} for c in CONTINUATIONS]
    facts = facts_of_outputs(read_outputs(write(tmp_path / "o.jsonl", rows)), tokenizer, ())
    assert facts.numbers["prefix", "mean"] == 0.25
    assert facts.numbers["substring", "mean"] == 0.75
    assert facts.reproduced(0.75, 2) == [("substring", "mean"), ("first_line", "mean")]
    assert facts.reproduced(0.6, 1) == []
    assert facts.tokens[""] == len(tokenizer.encode("The code is 12. It is"))
    assert facts.tokens["words"] == 6
    assert facts.begin == 0
    assert facts.templates == ()
    assert facts.wrappers == ()


def test_files_of_ruler_with_predictions_are_read(tmp_path):
    row = {"index": 0, "input": "A text. What?", "answer_prefix": " It is", "outputs": ["1", "2"], "pred": " 2"}
    (output,) = read_outputs(write(tmp_path / "o.jsonl", [row]))
    assert (output.prompt, output.continuation, output.references) == ("A text. What? It is", " 2", ("1", "2"))


def test_templates_and_begin_tokens_as_text_are_seen(tmp_path, tokenizer):
    text = "<|bos|><|im_start|>user\nRead the following text and answer the question at its end.\n\nX<|im_end|>\n"
    rows = [{"prompt": text + "<|im_start|>assistant\nIt is", "output": " 1", "answer": "1"}] * 2
    facts = facts_of_outputs(read_outputs(write(tmp_path / "o.jsonl", rows)), tokenizer, ())
    assert facts.begin == 1
    assert facts.templates == ("chatml",)
    assert facts.wrappers == ("instruction",)


def test_half_characters_and_spaces_at_the_end_are_no_obstacle(tokenizer):
    """What \\ud800 in a JSON file gives: text that no tokenizer reads."""
    facts = facts_of_outputs([Output("a \ud800 12. It is ", " 12 \udfff", ("12",))], tokenizer, ())
    plain = facts_of_outputs([Output("a \ufffd 12. It is ", " 12 \ufffd", ("12",))], tokenizer, ())
    assert facts == plain
    assert facts.numbers["prefix", "mean"] == 1
    assert facts.spaced == 1
    protocol = Protocol(tail="space")
    expected = Expected(protocol, [], facts.tokens[""], 0, None, None)
    assert contradictions(facts, expected) == []
    assert contradictions(facts, replace(expected, protocol=Protocol())) == ["100% of their prompts end with a space"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "no line"),
        ("{not json}\n", ":1: no JSON"),
        ("[1]\n", ":1: given [1]"),
        ('{"prompt": "x", "answers": ["1"]}\n', "continuation: given None"),
        ('{"prompt": "x", "continuation": "y"}\n', "answers: given None"),
        ('{"prompt": "x", "continuation": "y", "answers": []}\n', "answers: given []"),
        ('{"prompt": 3, "continuation": "y", "answers": ["1"]}\n', "prompt: given 3"),
    ],
)
def test_broken_files_are_named_with_their_line(tmp_path, content, words):
    path = tmp_path / "o.jsonl"
    path.write_text(content)
    with pytest.raises(DataError) as error:
        read_outputs(path)
    assert words in str(error.value)
    assert "\n" not in str(error.value)
