"""What a trained model's attention adds to scores by distance alone: read from its encodings, layer by layer and head by head."""

from typing import Any

import torch

from lcprobe.models.language_model import LanguageModel

POINTS = 48
"""Distances between 0 and the longest, evenly spaced on a logarithmic scale."""


@torch.no_grad()
def bias_curves(model: LanguageModel, longest: int) -> list[dict[str, Any]]:
    """One row a layer, head and distance: layer (block's number), head, encoding, distance, bias. Empty without such encodings.

    longest: distances are below this.
    """
    spread = torch.logspace(0, torch.tensor(float(max(longest - 1, 1))).log10().item(), POINTS, dtype=torch.float64)
    distances = torch.cat([torch.zeros(1, dtype=torch.int64), spread.round().long()]).unique()
    rows = []
    for number, mixer in enumerate(model.mixers()):
        encoding = mixer.encoding
        if encoding is None:
            continue
        found = encoding.bias(distances.to(next(model.parameters()).device))
        if found is None:
            continue
        name = type(encoding).__name__
        for head, values in enumerate(found.double().cpu().tolist()):
            rows += [
                {"layer": number, "head": head, "encoding": name, "distance": d, "bias": value}
                for d, value in zip(distances.tolist(), values, strict=True)
            ]
    return rows
