"""Preparation: every source, borders of documents, held-out text that is never trained on, damage, and digests."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from lcprobe.data import documents as documents_module
from lcprobe.data import prepare as module
from lcprobe.data import shards
from lcprobe.data.config import DataConfig
from lcprobe.data.prepare import prepare
from lcprobe.data.preparing import writing
from lcprobe.data.sources.sotu import speeches
from lcprobe.errors import ConfigError, DataError, EpisodeError
from lcprobe.locks import lock
from lcprobe.schema import build
from lcprobe.tasks.text.tokenizer import load_tokenizer

TEXTS = [f"Document {i} speaks of the {word} and of nothing else at all. " * 40 for i, word in enumerate(
    ["river", "mountain", "harbor", "meadow", "forest", "desert", "island", "valley"])]  # fmt: skip


def settings(folder, corpus, **more):
    return build(
        DataConfig, {"corpus": [str(c) for c in corpus], "folder": str(folder), "held_out": 0.25, **more}, "data"
    )


def write(folder, kind):
    if kind == "txt folder":
        for i, text in enumerate(TEXTS):
            (folder / f"{i}.txt").write_text(text)
        return folder
    if kind == "jsonl":
        (folder / "a.jsonl").write_text("\n".join(json.dumps({"body": t}) for t in TEXTS))
        return folder / "a.jsonl"
    pq.write_table(pa.table({"body": TEXTS, "n": list(range(len(TEXTS)))}), folder / "a.parquet")
    return folder / "a.parquet"


@pytest.mark.parametrize("kind", ["txt folder", "jsonl", "parquet"])
def test_every_source_gives_the_same_documents(tmp_path, kind):
    (tmp_path / "src").mkdir()
    source = write(tmp_path / "src", kind)
    corpus = prepare(settings(tmp_path / "out", [source], text_field="body"))
    tokens = corpus.tokens(0, corpus.n_tokens)
    bos = np.flatnonzero(tokens == corpus.tokenizer.bos_id)
    assert np.array_equal(bos, corpus.starts)
    trained = [corpus.tokenizer.decode(part[1:]) for part in np.split(tokens, bos[1:])]
    held = corpus.materials("probe").stream("corpus").text
    assert len(trained) + corpus.manifest["probe_documents"] == len(TEXTS)
    assert set(trained) < set(TEXTS)
    for text in TEXTS:
        assert (text in trained) != (text[40:200] in held), "each document is on exactly one side"


def test_shards_are_read_as_one_sequence(tmp_path, monkeypatch):
    (tmp_path / "src").mkdir()
    source = write(tmp_path / "src", "jsonl")
    whole = prepare(settings(tmp_path / "one", [source], text_field="body"))
    want = whole.tokens(0, whole.n_tokens)
    monkeypatch.setattr(shards, "SHARD_TOKENS", 1000)
    cut = prepare(settings(tmp_path / "many", [source], text_field="body"))
    assert len(cut.shards) == -(-cut.n_tokens // 1000) > 2
    assert np.array_equal(cut.tokens(0, cut.n_tokens), want)
    for start in (0, 995, 1000, 1999):
        assert np.array_equal(cut.tokens(start, 777), want[start : start + 777])


def test_prepared_once_and_again_when_the_text_changes(tmp_path):
    source = tmp_path / "a.jsonl"
    source.write_text("\n".join(json.dumps({"text": t}) for t in TEXTS))
    first = prepare(settings(tmp_path / "out", [source]))
    stamp = (first.folder / "manifest.json").stat().st_mtime_ns
    assert prepare(settings(tmp_path / "out", [source])).folder == first.folder
    assert (first.folder / "manifest.json").stat().st_mtime_ns == stamp
    source.write_text("\n".join(json.dumps({"text": t + "!"}) for t in TEXTS))
    second = prepare(settings(tmp_path / "out", [source]))
    assert second.folder != first.folder
    assert second.manifest["corpus_digest"] != first.manifest["corpus_digest"]


def test_one_document_holds_out_its_end(tmp_path):
    (tmp_path / "book.txt").write_text("".join(TEXTS))
    corpus = prepare(settings(tmp_path / "out", [tmp_path / "book.txt"]))
    text = "".join(TEXTS)
    held = corpus.materials("probe").stream("corpus").text
    assert 0.2 < len(held) / len(text) < 0.3
    assert held.strip()[-50:] in text[-400:]


def test_damage_is_named(tmp_path):
    source = tmp_path / "a.jsonl"
    source.write_text("\n".join(json.dumps({"text": t}) for t in TEXTS))
    corpus = prepare(settings(tmp_path / "out", [source]))
    shard = corpus.folder / "tokens-00000.bin"
    data = bytearray(shard.read_bytes())
    data[100] ^= 1
    shard.write_bytes(data)
    with pytest.raises(DataError, match=r"tokens-00000\.bin does not match its digest"):
        prepare(settings(tmp_path / "out", [source]), verify=True)
    shard.write_bytes(data[:-2])
    with pytest.raises(DataError, match=r"tokens-00000\.bin has \d+ bytes instead of"):
        prepare(settings(tmp_path / "out", [source]))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.jsonl", b'{"text": "x"}\n{"nope": 1}', "line 2: no field 'text'; allowed: nope"),
        ("a.jsonl", b"not json", "row 1 is broken"),
        ("a.txt", b"\xff\xfe\x00bad", "is not UTF-8"),
        ("a.parquet", b"PAR1 no", "not readable as parquet"),
        ("a.txt", b"  \n ", "0 documents"),
    ],
)
def test_bad_files_are_one_line(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=message):
        prepare(settings(tmp_path / "out", [tmp_path / name]))
    assert not list((tmp_path / "out").glob("[!.]*"))


def test_a_missing_corpus_is_a_config_error(tmp_path):
    with pytest.raises(ConfigError, match=r"^data\.corpus: given 'nowhere'"):
        prepare(settings(tmp_path, ["nowhere"]))


def test_embedded_speeches_are_long_and_old():
    texts = list(speeches())
    assert len(texts) == 140
    assert 7_900_000 < sum(map(len, texts)) < 8_000_000


def test_a_long_document_is_encoded_in_parts_as_it_would_be_whole(tmp_path, monkeypatch):
    monkeypatch.setattr(documents_module, "LONG_CHARS", 3000)
    monkeypatch.setattr(documents_module, "PART_CHARS", 400)
    text = "".join(TEXTS) + "x" * 2000 + " end.\n"
    for name, content in (
        ("a.jsonl", json.dumps({"text": text}) + "\n" + json.dumps({"text": text[::-1]})),
        ("b.txt", text),
    ):
        (tmp_path / name).write_text(content)
        corpus = prepare(settings(tmp_path / "out", [tmp_path / name], held_out=0.5, haystack_chars=1000))
        n = 1 if name == "a.jsonl" else 2  # the second half of a single document is held out
        ids = corpus.tokens(0, corpus.n_tokens)
        assert (len(corpus.starts), corpus.manifest["documents"]) == (1, 2)
        words = corpus.tokenizer.decode(ids[1:])
        assert text.startswith(words) if n == 2 else words in (text, text[::-1])
        whole = corpus.tokenizer.encode(words.split("x" * 2000)[0])  # letters without a space are cut anywhere
        assert np.array_equal(ids[1 : len(whole)], whole[:-1])


def test_max_tokens_stops_inside_a_long_text(tmp_path, monkeypatch):
    monkeypatch.setattr(documents_module, "PART_CHARS", 1000)
    (tmp_path / "story.txt").write_text("".join(TEXTS) * 60)
    given = {"max_tokens": 500, "near_duplicates": None}  # the text repeats itself
    corpus = prepare(settings(tmp_path / "out", [tmp_path / "story.txt"], **given))
    assert 500 <= corpus.n_tokens < 1500
    text = corpus.tokenizer.decode(corpus.tokens(1, corpus.n_tokens - 1))
    assert ("".join(TEXTS) * 60).startswith(text)
    assert len(corpus.materials("probe").stream("corpus").text) > 10_000, "the end is held out"


@pytest.mark.slow
@pytest.mark.skipif(sys.platform != "linux", reason="Linux tells the peak of one process")
@pytest.mark.parametrize("name", ["a.txt", "a.jsonl", "a.json"])
def test_memory_does_not_grow_with_a_file(tmp_path, name):
    """Peak memory of a process that prepares 5 MB and 40 MB."""
    peaks = []
    for copies in (4, 30):
        rows = [{"text": text} for text in TEXTS] * (70 * copies)
        path = tmp_path / str(copies) / name
        path.parent.mkdir()
        texts = {"a.txt": lambda: "\n".join(r["text"] for r in rows), "a.json": lambda: json.dumps(rows)}
        path.write_text(texts.get(name, lambda: "\n".join(map(json.dumps, rows)))())
        code = (
            "import re, sys; from lcprobe.cli.commands import data_main; code = data_main(sys.argv[1:]); "
            "print(re.search(r'VmHWM:\\s+(\\d+)', open('/proc/self/status').read())[1]); sys.exit(code)"
        )  # not ru_maxrss, which begins with that of the process that starts it
        words = ["prepare", f"data.corpus=[{path}]", f"data.folder={tmp_path}/out", "data.near_duplicates=null"]
        done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, check=True)
        peaks.append(int(done.stdout.split()[-1]))
    assert peaks[1] < 1.1 * peaks[0]


def test_rows_without_text_are_counted(tmp_path, caplog):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in [*TEXTS, None, "", "  "]))
    with caplog.at_level("INFO"):
        corpus = prepare(settings(tmp_path / "out", [tmp_path / "a.jsonl"]))
    assert (corpus.manifest["documents"], corpus.manifest["empty"]) == (len(TEXTS), 3)
    assert "8 documents (3 without text skipped)" in caplog.text


def test_what_fails_while_preparing_leaves_nothing(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in TEXTS) + "\n{")
    with pytest.raises(DataError, match="line 9 is no JSON"):
        prepare(settings(tmp_path / "out", [tmp_path / "a.jsonl"]))
    assert not (tmp_path / "out").exists()
    (tmp_path / "out").mkdir()
    with pytest.raises(DataError, match="line 9 is no JSON"):
        prepare(settings(tmp_path / "out", [tmp_path / "a.jsonl"]))
    assert list((tmp_path / "out").iterdir()) == [], "a folder that was there stays"


def test_what_a_killed_preparation_left_is_removed_wherever_the_text_is(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in TEXTS))
    config, out = settings(tmp_path / "out", [tmp_path / "a.jsonl"]), tmp_path / "out"
    first = prepare(config)
    for trained_on in ("", first.manifest["corpus_digest"]):
        (out / ".0123456789abcdef.tmp").mkdir()
        (out / ".0123456789abcdef.tmp" / "tokens-00000.bin").write_bytes(b"half")
        (out / ".0123456789abcdef.owner").write_text("{}")
        assert prepare(config, trained_on=trained_on).folder == first.folder
        assert [path.name for path in out.iterdir()] == [first.folder.name]
        (tmp_path / "a.jsonl").unlink(missing_ok=True)  # the second time, the text is not at its place


def prepare_it(config, done):
    done.put(prepare(config).folder.name)


def test_processes_that_prepare_one_corpus_wait_for_the_first(tmp_path, monkeypatch):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in TEXTS))
    monkeypatch.setattr(lock, "POLL_SECONDS", 0.01)
    config, build_it = settings(tmp_path / "out", [tmp_path / "a.jsonl"]), module._build

    def build_and_tell(*given):
        with open(tmp_path / "built", "a") as file:
            file.write("x")
        build_it(*given)

    monkeypatch.setattr(module, "_build", build_and_tell)
    context = multiprocessing.get_context("fork")
    done = context.Queue()
    others = [context.Process(target=prepare_it, args=(config, done)) for _ in range(3)]
    for other in others:
        other.start()
    folders = {done.get(timeout=60) for _ in others}
    for other in others:
        other.join()
        assert other.exitcode == 0
    assert (tmp_path / "built").read_text() == "x", "one of them has built it"
    assert [p.name for p in (tmp_path / "out").iterdir()] == [*folders]


@pytest.mark.parametrize("gap", [0, 700, 70_000])
def test_a_vocabulary_with_gaps_is_stored_as_it_is(tmp_path, gap):
    shipped = json.loads(load_tokenizer().json_text)
    vocabulary = shipped["model"]["vocab"]
    shipped["model"]["vocab"] = {token: i if i < 3000 else i + gap for token, i in vocabulary.items()}
    (tmp_path / "t.json").write_text(json.dumps(shipped))
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in TEXTS))
    corpus = prepare(settings(tmp_path / "out", [tmp_path / "a.jsonl"], tokenizer=str(tmp_path / "t.json")))
    assert corpus.tokenizer.vocab_size == 4096 + gap
    assert corpus.manifest["dtype"] == ("uint32" if gap > 60_000 else "uint16")
    plain = prepare(settings(tmp_path / "out", [tmp_path / "a.jsonl"]))
    ids, expected = corpus.tokens(0, corpus.n_tokens), plain.tokens(0, plain.n_tokens)
    assert np.array_equal(ids, np.where(expected < 3000, expected, expected + gap))
    assert len(corpus.materials("probe").stream("words")) == len(plain.materials("probe").stream("words"))


def test_a_shard_refuses_ids_that_do_not_fit(tmp_path):
    writer = shards.ShardWriter(tmp_path, "uint16")
    with pytest.raises(DataError, match="token 65536; allowed: ids that fit uint16"):
        writer.add(np.array([1, 65536]))


def test_text_without_words_is_prepared_and_only_its_haystack_is_refused(tmp_path):
    (tmp_path / "a.txt").write_text("这是一个没有空格的文本。" * 3000)
    corpus = prepare(settings(tmp_path / "out", [tmp_path / "a.txt"]))
    materials = corpus.materials("train")
    assert len(materials.stream("noise")) > 100
    with pytest.raises(
        EpisodeError, match=r"haystack corpus: given '\d+ tokens of which 0 begin a word after a space'"
    ):
        materials.stream("corpus")


def build_and_die(config):
    writing.Writer.finish = lambda self: os.kill(os.getpid(), signal.SIGKILL)
    prepare(config)


def test_what_a_killed_preparation_leaves_goes_with_the_next_one_of_other_data(tmp_path):
    (tmp_path / "a.jsonl").write_text("\n".join(json.dumps({"text": t}) for t in TEXTS))
    given = settings(tmp_path / "out", [tmp_path / "a.jsonl"])
    process = multiprocessing.get_context("fork").Process(target=build_and_die, args=(given,))
    process.start()
    process.join()
    assert sorted(p.suffix for p in (tmp_path / "out").iterdir()) == [".owner", ".tmp"]
    other = prepare(settings(tmp_path / "out", [tmp_path / "a.jsonl"], held_out=0.3))
    assert list((tmp_path / "out").iterdir()) == [other.folder]
