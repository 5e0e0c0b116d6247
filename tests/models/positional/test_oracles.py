"""Encodings, extensions and mixers equal their equations and their peers: every row of `python -m validation oracles`."""

import itertools

import pytest
import torch

from lcprobe.errors import ConfigError
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.mixers import MIXERS
from lcprobe.models.positional import POSITIONAL
from tests.toys import registered
from validation.oracles import COMPARISONS, comparison_rows, measure
from validation.oracles.cases import (
    CONTEXT,
    FACTOR,
    SINGLE,
    build_encoding,
    equation_inputs,
    label,
    mixer_under,
    outputs,
    random_inputs,
)
from validation.oracles.encodings import FORMULAS, attend
from validation.oracles.equations import ATTENTION_METHODS, ENCODINGS, SCANS
from validation.oracles.extensions import attention_under
from validation.oracles.missing import WHOLE_MODELS, missing
from validation.oracles.mixers import KINDS


@pytest.mark.parametrize("name", COMPARISONS)
def test_differences_are_within_tolerance(name):
    try:
        rows = comparison_rows(name)
    except ImportError as error:
        pytest.skip(f"{name}: {error}")
    assert rows
    beyond = [row for row in rows if not row["max abs difference"] <= row["tolerance"]]
    assert not beyond, "\n".join(map(str, beyond))


def test_everything_registered_has_its_equation():
    """Whoever registers something is told what to write for it."""
    assert missing() == {}
    assert {kind["type"] for kind in ENCODINGS} >= set(POSITIONAL)
    assert {kind["type"] for kind in ATTENTION_METHODS + SCANS} <= set(EXTENSIONS)
    assert {kind["type"] for kind in KINDS} | set(WHOLE_MODELS) <= set(MIXERS)
    assert not {kind["type"] for kind in KINDS} & set(WHOLE_MODELS)


def test_something_without_oracle_is_told_what_to_write(monkeypatch):
    monkeypatch.setitem(COMPARISONS, "frequencies", (None, lambda dtype: iter(())))
    with registered("toy_encoding", "toy_mixer", "toy_extension"):
        rows = {row["what"]: row["compared"] for row in measure({"only": "frequencies"})}
    assert rows["toy_encoding"].startswith(
        "write its equation in validation/oracles/encodings.py: `def toy_encoding("
    )
    assert "validation/oracles/extensions.py" in rows["toy_extension"]
    assert "validation/oracles/recurrences.py" in rows["toy_mixer"]


@pytest.mark.parametrize("mixer", WHOLE_MODELS)
def test_the_outside_model_of_a_mixer_has_it(mixer):
    package, compare = COMPARISONS[WHOLE_MODELS[mixer]]
    assert package
    pytest.importorskip(package)
    first = next(compare(torch.float32))
    assert first.name.split()[0] == mixer
    assert first.what == "logits, 1 tokens"


IN_ATTENTION = [kind for kind in ENCODINGS if build_encoding(kind).family != "absolute"]


@pytest.mark.parametrize("kind", IN_ATTENTION, ids=map(label, IN_ATTENTION))
def test_windows_hide_keys(kind):
    e, inputs = build_encoding(kind), random_inputs(n=24)
    assert (
        outputs(e, inputs, window=5) - FORMULAS[kind["type"]](equation_inputs(e, inputs, window=5))
    ).abs().max() < 1e-12


def test_equations_of_encodings_and_methods_differ_from_each_other():
    """Otherwise equality with an equation would mean little."""
    inputs = random_inputs()
    by_name = {
        label(kind): FORMULAS[kind["type"]](equation_inputs(build_encoding(kind), inputs)) for kind in ENCODINGS
    }
    for kind in ATTENTION_METHODS:
        layer, config = mixer_under(kind, "attention+mlp", torch.float64)
        by_name[label(kind)] = attention_under(
            kind["type"], equation_inputs(layer.positional, inputs, config=config, length=CONTEXT), FACTOR
        )
    by_name.pop("drop")  # equals none
    for (a, x), (b, y) in itertools.combinations(by_name.items(), 2):
        assert x.shape != y.shape or (x - y).abs().max() > 1e-3, f"{a}, {b}"


@pytest.mark.parametrize("window", [None, 5])
def test_a_toy_encoding_equals_its_equation(window):
    """What a newcomer's encoding needs: the file, and one formula."""
    with registered("toy_encoding"):
        e, inputs = build_encoding({"type": "toy_encoding", "strength": 0.5}), random_inputs(n=24)
    g = equation_inputs(e, inputs, window=window)
    expected = attend(g, g.scores - g.c.strength * torch.log1p(g.distance.clamp_min(0)))
    assert (outputs(e, inputs, window=window) - expected).abs().max() < SINGLE


def test_a_missing_peer_is_a_row_and_a_wrong_name_a_line(monkeypatch):
    def gone(dtype):
        raise ImportError("No module named 'x_transformers'")

    monkeypatch.setitem(COMPARISONS, "x-transformers", ("x-transformers", gone))
    (row,) = measure({"only": "x-transformers"})
    assert row["compared"] == "not compared: No module named 'x_transformers'"
    with pytest.raises(ConfigError, match="only: given 'x-transformer'"):
        measure({"only": "x-transformer"})
