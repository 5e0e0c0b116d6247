"""The contract of tasks, over everything registered and the toy: samples of training and probing are apart, lengths
are exact, texts come back, and what the axes declare is what can be built.
"""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from lcprobe.choices import Registry
from lcprobe.errors import ConfigError
from lcprobe.seeds import Stream
from lcprobe.tasks import TASKS
from lcprobe.tasks.assembly import Axes, Task
from lcprobe.tasks.episode import SUITE, Factors, Formats
from lcprobe.tasks.names import CONTROLS, HAYSTACKS, KINDS, NOTHING
from lcprobe.tasks.parts import layout
from lcprobe.tasks.presets import choose_task
from tests.tasks.checks import check_exact, check_shortest
from tests.toys import TOYS, registered
from validation.variants import variants

pytestmark = pytest.mark.usefixtures("small_pools")
TOY_TASKS = [name for name, (registry, _) in TOYS.items() if registry is TASKS]
NAMES = [*TASKS, *TOY_TASKS]
CASES = {**{name: {"type": name} for name in NAMES}, **variants()}
LEVELS = {"haystack": HAYSTACKS, "key": KINDS, "value": KINDS, "control": CONTROLS}
N = 6


@pytest.fixture(autouse=True, scope="module")
def _toys():
    with registered(*TOY_TASKS):
        yield


@cache
def built_task(name, materials) -> tuple[Task, Formats]:
    choice = choose_task(CASES[name], "task")
    task = choice.create(materials)
    wanted = {"haystack": "corpus", "key": "words", "value": "numbers", **choice.formats}
    levels = [wanted[f] if wanted[f] in task.axes.levels(f) else task.axes.levels(f)[0] for f in wanted]
    return task, Formats(*levels)


def enough(task, formats, control="none", split="probe"):
    """A length at which the first samples exist."""
    factors = [Factors(formats, 1, 0.5, index, control, split) for index in range(2 * N)]
    return max(map(task.shortest, factors)) + 40


@pytest.mark.parametrize("name", NAMES)
def test_a_task_declares_what_others_read(name, all_haystacks):
    assert TASKS.contract == "lcprobe.tasks.assembly:Task"
    task, _ = built_task(name, all_haystacks["shipped"])
    assert isinstance(task, Task)
    assert isinstance(task.axes, Axes)
    assert isinstance(task.has_keys, bool)
    assert isinstance(task.solved_by, tuple)
    assert isinstance(task.text_digest, str)


def test_a_class_that_is_no_task_is_refused():
    registry = Registry(TASKS.contract, {"path": "pathlib:Path"})
    with pytest.raises(TypeError, match="subclass of lcprobe.tasks.assembly:Task"):
        registry.load("path")


def test_tasks_share_no_name_unless_one_is_a_case_of_the_other():
    classes = [TASKS.load(name) for name in NAMES]
    for a in classes:
        for b in classes:
            assert a.name != b.name or issubclass(a, b) or issubclass(b, a)


@pytest.mark.parametrize("name", CASES)
def test_training_and_probing_share_no_sample(name, all_haystacks, monkeypatch):
    """Every draw of a sample is under a key with the suite, its split and its index; so the samples of two splits
    differ.
    """
    task, formats = built_task(name, all_haystacks["shipped"])
    keys, orders = [], []
    init, permuted = Stream.__init__, layout.permuted
    monkeypatch.setattr(Stream, "__init__", lambda self, *parts: [keys.append(parts), init(self, *parts)][1])
    monkeypatch.setattr(layout, "permuted", lambda i, n, *key: [orders.append(key), permuted(i, n, *key)][1])
    assert SUITE in task.seed_names
    length = max(enough(task, formats, split=split) for split in ("probe", "train"))
    samples = {}
    for split in ("probe", "train"):
        for index in range(N):
            keys.clear()
            orders.clear()
            samples[split, index] = task.episode(Factors(formats, length, 0.5, index, split=split))
            of_sample = [parts[: parts.index("/")] for parts in keys if "/" in parts]
            assert of_sample
            assert set(of_sample) == {(*task.seed_names, split, index)}
            assert all(key[: len(task.seed_names) + 1] == (*task.seed_names, split) for key in orders)
    digests = {split: {samples[split, index].digest for index in range(N)} for split in ("probe", "train")}
    assert not digests["probe"] & digests["train"]
    # of a small file at the least length, two samples of one split may be the same question
    assert all(len(own) >= N - 1 for own in digests.values())


@pytest.mark.parametrize("which", ["shipped", "llama"])
@pytest.mark.parametrize("name", CASES)
def test_exact_at_the_least_length_and_above_and_one_line_below(name, which, all_haystacks):
    materials = all_haystacks[which]
    task, formats = built_task(name, materials)
    for number, control in enumerate(task.axes.controls):
        base = Factors(formats, 1, 0.3, number, control)
        least = task.shortest(base)
        if control != "query_only":
            assert check_shortest(task, base) == least
        for length in (least, least + 1, 2 * least + 37):
            episode = check_exact(task, materials.tokenizer, replace(base, length=length))
            if control == "query_only":
                assert episode.needles == ()
            if control in ("query_only", "no_needle"):
                assert episode.queries[0].needle is None


@pytest.mark.parametrize("name", NAMES)
def test_the_axes_are_what_can_be_built(name, all_haystacks):
    materials = all_haystacks["shipped"]
    task, formats = built_task(name, materials)
    base = Factors(formats, 1, 0.5, 1)
    for factor, known in LEVELS.items():
        for level in (*known, NOTHING):
            factors = replace(base, control=level) if factor == "control" else replace(
                base, formats=replace(formats, **{factor: level})
            )  # fmt: skip
            if level in task.axes.levels(factor):
                length = task.shortest(factors) + 60
                check_exact(task, materials.tokenizer, replace(factors, length=length))
                continue
            key = factor if factor == "control" else f"formats.{factor}"
            for build in (task.episode, task.shortest):
                with pytest.raises(ConfigError, match=rf"^{key}: given '{level}'; allowed: "):
                    build(factors)


@pytest.mark.parametrize("name", NAMES)
def test_depth_moves_the_target_where_there_is_one(name, all_haystacks):
    task, formats = built_task(name, all_haystacks["shipped"])
    length = 2 * enough(task, formats)
    for index in range(N):
        first, last = (task.episode(Factors(formats, length, depth, index)) for depth in (0.0, 1.0))
        if task.axes.depth:
            assert first.realised_depth < 0.1
            assert last.realised_depth > 0.5
        else:
            assert np.array_equal(first.ids, last.ids)


@pytest.mark.parametrize("name", NAMES)
def test_controls_do_what_they_are_named_after(name, all_haystacks):
    materials = all_haystacks["shipped"]
    task, formats = built_task(name, materials)
    for index in range(N):
        length = max(task.shortest(Factors(formats, 1, 0.0, index, c)) for c in task.axes.controls) + 100
        plain, *others = (task.episode(Factors(formats, length, 0.0, index, c)) for c in task.axes.controls)
        for control, episode in zip(task.axes.controls[1:], others, strict=True):
            assert episode.queries[0].answer == plain.queries[0].answer
            if control == "zero_distance":
                assert episode.queries[-1].distance <= plain.queries[-1].distance
            if control == "wrong_key":
                assert episode.queries[0].key != plain.queries[0].key
