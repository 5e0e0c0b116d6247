"""Lengths in configs: multiples and tokens, one unit a list, and back to what was written."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lcprobe.errors import ConfigError
from lcprobe.lengths import LENGTH, Length, check_lengths, in_tokens, multiples, tokens_of
from lcprobe.schema import plain


@given(st.one_of(st.integers(1, 2**27), st.integers(1, 2**17)))
def test_tokens_round_trip(n: int) -> None:
    """A number of tokens is written so that it is read as the same number."""
    written = plain(Length(n, True))
    assert LENGTH.convert(written, "k") == Length(n, True)
    assert LENGTH.convert(written, "k").tokens(7, "k") == n
    assert LENGTH.convert(f"{n}t", "k") == Length(n, True)
    if n <= 2**17:
        assert LENGTH.convert(f"{n}Kt", "k").tokens(7, "k") == 1024 * n


@given(st.lists(st.integers(1, 64), min_size=1), st.lists(st.sampled_from([64, 128, 512]), min_size=1))
def test_union_of_training_lengths(multiplied: list[int], contexts: list[int]) -> None:
    """Several training lengths: every length that any of them reaches, once, ascending; tokens do not depend on them."""
    lengths = multiples(*multiplied)
    assert tokens_of(lengths, contexts, "k") == sorted({m * c for m in multiplied for c in contexts})
    assert tokens_of(in_tokens(*multiplied), contexts, "k") == sorted(set(multiplied))


@pytest.mark.parametrize("value", [0, -1, True, "0t", "64", "t", "64T", "1kt", "1.5Kt", float("nan"), None, [1]])
def test_what_is_no_length(value: object) -> None:
    """Refused with what is allowed."""
    with pytest.raises(ConfigError, match=r"^k: .*64t, 1Kt"):
        LENGTH.convert(value, "k")


def test_two_units_in_one_list() -> None:
    """Refused, naming one of each."""
    with pytest.raises(ConfigError, match=r"^k: given '2 and 64t'"):
        check_lengths([*multiples(2), *in_tokens(64)], "k")


def test_multiple_of_one_training_length_only() -> None:
    """A multiple must give whole tokens at every training length."""
    with pytest.raises(ConfigError, match=r"^k: given 0.125; allowed: a multiple that gives whole tokens of 100"):
        tokens_of(multiples(0.125), [64, 100], "k")


@pytest.mark.parametrize("value", [1e10, 2**27 + 1, "134217729t", "131073Kt", "999999999999Kt"])
def test_longer_than_any_sequence(value: object) -> None:
    """Refused as it is read, whatever it is a multiple of."""
    with pytest.raises(ConfigError, match="^k: given .*at most 134217728"):
        LENGTH.convert(value, "k")


def test_a_multiple_that_is_longer_than_any_sequence() -> None:
    """Refused where the training length is known."""
    assert tokens_of(multiples(2**20), [128], "k") == [2**27]
    with pytest.raises(ConfigError, match="^k: given '2.09715e.06 times the training length of 128 tokens'"):
        tokens_of(multiples(2**21), [128], "k")
