"""Models of lcprobe under test: every registered mixer, and the patterns of configs/model/ in small widths."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lcprobe.config import load
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel, LanguageModelState
from lcprobe.models.layout import layers_of
from lcprobe.models.mixers import MIXERS
from lcprobe.probing.inference.continuation import Continuer
from lcprobe.schema import build
from validation.invariances.checks import SEQLEN, VOCAB, Side
from validation.oracles.cases import label
from validation.oracles.mixers import D_MODEL, KINDS, REQUIRED

D_FF, CONTEXT_LENGTH = 40, 32
"""Sequences are longer than the training length."""
DEFAULT_WIDTH = 64
"""d_model of mixers with their default settings."""
SMALL: dict[str, list[dict[str, Any]]] = {
    "attention": [
        {"head_dim": 8},
        {"head_dim": 8, "n_heads": 4, "n_kv_heads": 2, "window": 7, "d_conv": 3},
        {"head_dim": 8, "window": 5, "window_counts_self": False, "qk_norm": True},
    ],
    "mamba2": [
        {"head_dim": 8, "d_state": 6, "chunk_size": 8},
        {"head_dim": 4, "d_state": 3, "n_groups": 2, "chunk_size": 5, "d_conv": 2},
    ],
}
"""Settings at which mixers are small, in addition to those of the oracles."""
MAX_BLOCKS = 8
"""Deeper patterns are cut to half of it."""
CONFIGS = Path(__file__).resolve().parents[2] / "configs" / "model"


@dataclass(frozen=True)
class Ours:
    """A LanguageModel as a Subject."""

    model: LanguageModel

    def logits(self, tokens: Tensor) -> Tensor:
        """See Subject."""
        return self.model.logits(self.model.hidden(tokens)[0])

    def packed(self, tokens: Tensor, starts: Tensor) -> Tensor:
        """See Subject."""
        return self.model.logits(self.model.hidden(tokens, starts=starts)[0])

    def new_state(self, batch: int) -> LanguageModelState:
        """See Subject."""
        return self.model.new_state(batch)

    def advance(
        self, tokens: Tensor, state: LanguageModelState, starts: Tensor | None = None
    ) -> tuple[Tensor, LanguageModelState]:
        """See Subject."""
        hidden, after = self.model.hidden(tokens, starts=starts, state=state)
        assert after is not None
        return self.model.logits(hidden), after

    def fork(self, state: LanguageModelState, n: int) -> LanguageModelState:
        """See Subject."""
        return state.fork(n)

    def rows(self, state: LanguageModelState, index: Tensor) -> LanguageModelState:
        """See Subject."""
        return state.rows(index)

    def padded(self, prompts: Sequence[Tensor], more: Tensor, side: Side) -> list[Tensor]:
        """See Subject. right: the prompts in one forward pass, padded; and what follows as the probe engine reads it,
        from which a row is taken where its prompt ends. left: a row's document starts where its padding ends."""
        longest = max(map(len, prompts))
        padded = torch.zeros(len(prompts), longest, dtype=torch.int64)
        starts = torch.zeros(len(prompts), longest, dtype=torch.bool)
        at = [0 if side == "right" else longest - len(prompt) for prompt in prompts]
        for row, prompt in enumerate(prompts):
            padded[row, at[row] : at[row] + len(prompt)] = prompt
            starts[row, at[row]] = True
        if side == "right":
            read, after = self.logits(padded), self._continued(prompts, more)
        else:
            read, state = self.advance(padded, self.model.new_state(len(prompts)), starts)
            after = self._decoded(more, state)
        own = [read[row, lo : lo + len(prompt)] for row, (lo, prompt) in enumerate(zip(at, prompts, strict=True))]
        return [torch.cat(both) for both in zip(own, after, strict=True)]

    def _continued(self, prompts: Sequence[Tensor], more: Tensor) -> list[Tensor]:
        """Logits of what follows each prompt, from the states of the probe engine, which takes the shortest first."""
        order = sorted(range(len(prompts)), key=lambda row: len(prompts[row]))
        found: dict[int, Tensor] = {}
        engine = Continuer(self.model, "cpu", chunk=SEQLEN // 3, batch_tokens=1 << 20)
        for rows, state, _ in engine.prefill(order, [prompts[row].numpy() for row in order], None):
            found |= dict(zip(rows, self._decoded(more[rows], state), strict=True))
        return [found[row] for row in range(len(prompts))]

    def _decoded(self, more: Tensor, state: Any) -> list[Tensor]:
        parts = []
        for t in range(more.shape[1]):
            part, state = self.advance(more[:, t : t + 1], state)
            parts.append(part)
        return list(torch.cat(parts, 1))

    def parameters(self) -> list[Tensor]:
        """See Subject."""
        return list(self.model.parameters())


def models() -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and ModelConfig, as written in a config, of every row: the mixers, then the patterns."""
    for name in MIXERS:
        kinds = settings_of(name)
        for settings in kinds:
            yield label({"type": name, **settings}), mixer_model(name, settings, D_MODEL)
        if not kinds:
            yield name, mixer_model(name, REQUIRED.get(name, {}), DEFAULT_WIDTH)
    for path in sorted(CONFIGS.glob("*.yaml")):
        yield f"configs/model/{path.name}", shrunk(load([str(path)], [])["model"])


def settings_of(name: str) -> list[dict[str, Any]]:
    """Settings at which a mixer is small; none where neither the oracles nor SMALL have it."""
    return SMALL.get(name, []) + [
        {key: value for key, value in kind.items() if key != "type"} for kind in KINDS if kind["type"] == name
    ]


def mixer_model(name: str, settings: Mapping[str, Any], d_model: int) -> dict[str, Any]:
    """A model of two blocks with one mixer."""
    return _sized({"layout": f"{name}+mlp, {name}", "mixers": {name: dict(settings)}}, d_model)


def shrunk(given: Mapping[str, Any]) -> dict[str, Any]:
    """A model of configs/model/ in small widths: its pattern, norms, MLPs and kinds of heads stay."""
    n_layers, index = given.get("n_layers"), given.get("attn_layer_idx")
    blocks = layers_of(given["layout"], n_layers if isinstance(n_layers, int) else None, index)
    deep = len(blocks) > MAX_BLOCKS
    entries = {name for block in blocks for name in block.mixers}
    mixers = {name: given.get("mixers", {}).get(name, {}) for name in sorted(entries)}
    return _sized(
        {
            **given,
            "n_layers": MAX_BLOCKS // 2 if deep else None,
            "attn_layer_idx": None if index is None else [1],
            "mixers": {name: {**written, **_narrow(name, written)} for name, written in mixers.items()},
        },
        D_MODEL,
    )


def _narrow(name: str, written: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes of an entry of `model.mixers`, made small."""
    small = settings_of(written.get("type", name))[0]
    if written.get("type", name) == "attention":
        small = {**small, "n_heads": None} | ({"window": 7} if "window" in written else {})
        small |= {"n_kv_heads": 1} if "n_kv_heads" in written else {}
    return small


def _sized(settings: Mapping[str, Any], d_model: int) -> dict[str, Any]:
    own = {"vocab_size": VOCAB, "d_model": d_model, "d_ff": D_FF, "context_length": CONTEXT_LENGTH}
    return {**settings, **own, "initializer_range": 0.5}


def built(settings: Mapping[str, Any], dtype: torch.dtype = torch.float64) -> LanguageModel:
    """A model with initial values; parameters that start at zero are set, so that they take part."""
    model = LanguageModel(build(ModelConfig, settings, "model")).initialise(1)
    with torch.no_grad():
        for i, p in enumerate(model.parameters()):
            if not p.any():
                p.copy_(0.3 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return model.to(dtype).eval()
