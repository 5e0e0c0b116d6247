"""Variants of the probed models: each as trained, and with each method of `pe.extend` that applies to it; and each of
these with every prompt template."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from lcprobe.analysis.inputs import NotCausal
from lcprobe.data.prepare import Prepared
from lcprobe.errors import ConfigError, listed, require
from lcprobe.files import digest_json
from lcprobe.models.extend.config import AS_TRAINED, ExtendConfig, Method
from lcprobe.models.extend.contract import Extension, ExtensionContext, extended
from lcprobe.models.language_model import LanguageModel
from lcprobe.probing.config import NO_FAULTS, CompatConfig, ProbeConfig
from lcprobe.probing.engines.mamba_ssm_cache import MambaSsmCache, convolves
from lcprobe.probing.engines.split.layers import LayerSplit
from lcprobe.probing.sharing.work import ProbedCheckpoint
from lcprobe.schema import plain
from lcprobe.seeds import Stream
from lcprobe.studies.evaluation.prompts import templates_of
from lcprobe.studies.evaluation.sources import Loaded
from lcprobe.studies.evaluation.targets import ProbeTarget
from lcprobe.tasks.text.templates import NO_TEMPLATE, PromptTemplate


@dataclass(frozen=True)
class Variant:
    """A target as trained or with a method. max_length: tokens that its table of positions has; None: no limit.
    compat: faults that it is probed with. template: around its prompts; tag: what tells it apart from the same model
    with other templates."""

    target: ProbeTarget
    max_length: int | None
    method: Method | None = None
    extension: Extension | None = None
    compat: CompatConfig = NO_FAULTS
    template: PromptTemplate = NO_TEMPLATE
    tag: str = ""

    @property
    def name(self) -> str:
        """Name in records and report: `rope`, `rope+yarn`; `rope+yarn@chat` where there are several templates."""
        return (self.target.name if self.method is None else f"{self.target.name}+{self.method.label}") + self.tag

    @property
    def base(self) -> str:
        """Name of the same model as trained, with the same template."""
        return self.target.name + self.tag

    @property
    def label(self) -> str:
        """Label of the method; `none` as trained."""
        return AS_TRAINED if self.method is None else self.method.label

    def context(self, text: Callable[[int, int, int], Tensor] | None = None) -> ExtensionContext:
        """What the method is given: training length, factor, and training text for methods that calibrate."""
        factor = 1.0 if self.method is None else self.method.factor
        return ExtensionContext(self.target.config.train.context_length, factor, text)

    def not_applicable(self, model: LanguageModel | None) -> str | None:
        """Why the method does not apply to the target's model; None if it does. A method for encodings does not apply
        to those that were trained with an extension: two of them are one that nobody has published."""
        assert self.extension is not None, "as trained, nothing has to apply"
        if model is None:
            return f"the engine {self.target.source.engine} runs it, and methods need lcprobe's own mixers"
        trained = self.target.config.train.extend
        if trained is not None and self.extension.acts_on in ("rotary", "attention"):
            return f"it was trained with {trained.label}"
        return self.extension.not_applicable(model, self.context())

    @property
    def selects_prompt(self) -> bool:
        """Whether its method answers from a part of the prompt, chosen by the question."""
        return self.extension is not None and self.extension.selects_prompt

    @property
    def not_causal(self) -> NotCausal:
        """Why a token's output depends on the length of the whole sequence; empty: it does not."""
        if self.extension is not None and not self.extension.causal:
            return "method"
        positions = self.target.config.model.positions
        if positions is not None and positions.create().at_test:
            return "positions"
        return "factor" if self.context().factor is None else ""

    @property
    def changes(self) -> str:
        """Digest of the method, its settings and its factor; `none` as trained."""
        if self.method is None or self.extension is None:
            return AS_TRAINED
        return digest_json([self.method.choice.name, plain(self.extension.config), self.method.factor])[:16]


def variants_of(
    targets: list[ProbeTarget],
    pe: ExtendConfig,
    compat: CompatConfig = NO_FAULTS,
    templates: Sequence[str] = ("auto",),
) -> tuple[list[Variant], list[str]]:
    """Variants grouped by target, and a note for each method, each fault of `compat` and each template that does not
    apply to a target.

    No weights are loaded. Raises ConfigError for wrong settings, for a method or fault that applies to no target, and
    for a target without a template.
    """
    models = [target.source.meta_model(target.config) for target in targets]
    limits = [target.source.max_length(target.config) for target in targets]
    faults, notes = _faults(targets, models, compat)
    by_target = {
        target.name: [Variant(target, limit, compat=faults[target.name])]
        for target, limit in zip(targets, limits, strict=True)
    }
    for method in pe.methods():
        extension, reasons = method.choice.create(), []
        for target, model, limit in zip(targets, models, limits, strict=True):
            variant = Variant(target, limit, method, extension, faults[target.name])
            reason = variant.not_applicable(model)
            if reason is None:
                by_target[target.name].append(variant)
            else:
                reasons.append(f"{method.label} on {target.name}: {reason}")
        if len(reasons) == len(targets):
            raise ConfigError(
                method.choice.key,
                method.label,
                f"a method that applies to a model given here ({listed(reasons, '; ')})",
            )
        notes += reasons
    found: list[Variant] = []
    for target in targets:
        levels, lacking = templates_of(target, templates)
        notes += lacking
        for template in levels:
            tag = f"@{template.name}" if len(levels) > 1 else ""
            found += [replace(variant, template=template, tag=tag) for variant in by_target[target.name]]
    return found, notes


def _faults(
    targets: list[ProbeTarget], models: list[LanguageModel | None], compat: CompatConfig
) -> tuple[dict[str, CompatConfig], list[str]]:
    """The faults of each target: those of `compat` that its model can have; and a note where it cannot."""
    can = {target.name: model is not None and convolves(model) for target, model in zip(targets, models, strict=True)}
    if not compat.mamba_ssm_conv_bug:
        return dict.fromkeys(can, compat), []
    if not any(can.values()):
        allowed = "false where no model has attention layers with a convolution (d_conv)"
        raise ConfigError("compat.mamba_ssm_conv_bug", True, allowed)
    notes = [
        f"mamba_ssm_conv_bug on {name}: no attention layer with a convolution"
        for name, able in can.items()
        if not able
    ]
    return {name: compat if able else NO_FAULTS for name, able in can.items()}, notes


def training_text(data: Prepared) -> Callable[[int, int, int], Tensor]:
    """A function (n, length, seed) -> (n, length) windows of the training tokens, which raises ConfigError where
    there are fewer than `length`."""

    def text(n: int, length: int, seed: int) -> Tensor:
        if data.n_tokens < length:
            raise ConfigError(
                "pe.factor", f"{length} tokens to calibrate on", f"<= the corpus's {data.n_tokens} training tokens"
            )
        starts = Stream("extension text", seed).integers(data.n_tokens - length + 1, n)
        return torch.from_numpy(np.stack([data.tokens(int(start), length) for start in starts]))

    return text


def checkpoint_of(variant: Variant, probe: ProbeConfig | None = None) -> ProbedCheckpoint:
    """A variant's identity, before it is loaded. probe: the precision of weights and of computing."""
    source, probe = variant.target.source, probe or ProbeConfig()
    facts: dict[str, Any] = {"extension": variant.label, "changes": variant.changes}
    facts |= {"factor_at": variant.context().factor_at, "compat": variant.compat}
    facts |= {"precision": probe.precision, "engine": source.engine}
    if source.published is not None:
        facts["weights"] = probe.weights
    progress = source.progress
    return ProbedCheckpoint(variant.name, source.digest, progress.step, progress.tokens, **facts)


def split_devices() -> list[str]:
    """The GPUs of this machine. Raises ConfigError for fewer than two."""
    count = torch.cuda.device_count()
    require("probe.split", True, count > 1, f"false with {count} GPUs: layers are spread over two or more")
    return [f"cuda:{i}" for i in range(count)]


def load_variant(
    variant: Variant, device: str, data: Prepared | None = None, probe: ProbeConfig | None = None
) -> tuple[Loaded, ProbedCheckpoint]:
    """A variant's model, ready for inference, and its identity; nothing is written. data: for methods that
    calibrate. probe: the precision of weights and of computing, see `in_precision`."""
    probe = probe or ProbeConfig()
    # what is spread over several devices is whole on none of them
    on = "cpu" if probe.split else device
    loaded = variant.target.source.load(variant.target.config, on, probe.weights, probe.split)
    if variant.extension is not None:
        assert loaded.module is not None, "methods apply to our own mixers"
        context = variant.context(None if data is None else training_text(data))
        module = extended(loaded.module, variant.extension, context)
        loaded = replace(loaded, engine=module, module=module)
    if probe.split and loaded.module is not None:
        split = LayerSplit(loaded.module, split_devices())
        loaded = replace(loaded, engine=split, note=lambda: split.note)
    if variant.compat.mamba_ssm_conv_bug:
        assert loaded.module is not None, "other engines decode as they do"
        assert loaded.engine is not None, "a model of ours is loaded here"
        loaded = replace(loaded, engine=MambaSsmCache(loaded.engine))
    return loaded, checkpoint_of(variant, probe)
