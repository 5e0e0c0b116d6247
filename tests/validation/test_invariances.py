"""The matrix of invariances finds a fault in each column, has a row for everything, and is the page's."""

import json

import pytest

from lcprobe.models.mixers import MIXERS
from lcprobe.models.token_context import TokenContext
from tests.toys import registered
from tests.toys.mixer import MovingAverage, MovingAverageState
from validation import invariances
from validation.invariances import is_right, is_silently_wrong, our_rows, outcome
from validation.invariances.checks import COLUMNS, WrongShape
from validation.invariances.ours import CONFIGS, Ours, built, mixer_model, models
from validation.invariances.page import PAGE, RESULTS, with_tables
from validation.invariances.peer_models import SETTINGS
from validation.invariances.peers import NotOffered

forward = MovingAverage.forward


def without_starts(where):
    return TokenContext(where.positions)


def forgets_between_chunks(self, x, where, state=None):
    """As classes do that have a step and a prefill, and nothing between them."""
    return forward(self, x, where, state if state is None or x.shape[1] == 1 else self.new_state(len(x)))


def forgets_between_tokens(self, x, where, state=None):
    return forward(self, x, where, state if state is None or x.shape[1] > 1 else self.new_state(len(x)))


def ignores_starts(self, x, where, state=None):
    return forward(self, x, without_starts(where), state)


def ignores_starts_with_a_state(self, x, where, state=None):
    return forward(self, x, where if state is None else without_starts(where), state)


def gradients_cross_starts(self, x, where, state=None):
    y, after = forward(self, x, where, state)
    crossing = forward(self, x, without_starts(where), state)[0]
    return y + crossing - crossing.detach(), after


def sees_what_follows(self, x, where, state=None):
    y, after = forward(self, x, where, state)
    return y + 0.01 * x.mean(1, keepdim=True), after


FAULTS = {
    "any chunking": forgets_between_chunks,
    "token by token": forgets_between_tokens,
    "packed documents": ignores_starts,
    "gradients of packed": gradients_cross_starts,
    "right-padded": sees_what_follows,
    "left-padded": ignores_starts_with_a_state,
}


def subject_of_the_toy():
    with registered("toy_mixer"):
        return Ours(built(mixer_model("toy_mixer", {}, 24)))


def test_a_sound_mixer_is_right_in_every_column():
    subject = subject_of_the_toy()
    assert {column for column, check in COLUMNS.items() if not check(subject) <= 1e-9} == set()


@pytest.mark.parametrize("column", FAULTS)
def test_a_fault_is_found_in_its_column(column, monkeypatch):
    monkeypatch.setattr(MovingAverage, "forward", FAULTS[column])
    assert COLUMNS[column](subject_of_the_toy()) > 1e-3


def test_a_fault_of_the_backward_pass_is_found_by_gradients_alone(monkeypatch):
    monkeypatch.setattr(MovingAverage, "forward", gradients_cross_starts)
    subject = subject_of_the_toy()
    assert {c for c, check in COLUMNS.items() if check(subject) > 1e-9} == {"gradients of packed"}


def test_rows_in_a_wrong_order_are_found(monkeypatch):
    mapped = MovingAverageState._map

    def reversed_rows(self, change):
        return MovingAverageState(mapped(self, change).h.flip(0))

    monkeypatch.setattr(MovingAverageState, "_map", reversed_rows)
    assert COLUMNS["fork and rows"](subject_of_the_toy()) > 1e-3


def test_every_mixer_and_every_pattern_has_a_row():
    names = dict(models())
    with registered("toy_mixer"):
        newcomers = set(dict(models())) - set(names)
    assert newcomers == {"toy_mixer"}
    assert {name for name in MIXERS if not any(row.split()[0] == name for row in names)} == set()
    assert {f"configs/model/{path.name}" for path in CONFIGS.glob("*.yaml")} <= set(names)


@pytest.mark.parametrize(
    "name",
    [pytest.param(n, marks=() if "griffin" in n or "hymba" in n else pytest.mark.slow) for n in dict(models())],
)
def test_ours_are_right_in_both_dtypes(name):
    """The contract tests have every mixer in float64."""
    for row in our_rows(name, dict(models())[name]):
        assert row["right"] == f"{len(COLUMNS)} of {len(COLUMNS)}", row


def failing(error):
    def check(subject):
        raise error

    return check


def test_refusals_are_told_apart_from_wrong_numbers():
    refused = outcome(failing(ValueError("no packing here\nat all")), None)
    assert refused == "refuses: ValueError: no packing here"
    assert outcome(failing(NotOffered()), None) == "not offered"
    shape = outcome(failing(WrongShape("(3, 3) instead of (3, 1)")), None)
    cells = (refused, "not offered", shape, 2e-5, float("inf"), 1e-6)
    assert [is_right(cell, "float32") for cell in cells] == [False] * 5 + [True]
    assert [is_silently_wrong(cell, "float32") for cell in cells] == [False, False, True, True, True, False]
    assert not is_right(1e-6, "float64")


def test_transformers_classes_are_measured_as_they_are():
    """Whatever a later version repairs: a leak is a number, a right cell is one within the tolerance."""
    pytest.importorskip("transformers")
    usual, explicit = invariances.peer_rows("llama")
    assert is_right(usual["packed documents"], "float32")
    assert is_right(explicit["right-padded"], "float32")
    mamba = invariances.peer_rows("mamba")[1]
    assert is_right(mamba["token by token"], "float32")
    assert all(isinstance(mamba[column], float | str) for column in COLUMNS)


def test_the_page_has_the_tables_of_the_results_and_these_every_mixer():
    page = PAGE.read_text(encoding="utf-8")
    results = json.loads(RESULTS.read_text(encoding="utf-8"))
    measured = {row["model"].split()[0] for row in results["rows"]}
    assert {*MIXERS, *SETTINGS} <= measured
    assert with_tables(page, results) == page
    assert with_tables(page, {**results, "notes": ["another"]}) != page
