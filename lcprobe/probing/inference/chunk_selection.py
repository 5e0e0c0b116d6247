"""Prompts that are read in pieces: which piece each is answered from (`pe.extend=chunk_select`)."""

from collections.abc import Sequence

import numpy as np
import torch

from lcprobe.probing.engines.contract import ProbedModel
from lcprobe.probing.inference.oom import with_oom_backoff
from lcprobe.probing.inference.prefill import prefill
from lcprobe.probing.inference.prefix_sharing import plan_prefill


def selected(
    model: ProbedModel,
    prompts: Sequence[np.ndarray],
    rooms: Sequence[int],
    chunk: int,
    device: torch.device,
    batch_tokens: int,
) -> tuple[list[np.ndarray], np.ndarray]:
    """What is read in each prompt's place, and (n,) tokens that were read to choose it: the piece after which the next token is
    the surest, the first of equals. rooms: tokens that follow each prompt. A model without `selection` reads prompts as they are.
    """
    selection = model.selection
    if selection is None:
        return list(prompts), np.zeros(len(prompts), dtype=np.int64)
    cut = [selection.pieces(np.asarray(prompt), room) for prompt, room in zip(prompts, rooms, strict=True)]
    asked = [piece for pieces in cut if len(pieces) > 1 for piece in pieces]
    found = iter(
        with_oom_backoff(lambda part: _entropies(model, part, chunk, device, batch_tokens), asked, len(asked[0]))[0]
        if asked
        else []
    )
    chosen, spent = [], np.zeros(len(cut), dtype=np.int64)
    for number, pieces in enumerate(cut):
        best, least = pieces[0], float("inf")
        for piece in pieces if len(pieces) > 1 else ():
            one = next(found)
            if one is None:
                raise MemoryError("out of memory with one piece of a prompt")
            spent[number] += one[1]
            if one[0] < least:
                least, best = one[0], piece
        chosen.append(best)
    return chosen, spent


def _entropies(
    model: ProbedModel, pieces: list[np.ndarray], chunk: int, device: torch.device, batch_tokens: int
) -> list[tuple[float, int]]:
    """Entropy in nats of the next token after each piece, and the tokens that were read for it."""
    longest = max(map(len, pieces))
    program = plan_prefill(pieces, max(1, batch_tokens // longest))
    found = torch.empty(len(pieces), dtype=torch.float64)
    for ended, _, last in prefill(model, program, pieces, chunk, device, longest + 1):
        logp = model.logits(last).log_softmax(-1)
        found[ended] = -(logp.exp() * logp).sum(-1).double().cpu()
    return [(float(entropy), int(tokens)) for entropy, tokens in zip(found, program.new, strict=True)]
