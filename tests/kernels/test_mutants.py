"""The table of mutants fits the kernels, and the runner tells a fault that the tests see from one that they do not."""

import ast
from collections import Counter

import pytest
from lcprobe_kernels import OPS

import validation.mutants as runner
from lcprobe.errors import ConfigError
from lcprobe.files import read_json
from validation.mutants import MUTANTS, ROOT, judged
from validation.mutants.mutant import TESTS, Mutant
from validation.mutants.workers import Order, Outcome


@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda m: f"{m.file}: {m.old[:40]}")
def test_a_mutant_is_one_replacement_that_is_still_a_program(mutant):
    ast.parse(mutant.applied((ROOT / mutant.path).read_text(encoding="utf-8")))


def test_there_are_mutants_of_every_op():
    counts = Counter(mutant.op for mutant in MUTANTS)
    assert set(counts) == {*OPS, "shared"}
    assert all((ROOT / test).is_file() for tests in TESTS.values() for test in tests)
    assert len(set(MUTANTS)) == len(MUTANTS) >= 60


def test_the_runner_puts_the_file_back_and_tells_what_survived(tmp_path, monkeypatch):
    path = tmp_path / "kernels/lcprobe_kernels/packed.py"
    path.parent.mkdir(parents=True)
    path.write_text("x = 1\n")
    seen = []

    def tested(code, without=0):
        def run(tests, copy, seconds, order):
            seen.append(path.read_text())
            code_here = code if "2" in seen[-1] else without
            return Outcome(code_here, "a.py::test_x" if code_here else "", 0.0)

        monkeypatch.setattr(runner, "tested", run)

    mutant = Mutant("packed.py", "x = 1", "x = 2")
    for code, given, verdict in (
        (1, mutant, "killed"),
        (None, mutant, "killed"),
        (0, mutant, "SURVIVED"),
        (0, Mutant("packed.py", "x = 1", "x = 2", "as good"), "equivalent"),
    ):
        tested(code)
        assert judged(given, tmp_path, 1, Order(sound={"a.py::test_x"}))["verdict"] == verdict
        assert path.read_text() == "x = 1\n"
    assert seen == ["x = 2\n"] * 4
    tested(1)
    order = Order()
    assert [judged(mutant, tmp_path, 1, order)["by"] for _ in range(2)] == ["a.py::test_x"] * 2
    assert seen[4:] == ["x = 2\n", "x = 1\n", "x = 2\n"]  # the test is tried without a mutant, once
    tested(1, without=1)
    with pytest.raises(ConfigError, match="a test that passes without one"):
        judged(mutant, tmp_path, 1, Order())
    tested(2)
    with pytest.raises(ConfigError, match="tests that run"):
        judged(mutant, tmp_path, 1, Order())
    with pytest.raises(ConfigError, match="0 x 'y'"):
        judged(Mutant("packed.py", "y", "z"), tmp_path, 1, Order())


def test_the_committed_table_is_of_these_mutants_and_none_survived():
    def of_row(op, file, old, new):
        return op, file, " ".join(old.split()), " ".join(new.split())

    rows = read_json(ROOT / "validation/results/mutants-cpu.json")["rows"]
    known = {of_row(m.op, m.path.rpartition("/")[2], m.old, m.new) for m in MUTANTS}
    assert {of_row(row["op"], row["file"], row["old"], row["new"]) for row in rows} == known
    assert not [row for row in rows if row["verdict"] == "SURVIVED"]


def test_what_kills_often_and_takes_little_runs_first():
    order = Order(Counter({"slow killer": 3, "killer": 2}), {"slow killer": 30.0, "killer": 1.0, "quick": 0.25})
    assert sorted(["unknown", "quick", "slow killer", "killer"], key=lambda test: order.rank(test, 1.0)) == [
        "killer", "quick", "unknown", "slow killer"
    ]  # fmt: skip
