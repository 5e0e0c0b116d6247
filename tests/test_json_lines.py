"""JSON of others: a line ends at a newline and nowhere else, and whatever cannot be read is one line that names it."""

import json

import pytest

from lcprobe.errors import DataError
from lcprobe.json_lines import json_rows, parse_json
from lcprobe.probing.explain.outputs import read_outputs as read_own_outputs
from lcprobe.probing.external.outputs import read_outputs
from lcprobe.probing.frozen import read_frozen

BREAKS = "\u2028\u2029\x85\x0b\x0c\x1c"
"""Where str.splitlines ends a line and JSON lines do not; of these JSON may have the first three as they are."""


def test_every_reader_takes_the_separators_of_unicode_as_text(tmp_path):
    text = f"a{BREAKS}b"
    row = {"id": "1", "output": text, "prompt": text, "continuation": "b", "answers": ["b"]}
    row |= {"input": text, "outputs": ["b"]}
    path = tmp_path / "o.jsonl"
    path.write_bytes(f"\n{json.dumps(row, ensure_ascii=False)}\r\n\n".encode())
    assert list(json_rows(path)) == [(2, row)]
    assert read_outputs([path])["1"].text == text
    assert read_own_outputs(path)[0].prompt == text
    assert read_frozen(path).prompts[0].text == text


@pytest.mark.parametrize(
    "content", ["[" * 200_000, '{"id": "\\ud800"}', '{"id": "\\uDFFF\\uD800"}', "{", b"\xff\xfe{"]
)
@pytest.mark.parametrize("name", ["o.jsonl", "o.json"])
def test_every_reader_refuses_what_cannot_be_read_in_one_line(tmp_path, content, name):
    path = tmp_path / name
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    for read in (lambda path: read_outputs([path]), read_own_outputs, read_frozen):
        with pytest.raises(DataError, match=r"^[^\n]*o\.jsonl?(:1)?: [^\n]+; allowed: [^\n]+$"):
            read(path)


def test_both_halves_of_a_character_are_one():
    assert parse_json(r'"\ud83d\ude00"') == "\U0001f600"
    assert parse_json(r'"\\ud800"') == r"\ud800"
