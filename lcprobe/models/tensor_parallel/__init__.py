"""Tensor parallelism: several processes each compute a share of the heads and widths of a layer (Shoeybi et al. 2019,
Megatron-LM, arXiv 1909.08053).

A layer's first projection is divided by rows, its last by columns, whose products the processes sum: one sum per
layer in the forward pass, and one in the backward pass. What a process has are plain tensors of smaller widths, so
that every op, also one that knows nothing of this, computes a layer with fewer heads.

split     how a parameter is divided, which layers declare; dividing a layer
attention how it is shared, by heads
layers    the two kinds of projections, and a norm over widths that are divided
"""
