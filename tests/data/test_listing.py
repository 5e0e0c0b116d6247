"""Text that would be read twice, copies that systems keep, and what is no file or cannot be read: found before anything
is prepared, and named."""

import bz2
import errno
import gzip
import io
import json
import lzma
import os
import random
import re

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcprobe.data.config import DataConfig
from lcprobe.data.corpus import Reader, check_corpus, notes
from lcprobe.data.documents import pieces_of
from lcprobe.data.prepare import prepare
from lcprobe.data.sources import file_kinds, listing
from lcprobe.errors import DataError, ReadError, exit_code_of
from lcprobe.schema import build

TEXTS = [f"Row {i} with a few words." for i in range(3)]
ROWS = "".join(json.dumps({"text": text}) + "\n" for text in TEXTS)


def zstd(data):
    return pa.Codec("zstd").compress(data, asbytes=True)


PACKED = {"gz": gzip.compress, "bz2": bz2.compress, "xz": lzma.compress, "zst": zstd}


def corpus(*paths):
    return build(DataConfig, {"corpus": [str(path) for path in paths]}, "data").corpus


def read(*paths):
    config = build(DataConfig, {"corpus": [str(path) for path in paths]}, "data")
    return ["".join(pieces_of(one.document)) for one in Reader(config).documents()]


@pytest.mark.parametrize("source", ["{}", "hf:{}", "{}/*.jsonl*"])
@pytest.mark.parametrize(("one", "other"), [("gz", "bz2"), ("xz", "zst")])
def test_a_compressed_copy_beside_another_is_refused(tmp_path, one, other, source):
    for ending in (one, other):
        (tmp_path / f"a.jsonl.{ending}").write_bytes(PACKED[ending](ROWS.encode()))
    with pytest.raises(
        DataError, match=r"a\.jsonl\.\w+: lies beside a\.jsonl\.\w+; allowed: one of them, or text is"
    ):
        check_corpus(corpus(source.format(tmp_path)), "text")


@pytest.mark.parametrize("link", ["symlink_to", "hardlink_to"])
@pytest.mark.parametrize("source", ["{}", "hf:{}", "{}/*.jsonl"])
def test_two_names_of_one_file_are_refused(tmp_path, link, source):
    (tmp_path / "a.jsonl").write_text(ROWS)
    getattr(tmp_path / "b.jsonl", link)(tmp_path / "a.jsonl")
    with pytest.raises(DataError, match=r"b\.jsonl: is the same file as a\.jsonl; allowed: one of them, or text is"):
        check_corpus(corpus(source.format(tmp_path)), "text")


@pytest.mark.parametrize(
    "sources", [("{}", "{}"), ("{}", "{}/a.jsonl"), ("{}/*.jsonl", "hf:{}"), ("{}", "{}/link.jsonl")]
)
def test_a_file_in_two_sources_is_refused(tmp_path, sources):
    folder = tmp_path / "text"
    folder.mkdir()
    (folder / "a.jsonl").write_text(ROWS)
    if sources[1].endswith("link.jsonl"):
        folder = tmp_path
        (tmp_path / "link.jsonl").symlink_to(tmp_path / "text" / "a.jsonl")
        sources = ("{}/text", sources[1])
    with pytest.raises(DataError, match=r"a\.jsonl is part of two sources; allowed: each text once"):
        check_corpus(corpus(*(source.format(folder) for source in sources)), "text")


@pytest.mark.parametrize(
    "name",
    [
        "__MACOSX/a.jsonl",
        "@eaDir/a.jsonl",
        "$RECYCLE.BIN/x/a.jsonl",
        "_temporary/0/a.jsonl",
        "Untitled-checkpoint.jsonl",
        "in/a-checkpoint.jsonl.gz",
    ],
)
def test_copies_that_systems_and_editors_keep_are_passed_over_and_named(tmp_path, name):
    folder = tmp_path / ".cache" / "__MACOSX"  # above what is named, it does not count
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / "a.jsonl").write_text(ROWS)
    (folder / name).write_text("no data")
    for source in (folder, f"{folder}/**/*.jsonl*"):
        check_corpus(corpus(source), "text")
        assert read(source) == TEXTS
        (note,) = notes(corpus(source))
        assert f"({name})" in note
    assert read(folder / "a.jsonl") == TEXTS, "a file that is named is read"


@pytest.mark.parametrize("name", ["a.jsonl", "b.txt", "c.md"])
def test_every_file_is_looked_into_before_anything_is_prepared(tmp_path, name):
    (tmp_path / "0.jsonl").write_text(ROWS)
    (tmp_path / "0.txt").write_text("A text.")
    (tmp_path / name).write_bytes(b'{"text": "caf\xe9"}' + b" " * 99 + b"\n")
    settings = {"corpus": [str(tmp_path)], "folder": str(tmp_path / "out" / "data")}
    with pytest.raises(DataError, match=rf"{re.escape(name)}: .*byte 13 is not UTF-8; allowed: UTF-8 text"):
        prepare(build(DataConfig, settings, "data"))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.parquet"])
def test_a_pipe_is_no_file(tmp_path, name):
    (tmp_path / "0.jsonl").write_text(ROWS)
    os.mkfifo(tmp_path / name)
    for source in (tmp_path, f"{tmp_path}/*", tmp_path / name, f"hf:{tmp_path}"):
        with pytest.raises(DataError, match=rf"{re.escape(name)}: a pipe, socket or device; allowed: files"):
            check_corpus(corpus(source), "text")


@pytest.mark.parametrize("source", ["{}", "hf:{}", "{}/*.jsonl", "{}/gone.jsonl"])
def test_a_link_to_nothing_is_refused(tmp_path, source):
    (tmp_path / "0.jsonl").write_text(ROWS)
    (tmp_path / "gone.jsonl").symlink_to(tmp_path / "nothing")
    with pytest.raises(DataError, match=r"gone\.jsonl: (a link that leads to nothing|not readable)"):
        check_corpus(corpus(source.format(tmp_path)), "text")


@pytest.mark.parametrize("ending", PACKED)
@pytest.mark.parametrize("kind", ["jsonl", "txt"])
def test_an_empty_file_is_no_compressed_one(tmp_path, ending, kind):
    path = tmp_path / f"a.{kind}.{ending}"
    path.write_bytes(b"")
    with pytest.raises(DataError, match=rf"a\.{kind}\.{ending}: not readable as \w+ \(an empty file\)"):
        check_corpus(corpus(tmp_path), "text")
    path.write_bytes(PACKED[ending](b""))
    check_corpus(corpus(tmp_path), "text")
    assert read(tmp_path) == []


class Failing(io.FileIO):
    """A file on a disk that does not give the byte in its middle."""

    def readinto(self, buffer):
        if self.tell() <= os.fstat(self.fileno()).st_size // 2 < self.tell() + len(buffer):
            raise OSError(errno.EIO, "Input/output error")
        return super().readinto(buffer)

    def read(self, n=-1):
        data = bytearray(n if n >= 0 else os.fstat(self.fileno()).st_size)
        return bytes(data[: self.readinto(data)])


@pytest.mark.parametrize("kind", ["jsonl", "json", "txt", "parquet", *(f"jsonl.{ending}" for ending in PACKED)])
def test_what_the_disk_does_not_give_is_no_bad_input(tmp_path, kind, monkeypatch):
    path, texts = tmp_path / f"a.{kind}", [random.Random(i).randbytes(1250).hex() for i in range(400)]
    if kind == "parquet":
        pq.write_table(pa.table({"text": texts}), path, row_group_size=20, compression="none", use_dictionary=False)
    else:
        rows = [{"text": text} for text in texts]
        whole = json.dumps(rows, indent=1) if kind == "json" else "\n".join(map(json.dumps, rows))
        path.write_bytes(PACKED.get(kind.removeprefix("jsonl."), lambda data: data)(whole.encode()))
    monkeypatch.setattr(file_kinds, "open", lambda path, mode: io.BufferedReader(Failing(path)), raising=False)
    with pytest.raises(ReadError, match=rf"a\.{kind}: not readable \(Input/output error\)") as caught:
        "".join("".join(pieces_of(document)) for document in file_kinds.documents_of(path, "text"))
    assert exit_code_of(caught.value) == 74


@pytest.mark.parametrize("kind", ["jsonl", "txt", "parquet", *(f"jsonl.{ending}" for ending in PACKED)])
def test_a_file_that_this_user_may_not_read_is_one_line(tmp_path, kind, monkeypatch):
    path = tmp_path / f"a.{kind}"
    path.write_text(ROWS)

    def refused(*given, **more):
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    for module, name in ((file_kinds, "open"), (gzip, "open"), (bz2, "open"), (lzma, "open"), (pa, "OSFile")):
        monkeypatch.setattr(module, name, refused, raising=False)
    monkeypatch.setattr("pyarrow.parquet.read_schema", refused)
    with pytest.raises(ReadError, match=rf"a\.{kind}: not readable \(Permission denied\)") as caught:
        check_corpus(corpus(tmp_path), "text")
    assert exit_code_of(caught.value) == 2


def test_a_folder_that_cannot_be_listed_is_one_line(tmp_path, monkeypatch):
    def walk(folder, onerror, followlinks):
        onerror(PermissionError(errno.EACCES, "Permission denied", f"{folder}/in"))
        return iter(())

    monkeypatch.setattr(listing.os, "walk", walk)
    with pytest.raises(DataError, match=r"/in: not readable \(Permission denied\)"):
        check_corpus(corpus(tmp_path), "text")


@pytest.mark.parametrize("source", ["{}", "hf:{}"])
def test_half_a_character_is_replaced_in_every_source(tmp_path, source, capfd):
    (tmp_path / "a.jsonl").write_text(r'{"text": "cut \ud83d here"}' + "\n" + ROWS)
    check_corpus(corpus(source.format(tmp_path)), "text")
    assert read(source.format(tmp_path)) == ["cut \ufffd here", *TEXTS]
    assert capfd.readouterr().err == ""


def test_what_datasets_cannot_read_is_said_once(tmp_path, capfd):
    (tmp_path / "a.parquet").write_text("not a table")
    with pytest.raises(DataError, match="not readable by datasets"):
        read(f"hf:{tmp_path}")
    assert capfd.readouterr().err == ""
