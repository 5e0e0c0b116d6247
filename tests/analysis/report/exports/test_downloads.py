"""Tables inside the page are the files, byte for byte, within a budget."""

import base64
import csv
import gzip
import random

from lcprobe.analysis.report.exports.downloads import downloads


def content_of(download) -> bytes:
    kind, _, data = download.link.removeprefix("data:").partition(";base64,")
    raw = base64.b64decode(data)
    return gzip.decompress(raw) if kind == "application/gzip" else raw


def test_what_is_saved_from_the_page_is_the_file(tmp_path):
    dice = random.Random(0)
    sizes = {"a": 10, "b": 3_000, "c": 20_000, "d": 400}
    for name, n in sizes.items():
        with open(tmp_path / f"{name}.csv", "w", newline="") as file:
            csv.writer(file).writerows([i, dice.random() if name == "d" else "same"] for i in range(n))
    paths = [tmp_path / f"{name}.csv" for name in sizes]
    made = downloads(paths, budget=150_000)
    assert [d.file for d in made] == [path.name for path in paths]
    assert [d.saved_as for d in made] == ["a.csv", "b.csv", "c.csv.gz", "d.csv"]
    assert all(content_of(d) == path.read_bytes() for d, path in zip(made, paths, strict=True))
    assert all(d.bytes == path.stat().st_size for d, path in zip(made, paths, strict=True))
    assert downloads(paths, budget=150_000) == made, "the same bytes again"


def test_what_does_not_fit_is_named_and_the_budget_is_kept(tmp_path):
    dice = random.Random(0)
    paths = [tmp_path / f"{i}.csv" for i in range(4)]
    for i, path in enumerate(paths):
        path.write_bytes(dice.randbytes(1000 * (4 - i)))
    made = downloads(paths, budget=5_000)
    assert [bool(d.link) for d in made] == [False, True, False, False], "of 4, 3, 2 and 1 KB, the first that fits"
    assert sum(len(d.link) for d in made) <= 5_000
    assert downloads(paths, budget=0)[0].link == ""


def test_the_first_tables_have_room_before_smaller_ones(tmp_path):
    """Compressed where that leaves room for the others, and not where there is room for all."""
    dice = random.Random(0)
    paths = [tmp_path / name for name in ("models.csv", "cells.csv", "reach.csv", "distance.csv")]
    for path, n in zip(paths, (20, 3_000, 200, 1_500), strict=True):
        rows = (f"model-{i % 9},multikey,corpus,{i},{dice.random():.6f}" for i in range(n))
        path.write_text("\n".join(rows))
    large = downloads(paths, budget=10**9)
    assert [d.saved_as for d in large] == [path.name for path in paths]
    small = [len(gzip.compress(path.read_bytes())) for path in paths]
    tight = downloads(paths, budget=sum(-(-n // 3) * 4 + 40 for n in small) + 500)
    assert all(d.link for d in tight)
    assert [d.saved_as for d in tight][1:] == ["cells.csv.gz", "reach.csv.gz", "distance.csv.gz"]
    without = downloads(paths, budget=-(-small[1] // 3) * 4 + 1_000)
    assert [bool(d.link) for d in without] == [True, True, False, False]
    assert all(content_of(d) == path.read_bytes() for d, path in zip(tight, paths, strict=True))
