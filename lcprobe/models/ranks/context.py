"""ContextRanks: the processes that a sequence is divided over, in its order, and their point-to-point messages."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import torch
from torch import Tensor, distributed

from lcprobe.errors import ConfigError

Message = tuple[int, Tensor]
"""The other rank, and a tensor: what is sent to it, or a contiguous buffer for what it sends."""


@dataclass(frozen=True)
class ContextRanks:
    """The ranks of one sequence. group: their process group, whose rank r has the r-th chunk; rank: that of this
    process; size: number of ranks; sent: bytes that this process has sent, by the name of the message."""

    group: distributed.ProcessGroup
    rank: int
    size: int
    sent: Counter[str] = field(default_factory=Counter, repr=False, compare=False)

    @staticmethod
    def of(group: distributed.ProcessGroup) -> "ContextRanks":
        """All ranks of a process group."""
        return ContextRanks(group, distributed.get_rank(group), distributed.get_world_size(group))

    def span(self, seqlen: int) -> tuple[int, int]:
        """First token of this rank's chunk, and the one after its last. Raises ConfigError where ranks do not divide
        the length."""
        if seqlen % self.size or not seqlen:
            raise ConfigError("length", seqlen, f"a multiple of the {self.size} ranks of a sequence")
        chunk = seqlen // self.size
        return self.rank * chunk, (self.rank + 1) * chunk

    def shares(self, seqlen: int) -> list[tuple[int, int]]:
        """First token, and the one after the last, of every rank's part of a pass of any length: parts differ by one
        token at most."""
        edges = [seqlen * rank // self.size for rank in range(self.size + 1)]
        return list(pairwise(edges))

    @torch.compiler.disable(reason="sends messages")
    def swap(self, name: str, sends: Sequence[Message], receives: Sequence[Message]) -> None:
        """Send and receive, and wait for all of it. Every rank calls this in the same order; a message is expected by
        its receiver with the same number of elements, and empty ones are not sent. name: for `sent`."""
        wanted = [(distributed.isend, sends), (distributed.irecv, receives)]
        operations = [
            distributed.P2POp(operation, tensor, distributed.get_global_rank(self.group, other), self.group)
            for operation, messages in wanted
            for other, tensor in messages
            if tensor.numel()
        ]
        self.sent[name] += sum(tensor.numel() * tensor.element_size() for _, tensor in sends)
        if operations:
            for work in distributed.batch_isend_irecv(operations):
                work.wait()

    def gathered(self, name: str, own: Tensor, seqlen: int) -> Tensor:
        """(batch, seqlen, ...) of all ranks. own: this rank's part of it, by `shares`."""
        parts = [own.new_empty(own.shape[0], hi - lo, *own.shape[2:]) for lo, hi in self.shares(seqlen)]
        parts[self.rank] = own.contiguous()
        others = [rank for rank in range(self.size) if rank != self.rank]
        self.swap(name, [(rank, parts[self.rank]) for rank in others], [(rank, parts[rank]) for rank in others])
        return torch.cat(parts, dim=1)

    @torch.compiler.disable(reason="sends messages")
    def from_last(self, name: str, tensors: Sequence[Tensor]) -> list[Tensor]:
        """Those of the last rank, in all of them: one message for each dtype."""
        found = list(tensors)
        source = distributed.get_global_rank(self.group, self.size - 1)
        for dtype in dict.fromkeys(t.dtype for t in tensors):
            index = [i for i, t in enumerate(tensors) if t.dtype == dtype]
            flat = torch.cat([tensors[i].reshape(-1) for i in index])
            distributed.broadcast(flat, source, group=self.group)
            if self.rank == self.size - 1:
                self.sent[name] += flat.numel() * flat.element_size()
            for i, value in zip(index, flat.split([tensors[i].numel() for i in index]), strict=True):
                found[i] = value.view(tensors[i].shape)
        return found

    def document_before(self, starts: Tensor | None, first: int) -> Tensor | None:
        """Row index of the first token of the document that token `first` - 1 belongs to, (batch,) int64; None: 0 in
        all rows. starts: of whole rows, (batch, seqlen) bool, or None."""
        if starts is None or not first:
            return None
        index = torch.arange(first, device=starts.device)
        return torch.where(starts[:, :first], index, 0).amax(1)
