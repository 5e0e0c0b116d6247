"""mamba_ssm's cache of attention layers with a convolution, fault included: `compat.mamba_ssm_conv_bug`.

Its attention (mamba_ssm/modules/mha.py) stores q, k and v after their convolution as the convolution's history when
it has read the prompt, and shifts in inputs from then on, as it should. So the first d_conv - 1 decoded tokens are
convolved with a wrong history, and their keys and values stay wrong in the cache. Everything up to the first token of
the answer is right; so is a model without such layers.
"""

from dataclasses import replace

from torch import zeros_like

from lcprobe.models.kv_cache import AttentionState
from lcprobe.models.language_model import LanguageModel, LanguageModelState
from lcprobe.models.mixers.attention import Attention
from lcprobe.models.state import State
from lcprobe.probing.engines.wrapped import Wrapped


def convolves(model: LanguageModel) -> bool:
    """Whether a model has attention layers with a convolution, which mamba_ssm decodes wrongly."""
    return any(isinstance(mixer, Attention) and mixer.d_conv for mixer in model.mixers())


class MambaSsmCache(Wrapped):
    """A model of ours, on one device or on several (LayerSplit), as mamba_ssm decodes it."""

    def new_state(self, batch: int, length: int | None = None) -> LanguageModelState:
        """The model's own, which also keeps the last outputs of convolutions; zeros stand before the first token."""
        state = self.model.new_state(batch, length)
        assert isinstance(state, LanguageModelState)
        return replace(state, layers=tuple(map(_keeping_outputs, state.layers)))

    def prompt_ended(self, state: LanguageModelState) -> LanguageModelState:
        """See ProbedModel: the last outputs of convolutions in place of their last inputs."""
        return replace(state, layers=tuple(map(_with_outputs_as_inputs, state.layers)))


def _keeping_outputs(state: State) -> State:
    if isinstance(state, AttentionState) and state.conv is not None:
        return replace(state, convolved=zeros_like(state.conv))
    return state


def _with_outputs_as_inputs(state: State) -> State:
    if isinstance(state, AttentionState) and state.convolved is not None:
        return replace(state, conv=state.convolved, convolved=None)
    return state
