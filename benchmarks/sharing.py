"""Prefix sharing: tokens read and time for a sweep of depths and for questions over one context, against separate
prompts.

A hybrid model with random weights scores real episodes. "Alone": every prompt is read from its first token, prompts
of equal length in one batch. "Saved at most" is the share of tokens that the trie of token ids has in common. Times
are medians of interleaved rounds.
"""

import statistics
import time
from typing import Any

import numpy as np
import torch

from lcprobe.data.sources.sotu import speeches
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.probing.inference.prefix_sharing import Program, Step, plan_prefill, prefix_batches
from lcprobe.probing.scoring import Item, ModelScorer
from lcprobe.schema import build
from lcprobe.tasks.episode import Factors, Formats
from lcprobe.tasks.niah import NIAH, NIAHConfig
from lcprobe.tasks.text.haystack import Materials, TokenStream
from lcprobe.tasks.text.tokenizer import load_tokenizer

TITLE = "sharing of prompts"
OPTIONS = ("length", "n", "rounds", "layout")
LINE = {"template": "line", "digits": 2}
SWEEPS: list[tuple[str, dict[str, Any], list[float]]] = [
    ("20 depths, 0.05 .. 1", {**LINE, "n_keys": 1}, [i / 20 for i in range(1, 21)]),
    ("20 depths, 0 .. 1", {**LINE, "n_keys": 1}, [i / 19 for i in range(20)]),
    ("20 depths, 0.05 .. 1, of 4 keys", {**LINE, "n_keys": 4}, [i / 20 for i in range(1, 21)]),
    ("16 questions, each from the context", {**LINE, "n_keys": 16, "n_queries": 16, "separate": True}, [0.5]),
    ("16 questions, one after the other", {**LINE, "n_keys": 16, "n_queries": 16}, [0.5]),
]


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per sweep. options: length (1024), n samples (4), rounds (3), layout of the model."""
    length, n, rounds = (int(options.get(name, given)) for name, given in (("length", 1024), ("n", 4), ("rounds", 3)))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    tok = load_tokenizer()
    text = "\n\n".join(t for i, t in enumerate(speeches()) if i % 12 == 0)
    materials = Materials(tok, TokenStream.from_text("corpus", text, tok))
    mixers = {"attention": {"head_dim": 32, "d_conv": 4}, "mamba2": {"head_dim": 32, "d_state": 64}}
    layout = options.get("layout", "attention+mlp, mamba2 x 2")
    sizes = {"layout": layout, "d_model": 128, "d_ff": 256, "vocab_size": tok.vocab_size, "mixers": mixers}
    model = LanguageModel(build(ModelConfig, sizes, "model")).initialise(0).to(device).eval()
    rows = []
    for name, settings, depths in SWEEPS:
        niah = NIAH(build(NIAHConfig, settings, "task"), materials)
        items = []
        for index in range(n):
            for depth in depths:
                episode = niah.episode(Factors(Formats("corpus", "words", "numbers"), length, depth, index))
                items += [Item(episode, query) for query in episode.queries]
        kinds = {way: kind(model, tok, device, 1024) for way, kind in (("alone", Alone), ("shared", ModelScorer))}
        rows.append({"case": name, **_case(kinds, items, rounds)})
    return rows


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """The largest possible saving: the sum of all depths but the deepest over their number, of the haystack's
    tokens."""
    depths = {name: sorted(depths) for name, _, depths in SWEEPS if len(depths) > 1}
    return [
        f"{row['case']}: {sum(depths[row['case']][:-1]) / len(depths[row['case']]):.1%} of the haystack's tokens can "
        "be shared, "
        f"whatever reads them; {row['saved at most']} of whole prompts, whose needles and questions are their own; "
        f"{row['saved']} are"
        for row in rows
        if row["case"] in depths
    ]


class Alone(ModelScorer):
    """Reads every prompt from its first token, prompts of equal length together."""

    def plan(self, prompts: list[np.ndarray]) -> Program:
        """Steps that do not continue each other."""
        at_once, steps = max(1, self.batch_tokens // max(map(len, prompts))), []
        for length in sorted({len(p) for p in prompts}):
            same = [i for i, p in enumerate(prompts) if len(p) == length]
            for lo in range(0, len(same), at_once):
                rows = same[lo : lo + at_once]
                steps.append(Step(None, None, np.array(rows), 0, length, tuple(enumerate(rows))))
        return Program(tuple(steps), np.array([len(p) for p in prompts]), 1)


def _case(kinds: dict[str, ModelScorer], items: list[Item], rounds: int) -> dict[str, Any]:
    prompts = [item.prompt for item in items]
    at_once = max(1, kinds["shared"].batch_tokens // max(map(len, prompts)))
    batches = prefix_batches(prompts, at_once)
    ways = {"shared": batches, "alone": [list(range(len(items)))]}
    times: dict[str, list[float]] = {way: [] for way in ways}
    results: dict[str, np.ndarray] = {}
    for turn in range(rounds + 1):  # the first warms up
        for way, scorer in kinds.items():
            begin = time.perf_counter()
            scores = {i: s for b in ways[way] for i, s in zip(b, scorer.score([items[i] for i in b]), strict=True)}
            if turn:
                times[way].append(time.perf_counter() - begin)
            results[way] = np.array([scores[i].log_likelihood for i in range(len(items))])
            results[f"{way} read"] = np.array([scores[i].read_tokens for i in range(len(items))])
    read, whole = int(results["shared read"].sum()), sum(map(len, prompts))
    trie = sum(plan_prefill([prompts[i] for i in batch], at_once, call=0).tokens for batch in batches)
    seconds = {way: statistics.median(t) for way, t in times.items()}
    return {
        "questions": len(items),
        "prompt tokens": whole,
        "read": read,
        "saved": f"{1 - read / whole:.1%}",
        "saved at most": f"{1 - trie / whole:.1%}",
        "seconds alone": round(seconds["alone"], 2),
        "seconds shared": round(seconds["shared"], 2),
        "x alone": f"{seconds['alone'] / seconds['shared']:.2f}",
        "largest difference, nats": f"{np.abs(results['shared'] - results['alone']).max():.1e}",
    }
