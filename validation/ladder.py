"""The matched ladder: every architecture of configs/study/ladder.yaml, solved at every size, with its amounts."""

from typing import Any

from lcprobe.config import load
from lcprobe.models.config import MatchConfig, ModelConfig
from lcprobe.models.matching import match
from lcprobe.schema import build

TITLE = "matched ladder"
OPTIONS = ("budget", "by")
BUDGETS = (1e6, 10e6, 70e6, 130e6, 370e6, 780e6, 1.3e9, 2.7e9)
LENGTH = 2048
FIRST_LARGE = 70e6
"""From here on the vocabulary is GPT-NeoX's 50,277 tokens, below the shipped tokenizer's 4,096."""


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per size and architecture. options: budget, one size instead of all; by, as match.by."""
    study = load(["configs/study/ladder.yaml"], [])
    by = options.get("by", "params")
    rows = []
    for budget in [float(options["budget"])] if "budget" in options else BUDGETS:
        rules = build(MatchConfig, {**study["match"], "by": by, "budget": budget}, "match")
        for name, given in study["grid"]["arch"].items():
            vocab_size = 50277 if budget >= FIRST_LARGE else 4096
            settings = {**given["model"], "vocab_size": vocab_size, "context_length": LENGTH}
            solved = match({name: build(ModelConfig, settings, "model")}, rules, {name: LENGTH})[name]
            config, cost = solved.config, solved.cost
            rows.append(
                {
                    "budget": round(budget), "model": name, "blocks": config.n_layers, "d_model": config.d_model,
                    "d_ff": config.d_ff, "parameters": cost.params, "off budget": f"{solved.mismatch or 0.0:+.2%}",
                    "FLOPs/token": round(cost.flops), "state bytes": cost.blocks.state_bytes,
                    "KV bytes": cost.blocks.kv_bytes,
                }
            )  # fmt: skip
    return rows


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """What the columns are of."""
    return [f"FLOPs per token and bytes are those of {LENGTH} tokens, with float32 states."]
