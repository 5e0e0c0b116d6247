"""Gates (is there anything to interpret?) and extrapolation (how far past the training length?)."""

from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from lcprobe.analysis.findings.extrapolation import Extrapolation, extrapolations
from lcprobe.analysis.findings.families import corrected
from lcprobe.analysis.findings.gates import Gate, closed_panels, gates
from lcprobe.analysis.findings.load_records import load_records
from lcprobe.analysis.findings.results import analyse
from lcprobe.analysis.inputs import StudyFacts
from lcprobe.analysis.stats.estimates import Proportion
from tests.analysis.fabricated import DEPTHS, FORMAT, flat, plan, records, run, study, task, with_column

LENGTHS = (64, 128, 256, 512)


def gate(behaviour, tasks=("single", 1), n=100) -> Gate:
    cells = plan([tasks[0]], lengths=LENGTHS, n=n) + plan([tasks[0]], lengths=[128], n=n, control="wrong_key")
    for control in ("zero_distance", "no_needle"):
        cells += plan([tasks[0]], lengths=[128, 512], depths=[0.5], n=n, control=control)
    facts = study([run("m")], [task(*tasks)], cells)
    return gates(load_records(facts, records({"m": behaviour}, cells)))[0]


def extrapolations_of(facts: StudyFacts, table: pa.Table) -> list[Extrapolation]:
    data = load_records(facts, table)
    return corrected(extrapolations(data, closed_panels(gates(data))))


def extrapolation(behaviour, lengths=LENGTHS, **changes) -> Extrapolation:
    cells = plan(["single"], lengths=lengths)
    facts = study([run("m", **changes)], [task("single")], cells)
    return extrapolations_of(facts, records({"m": behaviour}, cells))[0]


def by_control(none: float, zero: float, without: float, wrong: float):
    def behaviour(c):
        p = np.where(c["control"] == "zero_distance", zero, none)
        p = np.where(c["control"] == "no_needle", without, p)
        return np.where(c["control"] == "wrong_key", wrong, p)

    return behaviour


def test_the_zero_distance_control_decides_the_gate():
    assert gate(by_control(0.9, 0.95, 0.0, 0.1)).acquired == "acquired"
    failed = gate(
        lambda c: (c["control"] == "zero_distance") & (c["index"] < 56)
    )  # .56 is above the middle, but not by its lower bound
    assert (failed.acquired, failed.acquired_above) == ("not acquired", 0.5)
    assert gate(by_control(0.9, 0.7, 0.6, 0.1)).acquired == "not acquired"  # .6 is scored without any needle
    cells = plan(["single"], lengths=LENGTHS)
    bare = gates(load_records(study([run("m")], [task("single")], cells), records({"m": flat(0.9)}, cells)))[0]
    assert (bare.acquired, bare.controls) == ("not tested", {})


@pytest.mark.parametrize(("accuracy", "verdict"), [(0.9, "acquired"), (0.45, "partly"), (0.22, "not acquired")])
def test_key_lookup_is_judged_by_skill_above_chance(accuracy, verdict):
    result = gate(by_control(accuracy, 0.95, 0.0, 0.2), ("multikey", 4))
    assert (result.lookup, result.chance, result.copies) == (verdict, 0.25, None)
    assert result.skill is not None
    assert result.skill.value == pytest.approx((accuracy - 0.25) / 0.75, abs=0.08)


def copier(c):
    """Prints the last value: right where the target is the last, whatever key is asked for."""
    return np.where(
        c["control"] == "zero_distance", 0.95, np.where(c["control"] == "no_needle", 0.0, c["depth"] ** 3)
    )


def test_a_copier_of_the_last_value_has_not_acquired_look_up():
    """It is above stated chance on this grid; nothing is claimed about how it uses the context."""
    result = gate(copier, ("multikey", 4), n=250)
    assert isinstance(result.accuracy, Proportion)
    assert result.accuracy.low > 0.25
    assert (result.lookup, result.closed) == ("not acquired", "key look-up not acquired")


def test_a_task_whose_control_was_not_run_is_not_tested():
    cells = plan(["multikey"], lengths=LENGTHS) + plan(["multikey"], lengths=[64], control="wrong_key")
    (facts,) = [task("multikey", 4)]
    results = analyse(study([run("m")], [facts], cells), records({"m": copier}, cells))
    (one,) = results.gates
    assert one.lookup == one.closed == "not tested (no wrong_key control at 128 tokens)"
    assert {c.refused for c in results.of("length", "primacy", "lost in the middle")} == {one.closed}
    assert results.extrapolations[0].effective is None
    assert results.reaches[0].refused == one.closed
    named = plan(["multikey"], lengths=LENGTHS)
    known = study([run("m")], [replace(facts, controls=("none", "wrong_key"))], named)
    assert gates(load_records(known, records({"m": copier}, named)))[0].closed == one.closed
    without = study([run("m")], [facts], named)  # a task without that control: against stated chance
    assert gates(load_records(without, records({"m": flat(0.9)}, named)))[0].lookup == "acquired"


def test_one_key_among_lines_with_keys_is_looked_up():
    """`single` in a haystack of needles: chance is 1 / lines, and a copier of the last line is no retriever, by its
    control, as with several keys. In other haystacks of the same task the one value is copied."""
    cells = plan(["single"], [("needles", *FORMAT[1:])], LENGTHS)
    controls = plan(["single"], [("needles", *FORMAT[1:])], LENGTHS, control="wrong_key")
    zero = plan(["single"], [("needles", *FORMAT[1:])], [128], [0.5], control="zero_distance")
    facts = study([run("m")], [task("single")], [*cells, *controls, *zero])
    results = analyse(facts, records({"m": copier}, facts.expected_cells, chance=0.05))
    (one,), (length,), (reach,) = results.gates, results.extrapolations, results.reaches
    assert isinstance(one.accuracy, Proportion)
    assert one.accuracy.low > 0.05
    assert (one.lookup, one.copies) == ("not acquired", None)
    assert (length.effective, reach.refused) == (None, one.closed)
    assert not any(c.resolved for c in results.contrasts)
    known = study([run("m")], [replace(task("single"), controls=("none", "wrong_key"))], [*cells, *zero])
    bare = analyse(known, records({"m": copier}, known.expected_cells, chance=0.05)).gates[0]
    assert bare.closed == "not tested (no wrong_key control at 128 tokens)"


def test_a_model_that_prints_the_value_for_any_key_copies():
    assert gate(by_control(0.95, 0.95, 0.0, 0.94)).copies is True
    assert gate(by_control(0.95, 0.95, 0.0, 0.5)).copies is False
    assert gate(by_control(0.95, 0.95, 0.0, 0.94)).lookup is None  # nothing to look up among one


def test_effective_length_is_the_longest_whose_lower_bound_holds():
    step = extrapolation(lambda c: np.where(c["length"] <= 256, 0.9, 0.5))
    assert (step.reference_length, step.effective, step.multiple, step.at_least) == (128, 256, 2.0, False)
    assert str(step) == "256 tokens = 2 x the training length"
    flat_model = extrapolation(flat(0.9))
    assert str(flat_model) == ">= 512 tokens = >= 4 x the training length"
    gap = extrapolation(lambda c: np.where(c["length"] == 256, 0.5, 0.9))
    assert (gap.effective, gap.at_least) == (128, False)  # 512 tokens are never reached past a length that fails


def test_an_effective_length_is_a_limit_only_where_a_longer_length_is_resolved_below():
    cells = plan(["single"], lengths=LENGTHS, n=60)
    slightly_below = lambda c: np.where(c["length"] <= 256, 0.9, 0.78)  # noqa: E731
    facts = study([run("m")], [task("single")], cells)
    unresolved = extrapolations_of(facts, records({"m": slightly_below}, cells))[0]
    assert (unresolved.effective, unresolved.at_least) == (256, True)
    assert str(unresolved) == ">= 256 tokens = >= 2 x the training length (whether 512 passes is not resolved)"


def test_the_base_is_the_best_accuracy_up_to_the_training_length():
    fixed = lambda c: np.where(c["length"] <= 128, 0.9, 0.3)  # noqa: E731
    trained_longer = extrapolation(fixed, context_length=512)
    assert (trained_longer.reference_length, trained_longer.base_length) in {(512, 64), (512, 128)}
    assert (trained_longer.effective, trained_longer.at_least) == (128, False)  # 512 would be 0.85 of itself
    assert extrapolation(flat(0.9), context_length=200).reference_length == 128
    short = extrapolation(flat(0.9), context_length=32)
    assert (short.base_length, short.reference_length) == (64, 64)
    assert short.note == "base: 64 tokens, no length up to the training length"


def test_the_level_is_on_the_way_from_chance_to_the_base():
    """0.9 at chance 0.25: 0.8 of the way is below 0.85 of it, though 0.77 is above 0.85 x 0.9."""
    cells = plan(["multikey"], lengths=LENGTHS, n=400)
    facts = study([run("m")], [task("multikey", 4)], cells)
    behaviour = lambda c: np.where(c["length"] <= 256, 0.9, 0.77)  # noqa: E731
    (result,) = extrapolations_of(facts, records({"m": behaviour}, cells))
    assert (result.effective, result.at_least) == (256, False)
    assert result.level == pytest.approx(0.25 + 0.85 * 0.65, abs=0.02)


def test_ratio_to_the_reference_length_has_an_interval_with_the_truth():
    result = {
        length: ratio
        for length, _, ratio in extrapolation(lambda c: np.where(c["length"] == 512, 0.4, 0.8)).by_length
    }
    assert result[512] is not None
    assert result[512].low < 0.5 < result[512].high
    assert result[512].high - result[512].low < 0.2


def test_no_effective_length_from_the_floor_or_from_too_few_samples():
    assert extrapolation(flat(0.02)).note == "not testable (floor)"
    cells = plan(["single"], lengths=LENGTHS, n=8)
    facts = study([run("m")], [task("single")], cells)
    unresolved = extrapolations_of(facts, records({"m": flat(0.06)}, cells))[0]
    assert unresolved.effective is None
    assert unresolved.note.startswith("not resolved")


def test_an_incomplete_base_is_reported():
    cells = plan(["single"], lengths=LENGTHS, depths=DEPTHS)
    table = records({"m": flat(0.9)}, cells)
    failed = (np.array(table["length"]) == 128) & (np.array(table["index"]) == 0)
    table = with_column(table, "status", np.where(failed, "oom", "ok"))
    result = extrapolations_of(study([run("m")], [task("single")], cells), table)[0]
    assert (result.effective, result.note) == (None, "base at 128 tokens: incomplete (0 of 5 cells)")
