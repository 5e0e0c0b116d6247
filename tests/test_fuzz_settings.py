"""Settings that a field cannot have end as one line with exit code 2 or as a valid plan, whatever the field; more of
them by `python -m validation fuzz`."""

import sys
from pathlib import Path

import pytest

from validation import fuzz

PER_FIELD, EVERY = 1, 12


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    return fuzz.base_study(tmp_path_factory.mktemp("fuzz"))


def test_the_study_that_is_changed_can_be_planned(config):
    done = fuzz.run(fuzz.Case("seed", "number", "seed=3"), config)
    assert (done.code, done.fault) == (0, "")


@pytest.mark.parametrize("case", fuzz.cases(PER_FIELD)[::EVERY], ids=lambda case: f"{case.where} {case.kind}")
def test_a_field_with_a_value_that_it_may_not_have(config, case):
    assert fuzz.run(case, config).fault == "", case.override


@pytest.mark.parametrize("case", fuzz.size_cases(), ids=lambda case: case.override[:40])
def test_a_size_that_nothing_can_have(config, case):
    assert fuzz.run(case, config).fault == "", case.override[:200]


@pytest.mark.slow
def test_every_field(config):
    faults = [(done.case.override, done.fault) for done in (fuzz.run(case, config) for case in fuzz.cases(2))]
    assert not [(override, fault) for override, fault in faults if fault]


def test_every_field_has_every_value():
    kinds: dict[str, set[str]] = {}
    for case in fuzz.cases():
        kinds.setdefault(case.where, set()).add(case.kind)
    assert all(own == set(fuzz.VALUES) for own in kinds.values())
    for name in ("train.lr", "probe.grids[0].depths", "mixers.mamba2.dt_limit", "encodings.rope.base", "tasks.type"):
        assert name in kinds


def _raises(words):
    raise ZeroDivisionError("a defect")


def _writes(words):
    (Path(words[0]).parent / "left").write_text("")
    return 0


@pytest.mark.parametrize(
    ("command", "fault"),
    [
        (lambda words: print("error: x") or 1, "exit 1"),
        (lambda words: print("error: x") or 2, "1 lines, 0 characters"),
        (lambda words: print("x", file=sys.stderr) or 2, "no `error:`"),
        (_raises, "ZeroDivisionError: a defect"),
        (_writes, "something was written"),
    ],
    ids=["exit", "stdout", "words", "traceback", "writes"],
)
def test_faults_are_seen(config, monkeypatch, command, fault):
    monkeypatch.setattr(fuzz, "train_main", command)
    assert fault in fuzz.run(fuzz.Case("seed", "nan", "seed=.nan"), config).fault
