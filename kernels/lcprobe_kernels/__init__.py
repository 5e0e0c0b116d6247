"""Ops of lcprobe: one import path each, with its equation, a plain reference and the path that is fast here.

ssd, causal_conv1d, rms_norm, linear_recurrence, linear_cross_entropy, gated_linear_attention; `backends` chooses the
implementation, and `python -m lcprobe_kernels` says which ones work here. Depends on torch (and, for GPU paths, triton) alone.
"""

from lcprobe_kernels.errors import ArgumentError

__all__ = ["ArgumentError"]
