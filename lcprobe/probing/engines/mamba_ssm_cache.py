"""mamba_ssm's cache of attention layers with a convolution, fault included: `compat.mamba_ssm_conv_bug`.

Its attention (mamba_ssm/modules/mha.py) stores q, k and v after their convolution as the convolution's history when
it has read the prompt, and shifts in inputs from then on, as it should. So the first d_conv - 1 decoded tokens are
convolved with a wrong history, and their keys and values stay wrong in the cache. Everything up to the first token of
the answer is right; so is a model without such layers.
"""

from dataclasses import replace
from typing import Any

from torch import Tensor, zeros_like

from lcprobe.models.language_model import LanguageModel, LanguageModelState, Selection
from lcprobe.models.mixers.attention import Attention, AttentionState
from lcprobe.models.state import State
from lcprobe.probing.engines.contract import ProbedModel


def convolves(model: LanguageModel) -> bool:
    """Whether a model has attention layers with a convolution, which mamba_ssm decodes wrongly."""
    return any(isinstance(mixer, Attention) and mixer.d_conv for mixer in model.mixers())


class MambaSsmCache(ProbedModel):
    """A model of ours as mamba_ssm decodes it."""

    def __init__(self, model: ProbedModel):
        """model: a LanguageModel, on one device or on several (LayerSplit)."""
        self.model = model

    def new_state(self, batch: int, length: int | None = None) -> LanguageModelState:
        """The model's own, which also keeps the last outputs of convolutions; zeros stand before the first token."""
        state = self.model.new_state(batch, length)
        assert isinstance(state, LanguageModelState)
        return replace(state, layers=tuple(map(_keeping_outputs, state.layers)))

    def hidden(self, tokens: Tensor, *, state: Any) -> tuple[Tensor, Any]:
        """The model's own."""
        return self.model.hidden(tokens, state=state)

    def logits(self, hidden: Tensor) -> Tensor:
        """The model's own."""
        return self.model.logits(hidden)

    def prompt_ended(self, state: LanguageModelState) -> LanguageModelState:
        """See ProbedModel: the last outputs of convolutions in place of their last inputs."""
        return replace(state, layers=tuple(map(_with_outputs_as_inputs, state.layers)))

    @property
    def needs_length(self) -> bool:
        """The model's own."""
        return self.model.needs_length

    @property
    def max_length(self) -> int | None:
        """The model's own."""
        return self.model.max_length

    @property
    def selection(self) -> Selection | None:
        """The model's own."""
        return self.model.selection


def _keeping_outputs(state: State) -> State:
    if isinstance(state, AttentionState) and state.conv is not None:
        return replace(state, convolved=zeros_like(state.conv))
    return state


def _with_outputs_as_inputs(state: State) -> State:
    if isinstance(state, AttentionState) and state.convolved is not None:
        return replace(state, conv=state.convolved, convolved=None)
    return state
