"""Counts, numbers and times in words."""

import pytest

from lcprobe.words import counted, distinct_numbers, duration, roughly, short, short_bytes, span


def test_one_is_singular():
    assert [counted(n, "run") for n in (0, 1, 2, 1200)] == ["0 runs", "1 run", "2 runs", "1,200 runs"]
    assert counted(2, "study") == "2 studies"
    assert counted(1, "training token") == "1 training token"


@pytest.mark.parametrize(
    ("n", "text"),
    [(0, "0"), (812, "812"), (999.6, "1.00K"), (27_123, "27.1K"), (331_224, "331K"), (999_999, "1.00M"), (2.5e12, "2.50T")],
)  # fmt: skip
def test_short_numbers_round_up_into_the_next_unit(n, text):
    assert short(n) == text


def test_numbers_that_six_digits_do_not_tell_apart_have_all():
    assert distinct_numbers([0.01, 0.12345678, 0.12345679, 1e-05]) == ["0.01", "0.12345678", "0.12345679", "1e-05"]
    assert distinct_numbers([0.12345678, 1e-05]) == ["0.123457", "1e-05"]


def test_bytes_have_units():
    assert [short_bytes(n) for n in (812, 65_536, 1.2e9)] == ["812 B", "65.5 KB", "1.20 GB"]


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0:00"), (55.4, "0:55"), (59.6, "1:00"), (370, "6:10"), (3723, "1:02:03"), (50 * 3600, "2 d 2 h")],
)
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_estimates_have_two_digits():
    assert [roughly(s) for s in (0.2, 47, 300, 1800, 15_000, 4e5)] == ["1 s", "47 s", "5.0 min", "30 min", "4.2 h", "4.63 days"]  # fmt: skip


def test_spans_have_separators_and_one_value_is_no_span():
    assert (span([1024, 256, 512]), span([2048])) == ("256 to 1,024", "2,048")
