"""The soak's judgement: a planted leak is found, in numbers and in a process; warm-up and noise are none."""

import gc
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import linregress, t

from lcprobe.studies.runtime import keep_memory
from validation.soak import soaked
from validation.soak.judgement import (
    ALLOCATED,
    BLOCKS,
    DAY,
    ELSEWHERE,
    IN_HEAPS,
    IN_V8,
    OBJECTS,
    OPEN_FILES,
    RESIDENT,
    SHARE,
    Sample,
    grows,
    slope_of,
    table,
)
from validation.soak.levels import resident_by_place

SMAPS = """\
563135442000-563175484000 rw-p 00000000 00:00 0                          [heap]
Size:            1000000 kB
Rss:                 700 kB
VmFlags: rd wr mr mw me ac sd
7f2000000000-7f2000021000 rw-p 00000000 00:00 0
Size:                132 kB
Rss:                  40 kB
7f2000021000-7f2004000000 ---p 00000000 00:00 0
Rss:                   0 kB
7f2004100000-7f2004200000 rw-p 00000000 00:00 0
Rss:                1024 kB
7f2004200000-7f2024200000 rwxp 00000000 00:00 0
Rss:                 500 kB
151ddf380000-151ddf3c0000 rw-p 00000000 00:00 0
Rss:                 100 kB
7f2008000000-7f2008020000 r--p 00000000 fe:00 1234                       /usr/lib/libtorch_cpu.so
Rss:                   4 kB
"""


def test_the_slope_and_its_interval_are_those_of_scipy():
    generator = np.random.default_rng(0)
    x, y = np.sort(generator.random(12)), generator.random(12)
    theirs = linregress(x, y)
    slope, half = slope_of(x, y)
    assert slope == pytest.approx(theirs.slope, abs=1e-12)
    assert half == pytest.approx(t.ppf(0.975, 10) * theirs.stderr, rel=1e-6)
    with pytest.raises(ValueError, match="three points"):
        slope_of(x[:2], y[:2])


@pytest.mark.parametrize(
    ("leak", "verdict"),
    [(0.0, "flat"), (0.2 * SHARE * 500 / DAY, "flat"), (5 * SHARE * 500 / DAY, "grows"), (1.0, "grows")],
)
def test_a_leak_is_found_and_warm_up_is_none(leak, verdict):
    """500 MB, a warm-up of 100 MB that ends exponentially, samples at different parts of a round, noise of 10 kB."""
    generator = np.random.default_rng(1)
    samples = [
        Sample(n, {RESIDENT: 500 - 100 * np.exp(-n / 4) + leak * n + k + 0.01 * generator.normal()})
        for n in range(120)
        for k in range(5)
    ]
    (row,) = table(samples)
    assert row["verdict"] == verdict
    assert row["low"] - 0.01 <= 1000 * leak <= row["high"] + 0.01


def test_growth_needs_both_an_interval_above_zero_and_a_share_of_the_level():
    enough = 1.01 * SHARE * 100 / DAY
    assert grows(enough, 0.9 * enough, 100)
    assert not grows(enough, 1.1 * enough, 100)  # may be none
    assert not grows(0.9 * enough, 0.0, 100)  # too little


def test_a_part_of_memory_grows_where_it_would_fill_the_whole():
    """A part of 10 MB that grows by 3 kB a round adds 60 MB a day to 1,000."""

    def verdict(kilobytes: float) -> str:
        rows = table([Sample(n, {RESIDENT: 1000.0, IN_V8: 10 + n * kilobytes / 1000}) for n in range(40)])
        return rows[1]["verdict"]

    assert (verdict(3), verdict(6)) == ("flat", "grows")


def test_resident_memory_is_divided_by_where_it_lies():
    found = {name: resident // 1024 for name, resident in resident_by_place(SMAPS).items()}
    assert found == {IN_HEAPS: 740, IN_V8: 600, ELSEWHERE: 1028}


def samples_of_rounds(folder: Path, leaks: bool) -> list[Sample]:
    """Rounds of allocations of many sizes, of which a leaking one keeps a megabyte, an open file and 500 objects."""
    kept: list[object] = []
    number = iter(range(10_000))
    keep_memory()  # as the commands do

    def one_round() -> None:
        generator = np.random.default_rng(0)
        arrays = [np.ones(int(size)) for size in generator.integers(1, 100_000, 40)]
        text = {str(i): [i] for i in range(2000)}
        if leaks:
            kept.append((np.ones(1 << 17), (folder / f"{next(number)}").open("w"), [[i] for i in range(500)]))
        del arrays, text
        gc.collect()

    gc.collect()
    gc.freeze()  # what was imported is no matter of these rounds
    return soaked(one_round, lambda done: done == 20, 0.05, folder / "samples")


@pytest.mark.parametrize("leaks", [False, True])
def test_a_leak_of_a_megabyte_a_round_is_found(leaks, tmp_path):
    """In a process of its own: one that has run other tests goes on freeing what they left."""
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as process:
        samples = process.submit(samples_of_rounds, tmp_path, leaks).result()
    rows = {row["what"]: row for row in table(samples)}
    verdicts = {name: row["verdict"] for name, row in rows.items()}
    if not leaks:  # this process may do other things, which touch a page now and then
        assert verdicts[OPEN_FILES] == verdicts[OBJECTS] == "flat"
        assert abs(rows[RESIDENT]["per 1,000 rounds"]) < 100
    elif IN_HEAPS in rows:  # Linux with glibc
        found = {RESIDENT, ALLOCATED, OPEN_FILES, OBJECTS, BLOCKS}
        assert {verdicts[name] for name in found} == {"grows"}
        assert rows[ALLOCATED]["per 1,000 rounds"] == pytest.approx(1049, rel=0.1)
