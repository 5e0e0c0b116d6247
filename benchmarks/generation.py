"""RULER's 13 presets, built, kept on disk and read again, and the other tasks; beside them lm-eval's generators, on one core.

Ours: set-up is the import of all 13 tasks in a fresh process, tokenizer and haystack ("materials"), and each preset's first
episode (its lines and words). lm-eval 0.4.13 sizes its samples by tokenising one again and again, once a task and length (its
set-up; its imports are not counted), then tokenises each one that it makes. Its own functions are called, for fewer samples than
the 500 that it always makes. Both have the shipped tokenizer. Building is in seconds of processor time, reading and writing by
the clock; the last row names what is above 1 ms an episode at the greatest length. Ratios are lm-eval's time / ours: of one
episode, and of 500 with set-up, ours with all materials.
"""

import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from importlib import import_module
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import numpy as np
from transformers import PreTrainedTokenizerFast

from lcprobe.probing.cache import EpisodeCache
from lcprobe.probing.config import ProbeConfig
from lcprobe.probing.grid import TaskSet, Unit
from lcprobe.schema import build
from lcprobe.tasks.episode import Episode, Formats
from lcprobe.tasks.presets import PRESETS, choose_task
from lcprobe.tasks.text.tokenizer import Tokenizer
from validation.variants import materials_of, variants

TITLE = "RULER's 13 tasks: milliseconds to build an episode, keep it and read it again; lm-eval's generators"
OPTIONS = ("n", "lengths", "tasks", "peer")
LENGTHS = "4096,8192,16384,32768,65536,131072"
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
IMPORT = "import time; t = time.perf_counter(); from lcprobe.tasks.presets import *; "
IMPORT += "[choose_task(name, '') for name in PRESETS]; print(time.perf_counter() - t)"
USUAL = 500
"""Samples of a task and length in RULER and lm-eval."""
PEERS = {"niah_single_1", "niah_multikey_2", "vt", "cwe", "fwe"}
PEER_SAMPLES = {4096: 20, 16384: 5}
LONGEST = "niah_multikey_2", 131072, 3
GOAL = 1.0
"""Milliseconds an episode at the greatest length."""
T = TypeVar("T")


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """A row a preset and length, one of all presets, a row for every other task, and one of what misses the goal.

    options: n (500 episodes), lengths, tasks (names of presets and tasks), peer (1: lm-eval too).
    """
    n, lengths = int(options.get("n", USUAL)), [int(x) for x in options.get("lengths", LENGTHS).split(",")]
    every = variants()
    names = options["tasks"].split(",") if "tasks" in options else list(every)
    imported = float(
        subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True).stdout
    )
    spent, materials = _timed(materials_of)
    materials_s, peer_tokenizer = (
        imported + spent,
        _wrapped(materials.tokenizer) if options.get("peer", "1") == "1" else None,
    )
    tasks = TaskSet(build(ProbeConfig, {"tasks": {name: every[name] for name in names}}, "probe"), materials)
    rows, begin, firsts = [], time.perf_counter(), 0.0
    for name in names:
        first, _ = _timed(
            lambda name=name: tasks.by_name[name].episode(_unit(tasks, name, max(lengths), 1).factors()[0])
        )
        firsts += first
        for length in lengths if name in PRESETS else [max(lengths)]:
            unit = _unit(tasks, name, length, n)
            each, episodes = _built(tasks, unit)
            spent = float(each.sum()) / 1000
            written, read = _on_disk(tasks, unit, episodes)
            row = {"task": name, "length": length, "episodes": n, "set-up s": first, "ms": float(each.mean())}
            row["p95 ms"] = float(np.percentile(each, 95))
            row |= {
                "exact length": sum(len(e.ids) == length for e in episodes) / n,
                "write ms": written,
                "read ms": read,
            }
            peer = _peer(name, length, peer_tokenizer)
            row |= {
                "lm-eval set-up s": None,
                "lm-eval ms": None,
                "x an episode": None,
                f"x {USUAL} with set-up": None,
            }
            if peer is not None:
                set_up, theirs = peer
                ratio = (set_up + USUAL * theirs) / (materials_s + first + USUAL * spent / n)
                row |= {"lm-eval set-up s": set_up, "lm-eval ms": 1000 * theirs}
                row |= {"x an episode": theirs / (spent / n), f"x {USUAL} with set-up": ratio}
            rows.append(row)
            del episodes
    presets = [row for row in rows if row["task"] in PRESETS]
    count = sum(row["episodes"] for row in presets)
    whole = {
        "task": f"presets: {sum(r['episodes'] * r['ms'] for r in presets) / 1000:.1f} s of building; import {imported:.2f} s, "
        f"materials {materials_s - imported:.2f} s, first episodes {firsts:.2f} s; all this {time.perf_counter() - begin:.0f} s",
        "episodes": count,
        "set-up s": materials_s + firsts,
    }
    for column in ("ms", "exact length", "write ms", "read ms"):
        whole[column] = sum(row["episodes"] * row[column] for row in presets) / max(count, 1)
    summary = [
        {column: row.get(column) for column in rows[0]} for row in (whole, {"task": _missed(rows, max(lengths))})
    ]
    return [*rows, *summary]


def _missed(rows: list[dict[str, Any]], length: int) -> str:
    """Which tasks take longer than the goal, in words."""
    at = sorted((row for row in rows if row["length"] == length), key=lambda row: -row["ms"])
    over = ", ".join(f"{row['task']} {row['ms']:.2f}" for row in at if row["ms"] > GOAL)
    return f"at {length} tokens above {GOAL:g} ms: {over or 'none'}; greatest p95 {max(row['p95 ms'] for row in at):.2f} ms"


def _unit(tasks: TaskSet, name: str, length: int, n: int) -> Unit:
    formats = {"haystack": "corpus", "key": "words", "value": "numbers"} | choose_task(
        variants()[name], "tasks"
    ).formats
    axes = tasks.by_name[name].axes
    depths = DEPTHS[: max(1, min(n, len(DEPTHS)))] if axes.depth else (0.5,)
    cells = tuple((depth, n // len(depths) + (i < n % len(depths))) for i, depth in enumerate(depths))
    return Unit(name, axes.fitted(Formats(**formats)), length, "none", cells)


def _built(tasks: TaskSet, unit: Unit) -> tuple[np.ndarray, list[Episode]]:
    """(n,) milliseconds of each episode, and the episodes."""
    made = [_timed(lambda factors=factors: tasks.by_name[unit.task].episode(factors)) for factors in unit.factors()]
    return np.array([1000 * spent for spent, _ in made]), [episode for _, episode in made]


def _on_disk(tasks: TaskSet, unit: Unit, episodes: list[Episode]) -> tuple[float, float]:
    """Milliseconds an episode to write and to read."""
    with TemporaryDirectory() as folder:
        cache, facts = EpisodeCache(Path(folder), 1 << 40), tasks.facts(unit)
        begin = time.perf_counter()
        cache.write(facts, episodes)
        middle = time.perf_counter()
        found = cache.read(facts)
        end = time.perf_counter()
    assert found is not None
    assert all(a.digest == b.digest for a, b in zip(found, episodes, strict=True))
    return 1000 * (middle - begin) / len(episodes), 1000 * (end - middle) / len(episodes)


def _timed(make: Callable[[], T]) -> tuple[float, T]:
    begin = time.process_time()
    made = make()
    return time.process_time() - begin, made


def _wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(tokenizer.json_text, encoding="utf-8")
        return PreTrainedTokenizerFast(tokenizer_file=str(path))


def _peer(preset: str, length: int, tokenizer: PreTrainedTokenizerFast | None) -> tuple[float, float] | None:
    """Seconds of lm-eval's set-up, and a sample; None where it is not asked."""
    name, samples = preset.split("/")[-1], PEER_SAMPLES.get(length)
    if (name, length) == LONGEST[:2]:
        samples = LONGEST[2]
    if tokenizer is None or name not in PEERS or samples is None:
        return None
    module: Any = import_module(
        f"lm_eval.tasks.ruler.{'prepare_niah' if name.startswith('niah') else f'{name}_utils'}"
    )
    started: list[float] = []

    def samples_begin(over: Iterable[int], **_: Any) -> Iterable[int]:
        """In place of its progress bar: the first sample begins when the search is over."""
        started.append(time.process_time())
        return over

    module.tqdm = samples_begin
    begin = time.process_time()
    with redirect_stdout(StringIO()):
        _generate(module, name, length, samples, tokenizer)
    end = time.process_time()
    return started[-1] - begin, (end - started[-1]) / samples


def _generate(module: Any, name: str, length: int, samples: int, tokenizer: PreTrainedTokenizerFast) -> None:
    if name == "vt":
        example = module.sys_vartrack_w_noise_random(tokenizer, 1, 500, incremental=5)[0]
        module.sys_vartrack_w_noise_random(tokenizer, samples, length, icl_example=example)
    elif name == "cwe":
        module.sys_word_pair_random(samples, length, tokenizer)
    elif name == "fwe":
        module.sys_kwext(tokenizer, length, samples)
    else:
        haystack = {"niah_single_1": "repeat", "niah_multikey_2": "needle"}[name]
        module.generate_samples(
            module.get_haystack(type_haystack=haystack),
            TOKENIZER=tokenizer,
            max_seq_length=length,
            template=import_module("lm_eval.tasks.ruler.niah_utils").TEMPLATE,
            type_haystack=haystack,
            type_needle_k="words",
            type_needle_v="numbers",
            num_samples=samples,
        )
