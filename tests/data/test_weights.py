"""Sources interleaved by weight: shares at every point, what happens at an end, the same from any mark on."""

import json
from dataclasses import replace
from itertools import islice

import numpy as np
import pytest

from lcprobe.data.config import DataConfig
from lcprobe.data.corpus import Reader
from lcprobe.data.marks import mark_from_json
from lcprobe.data.prepare import manifest_of, prepare
from lcprobe.data.sources.sotu import speeches
from lcprobe.errors import ConfigError, DataError
from lcprobe.schema import build

SPEECHES = [text[:4000] for text in list(speeches())[:40]]
LONG = [text[i : i + 3000] for text in speeches() for i in range(0, 9000, 3000)][:120]
CODE = [f"def f{i}(x):\n    return [{', '.join(str(i * j) for j in range(200))}]\n" for i in range(30)]


def write(folder, name, texts):
    (folder / name).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    return str(folder / name)


@pytest.fixture
def two(tmp_path):
    return [write(tmp_path, "prose.jsonl", SPEECHES), write(tmp_path, "code.jsonl", CODE)]


def settings(folder, two, weights, **more):
    corpus = [{"path": path, "weight": weight} for path, weight in zip(two, weights, strict=True)]
    return build(DataConfig, {"corpus": corpus, "folder": str(folder / "out"), "held_out": 0.1, **more}, "data")


@pytest.mark.parametrize("weights", [(0.7, 0.3), (1, 4)])
def test_shares_of_tokens_hold_wherever_reading_stops(tmp_path, two, weights):
    data = prepare(settings(tmp_path, two, weights))
    bounds = np.append(data.starts, data.n_tokens)
    is_code = [data.tokenizer.decode(data.tokens(a, 8))[7:].startswith("def f") for a in data.starts]
    sizes, wanted = np.diff(bounds), weights[1] / sum(weights)
    code = np.cumsum(sizes * is_code)
    for n in range(4, len(sizes)):
        assert abs(code[n] - wanted * bounds[n + 1]) < 1.5 * sizes.max() + 0.05 * bounds[n + 1]
    first, second = data.manifest["sources"]
    assert second["share"] == pytest.approx(wanted, abs=0.06)
    assert first["tokens"] + second["tokens"] == data.n_tokens
    assert (second["weight"], second["epochs"]) == (weights[1], 1)
    assert manifest_of(replace(settings(tmp_path, two, weights), folder=str(tmp_path / "x")), "") == {
        name: data.manifest[name] for name in ("corpus_digest", "tokenizer_digest")
    }


def held_out_of(config):
    reader = Reader(config)
    return [text for number in range(len(config.corpus)) for text, held_out in reader.of_source(number) if held_out]


def test_what_is_left_out_as_a_near_duplicate_does_not_count(tmp_path):
    """Of the first source, half repeats what is held out."""
    first, second = LONG[:60], LONG[60:]
    both = [write(tmp_path, "a.jsonl", first), write(tmp_path, "b.jsonl", second)]
    held = held_out_of(settings(tmp_path, both, (1, 1)))
    copies = [f"{text} Copied {i} times." for i in range(60) for text in held][: len(first)]
    write(tmp_path, "a.jsonl", [text for pair in zip(first, copies, strict=True) for text in pair])
    config = settings(tmp_path, both, (1, 1))
    data = prepare(config)
    assert data.manifest["near_duplicates"] > 15
    bounds = np.append(data.starts, data.n_tokens)
    texts = [data.tokenizer.decode(data.tokens(a + 1, b - a - 1)) for a, b in zip(bounds, bounds[1:], strict=False)]
    sizes = np.diff(bounds)
    of_second = np.cumsum(sizes * [text in second for text in texts])
    for n in range(4, len(sizes)):
        assert abs(of_second[n] - 0.5 * bounds[n + 1]) < 1.5 * sizes.max() + 0.03 * bounds[n + 1]
    digests = {name: data.manifest[name] for name in ("corpus_digest", "tokenizer_digest")}
    assert manifest_of(replace(config, folder=str(tmp_path / "x")), "") == digests


def test_a_source_of_which_nothing_is_left_is_named(tmp_path):
    b = write(tmp_path, "b.jsonl", LONG)
    held = held_out_of(settings(tmp_path, [b], (1,)))
    a = write(tmp_path, "a.jsonl", [f"{text} A copy." for text in held])
    with pytest.raises(DataError, match=r"a\.jsonl.*: nothing to train on that is not near what is held out"):
        prepare(settings(tmp_path, [a, b], (1, 1)))


def test_without_weights_sources_are_read_whole_one_after_the_other(tmp_path, two):
    config = build(DataConfig, {"corpus": two}, "data")
    assert [read.document for read in Reader(config).documents()] == SPEECHES + CODE


def test_a_source_that_ends_begins_again_where_asked(tmp_path, two):
    stop = [*Reader(settings(tmp_path, two, (1, 9))).documents()]
    again = [*Reader(settings(tmp_path, two, (1, 9), when_a_source_ends="repeat")).documents()]
    assert len(stop) < len(SPEECHES) + len(CODE) < len(again)
    assert [r.document for r in again[: len(stop)]] == [r.document for r in stop]
    assert {r.document for r in again} == {*SPEECHES, *CODE}, "each is read whole"
    held = [r.document for r in again if r.held_out]
    assert len(held) == len(set(held)) > 0, "what is held out is there once"
    data = prepare(settings(tmp_path, two, (1, 9), when_a_source_ends="repeat"))
    assert data.manifest["sources"][1]["epochs"] > 2
    assert data.manifest["sources"][1]["share"] == pytest.approx(0.9, abs=0.05)


@pytest.mark.parametrize("ends", ["stop", "repeat"])
def test_reading_goes_on_from_any_mark(tmp_path, two, ends):
    config = settings(tmp_path, two, (1, 3), when_a_source_ends=ends)
    whole = [*Reader(config).documents()]
    for n in range(0, len(whole), 7):
        mark = mark_from_json(json.loads(json.dumps(whole[n].after.to_json())))
        assert [*islice(Reader(config).documents(mark), 12)] == whole[n + 1 : n + 13]


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet", "txt", "csv of hf"])
def test_every_source_goes_on_from_any_mark(tmp_path, monkeypatch, kind):
    import pyarrow as pa
    import pyarrow.parquet as pq

    monkeypatch.setattr("lcprobe.data.sources.hub.ROWS_PER_STATE", 5)
    for name in ("a", "b"):
        rows = [{"text": f"{name} {i}" if i % 5 else ""} for i in range(23)]
        path = tmp_path / f"{name}.{kind[:7]}"
        if kind == "parquet":
            pq.write_table(pa.Table.from_pylist(rows), path, row_group_size=9)
        elif kind == "txt":
            path.write_text(name)
        elif kind == "json":
            path.write_text(json.dumps(rows, indent=1))
        elif kind == "jsonl":
            path.write_text("\n\n".join(map(json.dumps, rows)))
        else:
            (tmp_path / f"{name}.csv").write_text("text\n" + "".join(f"{name} {i}\n" for i in range(23)))
    config = build(DataConfig, {"corpus": [f"hf:{tmp_path}" if "hf" in kind else str(tmp_path)]}, "data")
    whole = [*Reader(config).documents()]
    assert len(whole) == {"txt": 2, "csv of hf": 46}.get(kind, 36)
    for n in range(0, len(whole), 5):
        mark = mark_from_json(json.loads(json.dumps(whole[n].after.to_json())))
        found = [*Reader(config).documents(mark)]
        assert [(r.document, r.after.digest, r.after.empty) for r in found] == [
            (r.document, r.after.digest, r.after.empty) for r in whole[n + 1 :]
        ]


@pytest.mark.parametrize(
    ("corpus", "message"),
    [
        ([{"path": "a", "weight": 1}, "sotu"], "a weight for every source, or for none"),
        ([{"path": "a", "weight": 0}], r"data\.corpus\[0\]\.weight: given 0"),
        ([{"hf": "a/b", "wieght": 1}], r"wieght: an unknown key"),
    ],
)
def test_wrong_weights_are_named(corpus, message):
    with pytest.raises(ConfigError, match=message):
        config = build(DataConfig, {"corpus": corpus}, "data")
        [source.resolve() for source in config.corpus]
