"""LongRoPE: every pair of a rotary encoding is interpolated by a factor of its own (Ding et al. 2024, arXiv
2402.13753).

    theta_m / lambda_m, cos and sin times sqrt(1 + ln s / ln L)      beyond the training length L; s the factor
    theta_m / short_m, likewise                                      up to it; as trained without short factors

Factors are given (published ones) or searched: an evolutionary search that starts from pi, ntk and ntk_by_parts,
keeps factors in 1 .. 1.25 s and ascending, and minimises the loss beyond L on windows of s L tokens of training text.
Not implemented: the paper's initial tokens that are not interpolated.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

from lcprobe.errors import ConfigError, require
from lcprobe.models.extend.contract import ExtensionContext
from lcprobe.models.extend.rotary import RescaledFrequencies, Rescaling, ScalingContext, by_rotations
from lcprobe.models.language_model import LanguageModel

log = logging.getLogger(__name__)
N_PARENTS = 4
"""Number of best candidates from which new ones are bred."""
MAX_PAIR_FACTOR = 1.25
"""Largest factor of a pair, in units of s."""
LOSS_ROWS = 2048
"""Predictions whose logits are computed at once."""


@dataclass(frozen=True)
class LongRoPEConfig:
    """LongRoPE's factors, or the budget of their search."""

    long: tuple[float, ...] | None = None
    """Factors for lengths beyond the training length, one per pair; null: searched."""
    short: tuple[float, ...] | None = None
    """Factors for lengths up to the training length, one per pair; null: as trained."""
    attention_factor: float | None = None
    """Factor on cos and sin; null: sqrt(1 + ln s / ln L)."""
    budget: int = 48
    """Number of candidates that the search evaluates."""
    n: int = 4
    """Number of windows of training text on which candidates are evaluated."""
    seed: int = 0
    """Seed of the windows and of the search."""

    def check(self, at: str) -> None:
        """Raises ConfigError for factors that are not positive, and for budgets that are too small."""
        for name, values in (("long", self.long), ("short", self.short)):
            positive = values is None or (len(values) > 0 and min(values) > 0)
            require(f"{at}.{name}", values, positive, "numbers > 0, or null")
        require(f"{at}.budget", self.budget, self.budget >= N_PARENTS, f">= {N_PARENTS}")
        require(f"{at}.n", self.n, self.n >= 1, ">= 1")
        scale = self.attention_factor
        require(f"{at}.attention_factor", scale, scale is None or scale > 0, "> 0 or null")


class LongRoPE(Rescaling[LongRoPEConfig]):
    """One interpolation factor per pair."""

    Config = LongRoPEConfig
    causal = False
    trainable = False
    fewest_pairs = 2

    @staticmethod
    def change(config: LongRoPEConfig, theta: Tensor, at: ScalingContext) -> tuple[Tensor, float]:
        """See Rescaling: by the long or short factors. Raises ConfigError where no length is declared."""
        factors = config.long if at.declared_length("longrope") > at.context_length else config.short
        if factors is None:
            return theta, 1.0
        scale = math.sqrt(1 + math.log(at.s) / math.log(at.context_length))
        scale = scale if config.attention_factor is None else config.attention_factor
        return theta / torch.tensor(factors, dtype=theta.dtype, device=theta.device), scale

    def not_applicable(self, model: LanguageModel, context: ExtensionContext) -> str | None:
        """See Extension. Raises ConfigError for a wrong number of factors, and for a search without a fixed extension
        factor."""
        reason = super().not_applicable(model, context)
        if reason is not None:
            return reason
        pairs = {len(layer.rotary.frequencies(torch.device("cpu"))) for layer in self.layers(model, context)}
        if len(pairs) > 1:
            return "its rotary layers differ in pairs"
        for name, given in (("long", self.config.long), ("short", self.config.short)):
            if given is not None:
                allowed = f"{max(pairs)}, one per pair"
                require(f"pe.extend.longrope.{name}", f"{len(given)} factors", len(given) in pairs, allowed)
        if self.config.long is None and context.factor is None:
            raise ConfigError(
                "pe.factor", "auto", "a number: longrope's factors are searched at one length, or given as `long`"
            )
        return None

    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Set the scaling, after a search for factors that are not given. Raises ConfigError for a search without
        text."""
        config = self.config
        if config.long is None:
            config = replace(config, long=self.search_factors(model, context))
            log.info("longrope: factors %s", " ".join(f"{x:.3g}" for x in config.long or ()))
        self._set(model, context, config)

    def _set(self, model: LanguageModel, context: ExtensionContext, config: LongRoPEConfig) -> None:
        for layer in self.layers(model, context):
            layer.rotary.scaling = RescaledFrequencies(LongRoPE, config, context.context_length, context.factor)

    @torch.no_grad()
    def search_factors(self, model: LanguageModel, context: ExtensionContext) -> tuple[float, ...]:
        """The factors with the lowest loss found beyond the training length: a pure function of the arguments."""
        if context.text is None:
            raise ConfigError("pe.extend.longrope.long", None, "factors: no training text is available for a search")
        s = context.factor_at(None)
        config = self.config
        ids = context.text(config.n, round(s * context.context_length), config.seed).to(
            next(model.parameters()).device
        )
        theta = self.layers(model, context)[0].rotary.frequencies(torch.device("cpu"))
        generator = torch.Generator().manual_seed(config.seed)
        tried: list[tuple[float, tuple[float, ...]]] = []

        def evaluate(factors: Tensor) -> None:
            candidate = tuple(factors.clamp(1, MAX_PAIR_FACTOR * s).cummax(0).values.tolist())
            if any(candidate == known for _, known in tried):
                return
            self._set(model, context, replace(config, long=candidate))
            tried.append((loss_beyond(model, ids, context.context_length), candidate))

        for start in initial_factors(theta, s, context.context_length):
            evaluate(start)
        for _ in range(config.budget - len(tried)):
            parents = [factors for _, factors in sorted(tried)[:N_PARENTS]]
            evaluate(recombine(parents, generator))
        return min(tried)[1]


def initial_factors(theta: Tensor, s: float, context_length: int) -> list[Tensor]:
    """The factors of pi, ntk and ntk_by_parts: (pairs,) float64 each."""
    pairs = len(theta)
    kept = by_rotations(theta, context_length, 1.0, 32.0)
    steps = torch.arange(pairs, dtype=torch.float64) / (pairs - 1)
    return [torch.full_like(theta, s), s**steps, 1 / (kept + (1 - kept) / s)]


def recombine(parents: Sequence[tuple[float, ...]], generator: torch.Generator) -> Tensor:
    """A new candidate: the factors of two random parents mixed by pair, some of them changed by about 15 %."""
    first, second = (
        torch.tensor(parents[int(torch.randint(len(parents), (), generator=generator))]).double() for _ in range(2)
    )
    mixed = torch.where(torch.rand(len(first), generator=generator) < 0.5, first, second)
    mutated = torch.rand(len(first), generator=generator) < 0.3
    step = (0.15 * torch.randn(len(first), generator=generator, dtype=torch.float64)).exp()
    return torch.where(mutated, mixed * step, mixed)


def loss_beyond(model: LanguageModel, ids: Tensor, context_length: int) -> float:
    """Mean loss of the tokens from index context_length on. ids: (n, length) int64."""
    hidden = model.hidden(ids, length=ids.shape[1])[0][:, context_length - 1 : -1].flatten(0, 1)
    targets, total = ids[:, context_length:].flatten(), 0.0
    for lo in range(0, len(targets), LOSS_ROWS):
        part = slice(lo, lo + LOSS_ROWS)
        total += float(F.cross_entropy(model.logits(hidden[part]), targets[part], reduction="sum"))
    return total / max(1, len(targets))
