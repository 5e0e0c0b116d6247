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
