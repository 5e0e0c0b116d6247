"""What lies in a folder is read, refused or named as passed over; rows by one rule in every kind of file."""

import bz2
import gzip
import json
import lzma
import os
import tracemalloc

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcprobe.data.config import DataConfig
from lcprobe.data.corpus import Reader, check_corpus, fingerprint, notes
from lcprobe.data.documents import LONG_CHARS, LongText, digest_document, is_blank, pieces_of, split_document
from lcprobe.data.sources import file_kinds
from lcprobe.errors import ConfigError, DataError
from lcprobe.files import digest_bytes
from lcprobe.schema import build

TEXTS = [f"Row {i} with the words é and 你好." for i in range(7)]


def corpus(*paths):
    return build(DataConfig, {"corpus": [str(path) for path in paths]}, "data").corpus


def read(*paths, field="text"):
    """The documents as text, and how many rows had none."""
    reader = reader_of(*paths, field=field)
    return ["".join(pieces_of(read.document)) for read in reader.documents()], reader.empty


def reader_of(*paths, field="text"):
    return Reader(build(DataConfig, {"corpus": [str(path) for path in paths], "text_field": field}, "data"))


def rows(texts=TEXTS):
    return "".join(json.dumps({"n": 1, "text": text}) + "\n" for text in texts)


def zstd(data):
    return pa.Codec("zstd").compress(data, asbytes=True)


PACKED = {".gz": gzip.compress, ".bz2": bz2.compress, ".xz": lzma.compress, ".zst": zstd}


@pytest.mark.parametrize("ending", PACKED)
@pytest.mark.parametrize("kind", [".jsonl", ".json", ".txt"])
def test_compressed_files_are_read(tmp_path, ending, kind):
    text = "".join(TEXTS) if kind == ".txt" else rows()
    (tmp_path / f"b{kind}{ending}").write_bytes(PACKED[ending](text.encode()))
    assert read(tmp_path)[0] == (["".join(TEXTS)] if kind == ".txt" else TEXTS)
    assert notes(corpus(tmp_path)) == []


@pytest.mark.parametrize("ending", [".gz", ".bz2", ".xz", ".zst"])
def test_a_compressed_file_that_is_cut_is_named(tmp_path, ending):
    whole = PACKED[ending](rows([os.urandom(40).hex() for _ in range(2000)]).encode())
    (tmp_path / f"a.jsonl{ending}").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DataError, match=rf"a\.jsonl\{ending}: (not readable as|line \d+ is no JSON)"):
        read(tmp_path)


def test_a_shard_of_several_members_is_read_whole(tmp_path):
    for ending, pack in PACKED.items():
        path = tmp_path / f"a.jsonl{ending}"
        path.write_bytes(pack(rows(TEXTS[:3]).encode()) + pack(rows(TEXTS[3:]).encode()))
        assert read(path)[0] == TEXTS, ending


def test_a_file_beside_its_compressed_copy_is_refused(tmp_path):
    (tmp_path / "a.jsonl").write_text(rows(TEXTS[:3]))
    (tmp_path / "a.jsonl.gz").write_bytes(gzip.compress(rows().encode()))
    with pytest.raises(DataError, match=r"a\.jsonl\.gz: lies beside a\.jsonl; allowed: one of them"):
        check_corpus(corpus(tmp_path), "text")


def test_what_is_no_data_is_passed_over_and_named(tmp_path):
    (tmp_path / "a.jsonl").write_text(rows())
    for name in (".ipynb_checkpoints/a-checkpoint.jsonl", "in/.hidden.txt", "~$a.txt", "a.txt~", "#a.txt#"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(rows(["not data"]))
    for name in ("b.csv", "a.jsonl.bak", "c.jsonl.swp", "d.parquet.gz", "x.tar.gz"):
        (tmp_path / name).write_text("not data")
    for name in ("README.md", "LICENSE.txt", "dataset_info.json", "state.json"):
        (tmp_path / name).write_text('{"splits": {}}')
    assert read(tmp_path) == (TEXTS, 0)
    (note,) = notes(corpus(tmp_path))
    assert note.startswith(f"{tmp_path}: passed over 5 hidden or autosaved (#a.txt#, .ipynb_checkpoints/")
    assert "5 with another ending (a.jsonl.bak, b.csv, c.jsonl.swp, ...)" in note
    assert "4 about the data (LICENSE.txt, README.md, dataset_info.json, ...)" in note


def test_what_datasets_drops_of_a_folder_is_named(tmp_path):
    for name in ("a.jsonl", "in/b.jsonl"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(rows())
    source = corpus(f"hf:{tmp_path}")
    assert notes(source) == []
    pq.write_table(pa.table({"text": TEXTS}), tmp_path / "c.parquet")
    (tmp_path / "d.txt").write_text("A text.")
    (tmp_path / "e.bak").write_text("no data")
    assert len(read(f"hf:{tmp_path}")[0]) == 2 * len(TEXTS)
    (note,) = notes(source)
    assert note.startswith(f"hf:{tmp_path}: passed over ")
    assert "2 that datasets does not take for the split train (c.parquet, d.txt)" in note
    assert "1 with another ending (e.bak)" in note


def test_a_readme_among_texts_is_a_text(tmp_path):
    (tmp_path / "README.md").write_text("A page.")
    (tmp_path / "b.md").write_text("Another.")
    assert read(tmp_path)[0] == ["A page.", "Another."]


def test_a_folder_in_a_hidden_place_is_read_and_links_are_followed_once(tmp_path):
    folder, other = tmp_path / ".cache" / "data", tmp_path / "other"
    folder.mkdir(parents=True)
    other.mkdir()
    (folder / "a.jsonl").write_text(rows(TEXTS[:1]))
    (other / "b.jsonl").write_text(rows(TEXTS[1:]))
    (folder / "more").symlink_to(other)
    (other / "back").symlink_to(folder)
    assert read(folder)[0] == TEXTS
    (folder / "gone.jsonl").symlink_to(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"gone\.jsonl.*leads to nothing"):
        read(folder)


def test_a_pattern_selects_files(tmp_path):
    for i in range(3):
        pq.write_table(pa.table({"text": [TEXTS[i]]}), tmp_path / f"{i}.parquet")
    (tmp_path / "state.json").write_text("{}")
    assert read(f"{tmp_path}/[01].parquet")[0] == TEXTS[:2]
    with pytest.raises(ConfigError, match="a pattern of files that end in"):
        read(f"{tmp_path}/*.jsonl")


JSON_FORMS = {
    "lines": rows(),
    "lines with \\r\\n": rows().replace("\n", "\r\n"),
    "byte-order mark": "\ufeff" + rows(),
    "array": json.dumps([{"text": t} for t in TEXTS], ensure_ascii=False),
    "array over several lines": json.dumps([{"text": t} for t in TEXTS], indent=2),
    "array with a byte-order mark": "\ufeff\n" + json.dumps([{"text": t} for t in TEXTS], indent=2),
    "objects over several lines": "\n".join(json.dumps({"text": t}, indent=4) for t in TEXTS),
    "an object of one row per line of an array": "[\n" + ",\n".join(json.dumps({"text": t}) for t in TEXTS) + "\n]\n",
}


@pytest.mark.parametrize("suffix", [".json", ".jsonl"])
@pytest.mark.parametrize("form", JSON_FORMS)
@pytest.mark.parametrize("block", [7, 64, 1 << 20])
def test_json_in_every_form(tmp_path, monkeypatch, form, suffix, block):
    monkeypatch.setattr(file_kinds, "LONG_CHARS", block)  # what is read at once
    (tmp_path / f"a{suffix}").write_bytes(JSON_FORMS[form].encode())
    assert read(tmp_path)[0] == TEXTS


ROWS = {
    "null": None,
    "empty": " \n",
    "number": 4,
    "list": ["a", "b"],
    "object": {"a": 1},
}


@pytest.mark.parametrize("kind", ["jsonl", "array", "parquet", "hf"])
@pytest.mark.parametrize("value", ROWS)
def test_one_rule_for_rows_in_every_kind_of_file(tmp_path, kind, value):
    table = [{"text": "A good row.", "body": "x"}, {"text": ROWS[value], "body": "y"}]
    if value not in ("null", "empty"):  # the columns of a Parquet file, and of datasets, have one type
        table = table[1:]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(table), tmp_path / "a.parquet")
    elif kind == "array":
        (tmp_path / "a.json").write_text(json.dumps(table))
    else:
        (tmp_path / "a.jsonl").write_text("".join(json.dumps(row) + "\n" for row in table))
    source = f"hf:{tmp_path}" if kind == "hf" else tmp_path
    if value in ("null", "empty"):
        assert read(source) == (["A good row."], 1)
        return
    with pytest.raises(DataError, match=r"'text' is (a|an) .*; allowed: text, as in body \(data\.text_field\)"):
        check_corpus(corpus(source), "text")


@pytest.mark.parametrize("kind", ["jsonl", "array", "parquet", "hf"])
def test_another_field_name_says_which_there_are(tmp_path, kind):
    table = [{"body": "A row.", "n": 1}]
    if kind == "parquet":
        pq.write_table(pa.Table.from_pylist(table), tmp_path / "a.parquet")
    else:
        (tmp_path / "a.json").write_text(json.dumps(table) if kind == "array" else json.dumps(table[0]))
    source = f"hf:{tmp_path}" if kind == "hf" else tmp_path
    with pytest.raises(DataError, match=r"no (field|column) 'text'; allowed: body.* \(data\.text_field\)"):
        check_corpus(corpus(source), "text")
    assert read(source, field="body")[0] == ["A row."]


@pytest.mark.parametrize(
    ("written", "kept"),
    [(r"cut \ud83d here", "cut \ufffd here"), (r"a \ud83d\ude00 b", "a 😀 b"), (r"\ude00 first", "\ufffd first")],
)
def test_half_a_character_is_replaced(tmp_path, written, kept):
    (tmp_path / "a.jsonl").write_text(f'{{"text": "{written}"}}\n')
    assert read(tmp_path)[0] == [kept]


@pytest.mark.parametrize("ending", ["", ".gz"])
def test_a_row_that_is_too_long_for_memory_is_named_and_no_more_of_it_is_read(tmp_path, monkeypatch, ending):
    monkeypatch.setattr(file_kinds, "MAX_ROW_CHARS", 1 << 20)
    monkeypatch.setattr(file_kinds, "LONG_CHARS", 1 << 16)
    pack, path = PACKED.get(ending, lambda data: data), tmp_path / f"a.jsonl{ending}"
    long = json.dumps({"text": "word " * (6 << 20)}) + "\n"
    for content, message in (
        (rows() + long, r"line 8 has more than 1 MiB; allowed: .* in a \.txt, which is read in pieces"),
        (long + rows(), "row 1 is broken or has more than 1 Mi characters; allowed: .* in a .txt"),
        (f"[{long}]", "row 1 is broken or has more than 1 Mi characters; allowed: .* in a .txt"),
    ):
        path.write_bytes(pack(content.encode()))
        tracemalloc.start()
        with pytest.raises(DataError, match=message):
            list(file_kinds.documents_of(path, "text"))
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 12 << 20, "of 30 MiB"
    path.write_bytes(pack(json.dumps([{"text": text} for text in TEXTS * 8_000]).encode()))
    assert sum(1 for _ in file_kinds.documents_of(path, "text")) == 8_000 * len(TEXTS), "an array may be a long line"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (rows() + '{"text": "x"', r"a\.json: line 8 is no JSON"),
        ("[" + rows(TEXTS[:1]), r"a\.json: the array ends after row 1 without \]"),
        ('[{"text": "x"}, {"text": }]', r"a\.json: row 2 is broken"),
        ('["x", "y"]', r"a\.json: row 1: given text; allowed: an object with a field 'text'"),
        ('{"data": [{"text": "x"}]}', r"a\.json: line 1: no field 'text'; allowed: data \(data\.text_field\)"),
    ],
)
def test_broken_json_names_its_row(tmp_path, content, message):
    (tmp_path / "a.json").write_text(content)
    with pytest.raises(DataError, match=message):
        read(tmp_path)


def test_bytes_that_are_no_text_are_named_by_their_place(tmp_path, monkeypatch):
    monkeypatch.setattr(file_kinds, "LONG_CHARS", 8)
    for mark in (b"", b"\xef\xbb\xbf"):
        (tmp_path / "a.txt").write_bytes(mark + "é".encode() * 15 + b"\xff and more")
        with pytest.raises(DataError, match=f"byte {len(mark) + 30} is not UTF-8"):
            "".join(file_kinds.text_pieces(tmp_path / "a.txt"))


def test_a_change_behind_hf_of_a_folder_is_noticed(tmp_path):
    (tmp_path / "a.jsonl").write_text(rows(TEXTS[:3]))
    source = corpus(f"hf:{tmp_path}")
    before = fingerprint(source)
    assert fingerprint(corpus(f"hf:{tmp_path}")) == before
    (tmp_path / "a.jsonl").write_text(rows())
    assert fingerprint(source) != before
    assert read(f"hf:{tmp_path}")[0] == TEXTS


def test_long_documents_are_pieces_of_the_same_text(tmp_path):
    text = "\n".join(f"Line {i} of a long story." for i in range(60_000))
    (tmp_path / "a.txt").write_text(text)
    (document,) = (read.document for read in reader_of(tmp_path).documents())
    assert isinstance(document, LongText)
    assert max(map(len, document.pieces())) <= LONG_CHARS
    assert "".join(document.pieces()) == text
    assert digest_document(document, b"before") == digest_bytes(b"before", text.encode())
    for share in (0.1, 0.9):
        assert ["".join(pieces_of(part)) for part in split_document(document, share)] == [
            *split_document(text, share)
        ]
    assert is_blank(LongText(lambda: iter([" ", "\n"])))


def test_an_array_in_one_line_is_not_read_as_a_line(tmp_path, monkeypatch):
    """It may be the whole file."""
    monkeypatch.setattr(file_kinds, "_lines", lambda file: pytest.fail("read as a line"))
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf \n[" + b'{"text": "one"}, {"text": "two"}' + b"]")
    assert list(file_kinds.documents_of(path, "text")) == ["one", "two"]
