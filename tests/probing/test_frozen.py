"""Frozen files: RULER's published rule on hand-made cases and beside lm-eval's port of it, our rule where it differs, and bad
files, each one line."""

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lm_eval.tasks.ruler import common_utils as port

from lcprobe.errors import DataError
from lcprobe.probing.frozen import first_answer, read_frozen, recall_and_precision, substring_score

WORDS = st.lists(
    st.sampled_from(["no", "know", "men", "Women", "12", "3124", "VAR ABCDE", "\t", "."]), max_size=8
).map(" ".join)


@pytest.mark.parametrize(
    ("prediction", "outputs", "share", "any_of"),
    [  # worked by hand from the two formulas in RULER's scripts/eval/synthetic/constants.py
        ("I do not know", ["no"], 1.0, 1.0),
        ("The Office.", ["office"], 1.0, 1.0),
        ("1234567, 7654321", ["1234567", "7654321", "1111111", "2222222"], 0.5, 1.0),
        ("123456", ["1234567"], 0.0, 0.0),
        ("", ["a"], 0.0, 0.0),
        ("the women", ["men", "omen", "man"], 2 / 3, 1.0),
    ],
)
def test_rulers_rule_by_hand(prediction, outputs, share, any_of):
    assert substring_score(prediction, outputs, "all") == share
    assert substring_score(prediction, outputs, "part") == any_of


@given(WORDS, st.lists(st.sampled_from(["no", "men", "12", "abcde"]), min_size=1, max_size=4))
def test_rulers_rule_beside_a_port(prediction, outputs):
    cleaned = port.postprocess_pred([prediction])
    assert substring_score(prediction, outputs, "all") == pytest.approx(port.string_match_all(cleaned, [outputs]))
    best = max(
        port.string_match_all(cleaned, [[one]]) for one in outputs
    )  # the port's own `part` averages paraphrases
    assert substring_score(prediction, outputs, "part") == best


def test_saying_everything_is_right_by_their_rule_and_wrong_by_ours():
    numbers = [str(1_000_000 + i * 7919) for i in range(25)]
    dump = " " + " ".join(numbers)
    assert substring_score(dump, [numbers[7]], "all") == 1
    recall, precision = recall_and_precision(dump, [numbers[7]], "all")
    assert (recall, precision) == (1, 1 / 25)
    words = ["ABCDE", "FGHIJ", "KLMNO"]
    assert substring_score(" ".join(words * 3), words[:2], "all") == 1
    assert recall_and_precision(" ".join(words), words[:2], "all") == (1, 2 / 3)


@pytest.mark.parametrize(
    ("prediction", "outputs", "rule", "recall", "precision"),
    [
        ("I do not know", ["no"], "part", 0, 0),
        (" no.", ["no"], "part", 1, 1),
        (" no\nyes", ["no"], "part", 1, 1),
        (" 1234567. The other number is 7654321.", ["1234567"], "all", 1, 1),
        (" 7654321.\n1234567", ["1234567"], "all", 0, 0),
        ("1. apple 2. pear 3. plum", ["pear", "apple", "plum"], "all", 1, 1),
        (" apple, pear and plum", ["pear", "apple"], "all", 1, 2 / 3),
        (" the Ohio River", ["Ohio River", "Ohio"], "part", 1, 2 / 3),
        (" Ohio", ["Ohio River"], "part", 0, 1),
        (" 8a3f-11ec", ["8a3f"], "all", 0, 0),
        ("", ["x"], "all", 0, 0),
    ],
)
def test_our_rule_reads_the_first_answer_in_whole_words(prediction, outputs, rule, recall, precision):
    assert recall_and_precision(prediction, outputs, rule) == pytest.approx((recall, precision))


def test_the_first_answer_ends_at_a_line_or_a_full_stop():
    assert first_answer(" 3.5 km. Then\nmore") == "3.5 km"
    assert first_answer("\n Paris\nRome") == "Paris"
    assert first_answer(" the U.S. Army. It") == "the U.S. Army"
    assert first_answer(" Dr. Smith of St. Louis. Then") == "Dr. Smith of St. Louis"
    assert first_answer("1. red 2. blue\n3. green") == "red blue"


def write(path: Path, *rows) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows), encoding="utf-8"
    )
    return path


def test_rulers_file(tmp_path):
    row = {
        "index": 3,
        "input": "VAR A = 1\nQuestion: which?",
        "outputs": ["A", "B"],
        "length": 9,
        "answer_prefix": " Answer: ",
    }
    file = read_frozen(write(tmp_path / "vt" / "validation.jsonl", row, "", {**row, "input": "x Answer: "}))
    assert (file.kind, file.task, file.rule, file.tokens) == ("RULER", "vt", "all", 30)
    assert [p.text for p in file.prompts] == ["VAR A = 1\nQuestion: which? Answer: ", "x Answer: "], (
        "bytes as they are, once"
    )
    assert [p.line for p in file.prompts] == [1, 3]
    assert file.prompts[0].outputs == ("A", "B")


def test_babilongs_file(tmp_path):
    row = {"input": "Mary is in the office.", "question": "Where is Mary? ", "target": "office"}
    file = read_frozen(write(tmp_path / "qa1_4k.jsonl", row))
    assert (file.kind, file.task, file.rule) == ("BABILong", "qa", "part")
    assert file.prompts[0].text == "<context>\nMary is in the office.\n</context>\nQuestion: Where is Mary? "
    assert file.prompts[0].outputs == ("office",)


@pytest.mark.parametrize(
    ("name", "task"),
    [
        ("niah_single_1", "niah"),
        ("cwe_4096", "cwe"),
        ("qa_1", "qa"),
        ("ruler_qa_1", "qa"),
        ("ruler-qa_2_4096", "qa"),
        ("RULER niah_multikey_3", "niah"),
        ("ruler_vt", "vt"),
        ("squad_aqa_1", None),
        ("3qa", None),
        ("vtx", None),
        ("my_prompts", None),
        ("FWE", "fwe"),
    ],
)
def test_the_task_is_read_from_the_name(tmp_path, name, task):
    row = {"input": "x", "outputs": ["y"]}
    files = [write(tmp_path / "a" / f"{name}.jsonl", row), write(tmp_path / name / "validation.jsonl", row)]
    for file in map(read_frozen, files):
        assert (file.task, file.rule) == (task, "part" if task == "qa" else "all")


GOOD = {"input": "x", "outputs": ["y"]}
BAD = [
    ([], "", "no prompt"),
    (["", " "], "", "no prompt"),
    ([GOOD, "{"], ":2:", "no JSON"),
    ([GOOD, "[1]"], ":2:", "one JSON object"),
    ([{"outputs": ["y"]}], ":1:", "input: given nothing"),
    ([GOOD, GOOD, {"input": "x"}], ":3:", "outputs: given 'nothing'"),
    ([{"input": "x", "outputs": []}], ":1:", "outputs: given []"),
    ([{"input": "x", "outputs": [3]}], ":1:", "a list of texts"),
    ([{"input": "x", "outputs": ["  "]}], ":1:", "a list of texts"),
    ([{"input": "", "outputs": ["y"]}], ":1:", "input: given ''"),
    ([{**GOOD, "answer_prefix": 3}], ":1:", "answer_prefix: given 3"),
    ([{"input": "x", "question": "q"}], ":1:", "target: given nothing"),
    ([{"input": "x", "question": "q", "target": "t"}, GOOD], ":2:", "question: given nothing"),
]


@pytest.mark.parametrize(("rows", "line", "words"), BAD, ids=[f"{b[2]}-{i}" for i, b in enumerate(BAD)])
def test_a_bad_file_is_one_line_with_its_place(tmp_path, rows, line, words):
    path = write(tmp_path / "bad.jsonl", *rows)
    with pytest.raises(DataError) as caught:
        read_frozen(path)
    assert f"{path}{line}" in str(caught.value)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


def test_bytes_that_are_no_text(tmp_path):
    (tmp_path / "x.jsonl").write_bytes(b'{"input": "\xff"}')
    with pytest.raises(DataError, match="UTF-8"):
        read_frozen(tmp_path / "x.jsonl")
