"""Matching: solve sizes so that every model of a study has the same number of parameters.

Free sizes (null d_model or d_ff, n_layers: solve) are searched in hardware-friendly multiples; pinned ones stay.
Parameters are counted by the closed forms of each mixer's `cost`. Equal parameters do not imply equal FLOPs or state:
the plan shows all three.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from lcprobe.errors import ConfigError, unknown_name
from lcprobe.models.config import MatchConfig, ModelConfig
from lcprobe.models.layout import parse_layout
from lcprobe.models.parts import ModelCost, ModelParts, cost_of, mlp_of, model_cost, parts_of, resolved_sizes

MAX_LAYERS = 256
"""Largest number of blocks that is tried where n_layers is solved."""


@dataclass(frozen=True)
class Matched:
    """A model with all sizes. cost: at the given length; mismatch: relative difference from the budget, None without
    a budget."""

    config: ModelConfig
    cost: ModelCost
    mismatch: float | None


def match(models: Mapping[str, ModelConfig], rules: MatchConfig, lengths: Mapping[str, int]) -> dict[str, Matched]:
    """Solve the sizes of every model. lengths: by model, the sequence length at which its cost is reported.

    Raises ConfigError where a size is free and there is no budget, where no sizes fit, and where two models differ by
    more than `refuse_above` without `allow_mismatch`.
    """
    budget = _budget(models, rules)
    matched = {}
    for name, config in models.items():
        if budget is not None and _is_free(config):
            config = _solve(name, config, rules, budget)
        cost = model_cost(config, lengths[name])
        matched[name] = Matched(config, cost, None if budget is None else cost.params / budget - 1)
    spread = mismatch_of([m.cost.params for m in matched.values()])
    if spread > rules.refuse_above and not rules.allow_mismatch:
        counts = ", ".join(f"{name} {m.cost.params:,}" for name, m in matched.items())
        raise ConfigError(
            "match",
            f"models {spread:.1%} apart ({counts})",
            f"<= {rules.refuse_above:.0%} (match.budget, or allow_mismatch)",
        )
    return matched


def mismatch_of(params: Sequence[int]) -> float:
    """Largest relative difference between the parameter counts of two models."""
    return max(params) / min(params) - 1 if params else 0.0


def _budget(models: Mapping[str, ModelConfig], rules: MatchConfig) -> int | None:
    if rules.budget is None or isinstance(rules.budget, int):
        return rules.budget
    if rules.budget not in models:
        raise unknown_name("match.budget", rules.budget, models)
    anchor = models[rules.budget]
    if _is_free(anchor):
        raise ConfigError("match.budget", rules.budget, "a number, or a model with all its sizes pinned")
    return model_cost(anchor, 1).params


def _is_free(config: ModelConfig) -> bool:
    return config.d_model is None or config.n_layers == "solve" or (config.d_ff is None and _has_mlp(config))


def _has_mlp(config: ModelConfig) -> bool:
    return any(mlp_of(layer, config) for layer in parse_layout(config.layout))


def _solve(name: str, config: ModelConfig, rules: MatchConfig, budget: int) -> ModelConfig:
    """The candidate closest to the preferred proportions among those within the target, else the closest in
    parameters."""
    best: tuple[tuple[float, float], ModelConfig] | None = None
    for candidate, params in _candidates(config, rules, budget):
        difference = abs(params / budget - 1)
        score = (0.0, _aspect_penalty(candidate, rules)) if difference <= rules.target else (difference, 0.0)
        if best is None or score < best[0]:
            best = (score, candidate)
    if best is None:
        given = f"no width at which {name} has about {budget:,} parameters"
        raise ConfigError("match.budget", given, "another budget, layout or head_dim")
    return best[1]


def _candidates(config: ModelConfig, rules: MatchConfig, budget: int) -> Iterator[tuple[ModelConfig, int]]:
    """Configs with all sizes, and their parameters, up to 1.5 times the budget."""
    small = budget < 20_000_000
    d_step = rules.d_model_multiple or (8 if small else 128)
    f_step = rules.d_ff_multiple or (8 if small else 64)
    pattern = parse_layout(config.layout)
    solve_d_ff = config.d_ff is None and _has_mlp(config)
    depths = range(len(pattern), MAX_LAYERS + 1, len(pattern)) if config.n_layers == "solve" else [config.n_layers]
    for n_layers in depths:
        deep = replace(config, n_layers=n_layers)
        parts = parts_of(deep)

        def params(sized: ModelConfig, parts: ModelParts = parts) -> int:
            return cost_of(parts, sized, 1).params

        fits = False
        for d_model in [config.d_model] if config.d_model is not None else range(d_step, 1 << 15, d_step):
            sized = replace(deep, d_model=d_model)
            try:
                if solve_d_ff:
                    base, one = (params(replace(sized, d_ff=f)) for f in (1, 2))
                    d_ff = round((budget - base + (one - base)) / (one - base) / f_step) * f_step
                    sized = replace(sized, d_ff=max(f_step, d_ff))
                count = params(sized)
            except ConfigError:  # the number of heads does not divide at this width
                continue
            if count > 1.5 * budget:
                break
            fits = True
            yield sized, count
        if not fits and n_layers is not None and n_layers > len(pattern):
            return  # deeper models are larger still


def _aspect_penalty(config: ModelConfig, rules: MatchConfig) -> float:
    """Distance from the preferred aspect and MLP ratios, in powers of two."""
    d_model, d_ff, _ = resolved_sizes(config)
    n_layers = config.n_layers if isinstance(config.n_layers, int) else len(parse_layout(config.layout))
    pattern = parse_layout(config.layout)
    mlps = [mlp for layer in pattern if (mlp := mlp_of(layer, config)) is not None]
    sublayers = n_layers * (1 + len(mlps) / len(pattern))
    penalty = abs(math.log2(d_model / sublayers / rules.aspect))
    return penalty + (abs(math.log2(d_ff / d_model / mlps[0].cls.ff_ratio)) if mlps else 0.0)
