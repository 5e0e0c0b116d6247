"""RULER's 13 presets and the other tasks: time to build, write and read episodes, beside lm-eval's generators, on one
core.

Our set-up is the import of all 13 tasks in a new process, the tokenizer and haystack ("materials"), and each preset's
first episode (its lines and words). lm-eval 0.4.13 finds the size of its samples by tokenising one repeatedly, once
per task and length (its set-up; its imports are not counted), and then tokenises each sample. Its own functions are
called, for fewer samples than the 500 that it always generates. Both use the shipped tokenizer. Building is measured
in processor time, reading and writing in wall-clock time; the last row names the tasks above 1 ms per episode at the
greatest length. Ratios are lm-eval's time / ours: for one episode, and for 500 with set-up, ours with all materials.
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

from lcprobe.errors import EpisodeError
from lcprobe.probing.cache import EpisodeCache
from lcprobe.probing.config import ProbeConfig
from lcprobe.probing.grid import TaskSet
from lcprobe.probing.units import Unit
from lcprobe.schema import build
from lcprobe.tasks.episode import Episode, Formats
from lcprobe.tasks.presets import PRESETS, choose_task
from lcprobe.tasks.text.tokenizer import Tokenizer
from validation.variants import materials_of, variants

TITLE = "RULER's 13 tasks: milliseconds to build an episode, keep it and read it again; lm-eval's generators"
OPTIONS = ("n", "lengths", "tasks", "peer")
DEFAULT_LENGTHS = "4096,8192,16384,32768,65536,131072"
PRESET_STRATA = 5
IMPORT = "import time; t = time.perf_counter(); from lcprobe.tasks.presets import *; "
IMPORT += "[choose_task(name, '') for name in PRESETS]; print(time.perf_counter() - t)"
RULER_SAMPLES = 500
"""Samples per task and length in RULER and lm-eval."""
PEER_TASKS = {"niah_single_1", "niah_multikey_2", "vt", "cwe", "fwe"}
PEER_SAMPLES = {4096: 20, 16384: 5}
LONGEST_PEER_RUN = "niah_multikey_2", 131072, 3
GOAL_MS = 1.0
"""Milliseconds per episode at the greatest length."""
T = TypeVar("T")


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per preset and length, one for all presets, one per other task, and one for the tasks that miss the
    goal.

    options: n (500 episodes), lengths, tasks (names of presets and tasks), peer (1: lm-eval too).
    """
    n, lengths = (
        int(options.get("n", RULER_SAMPLES)),
        [int(x) for x in options.get("lengths", DEFAULT_LENGTHS).split(",")],
    )
    every = variants()
    names = options["tasks"].split(",") if "tasks" in options else list(every)
    imported = float(
        subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True).stdout
    )
    spent, materials = _timed(materials_of)
    materials_s = imported + spent
    peer_tokenizer = _wrapped(materials.tokenizer) if options.get("peer", "1") == "1" else None
    tasks = TaskSet(build(ProbeConfig, {"tasks": {name: every[name] for name in names}}, "probe"), materials)
    rows, begin, firsts = [], time.perf_counter(), 0.0
    for name in names:
        try:
            first, _ = _timed(
                lambda name=name: tasks.by_name[name].episode(_unit(tasks, name, max(lengths), 1).factors()[0])
            )
        except EpisodeError as error:  # two digits run out, for one
            print(f"note: {name} at {max(lengths)} tokens: {error}")
            continue
        firsts += first
        for length in lengths if name in PRESETS else [max(lengths)]:
            unit = _unit(tasks, name, length, n)
            try:
                each, episodes = _built(tasks, unit)
            except EpisodeError as error:
                print(f"note: {name} at {length} tokens: {error}")
                continue
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
                f"x {RULER_SAMPLES} with set-up": None,
            }
            if peer is not None:
                set_up, theirs = peer
                ratio = (set_up + RULER_SAMPLES * theirs) / (materials_s + first + RULER_SAMPLES * spent / n)
                row |= {"lm-eval set-up s": set_up, "lm-eval ms": 1000 * theirs}
                row |= {"x an episode": theirs / (spent / n), f"x {RULER_SAMPLES} with set-up": ratio}
            rows.append(row)
            del episodes
    presets = [row for row in rows if row["task"] in PRESETS]
    count = sum(row["episodes"] for row in presets)
    whole = {
        "task": f"presets: {sum(r['episodes'] * r['ms'] for r in presets) / 1000:.1f} s of building; import "
        f"{imported:.2f} s, "
        f"materials {materials_s - imported:.2f} s, first episodes {firsts:.2f} s; all this "
        f"{time.perf_counter() - begin:.0f} s",
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
    """The tasks that take longer than the goal, as a sentence."""
    at = sorted((row for row in rows if row["length"] == length), key=lambda row: -row["ms"])
    over = ", ".join(f"{row['task']} {row['ms']:.2f}" for row in at if row["ms"] > GOAL_MS)
    greatest = max(row["p95 ms"] for row in at)
    return f"at {length} tokens above {GOAL_MS:g} ms: {over or 'none'}; greatest p95 {greatest:.2f} ms"


def _unit(tasks: TaskSet, name: str, length: int, n: int) -> Unit:
    formats = {"haystack": "corpus", "key": "words", "value": "numbers"} | choose_task(
        variants()[name], "tasks"
    ).formats
    axes = tasks.by_name[name].axes
    strata = min(n, PRESET_STRATA) if axes.depth else 1
    return Unit(name, axes.fitted(Formats(**formats)), length, "none", strata, -(-n // strata))


def _built(tasks: TaskSet, unit: Unit) -> tuple[np.ndarray, list[Episode]]:
    """(n,) milliseconds of each episode, and the episodes."""
    timed = [_timed(lambda factors=factors: tasks.by_name[unit.task].episode(factors)) for factors in unit.factors()]
    return np.array([1000 * spent for spent, _ in timed]), [episode for _, episode in timed]


def _on_disk(tasks: TaskSet, unit: Unit, episodes: list[Episode]) -> tuple[float, float]:
    """Milliseconds per episode to write and to read."""
    with TemporaryDirectory() as folder:
        cache, facts = EpisodeCache(Path(folder), 1 << 40), tasks.facts(unit)
        begin = time.perf_counter()
        cache.write(facts, episodes)
        middle = time.perf_counter()
        cached = cache.read(facts)
        end = time.perf_counter()
    assert cached is not None
    assert all(a.digest == b.digest for a, b in zip(cached, episodes, strict=True))
    return 1000 * (middle - begin) / len(episodes), 1000 * (end - middle) / len(episodes)


def _timed(run: Callable[[], T]) -> tuple[float, T]:
    """Seconds of processor time, and the result."""
    begin = time.process_time()
    result = run()
    return time.process_time() - begin, result


def _wrapped(tokenizer: Tokenizer) -> PreTrainedTokenizerFast:
    with TemporaryDirectory() as folder:
        path = Path(folder) / "tokenizer.json"
        path.write_text(tokenizer.json_text, encoding="utf-8")
        return PreTrainedTokenizerFast(tokenizer_file=str(path))


def _peer(preset: str, length: int, tokenizer: PreTrainedTokenizerFast | None) -> tuple[float, float] | None:
    """Seconds of lm-eval's set-up and per sample; None where it is not measured."""
    name, samples = preset.split("/")[-1], PEER_SAMPLES.get(length)
    if (name, length) == LONGEST_PEER_RUN[:2]:
        samples = LONGEST_PEER_RUN[2]
    if tokenizer is None or name not in PEER_TASKS or samples is None:
        return None
    module: Any = import_module(
        f"lm_eval.tasks.ruler.{'prepare_niah' if name.startswith('niah') else f'{name}_utils'}"
    )
    started: list[float] = []

    def samples_begin(over: Iterable[int], **_: Any) -> Iterable[int]:
        """Replaces the progress bar: the first sample begins when the search for a size has ended."""
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
