"""Units with records that are a pure function of their number, for tests of the store: no model, no task."""

from itertools import product
from typing import Any

from lcprobe.probing.store import unit_id
from lcprobe.records import SCHEMA, Record

MODELS, TASKS, LENGTHS = ("a", "b"), ("single", "vt"), (64, 128)


def record(model: str, task: str, length: int, index: int, query: int = 0, **changes: Any) -> Record:
    """One record; its scores follow from its factors."""
    right = (index * 7 + length + len(task)) % 3 == 0
    values: dict[str, Any] = {
        "model": model, "checkpoint": "c" * 16, "step": 10, "tokens": 1000, "engine": "native", "extension": "none",
        "factor": 1.0, "suite": "6", "task": task, "task_code": "d" * 16, "haystack": "words", "key_format": "words",
        "value_format": "numbers", "control": "none", "length": length, "depth": 0.5, "strata": 1,
        "drawn_depth": index / 1000 % 1, "index": index, "query": query, "tokenizer": "e" * 16,
        "equal_length": "tokens", "episode_tokens": length, "characters": 4 * length, "text": f"{index:016x}",
        "template": "none", "realised_depth": index / 999 % 1, "distance": length // 2, "hops": 0,
        "via_distance": None, "rounds": 0.5, "haystack_start": 31 * index, "prompt_tokens": length - 3,
        "answer_tokens": 3, "chance": 0.25, "n_candidates": 4, "exact": right, "first_token": right,
        "token_accuracy": 1.0 if right else 0.5, "log_likelihood": -0.5 - index % 17, "rank": 1 if right else 3,
        "distractor_hit": not right, "answer": f" {index % 90 + 10}", "prediction": f" {index * 3 % 90 + 10}",
        "continuation": None, "substring": None, "scoring": "teacher_forced", "status": "ok", "batch": 8,
        "read_tokens": length - 3, "episode": f"{index * 11:016x}",
    }  # fmt: skip
    assert values.keys() == set(SCHEMA.names)
    return values | changes


def facts(model: str, task: str, length: int, part: int = 0, n: int = 4) -> dict[str, Any]:
    """What a unit's records depend on, as the runner writes it."""
    cells = [{"task": task, "length": length, "depth": 0.5, "strata": 1, "n": n}]
    return {"name": model, "checkpoint": "c" * 16, "suite": "6", "task": task, "code": "d" * 16, "cells": cells, "part": part}  # fmt: skip


def records_of(own: dict[str, Any]) -> list[Record]:
    """The records of the unit with these facts."""
    (cell,) = own["cells"]
    first = own["part"] * cell["n"]
    return [record(own["name"], own["task"], cell["length"], first + i) for i in range(cell["n"])]


def units(parts: int = 2, n: int = 4) -> dict[str, dict[str, Any]]:
    """Facts of the units of a small study, by id."""
    found = [facts(*at, n=n) for at in product(MODELS, TASKS, LENGTHS, range(parts))]
    return {unit_id(own): own for own in found}


def fill(store: Any, wanted: dict[str, dict[str, Any]]) -> None:
    """Finish units."""
    for unit, own in wanted.items():
        store.finish(unit, records_of(own), own)
