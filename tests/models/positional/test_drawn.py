"""Positions that are drawn at evaluation too: as in training, and the same however a sequence is read."""

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
from lcprobe.probing.plain_text import Points, TextWindow, measure
from lcprobe.schema import build
from tests.models.contract_cases import ENCODINGS, table_size
from tests.toys import registered

L, MAX, N = 16, 200, 41
RANDOMIZED = {"type": "randomized", "max_length": MAX}
IDS = torch.randint(0, 40, (2, N), generator=torch.Generator().manual_seed(0))


def model(positional="rope", positions=RANDOMIZED, **attention):
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
        made = LanguageModel(build(ModelConfig, config, "model")).initialise(2).double().eval()
    with torch.no_grad():
        for block in made.blocks:
            block.mixer.in_proj.weight *= 3
    return made


def randomized(max_length=MAX):
    choice = choose(POSITIONS, {"type": "randomized", "max_length": max_length}, "positions")
    return choice.create()


@torch.no_grad()
def read(made, ids, length, chunks, starts=None):
    state, parts, lo = made.new_state(len(ids), length), [], 0
    for n in chunks:
        some = None if starts is None else starts[:, lo : lo + n]
        hidden, state = made.hidden(ids[:, lo : lo + n], starts=some, state=state)
        parts.append(hidden)
        lo += n
    return torch.cat(parts, 1)


def test_they_stand_as_far_apart_as_in_training():
    """Over many lengths and draws the mean gap is (max_length + 1) / (length + 1), and every position is drawn about as often."""
    drawn = randomized()
    for length in (L, 2 * L, 100):
        torch.manual_seed(0)
        train = torch.cat([drawn.draw(length).diff() for _ in range(200)]).double()
        test = drawn.of_length(length, length).diff().double()
        assert abs(train.mean() - (MAX + 1) / (length + 1)) < 0.05 * train.mean()
        assert abs(test.mean() - train.mean()) < 0.2 * train.mean()
        assert abs(test.std() - train.std()) < 0.5 * train.std() + 0.2
    found = torch.cat([drawn.of_length(n, n) for n in range(2, MAX)])
    low, high = (found < MAX // 2).sum(), (found >= MAX // 2).sum()
    assert abs(int(low - high)) < 0.03 * len(found)


@given(st.integers(2, 60), st.integers(0, 300), st.integers(0, 80))
def test_a_sorted_subset_that_the_length_alone_decides(length, spare, n):
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
def test_any_chunks_decoding_and_shared_beginnings_read_the_same(name, window):
    moves = ENCODINGS[name].reads_positions
    made = model({"type": name, **table_size(name, MAX)}, window=window)
    assert made.needs_length
    assert made.max_length == MAX
    with torch.no_grad():
        whole = made.hidden(IDS)[0]
        plain = LanguageModel(build(ModelConfig, {**vars(made.config), "positions": None}, "model")).double().eval()
        plain.load_state_dict(made.state_dict())
        assert ((plain.hidden(IDS)[0] - whole).abs().max() > 1e-3) == moves
    for chunks in ([19, *[1] * 22], [7, 1, 20, 13]):
        assert (read(made, IDS, N, chunks) - whole).abs().max() < 1e-11
    assert (read(made, IDS[:, :30], N, [12, 18]) - whole[:, :30]).abs().max() < 1e-11, (
        "a beginning of a longer sequence"
    )
    state = made.new_state(2, N)
    with torch.no_grad():
        _, state = made.hidden(IDS[:, :25], state=state)
        forked, _ = made.hidden(IDS[:1, 25:].expand(3, -1), state=state.rows(torch.tensor([0, 0, 0])))
    assert (forked[2] - whole[0, 25:]).abs().max() < 1e-11
    if moves:
        assert (read(made, IDS, N + 5, [N]) - whole).abs().max() > 1e-4, "another length, other positions"


@pytest.mark.parametrize("name", ["rope", "fire", "kerple"])
def test_documents_in_chunks(name):
    made = model(name)
    starts = torch.zeros(2, N, dtype=torch.bool)
    starts[0, 11] = starts[1, 25] = True
    whole = read(made, IDS, N, [N], starts)
    assert (read(made, IDS, N, [9, 4, 20, 8], starts) - whole).abs().max() < 1e-11


@torch.no_grad()
@pytest.mark.parametrize("name", ["learned", "sinusoidal", "fope"])
def test_every_document_of_a_packed_row_has_the_rows_first_drawn_positions(name):
    """Encodings that read `TokenContext.in_document`: a document reads the same alone and wherever it starts in a packed row."""
    size = table_size(name, N)
    made = model({"type": name, **size}, positions={"type": "randomized", "max_length": size.get("max_length", MAX)})
    edges = [0, 9, 28, N]
    starts = torch.zeros(1, N, dtype=torch.bool)
    starts[0, edges[1:-1]] = True
    packed, _ = made.hidden(IDS[:1], starts=starts, length=N)
    for lo, hi in zip(edges, edges[1:], strict=False):
        alone, _ = made.hidden(IDS[:1, lo:hi], length=N)
        assert (packed[0, lo:hi] - alone[0]).abs().max() < 1e-11


def test_lengths_that_are_not_declared_or_go_past_the_end_are_one_line():
    made = model()
    for ids, length, said in (
        (IDS, None, "length: given None; allowed: one that is declared with the state"),
        (IDS, MAX + 1, f"length: given {MAX + 1}; allowed: <= {MAX}, where the model's positions end"),
    ):
        with pytest.raises(ConfigError) as caught:
            made.hidden(ids, state=made.new_state(len(ids), length))
        assert str(caught.value).startswith(said)
        assert "\n" not in str(caught.value)
    with pytest.raises(EpisodeError, match=f"<= {MAX}, where this model's positions end"):
        Continuer(made, "cpu", 16, 4096).likelihoods([(list(range(39)) * 6, [1])])


def test_a_candidate_longer_than_the_answer_may_pass_the_declared_length_and_the_end():
    ids = torch.randint(0, 40, (1, MAX + 3), generator=torch.Generator().manual_seed(0))
    made = model()
    whole = read(made, ids, MAX, [MAX - 2, 5])
    assert torch.equal(whole[:, : MAX - 2], read(made, ids[:, : MAX - 2], MAX, [MAX - 2]))
    assert (read(made, ids, MAX, [MAX - 2, *[1] * 5]) - whole).abs().max() < 1e-11
    with pytest.raises(ConfigError, match=f"given {MAX + 3}; allowed: <= {MAX}, where"):
        made.hidden(ids)


@torch.no_grad()
def test_continuations_are_scored_at_the_positions_of_prompt_and_continuation():
    made = model()
    found = Continuer(made, "cpu", 7, 4096).likelihoods([(IDS[0, :30].tolist(), IDS[0, 30:36].tolist())])
    logits = made.logits(made.hidden(IDS[:1, :36])[0])[0, 29:35]
    want = logits.log_softmax(-1).gather(1, IDS[0, 30:36, None])[:, 0]
    np.testing.assert_allclose(found[0][0], want, rtol=1e-5)
    said = Continuer(made, "cpu", 7, 4096).greedy([IDS[0, :30].tolist()], [5], lambda _, ids: False)[0]
    told = torch.cat([IDS[:1, :30], torch.tensor([said])], dim=1)
    assert made.logits(made.hidden(told)[0])[0, 29:34].argmax(-1).tolist() == said


@torch.no_grad()
def test_plain_text_is_measured_at_the_positions_of_the_longest_window():
    made = model()
    rows = measure(made, [TextWindow(0, 0, IDS[0].numpy(), 0)], Points((8, L, N), (N,), (8,)), 7, "cpu")[0]
    logits = made.logits(made.hidden(IDS[:1])[0])
    loss = torch.nn.functional.cross_entropy(logits[0, :-1], IDS[0, 1:], reduction="none")
    for low, high in ((1, 7), (8, L - 1), (L, N - 1)):
        (row,) = [r for r in rows if r["measure"] == "loss" and r["low"] == low]
        assert row["high"] == high
        assert abs(row["value"] - float(loss[low - 1 : high].mean())) < 1e-6


def test_methods_that_count_tokens_as_positions_say_so():
    for name, fits in (("self_extend", False), ("streaming", False), ("yarn", True), ("window", True)):
        choice = choose(EXTENSIONS, {"type": name}, "pe.extend")
        reason = choice.create().not_applicable(model(), ExtensionContext(L, 4.0))
        assert (reason is None) == fits
    with pytest.raises(ConfigError, match="its positions are drawn"):
        choice = choose(EXTENSIONS, {"type": "dca"}, "pe.extend")
        extended(model(), choice.create(), ExtensionContext(L, 4.0))
