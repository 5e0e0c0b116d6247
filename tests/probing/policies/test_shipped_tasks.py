"""No shipped task can be solved without retrieval: none of the policies exceeds its stated chance."""

from pathlib import Path

import pytest
import yaml

from lcprobe.analysis.stats.multiplicity import ALPHA
from lcprobe.probing.config import ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.policies.cheating import POLICIES
from lcprobe.probing.units import Unit
from lcprobe.schema import build
from lcprobe.studies.evaluation.leakage import run_policies
from lcprobe.tasks import TASKS
from lcprobe.tasks.episode import Factors, Formats

ROOT = Path(__file__).resolve().parents[3]


def shipped():
    """Every registered task as it is by default, and every task of a shipped config, each once."""
    every = {name: {"type": name} for name in TASKS}
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        tasks = (yaml.safe_load(path.read_text(encoding="utf-8")).get("probe") or {}).get("tasks") or {}
        every |= {f"{path.stem}:{name}": mapping for name, mapping in tasks.items() if mapping not in every.values()}
    return every


SHIPPED = shipped()


def task_set(materials, **tasks):
    return TaskSet(build(ProbeConfig, {"tasks": tasks}, "probe"), materials)


def formats_of(task):
    axes = task.axes
    wanted = {"haystack": "corpus", "key": "words", "value": "numbers"}
    return Formats(*(level if level in axes.levels(f) else axes.levels(f)[0] for f, level in wanted.items()))


KEPT = [name for name in SHIPPED if ":" not in name or name.startswith("ruler:")]
"""Every type of task and RULER's; the other settings, and more answers, are slow tests."""


@pytest.mark.parametrize(
    ("name", "answers"), [*((n, 20) for n in KEPT), *(pytest.param(n, 80, marks=pytest.mark.slow) for n in SHIPPED)]
)
def test_no_policy_exceeds_the_stated_chance_of_a_shipped_task(materials, name, answers):
    tasks = task_set(materials, it=SHIPPED[name])
    task = tasks.by_name["it"]
    formats = formats_of(task)
    least = max(task.shortest(Factors(formats, 1, 0.5, index)) for index in range(24))
    lengths = [max(128, least + least // 4 + 16), max(256, 2 * least + 64)]
    strata = 5 if task.axes.depth else 1
    units = [Unit("it", formats, length, "none", strata, answers // strata) for length in lengths]
    table, notes = run_policies(tasks, units)
    assert not notes
    assert len(table) == 2 * len(POLICIES)
    assert {c.policy for c in table if c.verdict == "the task"} == set(task.solved_by)
    assert {c.samples for c in table} == {answers // strata}
    # one alarm in twenty holds for one table: here are many
    assert not [c for c in table if c.p_holm < ALPHA / len(SHIPPED) and c.verdict != "the task"]


@pytest.mark.parametrize(
    ("haystack", "value"),
    [
        pytest.param(haystack, value, marks=() if (i + j) % 3 == 0 else pytest.mark.slow)
        for i, haystack in enumerate(("noise", "words", "needles"))
        for j, value in enumerate(("words", "hex", "uuids"))
    ],
)
def test_nor_in_any_format_of_needles(materials, haystack, value):
    tasks = task_set(materials, it={"type": "niah", "word_pairs": True})
    unit = Unit("it", Formats(haystack, "words", value), 420, "none", 5, 12)
    table, _ = run_policies(tasks, [unit])
    assert not [c for c in table if c.p_holm < ALPHA / 9]


@pytest.mark.slow
@pytest.mark.parametrize("task", [{}, {"n_queries": 4}, {"n_values": 2}, {"digits": 2, "template": "line"}])
def test_needles_at_a_thousand_samples(materials, task):
    """Enough to resolve three points: ranks of the target needle, and answers that occur in the haystack too often or too rarely."""
    tasks = task_set(materials, it={"type": "niah", "word_pairs": True, **task})
    units = [
        Unit("it", Formats(h, "words", "numbers"), L, "none", 5, 200)
        for h in ("corpus", "needles")
        for L in (260, 600)
        if (h, L) != ("needles", 600) or "digits" not in task  # there are not so many numbers of two digits
    ]
    table, _ = run_policies(tasks, units)
    assert len(table) == len(units) * len(POLICIES)
    assert not [c for c in table if c.p_holm < ALPHA / 4]
    for c in table:
        if c.policy == "random_value":
            assert abs(c.accuracy - c.chance) < 1.5 * (c.high - c.low) / 2, (
                "a guess scores the stated chance, no less"
            )
