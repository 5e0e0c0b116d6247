"""Every encoding and extension method against its own equation, which is float64 whatever the dtype of ours."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import torch

from lcprobe.choices import choose
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.extend.rotary import RescaledFrequencies
from lcprobe.models.extend.tokens import FilteredScan
from lcprobe.models.positional import POSITIONAL
from lcprobe.models.token_context import TokenContext
from validation.oracles.cases import (
    CONTEXT,
    DOUBLE,
    FACTOR,
    SHAPE,
    Comparison,
    N,
    build_encoding,
    equation_inputs,
    label,
    mixer_under,
    outputs,
    random_inputs,
    tolerance_for,
)
from validation.oracles.encodings import FORMULAS
from validation.oracles.extensions import (
    FREQUENCIES,
    PAIRS,
    RECURRENT,
    SCORE_FACTORS,
    attention_under,
    on_cos_and_sin,
    recurrence,
)

ENCODINGS: list[dict[str, Any]] = [
    *({"type": name} for name in POSITIONAL if name in FORMULAS and name not in ("learned", "sandwich", "fire")),
    {"type": "learned", "max_length": N},
    {"type": "rope", "fraction": 0.5},
    {"type": "tape", "fraction": 0.5, "width": 3},
    {"type": "alibi", "learned": True},
    {"type": "t5", "n_buckets": 8, "max_distance": 11},
    {"type": "kerple", "kernel": "power"},
    {"type": "sandwich", "width": 6},
    {"type": "fire", "threshold": "train_len"},
    {"type": "fire", "initial_threshold": 6.5},
    {"type": "cope", "max_position": 4},
    {"type": "stick_breaking", "attend_current": True, "remainder": True},
    {"type": "dape", "base": "alibi"},
    {"type": "dape", "base": "sandwich"},
]
LONGROPE_FACTORS = [1 + 0.4 * i for i in range(SHAPE.head_dim // 2)]
ATTENTION_METHODS: list[dict[str, Any]] = [
    *({"type": name} for name in (*FREQUENCIES, *PAIRS, *SCORE_FACTORS) if name != "longrope"),
    {"type": "longrope", "long": LONGROPE_FACTORS},
    {"type": "ntk_dynamic", "variant": "length"},
    {"type": "yarn", "ramp": "rotations"},
    {"type": "self_extend", "window": 5, "group": 3},
    {"type": "rerope", "window": 5},
    {"type": "leaky_rerope", "window": 5, "k": 2.5},
    {"type": "dca", "chunk": 7},
    {"type": "lm_infinite", "window": 6, "sinks": 3},
    {"type": "streaming", "window": 6, "sinks": 3},
    {"type": "window", "window": 6},
    {"type": "temperature", "value": 1.75},
    {"type": "logn", "length": 8},
]
SCANS: list[dict[str, Any]] = [
    {"type": "dt_scale", "scale": 0.5},
    {"type": "a_scale", "scale": 0.5},
    {"type": "a_scale", "scale": 0.5, "mode": "log"},
    {"type": "stuffed", "retention": 1.25, "insertion": 0.75},
    {"type": "state_window", "window": 5},
    {"type": "state_window", "window": 1},
    {"type": "decimamba", "kept": 0.5},
    {"type": "longmamba", "kept": 0.5, "reach": 1e-9},
]


def encodings(dtype: torch.dtype) -> Iterator[Comparison]:
    """Every encoding against its equation."""
    inputs = random_inputs(dtype)
    for kind in ENCODINGS:
        e = build_encoding(kind, dtype)
        want, what = (
            FORMULAS[kind["type"]](equation_inputs(e, inputs)),
            "embedding" if e.family == "absolute" else "outputs",
        )
        yield Comparison(label(kind), what, outputs(e, inputs), want, tolerance_for(dtype))


def methods(dtype: torch.dtype) -> Iterator[Comparison]:
    """Every extension of attention at evaluation against its definition."""
    inputs = random_inputs(dtype)
    cases = [(kind, "rope") for kind in ATTENTION_METHODS]
    cases += [(kind, "none") for kind in ATTENTION_METHODS if kind["type"] in ("lm_infinite", "streaming")]
    for kind, positional in cases:
        layer, config = mixer_under(kind, "attention+mlp", dtype, positional)
        inputs64 = equation_inputs(layer.positional, inputs, config=config, length=CONTEXT)
        want = attention_under(kind["type"], inputs64, FACTOR, positional == "rope")
        name = label(kind) if positional == "rope" else f"{label(kind)}, none"
        yield Comparison(name, "outputs", outputs(layer.positional, inputs), want, tolerance_for(dtype))


def recurrent(dtype: torch.dtype) -> Iterator[Comparison]:
    """Every extension of Mamba2 at evaluation against its recurrence."""
    x = random_inputs(dtype, 30)[3]
    for kind in SCANS:
        layer, config = mixer_under(kind, "mamba2", dtype)
        parameters = {name: p.double() for name, p in layer.named_parameters()}
        threshold = layer.scan.threshold.double() if isinstance(layer.scan, FilteredScan) else None
        changes = RECURRENT[kind["type"]](config)
        want = recurrence(parameters, layer.config, x.double(), **changes, threshold=threshold)
        yield Comparison(
            label(kind), "outputs", layer(x, TokenContext(torch.arange(30)))[0], want, tolerance_for(dtype)
        )


def frequencies(dtype: torch.dtype) -> Iterator[Comparison]:
    """Radians per token of methods that change them, and the factor on cos and sin, at head_dim 64 and a longer
    training length.
    """
    length, e = 2048, build_encoding({"type": "rope"}, shape=replace(SHAPE, head_dim=64))
    n = int(FACTOR * length)
    empty = [torch.zeros(1, n, 1, 64).expand(1, n, 1, 64) for _ in range(3)] + [torch.zeros(1, n, 1)]
    for kind in ATTENTION_METHODS if dtype == torch.float64 else []:
        name = kind["type"]
        if name not in FREQUENCIES:
            continue
        wide = {"long": [1 + i / 8 for i in range(32)]} if name == "longrope" else {}
        choice = choose(EXTENSIONS, {**kind, **wide}, "pe.extend")
        theta, scale = RescaledFrequencies(choice.cls, choice.config, length, FACTOR)(
            e.frequencies(torch.device("cpu")), n
        )
        g = equation_inputs(e, empty, config=choice.config, length=length)
        ours, want = (theta, scale), (FREQUENCIES[name](g, FACTOR), on_cos_and_sin(name, g, FACTOR))
        both = [torch.cat([t, torch.tensor([factor], dtype=torch.float64)]) for t, factor in (ours, want)]
        yield Comparison(label(kind), "frequencies, factor", both[0], both[1], DOUBLE)
