"""Layouts as text: repetition, groups, and errors."""

import pytest

from lcprobe.errors import ConfigError
from lcprobe.models.layout import parse_layout


@pytest.mark.parametrize(
    ("text", "mixers"),
    [
        ("mamba2 x 2, attention, mamba2", "mamba2 mamba2 attention mamba2"),
        ("[local x 2, full] x 2", "local local full local local full"),
        ("[[a, b] x 2, c+mlp] x 1", "a b a b c"),
        ("parallel(a, b) x 2, c, parallel(a,b,c)+mlp", "a|b a|b c a|b|c"),
    ],
)
def test_layouts(text, mixers):
    assert " ".join("|".join(layer.mixers) for layer in parse_layout(text)) == mixers


@pytest.mark.parametrize("text", ["", "a,", "a x", "a x 0", "[a", "a]", "a b", "2 x a", "a + mlp2", "a; b"])
def test_errors_of_layouts_show_where_parsing_stopped(text):
    with pytest.raises(ConfigError, match=r"^model\.layout: given .*allowed: a pattern such as"):
        parse_layout(text)


@pytest.mark.parametrize(
    "text",
    [
        "a x 10001",
        "a x 9999, b x 2",
        "[a x 5000, b] x 2",
        ", ".join(["a"] * 10_001),
        "parallel(a, b) x 5001",
        "[a x 9999, a] x 9, b",
    ],
    ids=lambda text: text[:20],
)
def test_the_layers_of_the_whole_layout_are_limited(text):
    with pytest.raises(ConfigError, match=r"^model\.layout: given .*\(stuck at '.*more than 10000 layers'\)"):
        parse_layout(text)


def test_the_largest_layout():
    assert len(parse_layout("[a x 4999, b] x 2")) == 10_000
    assert len(parse_layout("parallel(a, b) x 5000")) == 5000


@pytest.mark.parametrize("name", ["my-mixer", "x.y"])
def test_a_mixer_registered_under_a_name_that_no_layout_can_hold_is_told(name):
    with pytest.raises(ConfigError, match=rf"\(stuck at '{name}'\)\"; allowed: mixers with names of letters, digits"):
        parse_layout(f"{name} x 2, attention", names=["attention", name])
    assert len(parse_layout("mamba2 x 2, attention", names=["attention", "mamba2", name])) == 3
