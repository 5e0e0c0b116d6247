"""Prompts that are read in pieces: the choice of the piece that each is answered from (`pe.extend=chunk_select`)."""

from collections.abc import Sequence

import numpy as np
import torch

from lcprobe.probing.engines.contract import ProbedModel
from lcprobe.probing.inference.oom import with_oom_backoff
from lcprobe.probing.inference.prefill import prefill
from lcprobe.probing.inference.prefix_sharing import plan_prefill


def select_chunks(
    model: ProbedModel,
    prompts: Sequence[np.ndarray],
    rooms: Sequence[int],
    chunk: int,
    device: torch.device,
    batch_tokens: int,
) -> tuple[list[np.ndarray], np.ndarray]:
    """The piece that is read in place of each prompt, and (n,) tokens that were read to choose it.

    It is the piece after which the entropy of the next token is lowest, the first of equal ones. rooms: tokens that
    follow each prompt. For a model without `selection` it is the whole prompt.
    """
    selection = model.selection
    if selection is None:
        return list(prompts), np.zeros(len(prompts), dtype=np.int64)
    pieces_of = [selection.pieces(np.asarray(prompt), room) for prompt, room in zip(prompts, rooms, strict=True)]
    compared = [piece for pieces in pieces_of if len(pieces) > 1 for piece in pieces]
    results = []
    if compared:
        results, _ = with_oom_backoff(
            lambda part: _entropies(model, part, chunk, device, batch_tokens), compared, len(compared[0])
        )
    entropies = iter(results)
    chosen, spent = [], np.zeros(len(pieces_of), dtype=np.int64)
    for number, pieces in enumerate(pieces_of):
        best, lowest = pieces[0], float("inf")
        for piece in pieces if len(pieces) > 1 else ():
            result = next(entropies)
            if result is None:
                raise MemoryError("out of memory with one piece of a prompt")
            entropy, tokens = result
            spent[number] += tokens
            if entropy < lowest:
                lowest, best = entropy, piece
        chosen.append(best)
    return chosen, spent


def _entropies(
    model: ProbedModel, pieces: list[np.ndarray], chunk: int, device: torch.device, batch_tokens: int
) -> list[tuple[float, int]]:
    """Entropy in nats of the next token after each piece, and the tokens that were read for it."""
    longest = max(map(len, pieces))
    program = plan_prefill(pieces, max(1, batch_tokens // longest))
    entropies = torch.empty(len(pieces), dtype=torch.float64)
    for ended, _, last in prefill(model, program, pieces, chunk, device, longest + 1):
        logp = model.logits(last).log_softmax(-1)
        entropies[ended] = -(logp.exp() * logp).sum(-1).double().cpu()
    return [(float(entropy), int(tokens)) for entropy, tokens in zip(entropies, program.new, strict=True)]
