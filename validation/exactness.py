"""Exactness: do episodes of every task in four tokenizers have exactly the requested length and survive a round
trip?"""

import time
from typing import Any

from lcprobe.errors import EpisodeError
from lcprobe.probing.config import Grid, ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.schema import build
from lcprobe.tasks.text.tokenizer import load_tokenizer
from validation.tokenizers import llama_like, numbers_in_threes, unigram
from validation.variants import materials_of, variants

TITLE = "exactness: episodes of the requested length that survive encode(decode(ids))"
OPTIONS = ("n",)
EXACT_LENGTHS = (512, 768, 1024)
EXACT_STRATA = 7


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per task: counts for each tokenizer. options: n (2000 samples per task and tokenizer)."""
    n = int(options.get("n", 2000))
    tokenizers = {
        "shipped": load_tokenizer(),
        "llama-like": llama_like(),
        "unigram": unigram(),
        "threes": numbers_in_threes(),
    }
    every = variants()
    sets = {
        name: TaskSet(build(ProbeConfig, {"tasks": every}, "probe"), materials_of(tok))
        for name, tok in tokenizers.items()
    }
    rows = []
    for task in every:
        row: dict[str, Any] = {"task": task, "samples": n}
        begin = time.perf_counter()
        for name, tasks in sets.items():
            row[name] = _counts(tasks, task, n)
        rows.append(row | {"seconds": round(time.perf_counter() - begin, 1)})
        print(row, flush=True)
    return rows


def _counts(tasks: TaskSet, task: str, n: int) -> str:
    """`exact, surviving of all samples`."""
    depth = tasks.by_name[task].axes.depth
    grid: dict[str, Any] = {
        "tasks": [task],
        "lengths": [x / EXACT_LENGTHS[0] for x in EXACT_LENGTHS],
        "depths": EXACT_STRATA,
    }
    grid["n"] = -(-n // (len(EXACT_LENGTHS) * (EXACT_STRATA if depth else 1)))
    try:
        units = tasks.plan([build(Grid, grid, "grid")], EXACT_LENGTHS[0]).units
    except EpisodeError as error:
        return str(error)
    exact = same = total = 0
    for unit in units:
        for factors in unit.factors():
            total += 1
            try:
                episode = tasks.by_name[task].episode(factors)
            except EpisodeError:  # counted as neither
                continue
            exact += len(episode.ids) == unit.length
            same += tasks.materials.tokenizer.same_after_round_trip(episode.ids)
    return f"{exact}, {same} of {total}"
