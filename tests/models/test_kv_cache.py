"""The cache of keys and values: what any tree of continuations holds, and what is copied for it."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lcprobe.models.kv_cache import KVCache


def tokens(n, batch=2, dtype=torch.float32):
    return tuple(torch.randn(batch, n, 3, 4).to(dtype) for _ in range(2))


def empty(batch=2):
    return KVCache(*tokens(0, batch))


STEP = st.tuples(
    st.sampled_from(["append"] * 6 + ["last", "rows", "fork", "grad", "double"]),
    st.integers(0, 9),
    st.integers(1, 40),
)


@settings(max_examples=80, deadline=None)
@given(st.lists(STEP, min_size=1, max_size=25))
def test_every_cache_of_a_tree_keeps_what_was_put_into_it(steps):
    """Against plain concatenation; each step continues any earlier cache, and none changes by it."""
    caches = [(empty(), *tokens(0))]
    for what, of, n in steps:
        cache, k, v = caches[-1 - of % len(caches)]
        if what in ("append", "grad", "double"):
            new = tokens(n, k.shape[0], torch.float64 if what == "double" or k.dtype == torch.float64 else k.dtype)
            with torch.set_grad_enabled(what == "grad"):
                cache = cache.append(*new)
            k, v = (torch.cat([t.to(x.dtype), x], dim=1) for t, x in zip((k, v), new, strict=True))
        elif what == "last":
            cache, k, v = cache.last(n), k[:, -n:], v[:, -n:]
        else:
            index = torch.tensor([0, k.shape[0] - 1])
            cache = cache.rows(index) if what == "rows" else cache.rows(index[:1]).fork(2)
            k, v = (t[index if what == "rows" else torch.tensor([0, 0])] for t in (k, v))
        caches.append((cache, k, v))
        assert cache.nbytes == 2 * k.numel() * k.element_size()
    for cache, k, v in caches:
        assert torch.equal(cache.k, k)
        assert torch.equal(cache.v, v)


@torch.no_grad()
def test_a_token_is_written_behind_the_others_and_not_copied_with_them():
    cache, places = empty().append(*tokens(1000)), set()
    for _ in range(2000):
        cache = cache.append(*tokens(1))
        places.add(cache.k.data_ptr())
    assert len(places) <= 10  # 1.125^10 > 3
    assert cache.k.transpose(1, 2)[0, 0].is_contiguous()


@torch.no_grad()
def test_the_room_is_an_eighth_of_the_cache():
    cache = empty().append(*tokens(4000)).append(*tokens(1))
    assert cache.buffer is not None
    assert cache.buffer.k.shape[2] <= 4500 + 8


@torch.no_grad()
@pytest.mark.parametrize("window", [1, 7, 64])
def test_a_window_moves_over_its_buffer_and_frees_a_long_chunk(window):
    cache = empty().append(*tokens(1000)).last(window)
    assert cache.buffer is None  # a thousand tokens are not kept for the window's sake
    assert cache.k.untyped_storage().nbytes() == cache.k.numel() * 4
    copies = 0
    for _ in range(100):
        before = cache.buffer
        cache = cache.append(*tokens(1)).last(window)
        copies += cache.buffer is not before
        assert cache.k.shape[1] == window
    assert copies <= 14


@torch.no_grad()
def test_heads_come_first_in_memory_after_rows_and_forks_too():
    cache = empty().append(*tokens(100)).append(*tokens(1))
    for other in (cache.rows(torch.tensor([1, 0, 1])), cache.fork(2), cache.fork(2).last(7)):
        assert other.k[0, :, 0].is_contiguous()
        assert other.v[0, :, 0].is_contiguous()


def test_a_cache_from_inference_mode_continues_outside_it():
    with torch.inference_mode():
        cache = empty().append(*tokens(5))
    with torch.no_grad():
        assert cache.append(*tokens(1)).k.shape[1] == 6
    assert cache.append(*tokens(2)).k.shape[1] == 7
