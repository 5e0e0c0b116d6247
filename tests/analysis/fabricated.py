"""Fabricated studies: records with planted behaviour, for tests of the analysis and previews of its report.

`python tests/analysis/fabricated.py FOLDER` writes the report of three models, two tasks and six formats.
"""

import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from lcprobe.analysis.inputs import RunFacts, StudyFacts, TaskFacts
from lcprobe.models.matching import mismatch_of
from lcprobe.records import CONTEXT_SCHEMA, SCHEMA, table_of
from lcprobe.seeds import Stream

LENGTHS = (32, 64, 128, 256, 512, 1024)
DEPTHS = (0.0, 0.25, 0.5, 0.75, 1.0)
FORMAT = ("corpus", "words", "numbers")
TEXT_EDGES = (8, 16, 32, 64, 128, 256, 512, 1024)
Behaviour = Callable[[dict[str, np.ndarray]], np.ndarray]
"""Columns of factors -> (n_rows,) probability of success."""


def task(name: str, n_keys: int = 1) -> TaskFacts:
    return TaskFacts(
        name, f"n_keys {n_keys}, template line", 1 / n_keys, True, "people of the falcon: 40; falcon: -> 40"
    )


def run(name: str, **changes: Any) -> RunFacts:
    facts = RunFacts(
        name=name, group=name, layout=f"{name} x 2", seed=0, context_length=128, params=331_000, embedding_params=262_144,
        tokens=2_000_000, lr=0.01, seconds=93.0, data_digest="5f0e" * 8, skipped_steps=0, checkpoint="a1b2c3d4e5f60718",
        tuned="swept", metrics=[],
    )  # fmt: skip
    return replace(facts, **changes)


def plan(
    tasks: Sequence[str],
    formats: Sequence[tuple[str, str, str]] = (FORMAT,),
    lengths: Sequence[int] = LENGTHS,
    depths: Sequence[float] = DEPTHS,
    n: int = 100,
    control: str = "none",
) -> list[dict[str, Any]]:
    rows = []
    for name, (haystack, key, value), length, depth in product(tasks, formats, lengths, depths):
        factors = {"task": name, "haystack": haystack, "key_format": key, "value_format": value, "control": control}
        rows.append(factors | {"length": length, "depth": depth, "strata": len(depths), "n": n})
    return rows


def study(
    runs: Sequence[RunFacts], tasks: Sequence[TaskFacts], cells: list[dict[str, Any]], **changes: Any
) -> StudyFacts:
    facts = StudyFacts(
        name="fabricated", runs=list(runs), tasks=list(tasks), matching=[{"model": r.name, "parameters": r.params} for r in runs],
        mismatch=mismatch_of([r.params for r in runs]), sweep=[], versions={"lcprobe": "0.1.0"},
        config_yaml="study:\n  name: fabricated\n", expected_cells=cells, notes=[],
    )  # fmt: skip
    return replace(facts, **changes)


def records(
    models: dict[str, Behaviour],
    cells: list[dict[str, Any]],
    seed: int = 0,
    queries: int = 1,
    chance: float | None = None,
) -> pa.Table:
    """One table of SCHEMA. Sample `index` has the same jitter of distance in every cell and model."""
    return pa.concat_tables([_of_model(name, b, cells, seed, queries, chance) for name, b in models.items()])


def _of_model(
    name: str, behaviour: Behaviour, cells: list[dict[str, Any]], seed: int, queries: int, chance: float | None
) -> pa.Table:
    counts = np.array([cell["n"] * queries for cell in cells])
    c: dict[str, Any] = {key: np.repeat([cell[key] for cell in cells], counts) for key in cells[0] if key != "n"}
    rows = len(c["task"])
    within = np.concatenate([np.arange(count) for count in counts])
    c["index"], c["query"] = within // queries, within % queries
    shift = Stream("jitter", seed).integers(9, int(c["index"].max()) + 1)[c["index"]] - 4
    room = np.maximum(c["length"] - 24, 0)
    distance = np.rint((1 - c["depth"]) * room).astype(int) + 10 + shift
    c["distance"] = np.where(c["control"] == "zero_distance", 6, distance)
    no_value = np.isin(c["control"], ("no_needle", "query_only"))
    p = behaviour(c)
    exact = Stream("fabricated", seed, name).uniform(rows) < p
    keys = np.where(np.char.startswith(c["task"].astype(str), "multi"), 4, 1)
    columns: dict[str, Any] = {
        **c,
        "model": np.full(rows, name),
        "checkpoint": np.full(rows, "a1b2c3d4e5f60718"),
        "step": np.full(rows, 1953),
        "tokens": np.full(rows, 2_000_000),
        "engine": np.full(rows, "native"),
        "extension": np.full(rows, "none"),
        "factor": np.full(rows, 1.0),
        "suite": np.full(rows, "1"),
        "task_code": np.full(rows, "c0de" * 4),
        "distance": pa.array(c["distance"], mask=no_value),
        "drawn_depth": c["depth"],
        "realised_depth": c["depth"],
        "tokenizer": np.full(rows, "7a5b" * 4),
        "equal_length": np.full(rows, "tokens"),
        "episode_tokens": c["length"],
        "characters": 4 * c["length"],
        "text": [f"{at}" for at in zip(c["task"], c["length"], c["depth"], c["index"], strict=True)],
        "hops": np.zeros(rows, int),
        "via_distance": pa.nulls(rows),
        "rounds": c["length"] / 10_000,
        "haystack_start": c["index"] * 1000,
        "prompt_tokens": c["length"] - 4,
        "answer_tokens": np.full(rows, 3),
        "chance": 1 / keys if chance is None else np.full(rows, chance),
        "n_candidates": keys,
        "exact": exact,
        "first_token": exact | (within % 3 == 0),
        "token_accuracy": np.where(exact, 1.0, 1 / 3),
        "log_likelihood": np.where(exact, -0.3, -6.0),
        "rank": np.where(exact, 1, keys),
        "distractor_hit": ~exact & (keys > 1),
        "answer": np.char.add(" ", (within * 37 % 90 + 10).astype(str)),
        "prediction": np.where(exact, "correct", " 11"),
        "template": np.full(rows, "none"),
        "continuation": pa.nulls(rows),
        "substring": pa.nulls(rows),
        "scoring": np.full(rows, "teacher_forced"),
        "status": np.full(rows, "ok"),
        "batch": np.full(rows, 64),
        "read_tokens": c["length"] - 4,
        "episode": np.full(rows, "00"),
    }
    return pa.table({f.name: pa.array(columns[f.name]).cast(f.type) for f in SCHEMA}, schema=SCHEMA)


def with_column(table: pa.Table, name: str, values: Any) -> pa.Table:
    at = table.column_names.index(name)
    return table.set_column(at, SCHEMA.field(name), pa.array(values).cast(SCHEMA.field(name).type))


def flat(p: float) -> Behaviour:
    return lambda c: np.full(len(c["length"]), p)


def window(w: float) -> Behaviour:
    """Retrieves a needle iff it is within the last w tokens."""
    return lambda c: (c["distance"] <= w).astype(float)


def text_records(
    model: str,
    rise: Callable[[int], float] = lambda high: 0.0,
    noise: float = 0.2,
    bad: int = 0,
    growth: float = 1.0,
    memory: float = 30,
    n: int = 20,
    seed: int = 0,
) -> list[dict[str, Any]]:
    """Windows with a level of their own; rise: nats added to the bin that ends after so many tokens."""
    dice, rows = np.random.default_rng([seed, sum(model.encode())]), []
    for window in range(n):
        columns: dict[str, Any] = {
            "model": model,
            "checkpoint": "a",
            "step": 5,
            "tokens": 9,
            "window": window,
            "start": 1000 * window,
        }
        level = 5 + dice.normal(0, 1)

        def row(measure, low, high, value, kept=None, count=10, columns=columns):
            rows.append(
                columns | {"measure": measure, "low": low, "high": high, "kept": kept, "value": value, "count": count}
            )

        for low, edge in zip((1, *TEXT_EDGES), TEXT_EDGES, strict=False):
            own = level + 3 / low + rise(edge) + dice.normal(0, noise)
            row("loss", low, edge - 1, float(own))
            row("not_finite_predictions", low, edge - 1, float(bad if edge == TEXT_EDGES[-1] else 0))
            row("state_rms", edge, edge, float(1 + growth * edge / 1024 + dice.normal(0, 0.05)))
            row("not_finite_state", edge, edge, 0.0)
            row("state_bytes", edge, edge, 4096.0)
        for length in (128, 1024):
            for kept in (4, 16, 64, 256):
                if kept < length:
                    row("remembrance", length - kept, length, float(np.exp(-kept / memory)), kept)
    return rows


def three_models(values: Sequence[str] = ("words", "numbers", "uuids")) -> tuple[StudyFacts, pa.Table]:
    """A transformer that fails past its training length, a recurrence with a reach, a hybrid lost in the middle."""

    def guess(c: dict[str, np.ndarray]) -> np.ndarray:
        return np.where(np.char.startswith(c["task"].astype(str), "multi"), 0.25, 0.0)

    def controlled(c: dict[str, np.ndarray], p: np.ndarray) -> np.ndarray:
        wrong = np.where(guess(c) > 0, 0.2, 0.93)
        p = np.where(c["control"] == "wrong_key", wrong, p)
        near = np.where((c["control"] == "zero_distance") & ((c["length"] <= 128) | (p > 0.1)), 0.94, p)
        p = np.where(c["value_format"] == "uuids", p, near)
        return np.where(np.isin(c["control"], ("no_needle", "query_only")), 0.01, p)

    def hard(c: dict[str, np.ndarray]) -> np.ndarray:
        return np.where(c["value_format"] == "uuids", 0.25, 0.0) + np.where(c["haystack"] == "corpus", 0.04, 0.0)

    def transformer(c):
        return controlled(c, np.where(c["length"] <= 128, 0.97 - hard(c), 0.02))

    def recurrent(c):
        top = np.where(guess(c) > 0, 0.32, 0.98 - hard(c))
        return controlled(c, guess(c) / 3 + (top - guess(c) / 3) / (1 + (c["distance"] / 210) ** 4))

    def hybrid(c):
        dip = np.where(guess(c) > 0, 0.6, 0.25) * 4 * c["depth"] * (1 - c["depth"]) * np.log2(c["length"] / 16) / 6
        return controlled(c, np.clip(0.96 - hard(c) - dip - 0.12 * np.log2(np.maximum(c["length"] / 256, 1)), 0, 1))

    formats = list(product(("corpus", "words"), ("words",), values))
    tasks = [task("single"), task("multikey", 4)]
    cells = plan(["single", "multikey"], formats)
    cells = [c for c in cells if not (c["length"] == 32 and c["value_format"] == "uuids")]
    for control in ("zero_distance", "no_needle", "query_only"):
        cells += plan(["single", "multikey"], formats, [128, 1024], [0.5], 100, control)
    cells += plan(["single", "multikey"], formats, [128], DEPTHS, 100, "wrong_key")
    runs = []
    for i, (name, rate) in enumerate((("transformerpp", 0.006), ("mamba2", 0.012), ("hybrid", 0.01))):
        tokens = np.linspace(0, 2e6, 101)[1:]
        noise = Stream("loss", name).uniform(100) * 0.2
        metrics: list[dict[str, float]] = []
        for t, u in zip(tokens.tolist(), noise.tolist(), strict=True):
            loss = 4 + 4 * float(np.exp(-t / 4e5)) + u + 0.1 * i
            answer = 4 / (1 + (t / (6e5 + 2e5 * i)) ** 4) + u
            metrics.append(
                {"tokens": t, "train/loss": loss, "train/text_loss": loss + 0.4, "train/answer_loss": answer}
            )
        for t in (4e5, 8e5, 1.2e6, 1.6e6, 2e6):
            metrics.append(
                {"tokens": t, "probe/single@128": min(1.0, t / 1.2e6), "probe/multikey@128": min(0.9, t / 2.5e6)}
            )
        runs.append(
            run(name, lr=rate, params=331_000 + 900 * i, metrics=metrics, tuned="swept" if i else "not swept")
        )
    facts = study(
        runs,
        tasks,
        cells,
        matching=[
            {"model": r.name, "layout": r.layout, "d_model": 64, "parameters": r.params, "embedding": r.embedding_params,
             "state bytes @128": 65536 * (i + 1), "FLOPs/token @128": 1_200_000 + 30_000 * i, "tokens": r.tokens, "lr": r.lr}
            for i, r in enumerate(runs)
        ],
        sweep=[
            {"group": "mamba2", "lr": lr, "score": s, "best": lr == 0.012, "at_edge": False}
            for lr, s in ((0.004, 2.1), (0.012, 0.4), (0.03, 1.7))
        ],
        versions={"lcprobe": "0.1.0", "suite": "1", "code": "0123456789abcdef", "python": "3.11.7", "torch": "2.13.0"},
        config_yaml="study:\n  name: fabricated\ntrain:\n  context_length: 128\n  tokens: 2000000\n",
        notes=["single corpus/words/uuids: 32 tokens are too few (at least 41)"],
    )  # fmt: skip
    return facts, records({"transformerpp": transformer, "mamba2": recurrent, "hybrid": hybrid}, cells)


def several_training_lengths(
    reach: Callable[[str, int], float],
    context_lengths: Sequence[int] = (64, 128, 256),
    names: Sequence[str] = ("transformerpp", "mamba2"),
    seeds: Sequence[int] = (0, 1),
    tasks: Sequence[str] = ("single",),
    multiples: Sequence[float] = (0.5, 1, 2, 4),
    depths: Sequence[float] = (0.0, 0.5, 1.0),
    n: int = 20,
    formats: Sequence[tuple[str, str, str]] = (FORMAT,),
    **changes: Any,
) -> tuple[StudyFacts, pa.Table]:
    """Architectures x training lengths x seeds, all probed at every length that any multiple reaches.

    reach(architecture, training length): tokens within which a needle is retrieved. changes: of every run.
    """
    runs, behaviours = [], {}
    for context, name, seed in product(context_lengths, names, seeds):
        own, w = f"L{context}-{name}-s{seed}", reach(name, context)
        more = {"group": f"L{context}-{name}", "architecture": name, "context_length": context, "seed": seed}
        runs.append(run(own, **more, **changes))
        behaviours[own] = lambda c, w=w: 0.05 + 0.9 / (1 + (c["distance"] / w) ** 4)
    lengths = sorted({int(m * context) for m in multiples for context in context_lengths})
    cells = plan(tasks, formats, lengths, depths, n)
    cells += plan(tasks, formats, context_lengths, [0.5], n, "zero_distance")
    return study(runs, [task(t, 4 if t.startswith("multi") else 1) for t in tasks], cells), records(behaviours, cells)


if __name__ == "__main__":
    from lcprobe.analysis.report.write import write_report

    facts, table = three_models()
    text = [
        row
        for i, r in enumerate(facts.runs)
        for row in text_records(r.name, lambda high, i=i: i * max(0, high - 128) / 600)
    ]
    report = write_report(facts, table, Path(sys.argv[1]), context=table_of(text, CONTEXT_SCHEMA))
    print("\n".join(report.summary))
