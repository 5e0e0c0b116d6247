"""Positions that are drawn at evaluation too: distributed as in training, and the same in any chunks."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lcprobe.choices import choose
from lcprobe.errors import ConfigError, EpisodeError
from lcprobe.models.config import ModelConfig
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.extend.contract import ExtensionContext, extended
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.positional import POSITIONS
from lcprobe.probing.inference.continuation import Continuer
from lcprobe.probing.plain_text import Points, TextWindow, measure_windows
from lcprobe.schema import build
from tests.models.contract_cases import ENCODINGS, table_size
from tests.toys import registered

L, MAX, N = 16, 200, 41
RANDOMIZED = {"type": "randomized", "max_length": MAX}
IDS = torch.randint(0, 40, (2, N), generator=torch.Generator().manual_seed(0))


def model_of(positional="rope", positions=RANDOMIZED, **attention):
    mixers = {"attention": {"head_dim": 8, "n_kv_heads": 1, **attention}, "mamba2": {"head_dim": 8, "d_state": 4}}
    sizes = {
        "layout": "attention+mlp x 2",
        "d_model": 16,
        "d_ff": 16,
        "vocab_size": 40,
        "context_length": L,
        "mixers": mixers,
    }
    config = {**sizes, "positional": positional, "positions": positions}
    with registered():
        model = LanguageModel(build(ModelConfig, config, "model")).initialise(2).double().eval()
    with torch.no_grad():
        for block in model.blocks:
            block.mixer.in_proj.weight *= 3
    return model


def randomized(max_length=MAX):
    choice = choose(POSITIONS, {"type": "randomized", "max_length": max_length}, "positions")
    return choice.create()


@torch.no_grad()
def hidden_in_chunks(model, ids, length, chunks, starts=None):
    state, parts, lo = model.new_state(len(ids), length), [], 0
    for n in chunks:
        some = None if starts is None else starts[:, lo : lo + n]
        hidden, state = model.hidden(ids[:, lo : lo + n], starts=some, state=state)
        parts.append(hidden)
        lo += n
    return torch.cat(parts, 1)


def test_gaps_are_distributed_as_in_training():
    """The mean gap is (max_length + 1) / (length + 1), and all positions are drawn about equally often."""
    drawn = randomized()
    for length in (L, 2 * L, 100):
        torch.manual_seed(0)
        train = torch.cat([drawn.draw(length).diff() for _ in range(200)]).double()
        test = drawn.of_length(length, length).diff().double()
        assert abs(train.mean() - (MAX + 1) / (length + 1)) < 0.05 * train.mean()
        assert abs(test.mean() - train.mean()) < 0.2 * train.mean()
        assert abs(test.std() - train.std()) < 0.5 * train.std() + 0.2
    positions = torch.cat([drawn.of_length(n, n) for n in range(2, MAX)])
    low, high = (positions < MAX // 2).sum(), (positions >= MAX // 2).sum()
    assert abs(int(low - high)) < 0.03 * len(positions)


@given(st.integers(2, 60), st.integers(0, 300), st.integers(0, 80))
def test_positions_are_a_sorted_subset_and_a_function_of_length(length, spare, n):
    drawn = randomized(length + spare)
    whole = drawn.of_length(length, length)
    assert (whole.diff() > 0).all()
    assert 0 <= int(whole[0])
    assert int(whole[-1]) < length + spare
    some = drawn.of_length(length, n)
    assert len(some) == n
    assert torch.equal(some[:length], whole[:n])
    assert (some.diff() >= 0).all()
    assert n == 0 or int(some[-1]) < length + spare


@pytest.mark.parametrize("window", [None, 9])
@pytest.mark.parametrize("name", ENCODINGS)
def test_chunks_decoding_and_shared_prefixes_have_the_same_positions(name, window):
    reads_positions = ENCODINGS[name].reads_positions
    model = model_of({"type": name, **table_size(name, MAX)}, window=window)
    assert model.needs_length
    assert model.max_length == MAX
    with torch.no_grad():
        whole = model.hidden(IDS)[0]
        plain = LanguageModel(build(ModelConfig, {**vars(model.config), "positions": None}, "model")).double().eval()
        plain.load_state_dict(model.state_dict())
        assert ((plain.hidden(IDS)[0] - whole).abs().max() > 1e-3) == reads_positions
    for chunks in ([19, *[1] * 22], [7, 1, 20, 13]):
        assert (hidden_in_chunks(model, IDS, N, chunks) - whole).abs().max() < 1e-11
    assert (hidden_in_chunks(model, IDS[:, :30], N, [12, 18]) - whole[:, :30]).abs().max() < 1e-11, (
        "a prefix of a longer sequence"
    )
    state = model.new_state(2, N)
    with torch.no_grad():
        _, state = model.hidden(IDS[:, :25], state=state)
        forked, _ = model.hidden(IDS[:1, 25:].expand(3, -1), state=state.rows(torch.tensor([0, 0, 0])))
    assert (forked[2] - whole[0, 25:]).abs().max() < 1e-11
    if reads_positions:
        assert (hidden_in_chunks(model, IDS, N + 5, [N]) - whole).abs().max() > 1e-4, (
            "another length, other positions"
        )


@pytest.mark.parametrize("name", ["rope", "fire", "kerple"])
def test_documents_in_chunks(name):
    model = model_of(name)
    starts = torch.zeros(2, N, dtype=torch.bool)
    starts[0, 11] = starts[1, 25] = True
    whole = hidden_in_chunks(model, IDS, N, [N], starts)
    assert (hidden_in_chunks(model, IDS, N, [9, 4, 20, 8], starts) - whole).abs().max() < 1e-11


@torch.no_grad()
@pytest.mark.parametrize("name", ["learned", "sinusoidal", "fope"])
def test_every_document_of_a_packed_row_has_the_rows_first_drawn_positions(name):
    """Encodings that use `TokenContext.in_document`: outputs do not depend on where in a packed row a document
    starts."""
    size = table_size(name, N)
    model = model_of(
        {"type": name, **size}, positions={"type": "randomized", "max_length": size.get("max_length", MAX)}
    )
    edges = [0, 9, 28, N]
    starts = torch.zeros(1, N, dtype=torch.bool)
    starts[0, edges[1:-1]] = True
    packed, _ = model.hidden(IDS[:1], starts=starts, length=N)
    for lo, hi in zip(edges, edges[1:], strict=False):
        alone, _ = model.hidden(IDS[:1, lo:hi], length=N)
        assert (packed[0, lo:hi] - alone[0]).abs().max() < 1e-11


def test_undeclared_and_too_long_lengths_give_a_one_line_error():
    model = model_of()
    for ids, length, message in (
        (IDS, None, "length: given None; allowed: one that is declared with the state"),
        (IDS, MAX + 1, f"length: given {MAX + 1}; allowed: <= {MAX}, where the model's positions end"),
    ):
        with pytest.raises(ConfigError) as caught:
            model.hidden(ids, state=model.new_state(len(ids), length))
        assert str(caught.value).startswith(message)
        assert "\n" not in str(caught.value)
    with pytest.raises(EpisodeError, match=f"<= {MAX}, where this model's positions end"):
        Continuer(model, "cpu", 16, 4096).likelihoods([(list(range(39)) * 6, [1])])


def test_tokens_may_exceed_the_declared_length_and_max_length():
    ids = torch.randint(0, 40, (1, MAX + 3), generator=torch.Generator().manual_seed(0))
    model = model_of()
    whole = hidden_in_chunks(model, ids, MAX, [MAX - 2, 5])
    assert torch.equal(whole[:, : MAX - 2], hidden_in_chunks(model, ids[:, : MAX - 2], MAX, [MAX - 2]))
    assert (hidden_in_chunks(model, ids, MAX, [MAX - 2, *[1] * 5]) - whole).abs().max() < 1e-11
    with pytest.raises(ConfigError, match=f"given {MAX + 3}; allowed: <= {MAX}, where"):
        model.hidden(ids)


@torch.no_grad()
def test_continuations_are_scored_at_the_positions_of_prompt_and_continuation():
    model = model_of()
    scores = Continuer(model, "cpu", 7, 4096).likelihoods([(IDS[0, :30].tolist(), IDS[0, 30:36].tolist())])
    logits = model.logits(model.hidden(IDS[:1, :36])[0])[0, 29:35]
    want = logits.log_softmax(-1).gather(1, IDS[0, 30:36, None])[:, 0]
    np.testing.assert_allclose(scores[0][0], want, rtol=1e-5)
    generated = Continuer(model, "cpu", 7, 4096).greedy([IDS[0, :30].tolist()], [5], lambda _, ids: False)[0]
    sequence = torch.cat([IDS[:1, :30], torch.tensor([generated])], dim=1)
    assert model.logits(model.hidden(sequence)[0])[0, 29:34].argmax(-1).tolist() == generated


@torch.no_grad()
def test_plain_text_is_measured_at_the_positions_of_the_longest_window():
    model = model_of()
    rows = measure_windows(model, [TextWindow(0, 0, IDS[0].numpy(), 0)], Points((8, L, N), (N,), (8,)), 7, "cpu")[0]
    logits = model.logits(model.hidden(IDS[:1])[0])
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], IDS[0, 1:], reduction="none")
    for low, high in ((1, 7), (8, L - 1), (L, N - 1)):
        (row,) = [r for r in rows if r["measure"] == "loss" and r["low"] == low]
        assert row["high"] == high
        assert abs(row["value"] - float(loss[low - 1 : high].mean())) < 1e-6


def test_extensions_that_need_counted_positions_are_not_applicable():
    for name, fits in (("self_extend", False), ("streaming", False), ("yarn", True), ("window", True)):
        choice = choose(EXTENSIONS, {"type": name}, "pe.extend")
        reason = choice.create().not_applicable(model_of(), ExtensionContext(L, 4.0))
        assert (reason is None) == fits
    with pytest.raises(ConfigError, match="its positions are drawn"):
        choice = choose(EXTENSIONS, {"type": "dca"}, "pe.extend")
        extended(model_of(), choice.create(), ExtensionContext(L, 4.0))
