"""Checkpoints of transformers' dense Qwen3.5 models: Gated DeltaNet, and attention with a gated output.

Released models also see images: their config.json has the language model's in `text_config`, and what is not of the
language model is left out.
"""

from collections.abc import Mapping
from typing import Any, ClassVar

from lcprobe.models.checkpoints import hf_names
from lcprobe.models.checkpoints.contract import Keys, Place
from lcprobe.models.checkpoints.hf_qwen3_next import HFQwen3Next, hybrid_settings
from lcprobe.models.config import ModelConfig
from lcprobe.models.mixers.delta_rule import Widths


class HFQwen35Text(HFQwen3Next):
    """transformers' Qwen3.5, the language model alone."""

    name = "hf_qwen3_5_text"
    model_type: ClassVar[str] = "qwen3_5_text"
    architecture: ClassVar[str] = "Qwen3_5ForCausalLM"

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """See Format."""
        return hybrid_settings(Keys(config))

    def delta_projections(self, theirs: str, ours: str, w: Widths) -> dict[str, Place]:
        """See HFQwen3Next: not grouped here."""
        widths = {"qkv": w.convolved, "z": w.values, "b": w.n_value_heads, "a": w.n_value_heads}
        return hf_names.joint(f"{theirs}in_proj_", ours, widths)


class HFQwen35(HFQwen35Text):
    """transformers' Qwen3.5 with its language model among others."""

    name = "hf_qwen3_5"
    model_type: ClassVar[str] = "qwen3_5"
    architecture: ClassVar[str] = "Qwen3_5ForConditionalGeneration"
    model: ClassVar[str] = "model.language_model"

    def settings(self, config: Mapping[str, Any]) -> dict[str, Any]:
        """See Format."""
        return hybrid_settings(Keys(text_config(config), "text_config."))

    def ignored(self, name: str) -> bool:
        """See Format: images, and the prediction of several tokens."""
        return name.startswith(("model.visual.", "mtp."))

    def config_json(self, config: ModelConfig) -> dict[str, Any]:
        """See Format."""
        found = super().config_json(config)
        outer = {key: found.pop(key) for key in ("architectures", "model_type")}
        return {**outer, "text_config": {"model_type": HFQwen35Text.model_type, **found}}


def text_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The language model's part of config.json; whether its head is tied is said outside it, too."""
    outer = {key: config[key] for key in ("tie_word_embeddings",) if key in config}
    return {**outer, **Keys(config).section("text_config").mapping}
