"""Extensions of rotary layers that change frequencies only; theta_m in radians per token, lambda = 2 pi / theta, D =
2 x pairs.

    pi            theta / s                                                  Chen et al. 2023, arXiv 2306.15595
    ntk           theta_m s^(-2m / (D - 2))                                  bloc97 2023
    ntk_dynamic   the same with s' in place of s, n the declared length:     emozilla 2023
                      hf: s' = s n / L - (s - 1)     length: s' = n / L
    ntk_by_parts  g theta + (1 - g) theta / s,                               Peng et al. 2023, arXiv 2309.00071
                      g = clip((L / lambda - a) / (b - a), 0, 1)
    llama3        the same with a = 1, b = 4                                 Llama 3.1
    yarn          the same; cos and sin times 0.1 ln s + 1                   ibid.
                      ramp: rotations: the paper's g with a = 1, b = 32
                      ramp: dim: the released code's, linear in m between the pairs with 32 turns and 1 turn within L
    resonance     lambda rounded to an integer, after another method         Wang et al. 2024, arXiv 2403.00071
    drop          theta = 0                                                  Gelberg et al. 2025, arXiv 2512.12167

L is the training length, s the factor; at s = 1 frequencies are unchanged. All arithmetic is float64.
"""

import math
from abc import abstractmethod
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

import torch
from torch import Tensor

from lcprobe.choices import Choice
from lcprobe.errors import ConfigError, listed, require
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.extend.contract import ConfigT, Extension, ExtensionContext
from lcprobe.models.extend.layers import EncodedLayer, attention_layers, rotary_layers
from lcprobe.models.language_model import LanguageModel


@dataclass(frozen=True)
class ScalingContext:
    """What frequencies are rescaled for. s: factor; context_length: training length; length: declared length of the
    sequence."""

    s: float
    context_length: int
    length: int | None

    def declared_length(self, method: str) -> int:
        """The declared length. Raises ConfigError, naming the method that needs it, where there is none."""
        if self.length is None:
            raise ConfigError("pe.extend", method, "sequences of a declared length")
        return self.length


@dataclass(frozen=True)
class RescaledFrequencies:
    """A method and its settings as the `Scaling` of a rotary encoding."""

    method: type["Rescaling"]
    config: object
    context_length: int
    factor: float | None

    @property
    def needs_length(self) -> bool:
        """See Scaling."""
        return self.factor is None or not self.method.causal

    def __call__(self, frequencies: Tensor, length: int | None) -> tuple[Tensor, float]:
        """See Scaling."""
        s = ExtensionContext(self.context_length, self.factor).factor_at(length)
        if s == 1:
            return frequencies, 1.0
        return self.method.change(self.config, frequencies, ScalingContext(s, self.context_length, length))


class Rescaling(Extension[ConfigT]):
    """Base of extensions that set `Rotary.scaling`."""

    acts_on = "rotary"
    trainable = True
    fewest_pairs: ClassVar[int] = 1
    """Smallest number of rotated pairs for which the method is defined."""

    @staticmethod
    @abstractmethod
    def change(config: ConfigT, theta: Tensor, at: ScalingContext) -> tuple[Tensor, float]:
        """theta: (pairs,) float64 -> new frequencies, and a factor on cos and sin."""

    def layers(self, model: LanguageModel, context: ExtensionContext) -> list[EncodedLayer]:
        """The layers to change."""
        return rotary_layers(model, context.context_length)

    def not_applicable(self, model: LanguageModel, context: ExtensionContext) -> str | None:
        """See Extension; also for heads with too few pairs."""
        reason = super().not_applicable(model, context)
        if reason is not None:
            return reason
        layers = self.layers(model, context)
        if not layers:
            return "its rotary layers have windows inside the training length"
        if min(len(layer.rotary.frequencies(torch.device("cpu"))) for layer in layers) < self.fewest_pairs:
            return f"it rotates fewer than {self.fewest_pairs} pairs"
        return None

    def apply(self, model: LanguageModel, context: ExtensionContext) -> None:
        """Set the scaling of `layers`."""
        for layer in self.layers(model, context):
            layer.rotary.scaling = RescaledFrequencies(
                type(self), self.config, context.context_length, context.factor
            )


@dataclass(frozen=True)
class NoSettings:
    """The method has no settings other than the factor."""


class PI(Rescaling[NoSettings]):
    """Position interpolation."""

    Config = NoSettings

    @staticmethod
    def change(config: NoSettings, theta: Tensor, at: ScalingContext) -> tuple[Tensor, float]:
        """theta / s."""
        return theta / at.s, 1.0


class NTK(Rescaling[NoSettings]):
    """A larger base: the lowest frequency is divided by s, the highest is unchanged."""

    Config = NoSettings
    fewest_pairs = 2

    @staticmethod
    def change(config: NoSettings, theta: Tensor, at: ScalingContext) -> tuple[Tensor, float]:
        """theta_m s^(-2m / (D - 2))."""
        return rebased(theta, at.s), 1.0


@dataclass(frozen=True)
class DynamicNTKConfig:
    """The published form of dynamic NTK."""

    variant: Literal["hf", "length"] = "hf"
    """hf: s' = s n / L - (s - 1), as in transformers, which overshoots; length: s' = n / L as in the original post,
    which ignores the factor."""


class DynamicNTK(Rescaling[DynamicNTKConfig]):
    """NTK with a factor that depends on the length of the sequence."""

    Config = DynamicNTKConfig
    causal = False
    trainable = False
    fewest_pairs = 2

    @staticmethod
    def change(config: DynamicNTKConfig, theta: Tensor, at: ScalingContext) -> tuple[Tensor, float]:
        """NTK with s' >= 1. Raises ConfigError where no length is declared."""
        ratio = max(at.declared_length("ntk_dynamic"), at.context_length) / at.context_length
        return rebased(theta, ratio if config.variant == "length" else at.s * ratio - (at.s - 1)), 1.0


@dataclass(frozen=True)
class ByPartsConfig:
    """Range of the ramp between interpolated and unchanged pairs, in turns within the training length."""

    a: float = 1.0
    """Pairs with fewer turns are fully interpolated."""
    b: float = 32.0
    """Pairs with more turns are unchanged."""

    def check(self, at: str) -> None:
        """Raises ConfigError unless 0 <= a < b."""
        require(f"{at}.a", self.a, 0 <= self.a < self.b, f"0 <= a < b ({self.b:g})")


class ByParts(Rescaling[ByPartsConfig]):
    """Interpolates low frequencies only."""

    Config = ByPartsConfig

    @staticmethod
    def change(config: ByPartsConfig, theta: Tensor, at: ScalingContext) -> tuple[Tensor, float]:
        """g theta + (1 - g) theta / s."""
        return blended(theta, at.s, by_rotations(theta, at.context_length, config.a, config.b)), 1.0


@dataclass(frozen=True)
class Llama3Config(ByPartsConfig):
    """Range of the ramp of Llama 3.1, in turns within the training length."""

    b: float = 4.0
    """Pairs with more turns are unchanged."""


class Llama3(ByParts):
    """NTK by parts with the constants of Llama 3.1."""

    Config = Llama3Config


@dataclass(frozen=True)
class YaRNConfig(ByPartsConfig):
    """Ramp and attention factor of YaRN."""

    ramp: Literal["dim", "rotations"] = "dim"
    """dim: linear in the index of the pair, as in the released code and transformers; rotations: linear in turns, as
    in the paper."""
    truncate: bool = True
    """Round the ends of the dim ramp to integer pairs."""
    attention_factor: float | None = None
    """Factor on cos and sin; null: 0.1 ln s + 1."""

    def check(self, at: str) -> None:
        """Raises ConfigError unless 0 < a < b, and for an attention factor that is not positive."""
        require(f"{at}.a", self.a, 0 < self.a < self.b, f"0 < a < b ({self.b:g})")
        scale = self.attention_factor
        require(f"{at}.attention_factor", scale, scale is None or scale > 0, "> 0 or null")


class YaRN(Rescaling[YaRNConfig]):
    """NTK by parts with a temperature."""

    Config = YaRNConfig
    fewest_pairs = 2

    @staticmethod
    def change(config: YaRNConfig, theta: Tensor, at: ScalingContext) -> tuple[Tensor, float]:
        """Frequencies blended by the chosen ramp."""
        if config.ramp == "rotations":
            kept = by_rotations(theta, at.context_length, config.a, config.b)
        else:
            kept = 1 - by_dim(theta, at.context_length, config.a, config.b, config.truncate)
        scale = 0.1 * math.log(at.s) + 1 if config.attention_factor is None else config.attention_factor
        return blended(theta, at.s, kept), scale


@dataclass(frozen=True)
class ResonanceConfig:
    """The method whose wavelengths resonance RoPE rounds."""

    scaling: Annotated[Choice | None, EXTENSIONS] = None
    """Method applied before rounding, such as `yarn` or `{type: yarn, ramp: rotations}`; null: the trained
    wavelengths."""

    def check(self, at: str) -> None:
        """Raises ConfigError for a method that does not rescale frequencies."""
        if self.scaling is not None:
            self.scaling.resolve()
            if not issubclass(self.scaling.cls, Rescaling) or not self.scaling.cls.causal:
                raise ConfigError(f"{at}.scaling", self.scaling.name, "pi | ntk | ntk_by_parts | llama3 | yarn")


class Resonance(Rescaling[ResonanceConfig]):
    """Integer wavelengths: a pair returns to exactly the angles seen in training."""

    Config = ResonanceConfig
    fewest_pairs = 2

    @staticmethod
    def change(config: ResonanceConfig, theta: Tensor, at: ScalingContext) -> tuple[Tensor, float]:
        """2 pi / round(2 pi / theta); pairs with theta = 0 are unchanged."""
        scale = 1.0
        if config.scaling is not None:
            theta, scale = config.scaling.cls.change(config.scaling.config, theta, at)
        rounded = 2 * math.pi / (2 * math.pi / theta).round()
        return torch.where(theta > 0, rounded, theta), scale


@dataclass(frozen=True)
class DropConfig:
    """The layers without rotation."""

    layers: tuple[int, ...] | None = None
    """Numbers of the blocks, counted from 0; null: all rotary layers."""


class Drop(Rescaling[DropConfig]):
    """No rotation, as at the start of the paper's recalibration."""

    Config = DropConfig

    @staticmethod
    def change(config: DropConfig, theta: Tensor, at: ScalingContext) -> tuple[Tensor, float]:
        """0 for all pairs."""
        return torch.zeros_like(theta), 1.0

    def layers(self, model: LanguageModel, context: ExtensionContext) -> list[EncodedLayer]:
        """The listed layers, or all rotary ones, windows included. Raises ConfigError for a block without a rotary
        encoding."""
        rotary = {layer.block: layer for layer in attention_layers(model) if layer.is_rotary}
        if self.config.layers is None:
            return list(rotary.values())
        all_rotary = all(i in rotary for i in self.config.layers)
        allowed = f"rotary layers: {listed(rotary)}"
        require("pe.extend.layers", list(self.config.layers), all_rotary, allowed)
        return [rotary[i] for i in self.config.layers]


def rebased(theta: Tensor, s: float) -> Tensor:
    """theta_m s^(-2m / (D - 2)), which multiplies the base by s^(D / (D - 2))."""
    m = torch.arange(len(theta), dtype=theta.dtype, device=theta.device)
    return theta * s ** (-m / (len(theta) - 1))


def by_rotations(theta: Tensor, context_length: int, a: float, b: float) -> Tensor:
    """g, 0 .. 1: the fraction of each pair that is not interpolated, by its turns within the training length."""
    return ((context_length * theta / (2 * math.pi) - a) / (b - a)).clamp(0, 1)


def by_dim(theta: Tensor, context_length: int, slow: float, fast: float, truncate: bool) -> Tensor:
    """1 - g, 0 .. 1: the fraction of each pair that is interpolated, linear in its index between the pairs with
    `fast` and `slow` turns within the training length."""
    pairs = len(theta)
    log_step = float((theta[0] / theta[1]).log())  # ln base / pairs
    low, high = (math.log(context_length / (turns * 2 * math.pi)) / log_step for turns in (fast, slow))
    if truncate:
        low, high = math.floor(low), math.ceil(high)
    low, high = max(low, 0), min(high, 2 * pairs - 1)
    high = high + 0.001 if high == low else high
    m = torch.arange(pairs, dtype=theta.dtype, device=theta.device)
    return ((m - low) / (high - low)).clamp(0, 1)


def blended(theta: Tensor, s: float, kept: Tensor) -> Tensor:
    """kept theta + (1 - kept) theta / s."""
    return theta / s * (1 - kept) + theta * kept
