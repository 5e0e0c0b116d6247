"""Mixers in parallel, `parallel(mamba2, attention)`: all read the same normed input, and their outputs are combined.

mean    out_proj(1/n sum_i rms_norm_i(o_i)): one output projection, over the mean of what each mixer would project,
        normed (Hymba, arXiv 2411.13676, eq. 2), with a bias where any of theirs has one; all must have one inner
        width
sum     sum_i out_proj_i(o_i): every mixer keeps its own output projection, of any width (Falcon-H1,
        arXiv 2507.22448)
"""

import functools
from collections.abc import Sequence

import torch
from lcprobe_kernels.rms_norm import rms_norm
from torch import Tensor, nn

from lcprobe.errors import ConfigError, listed
from lcprobe.models.cost import Cost
from lcprobe.models.mixers.contract import Mixer, MixerConfig
from lcprobe.models.parameters import Parametrised

NORM_EPS = 1e-6
"""Epsilon of the norms of outputs, added to the mean square."""


class MeanOfOutputs(Parametrised):
    """The mean of several mixers' normed outputs, before the one output projection that they share."""

    no_decay = ("norm_weight",)
    residual_outputs = ("out_proj.weight",)

    def __init__(self, mixers: Sequence[Mixer]):
        """Takes the output projections of the mixers. Raises ConfigError where their widths differ."""
        super().__init__()
        outputs = [mixer.output for mixer in mixers]
        check_widths([output.in_features for output in outputs])
        self.out_proj = next((output for output in outputs if output.bias is not None), outputs[0])
        self.norm_weight = nn.Parameter(torch.empty(len(mixers), outputs[0].in_features))
        for mixer in mixers:
            mixer.share_output(self.out_proj)

    def init_parameter(self, name: str, value: Tensor, generator: torch.Generator) -> None:
        """See Parametrised: weights of the norms start at 1."""
        if name == "norm_weight":
            value.fill_(1.0)
        else:
            super().init_parameter(name, value, generator)

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        """outputs: (batch, seqlen, width) of each mixer -> (batch, seqlen, d_model)."""
        weights = self.norm_weight / len(outputs)
        normed = [rms_norm(y, weight, NORM_EPS) for y, weight in zip(outputs, weights, strict=True)]
        return self.out_proj(sum(normed[1:], normed[0]))


def check_widths(widths: Sequence[int]) -> None:
    """Raises ConfigError unless all widths are equal."""
    if len(set(widths)) > 1:
        raise ConfigError(
            "model.layout",
            f"mixers in parallel of inner widths {listed(widths, ', ')}",
            "equal widths, for the mean of their outputs (n_heads, head_dim, expand), or model.parallel: sum",
        )


def mean_cost(mixers: Sequence[tuple[type[Mixer], MixerConfig]], d_model: int) -> Cost:
    """What the mean adds to the cost of its mixers: their norms, less the output projections but one, one
    with a bias where there is any. Raises ConfigError where widths differ."""
    outputs = [_output(mixer, config, d_model) for mixer, config in mixers]
    check_widths([width for width, _ in outputs])
    width, params = outputs[0][0], [params for _, params in outputs]
    spared = len(outputs) - 1
    return Cost(len(outputs) * width - sum(params) + max(params), -2 * spared * width * d_model)


@functools.lru_cache(maxsize=1024)
def _output(mixer: type[Mixer], config: MixerConfig, d_model: int) -> tuple[int, int]:
    """Inner width, and parameters of the output projection."""
    with torch.device("meta"):
        output = mixer(config, d_model).output
    return output.in_features, sum(p.numel() for p in output.parameters())
