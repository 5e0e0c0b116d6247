"""Documents that the host knows are those that a GPU would be asked for, and nothing is asked; flash-linear-attention's
own host code, with kernels that do nothing, asks for nothing either."""

from importlib.util import find_spec

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lcprobe_kernels import ArgumentError
from lcprobe_kernels.attention import DocumentNumbers, attention, flash_attn
from lcprobe_kernels.gated_linear_attention import fla, gated_linear_attention
from lcprobe_kernels.known_on_host import KnownOnHost
from lcprobe_kernels.packed import boundaries_of, boundaries_up_to, documents_of

from lcprobe.models.token_context import TokenContext
from tests.kernels.gated_linear_attention_cases import draw_inputs
from tests.waiting import collected

FORMS = [("plain", False), ("plain", True), ("bonus", False), ("beta", True), ("beta", False), ("erase", False), ("ab", False)]  # fmt: skip
ROWS = st.lists(st.lists(st.booleans(), min_size=7, max_size=7), min_size=1, max_size=3)


@settings(max_examples=40, deadline=None, derandomize=True)
@given(ROWS, st.integers(0, 6), st.integers(1, 3))
def test_known_documents_are_those_that_are_counted(rows, past, places):
    starts = torch.tensor(rows)
    boundaries = boundaries_of(starts)
    spread = torch.stack([starts, *[torch.zeros_like(starts)] * (places - 1)], 2).flatten(1)
    for known, counted in zip(documents_of(spread, boundaries), documents_of(spread), strict=True):
        assert torch.equal(torch.Tensor(known), counted)
    numbers = starts.cumsum(1)
    counted = flash_attn.pack(numbers[:, past:], numbers)
    known = flash_attn.pack_known(boundaries, 7 - past, numbers.shape, numbers.device)
    assert all(
        torch.equal(a, b) if isinstance(a, torch.Tensor) else a == b for a, b in zip(known, counted, strict=True)
    )
    assert torch.equal(boundaries_up_to(boundaries, 7, past + 1), boundaries_of(starts[:, : past + 1]))


@settings(max_examples=20, deadline=None, derandomize=True)
@given(ROWS, st.integers(1, 6))
def test_a_chunk_of_rows_knows_the_documents_of_the_keys_before_it(rows, first):
    """As for a rank that has tokens 3 .. of the rows, some of the tokens before these, and their documents."""
    starts, n_past = torch.tensor(rows), min(first, 3)
    begun = starts[:, :3].int().mul(torch.arange(3)).amax(1)
    where = TokenContext(torch.arange(3, 6), starts[:, 3:6], doc_start=begun).known_on_host(starts, 6)
    alive = torch.arange(3 - n_past, 3) >= begun[:, None]
    documents = where.documents_after(len(rows), n_past, alive)
    counted = flash_attn.pack(documents.queries, documents.keys)
    shape = documents.keys.shape
    known = flash_attn.pack_known(documents.boundaries, 3, shape, starts.device)
    seen = [
        (range(*q), range(*k)) for q, k in zip(_pairs(known.cu_q), _pairs(known.cu_k), strict=True) if len(range(*q))
    ]
    want = [
        (range(*q), range(*k))
        for q, k in zip(_pairs(counted.cu_q), _pairs(counted.cu_k), strict=True)
        if len(range(*q))
    ]
    assert seen == want


def _pairs(lengths):
    ends = lengths.tolist()
    return list(zip(ends[:-1], ends[1:], strict=True))


def test_what_is_computed_from_known_numbers_is_known_and_the_rest_is_not():
    ends = torch.tensor([0, 3, 9, 10])
    known = KnownOnHost.of(ends, ends.device)
    with collected() as asked:
        lengths = known.diff()
        counts = (lengths + 3).div(4, rounding_mode="floor")
        spread = torch.repeat_interleave(torch.arange(3), counts)
        table = torch.stack([spread, torch.arange(len(spread))], 1).to(known)
        last, all_of_them = counts.cumsum(0)[-1].item(), counts.tolist()
        mixed = counts + torch.arange(3)
    assert asked == []
    assert (last, all_of_them) == (4, [1, 2, 1])
    assert table.tolist() == [[0, 0], [1, 1], [1, 2], [2, 3]]
    assert type(lengths) is type(counts) is KnownOnHost
    assert type(spread) is type(mixed) is torch.Tensor
    assert known.contiguous() is known, "fla's caches look for the same tensor"


def test_boundaries_of_other_rows_are_refused():
    q = torch.zeros(1, 4, 1, 8)
    numbers = torch.zeros(1, 4, dtype=torch.int64)
    for wrong, named in ((torch.tensor([0, 4]), "int32"), (torch.zeros(1, 2, dtype=torch.int32), "int32")):
        with pytest.raises(ArgumentError, match=f"boundaries: given .* allowed: {named}"):
            attention(q, q, q, documents=DocumentNumbers(numbers, numbers, wrong))
        with pytest.raises(ArgumentError, match=f"boundaries: given .* allowed: {named}"):
            gated_linear_attention(q, q, q, -q.abs(), boundaries=wrong)
    with pytest.raises(ArgumentError, match="given of 5 tokens; allowed: of 4, 1 rows of 4 keys"):
        flash_attn.pack_known(torch.tensor([0, 5]).int(), 4, numbers.shape, q.device)
    with pytest.raises(ArgumentError, match="given up to 3; allowed: a divisor of 4"):
        documents_of(numbers == 0, torch.tensor([0, 3]).int())


@pytest.mark.slow
@pytest.mark.parametrize(("form", "per_head"), FORMS)
def test_flas_host_code_asks_for_nothing(form, per_head, monkeypatch):
    """Its functions, forward and backward, with every kernel left out. Without boundaries they ask in every call."""
    if find_spec("fla") is None or find_spec("triton") is None:
        pytest.skip("fla or triton is not installed")
    from triton.runtime import autotuner, interpreter, jit

    for kind in (jit.JITFunction, autotuner.Autotuner, autotuner.Heuristics):
        monkeypatch.setattr(kind, "run", lambda *given, **more: None)
    monkeypatch.setattr(interpreter.InterpretedFunction, "__getitem__", lambda *given: lambda *a, **more: None)
    inputs, starts = draw_inputs(form, (2, 130, 2, (32, 32)), 4, per_head=per_head, with_state=False)
    inputs = {k: v.bfloat16().requires_grad_() for k, v in inputs.items()}
    names = ("q", "k", "v", "log_decay", "bonus", "beta", "erase", "a", "b")
    given = [*(inputs.get(name) for name in names), None, 0.5, starts]

    def run(boundaries):
        with collected() as asked:
            o, state = fla._called(*given, boundaries)
            (o.float().sum() + state.sum()).backward()
        return asked

    assert run(boundaries_of(starts)) == []
    assert run(None)
