"""Matching: solve sizes so that every model of a study has equal parameters, FLOPs per token, or bytes of state.

Free sizes (null d_model or d_ff, n_layers: solve) are searched in hardware-friendly multiples; pinned ones stay.
Costs are the closed forms of each mixer's `cost`. Equal parameters do not imply equal FLOPs or state: the plan shows
all three.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from lcprobe.choices import Choice
from lcprobe.errors import ConfigError, listed, nearest_name, require
from lcprobe.models.config import MatchConfig, ModelConfig
from lcprobe.models.layout import parse_layout
from lcprobe.models.parts import ModelCost, ModelParts, cost_of, mlp_of, model_cost, parts_of, resolved_sizes

MAX_LAYERS = 256
"""Largest number of blocks that is tried where n_layers is solved."""
SMALL = {"params": 20e6, "flops": 40e6, "state_bytes": 4e6}
"""Budgets below which sizes are solved in multiples of 8."""
FAR = 1 << 24
"""A length at which every window is full."""


@dataclass(frozen=True)
class Matched:
    """A model with all sizes. cost: at the given length; amount: its parameters, FLOPs per token or bytes of state,
    whichever are matched; mismatch: relative difference of the amount from the budget, None without a budget."""

    config: ModelConfig
    cost: ModelCost
    amount: float
    mismatch: float | None


def match(models: Mapping[str, ModelConfig], rules: MatchConfig, lengths: Mapping[str, int]) -> dict[str, Matched]:
    """Solve the sizes of every model. lengths: by model, the sequence length at which its cost is reported, and its
    FLOPs are matched.

    Raises ConfigError where a size is free and there is no budget, where no sizes fit, where state is matched and
    grows with length, and where two models differ by more than `refuse_above` without `allow_mismatch`.
    """
    budget = _budget(models, rules, lengths)
    matched = {}
    for name, config in models.items():
        if budget is not None and _is_free(config):
            config = _solve(name, config, rules, budget, lengths[name])
        cost = model_cost(config, lengths[name])
        with _of(name):
            amount = amount_of(parts_of(config), config, rules.by, lengths[name])
        matched[name] = Matched(config, cost, amount, None if budget is None else amount / budget - 1)
    spread = mismatch_of([m.amount for m in matched.values()])
    if spread > rules.refuse_above and not rules.allow_mismatch:
        counts = listed((f"{name} {m.amount:,.0f}" for name, m in matched.items()), ", ")
        raise ConfigError(
            "match",
            f"models {spread:.1%} apart ({counts})",
            f"<= {rules.refuse_above:.0%} (match.budget, or allow_mismatch)",
        )
    return matched


def mismatch_of(amounts: Sequence[float]) -> float:
    """Largest relative difference between what two models have of the amount that is matched."""
    return max(amounts) / min(amounts) - 1 if amounts else 0.0


def amount_of(parts: ModelParts, config: ModelConfig, by: str, length: int) -> float:
    """Parameters, FLOPs per token at this length, or bytes of state once windows are full.

    Raises ConfigError where the bytes of state grow with length, or are none.
    """
    if by != "state_bytes":
        cost = cost_of(parts, config, length)
        return cost.params if by == "params" else cost.flops
    cost, longer = cost_of(parts, config, FAR).blocks, cost_of(parts, config, 2 * FAR).blocks
    if longer.kv_bytes > cost.kv_bytes:
        grows = "where attention has no window, or a window with sinks: its state grows with length"
        raise ConfigError("match.by", by, f"params | flops {grows}")
    require("match.by", by, cost.state_bytes + cost.kv_bytes > 0, "params | flops for a model without state")
    return cost.state_bytes + cost.kv_bytes


@contextmanager
def _of(name: str) -> Iterator[None]:
    """Errors about what is matched name the model."""
    try:
        yield
    except ConfigError as error:
        given = f"{error.given} of {name}" if error.key == "match.by" else error.given
        raise ConfigError(error.key, given, error.allowed, error.near) from None


def _budget(models: Mapping[str, ModelConfig], rules: MatchConfig, lengths: Mapping[str, int]) -> float | None:
    if rules.budget is None or isinstance(rules.budget, int):
        return rules.budget
    if rules.budget not in models:
        allowed = f"{listed(models)}, a number, or match.budget=null with all sizes given"
        raise ConfigError("match.budget", rules.budget, allowed, nearest_name(rules.budget, models))
    anchor = models[rules.budget]
    if _is_free(anchor):
        raise ConfigError("match.budget", rules.budget, "a number, or a model with all its sizes pinned")
    with _of(rules.budget):
        return amount_of(parts_of(anchor), anchor, rules.by, lengths[rules.budget])


def _is_free(config: ModelConfig) -> bool:
    return config.d_model is None or config.n_layers == "solve" or (config.d_ff is None and bool(_mlps(config)))


def _mlps(config: ModelConfig) -> list[Choice]:
    """The MLPs of the layout as written."""
    return [mlp for layer in parse_layout(config.layout) if (mlp := mlp_of(layer, config)) is not None]


def _solve(name: str, config: ModelConfig, rules: MatchConfig, budget: float, length: int) -> ModelConfig:
    """The candidate closest to the preferred proportions among those within the target, else the closest to the
    budget."""
    best: tuple[tuple[float, float], ModelConfig] | None = None
    refusals: list[ConfigError] = []
    for candidate, amount in _candidates(name, config, rules, budget, length, refusals):
        difference = abs(amount / budget - 1)
        score = (0.0, _aspect_penalty(candidate, rules)) if difference <= rules.target else (difference, 0.0)
        if best is None or score < best[0]:
            best = (score, candidate)
    if best is None:
        given = f"no width at which {name} has about {budget:,.0f} {rules.amount}"
        why = f" ({refusals[-1].key}: {refusals[-1].allowed})" if refusals else ""
        raise ConfigError("match.budget", given, f"another budget, layout or head_dim{why}")
    return best[1]


def _candidates(
    name: str, config: ModelConfig, rules: MatchConfig, budget: float, length: int, refusals: list[ConfigError]
) -> Iterator[tuple[ModelConfig, float]]:
    """Configs with all sizes, and their amounts, up to 1.5 times the budget. refusals: collects the errors of widths
    that cannot be built."""
    small = budget < SMALL[rules.by]
    d_step = rules.d_model_multiple or (8 if small else 128)
    f_step = rules.d_ff_multiple or (8 if small else 64)
    pattern = parse_layout(config.layout)
    solve_d_ff = config.d_ff is None and bool(_mlps(config))
    ff_ratio = _mlps(config)[0].cls.ff_ratio if solve_d_ff else 0.0
    depths = range(len(pattern), MAX_LAYERS + 1, len(pattern)) if config.n_layers == "solve" else [config.n_layers]
    for n_layers in depths:
        deep = replace(config, n_layers=n_layers)
        parts = parts_of(deep)

        def amount(sized: ModelConfig, parts: ModelParts = parts) -> float:
            with _of(name):
                return amount_of(parts, sized, rules.by, length)

        fits = False
        for d_model in [config.d_model] if config.d_model is not None else range(d_step, 1 << 15, d_step):
            sized = replace(deep, d_model=d_model)
            try:
                if solve_d_ff:
                    base, one = (amount(replace(sized, d_ff=f)) for f in (1, 2))
                    # no MLP adds to the state: there d_ff has its preferred ratio
                    wide = (budget - base + (one - base)) / (one - base) if one > base else ff_ratio * d_model
                    sized = replace(sized, d_ff=max(f_step, round(wide / f_step) * f_step))
                found = amount(sized)
            except ConfigError as error:  # the number of heads does not divide at this width
                if error.key == "match.by":
                    raise
                refusals.append(error)
                continue
            if found > 1.5 * budget:
                break
            fits = True
            yield sized, found
        if not fits and n_layers is not None and n_layers > len(pattern):
            return  # deeper models are larger still


def _aspect_penalty(config: ModelConfig, rules: MatchConfig) -> float:
    """Distance from the preferred aspect and MLP ratios, in powers of two."""
    d_model, d_ff, _ = resolved_sizes(config)
    n_layers = config.n_layers if isinstance(config.n_layers, int) else len(parse_layout(config.layout))
    pattern = parse_layout(config.layout)
    mlps = _mlps(config)
    sublayers = n_layers * (1 + len(mlps) / len(pattern))
    penalty = abs(math.log2(d_model / sublayers / rules.aspect))
    return penalty + (abs(math.log2(d_ff / d_model / mlps[0].cls.ff_ratio)) if mlps else 0.0)
