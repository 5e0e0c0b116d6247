"""Help on narrow terminals: within the width, no word lost, columns and examples kept apart."""

import pytest

from lcprobe.cli.help import INTRODUCTIONS, help_of
from lcprobe.cli.pages import KINDS, LISTS, page
from lcprobe.cli.reflow import fitted


def texts() -> dict[str, str]:
    found = {command: help_of(command, None) for command in INTRODUCTIONS}
    found |= {word: page(word) for word in LISTS if word != "policies"}
    return found | {name: page(name) for name in ("yarn", "niah", "attention", "rope", "mamba2", "passed")}


@pytest.mark.parametrize("width", [60, 80, 100])
def test_help_fits_and_says_the_same(width):
    for name, text in texts().items():
        shown = fitted(text, width)
        assert shown.split() == text.split(), name
        too_long = [line for line in shown.splitlines() if len(line) > width]
        assert all(len(line.split()) == 1 for line in too_long), (name, too_long)  # a word is never broken


def test_examples_and_terms_begin_lines_of_their_own():
    lines = [line.strip() for line in fitted(help_of("evaluate", None), 80).splitlines()]
    for start in (
        "lcprobe evaluate runs/quickstart/s0-mamba2 --frozen",
        "--cheat  ",
        "CHECKPOINT  ",
        "study.folder: text",
    ):
        assert any(line.startswith(start) for line in lines), start


def test_equations_stay_as_they_are():
    assert "\n    y_i = sum_j softmax_j(q_i . k_j / sqrt(head_dim)) v_j,   j <= i\n" in fitted(page("attention"), 80)
    assert "\n                      hf: s' = s n / L - (s - 1)     length: s' = n / L\n" in fitted(page("yarn"), 80)


def test_a_wide_terminal_changes_nothing():
    text = page("yarn")
    assert fitted(text, max(map(len, text.splitlines()))) == text


def test_every_setting_of_everything_registered_has_a_meaning_and_a_default():
    from lcprobe.schema import describe_fields

    for kind in KINDS.values():
        for name in kind.registry:
            for key, _, default, meaning in describe_fields(kind.registry.load(name).Config, ""):
                assert meaning.strip(), (name, key)
                assert isinstance(default, str), (name, key)
