"""The digest of a task's code: it changes with what runs, in any module that makes episodes, and with nothing else; and
what other code made is named and left out."""

import importlib
import sys

import pytest

from lcprobe.probing import grid as grid_module
from lcprobe.probing import task_code as code_module
from lcprobe.probing.runner import units_of_other_code
from lcprobe.probing.store import MemoryStore, Store
from lcprobe.probing.task_code import code_of, task_code
from lcprobe.tasks import TASKS
from tests.probing.test_runner import ByPlace, grid, run

TASK = '''"""A task."""

from apart.words import WORDS


class Own:
    """What is asked."""

    asks: int = 1
    """How many questions."""

    def text(self):
        # the first word
        return f"{WORDS[0]} {self.asks}"
'''
WORDS = 'WORDS = ["one", "two"]\n'


@pytest.fixture
def written(tmp_path, monkeypatch):
    """Digest of the class of a package on disk, as it is after an edit."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "apart").mkdir()

    def digest(task=TASK, words=WORDS):
        for name, text in (("__init__", ""), ("task", task), ("words", words), ("unused", words)):
            (tmp_path / "apart" / f"{name}.py").write_text(text)
        for cache in (code_module._module, code_module._source, code_module.task_code):
            cache.cache_clear()
        for name in [name for name in sys.modules if name.split(".")[0] == "apart"]:
            del sys.modules[name]
        importlib.invalidate_caches()
        return task_code(importlib.import_module("apart.task").Own)

    yield digest
    for name in [name for name in sys.modules if name.split(".")[0] == "apart"]:
        del sys.modules[name]


def test_what_runs_counts_and_what_is_said_about_it_does_not(written):
    base = written()
    for old, new in (
        ('"""A task."""', '"""A better task."""'),
        ("# the first word", "# the first one,\n        # always"),
        ('"""How many questions."""', '"""Questions per sample."""'),
        ('"""What is asked."""', '"""What\n    is asked."""'),
        ('f"{WORDS[0]} {self.asks}"', "f'{WORDS[0]} {self.asks}'"),
        ("return f", "return  f"),
    ):
        assert written(TASK.replace(old, new)) == base, new
    changed = [
        written(TASK.replace("asks: int = 1", "asks: int = 2")),
        written(TASK.replace("WORDS[0]", "WORDS[1]")),
        written(TASK.replace("{WORDS[0]} ", "{WORDS[0]}")),
        written(words=WORDS.replace("one", "ten")),
    ]
    assert len({base, *changed}) == 1 + len(changed)
    assert written() == base


def test_absent_parts_and_kinds_of_constants():
    assert code_of("def f(a):\n    return a") == code_of("def f(a):\n\n    '''Same.'''\n    return a  # it is\n")
    assert len({code_of(f"x = {value}") for value in ("1", "True", "1.0", "'1'", "b'1'", "None", "0", "[]")}) == 8


def test_a_task_depends_on_what_its_own_modules_import(monkeypatch):
    """An edit of one task's file leaves the records of the others alone; one of the frame leaves none."""
    cls = {name: TASKS.load(name) for name in ("niah", "cwe", "phonebook")}
    real = code_module._module
    before = {name: task_code(own) for name, own in cls.items()}

    def edited(part):
        task_code.cache_clear()
        monkeypatch.setattr(
            code_module,
            "_module",
            lambda path, name: ("edited", real(path, name)[1]) if name == part else real(path, name),
        )
        return {name for name, own in cls.items() if task_code(own) != before[name]}

    assert edited("lcprobe.tasks.cwe") == {"cwe"}
    assert edited("lcprobe.tasks.niah") == {"niah", "phonebook"}
    assert edited("lcprobe.tasks.parts.word_lists") == {"cwe"}
    for shared in (
        "lcprobe.tasks.assembly",
        "lcprobe.tasks.text.haystack",
        "lcprobe.seeds",
        "lcprobe.tasks.text.formats",
    ):
        assert edited(shared) == set(cls), shared
    task_code.cache_clear()


@pytest.mark.parametrize("on_disk", [True, False])
def test_units_of_other_code_are_named_and_made_again(tasks, tmp_path, monkeypatch, on_disk):
    store, few = Store(tmp_path) if on_disk else MemoryStore(), [grid(n=3)]
    plan, table = run(tasks, store, ByPlace(), few)
    assert units_of_other_code(plan, tasks, store) == []
    assert set(table["task_code"].to_pylist()) == {task_code(type(tasks.by_name["single"]))[:16]}
    monkeypatch.setattr(grid_module, "task_code", lambda cls: "feed" * 16)
    again = ByPlace()
    plan, new = run(tasks, store, again, few)
    assert again.items == len(table) == len(new)
    assert set(new["task_code"].to_pylist()) == {"feed" * 4}
    notes = units_of_other_code(plan, tasks, store)
    assert [note.split(":")[0] for note in notes] == ["multikey", "single"]
    assert all("2 finished units were made by other code of the task" in note for note in notes)
    assert all("feed" * 4 in note and note.endswith("left out") for note in notes)
