"""The biases that a trained model's attention adds to scores as a function of distance, per layer and head."""

import torch

from lcprobe.models.language_model import LanguageModel

POINTS = 48
"""Number of distances at which biases are evaluated, evenly spaced on a logarithmic scale."""


@torch.no_grad()
def bias_curves(model: LanguageModel, longest: int) -> list[dict[str, int | float | str]]:
    """One row per layer, head and distance: layer (number of the block), head, encoding, distance, bias.

    Layers whose encoding has no bias give no rows. longest: distances are below this.
    """
    last = torch.tensor(float(max(longest - 1, 1))).log10().item()
    spaced = torch.logspace(0, last, POINTS, dtype=torch.float64)
    distances = torch.cat([torch.zeros(1, dtype=torch.int64), spaced.round().long()]).unique()
    rows = []
    for number, mixer in enumerate(model.mixers()):
        encoding = mixer.encoding
        if encoding is None:
            continue
        biases = encoding.bias(distances.to(next(model.parameters()).device))
        if biases is None:
            continue
        name = type(encoding).__name__
        for head, values in enumerate(biases.double().cpu().tolist()):
            rows += [
                {"layer": number, "head": head, "encoding": name, "distance": d, "bias": value}
                for d, value in zip(distances.tolist(), values, strict=True)
            ]
    return rows
