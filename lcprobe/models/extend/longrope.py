"""LongRoPE: every pair of a rotary encoding interpolated by a factor of its own (Ding et al. 2024, arXiv 2402.13753).

    theta_m / lambda_m, cos and sin times sqrt(1 + ln s / ln L)      beyond the training length L; s the factor
    theta_m / short_m, the same                                      up to it; as trained where no short factors are given

Factors are given (published ones), or searched: an evolution that initial_factors at pi, ntk and ntk_by_parts, keeps them in 1 .. 1.25 s
and ascending, and minimises the loss beyond L on windows of training text of s L tokens. Not searched: the paper's first tokens
that stay as they are.
"""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from lcprobe.errors import ConfigError, require
from lcprobe.models.extend.contract import ExtensionContext
from lcprobe.models.extend.rotary import RescaledFrequencies, Rescaling, ScalingContext, by_rotations
from lcprobe.models.language_model import LanguageModel

log = logging.getLogger(__name__)
N_PARENTS = 4
MAX_PAIR_FACTOR = 1.25
"""Largest factor of a pair, in units of s."""
LOSS_ROWS = 2048


@dataclass(frozen=True)
class LongRoPEConfig:
    """Factors, or the budget of their search."""

    long: tuple[float, ...] | None = None
    """One a pair, for lengths beyond the training length; null: searched."""
    short: tuple[float, ...] | None = None
    """One a pair, for lengths up to it; null: as trained."""
    attention_factor: float | None = None
    """On cos and sin; null: sqrt(1 + ln s / ln L)."""
    budget: int = 48
    """Candidates that a search tries."""
    n: int = 4
    """Windows of training text that they are tried on."""
    seed: int = 0
    """Of the windows and of the search."""

    def check(self, at: str) -> None:
        """Raises ConfigError for factors that are not positive, and for an empty budget."""
        for name in ("long", "short"):
            values = getattr(self, name)
            require(
                f"{at}.{name}",
                values,
                values is None or (len(values) > 0 and min(values) > 0),
                "numbers > 0, or null",
            )
        require(f"{at}.budget", self.budget, self.budget >= N_PARENTS, f">= {N_PARENTS}")
        require(f"{at}.n", self.n, self.n >= 1, ">= 1")
        scale = self.attention_factor
        require(f"{at}.attention_factor", scale, scale is None or scale > 0, "> 0 or null")


class LongRoPE(Rescaling):
    """A factor a pair."""

    Config = LongRoPEConfig
    causal = False
    fewest_pairs = 2

    @staticmethod
    def change(config: LongRoPEConfig, theta: Tensor, at: ScalingContext) -> tuple[Tensor, float]:
        """By the factors of the sequence's length. Raises ConfigError where no length is declared."""
        if at.length is None:
            raise ConfigError("pe.extend", "longrope", "sequences of a declared length")
        factors = config.long if at.length > at.context_length else config.short
        if factors is None:
            return theta, 1.0
        scale = math.sqrt(1 + math.log(at.s) / math.log(at.context_length))
        scale = scale if config.attention_factor is None else config.attention_factor
        return theta / torch.tensor(factors, dtype=theta.dtype, device=theta.device), scale

    def not_applicable(self, model: LanguageModel, context: ExtensionContext) -> str | None:
        """As the base. Raises ConfigError for factors of another number than pairs, and for a search without one factor."""
        reason = super().not_applicable(model, context)
        if reason is not None:
            return reason
        pairs = {len(layer.rotary.frequencies(torch.device("cpu"))) for layer in self.layers(model, context)}
        if len(pairs) > 1:
            return "its rotary layers differ in pairs"
        for name in ("long", "short"):
            given = getattr(self.config, name)
            if given is not None:
                require(
                    f"pe.extend.longrope.{name}",
                    f"{len(given)} factors",
                    len(given) in pairs,
                    f"{max(pairs)}, one a pair",
                )
        if self.config.long is None and context.factor is None:
            raise ConfigError(
                "pe.factor", "auto", "a number: longrope's factors are searched at one length, or given as `long`"
            )
        return None

    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Set the scaling; search what is not given. Raises ConfigError for a search without text."""
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
        """Factors at which training text is predicted best beyond the training length: a pure function of its arguments."""
        if context.text is None:
            raise ConfigError(
                "pe.extend.longrope.long", "nothing", "factors: no training text is at hand to search them on"
            )
        s = context.factor_at(None)
        config = self.config
        ids = context.text(config.n, round(s * context.context_length), config.seed).to(
            next(model.parameters()).device
        )
        theta = self.layers(model, context)[0].rotary.frequencies(torch.device("cpu"))
        generator = torch.Generator().manual_seed(config.seed)
        tried: list[tuple[float, tuple[float, ...]]] = []

        def attempt(factors: Tensor) -> None:
            found = tuple(factors.clamp(1, MAX_PAIR_FACTOR * s).cummax(0).values.tolist())
            if any(found == known for _, known in tried):
                return
            self._set(model, context, replace(config, long=found))
            tried.append((loss_beyond(model, ids, context.context_length), found))

        for start in initial_factors(theta, s, context.context_length):
            attempt(start)
        for _ in range(config.budget - len(tried)):
            parents = [found for _, found in sorted(tried)[:N_PARENTS]]
            attempt(recombine(parents, generator))
        return min(tried)[1]


def initial_factors(theta: Tensor, s: float, context_length: int) -> list[Tensor]:
    """Factors of pi, ntk and ntk_by_parts, (pairs,) float64 each."""
    pairs = len(theta)
    kept = by_rotations(theta, context_length, 1.0, 32.0)
    steps = torch.arange(pairs, dtype=torch.float64) / (pairs - 1)
    return [torch.full_like(theta, s), s**steps, 1 / (kept + (1 - kept) / s)]


def recombine(parents: Sequence[tuple[float, ...]], generator: torch.Generator) -> Tensor:
    """Two parents' factors mixed by pair, some of them moved by about a tenth."""
    first, second = (
        torch.tensor(parents[int(torch.randint(len(parents), (), generator=generator))]).double() for _ in range(2)
    )
    mixed = torch.where(torch.rand(len(first), generator=generator) < 0.5, first, second)
    moved = torch.rand(len(first), generator=generator) < 0.3
    step = (0.15 * torch.randn(len(first), generator=generator, dtype=torch.float64)).exp()
    return torch.where(moved, mixed * step, mixed)


def loss_beyond(model: Any, ids: Tensor, context_length: int) -> float:
    """Mean loss of tokens at and after context_length; ids: (n, length)."""
    hidden = model.hidden(ids, length=ids.shape[1])[0][:, context_length - 1 : -1].flatten(0, 1)
    targets, total = ids[:, context_length:].flatten(), 0.0
    for lo in range(0, len(targets), LOSS_ROWS):
        part = slice(lo, lo + LOSS_ROWS)
        total += float(F.cross_entropy(model.logits(hidden[part]), targets[part], reduction="sum"))
    return total / max(1, len(targets))
