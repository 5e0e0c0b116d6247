"""The data path of training: tokens per second of a core that makes batches, beside what GPUs take.

A worker process is one core that makes whole steps (`training/loading`): rows cut from token shards, episodes, loss
weights, and digests. First what it needs once, texts and pools of strings tokenised (before workers are forked: they
share it), then the steady state. Vocabulary of the size of GPT-NeoX, trained on the embedded speeches (in three
cases, since they have too few words); the recipe of configs/data/fineweb-edu.yaml. Eight workers are eight times one:
they share nothing but memory.
"""

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from lcprobe.data.config import DataConfig
from lcprobe.data.make_tokenizer import train_tokenizer
from lcprobe.data.mixture import Mixture
from lcprobe.data.prepare import Prepared, prepare
from lcprobe.data.sources.sotu import speeches
from lcprobe.schema import build
from lcprobe.training.loading.step_batches import StepBatches

TITLE = "the data path: one core that makes batches, and eight H100 at half of their peak"
OPTIONS = ("steps",)
VOCABULARY = 50_277
STEP_TOKENS = 1 << 17
"""Tokens of a step of one process: a million over eight."""
H100, SHARE, DEVICES = 989e12, 0.5, 8
MODELS = {"130 M": 130e6, "370 M": 370e6, "2.7 B": 2.7e9}
RECIPE = {
    "task": {"type": "niah", "n_keys": 4, "n_queries": 4, "word_pairs": True},
    "haystack": ["corpus", "noise", "words", "needles"],
    "key": ["words", "uuids"],
    "value": ["words", "numbers", "hex", "uuids"],
}


def taken(parameters: float) -> float:
    """Tokens per second that the devices train on: 6 FLOPs a parameter and token, half of the peak."""
    return DEVICES * H100 * SHARE / (6 * parameters)


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per share of episodes and length. options: steps (12)."""
    steps = int(options.get("steps", 12))
    with TemporaryDirectory() as folder:
        tokenizer = Path(folder) / "tokenizer.json"
        texts = (text for speech in speeches() for text in (speech, speech.upper(), speech.title()))
        tokenizer.write_text(train_tokenizer(texts, VOCABULARY), encoding="utf-8")
        given = {"corpus": ["sotu"], "folder": folder, "tokenizer": str(tokenizer), "context_weight": 1.0}
        data = prepare(build(DataConfig, given, "data"))
        return [_row(data, given, share, length, steps) for share in (0.0, 0.05, 0.5) for length in (2048, 8192)]


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """The least that eight workers make of what the devices take."""
    least = {name: min(row[f"x {name}"] for row in rows) for name in MODELS}
    return [
        f"eight workers make at least {times:.1f} times what eight H100 take at {name}"
        for name, times in least.items()
    ]


def _row(data: Prepared, given: dict[str, Any], share: float, length: int, steps: int) -> dict[str, Any]:
    mixture = [{"lm": 1 - share, "episodes": {"needles": 1} if share else {}, "lengths": [1]}]
    recipes = {"recipes": {"needles": RECIPE}} if share else {}
    config = build(DataConfig, {**given, **recipes, "mixture": mixture}, "data")
    rows = STEP_TOKENS // length
    made = Mixture(config, data, context_length=length, rows=rows, steps=10_000, parts=8, seed=0)
    begin = time.process_time()
    made.warm()
    warmed = time.process_time() - begin
    batches, times = StepBatches(made, 0, 0, 1), []
    for step in range(steps):
        begin = time.process_time()
        batches.step_batch(step)
        times.append(time.process_time() - begin)
    speed = STEP_TOKENS * (steps - steps // 3) / sum(times[steps // 3 :])
    row = {
        "episodes": f"{share:.0%}",
        "length": length,
        "vocabulary": data.tokenizer.vocab_size,
        "once, CPU s": round(warmed, 2),
        "slowest step, CPU ms": round(1000 * max(times), 1),
        "M tokens/s a core": round(speed / 1e6, 2),
    }
    row |= {f"x {name}": round(8 * speed / taken(parameters), 1) for name, parameters in MODELS.items()}
    print(row, flush=True)
    return row
