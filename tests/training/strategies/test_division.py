"""What processes have of a parameter: disjoint pieces that cover it, whichever way it is divided; and a step of a
divided model is the step of one process."""

import os
import shutil
from contextlib import nullcontext

import pytest
import torch
from safetensors.torch import load_file, save_file

from lcprobe.errors import CheckpointError, ConfigError
from lcprobe.files import read_json, write_json
from lcprobe.models.config import ModelConfig
from lcprobe.models.language_model import LanguageModel
from lcprobe.models.tensor_parallel.split import Piece, Section, Split, heads
from lcprobe.schema import build
from lcprobe.training.checkpoint import (
    Progress,
    check_weights,
    damage_of,
    load_model,
    load_optimizer,
    save_checkpoint,
)
from lcprobe.training.config import TrainConfig
from lcprobe.training.optim import make_optimizer
from lcprobe.training.ranks import join_processes
from lcprobe.training.strategies.division import Division, divide_model, fill, own_rows
from lcprobe.training.strategies.gradients import clip_gradients
from lcprobe.training.tensors.consolidate import consolidate, weights_digest
from lcprobe.training.tensors.reading import Tensors
from validation.forked import run_forked

MODEL = {
    "layout": "attention+mlp, mamba2",
    "d_model": 32,
    "d_ff": 48,
    "vocab_size": 65,
    "mixers": {
        "attention": {"head_dim": 8, "n_kv_heads": 2, "d_conv": 4, "qk_norm": True, "sink_logit": True, "bias": True},
        "mamba2": {"head_dim": 16, "d_state": 8, "bias": True},
    },
}
DIVIDED = {
    "fsdp2": {"strategy": "fsdp2"},
    "tp": {"strategy": "tp", "tensor_parallel": 2},
}
STEPS = 3


@pytest.mark.parametrize("rows", [1, 5, 8])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_pieces_of_all_processes_cover_a_parameter_once(rows, n):
    split = Split(0, (Section(6), Section(5, divided=False), *heads(6)))
    whole = torch.arange(17 * 2).view(17, 2)
    counted = torch.zeros_like(whole)
    for index in range(n):
        pieces = list(split.pieces(whole.shape, index, n))
        own = torch.empty(split.own_size(n), 2, dtype=whole.dtype)
        for piece in pieces:
            piece.of_own(own).copy_(piece.of_whole(whole))
            if not piece.summed or index == 0:
                piece.of_whole(counted).add_(1)
        # any rows of what a process has are the same numbers
        for first in range(0, len(own), rows):
            part = own[first : first + rows].clone()
            again = torch.full_like(part, -1)
            for piece in pieces:
                cut = piece.in_rows(first, rows)
                if cut is not None:
                    cut.of_own(again).copy_(cut.of_whole(whole))
            assert torch.equal(again, part)
    assert torch.equal(counted, torch.ones_like(whole))


def test_rows_are_those_of_chunk():
    for rows in range(1, 12):
        for n in range(1, 6):
            chunks = torch.arange(rows).chunk(n)
            for index in range(n):
                first, size = own_rows(rows, index, n)
                want = chunks[index].tolist() if index < len(chunks) else []
                assert list(range(first, first + size)) == want


@pytest.mark.parametrize(
    ("train", "message"),
    [
        ({"devices": 3, "tensor_parallel": 2}, r"train.devices: given 3; allowed: a multiple of tensor_parallel x"),
        (
            {"devices": 2, "tensor_parallel": 2, "strategy": "ddp"},
            r"train.strategy: given 'ddp'; allowed: tp \| fsdp2",
        ),
        ({"devices": 2, "strategy": "tp"}, r"train.tensor_parallel: given 1; allowed: > 1, with strategy tp"),
        (
            {"devices": 8, "tensor_parallel": 2, "batch_tokens": 1536},
            r"context_length x accumulate x devices / tensor",
        ),
    ],
)
def test_divisions_that_do_not_fit_are_one_line(train, message):
    with pytest.raises(ConfigError, match=message):
        build(TrainConfig, train, "train").check("train")


@pytest.mark.parametrize(
    ("mixer", "message"),
    [
        ({"mamba2": {"head_dim": 64}}, r"tensor_parallel: given 4; allowed: a divisor of n_heads of mamba2 \(1\)"),
        ({"attention": {"head_dim": 16}}, r"given 4; allowed: a divisor of n_heads of attention \(2\)"),
    ],
)
def test_heads_that_do_not_divide_are_one_line(mixer, message):
    config = {**MODEL, "layout": next(iter(mixer)), "mixers": mixer}
    with torch.device("meta"):
        layer = LanguageModel(build(ModelConfig, config, "model")).mixers()[0]
    with pytest.raises(ConfigError, match=message):
        layer.tensor_splits(4)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Losses, norms and checkpoints of one process and of two that divide the model."""
    root = tmp_path_factory.mktemp("divided")
    found = {"one": run_forked(1, _train, {}, root / "one", None)}
    for name, settings in DIVIDED.items():
        found[name] = run_forked(2, _train, settings, root / name, None)
    return root, found


@pytest.mark.parametrize("name", DIVIDED)
def test_a_divided_step_is_the_step_of_one_process(trained, name):
    root, found = trained
    for ours, theirs in zip(found[name], found["one"], strict=True):
        assert ours == pytest.approx(theirs, abs=1e-5)
    weights = load_file(_checkpoint(root / "one") / "model.safetensors")
    again = _model()
    load_model(_checkpoint(root / name), again)
    for parameter, value in again.named_parameters():
        assert torch.allclose(value, weights[parameter], atol=1e-5), parameter


@pytest.mark.parametrize("name", DIVIDED)
def test_parts_hold_each_number_once_and_become_the_file_of_one_process(trained, name, tmp_path):
    root, _ = trained
    parts = _checkpoint(root / name)
    sizes = [sum(t.numel() for t in load_file(parts / f"model-0000{rank}.safetensors").values()) for rank in (0, 1)]
    assert max(sizes) < 0.8 * sum(p.numel() for p in _model().parameters()), "no process writes the whole"
    folder = tmp_path / parts.name
    shutil.copytree(parts, folder)
    moments = [Tensors(one, "optimizer").entries for one in (folder, _checkpoint(root / "one"))]
    assert {name: entry.shape for name, entry in moments[0].items()} == {n: e.shape for n, e in moments[1].items()}
    digest, again = weights_digest(folder), _model()
    load_model(folder, again)
    assert consolidate(folder)
    assert damage_of(folder) is None
    assert {path.name for path in folder.iterdir()} == {path.name for path in _checkpoint(root / "one").iterdir()}
    save_file({name: p.detach() for name, p in again.named_parameters()}, tmp_path / "plain.safetensors")
    assert (folder / "model.safetensors").read_bytes() == (tmp_path / "plain.safetensors").read_bytes()
    assert digest == weights_digest(folder)
    assert not consolidate(folder)


def test_a_checkpoint_is_read_into_any_division(trained, tmp_path):
    """One process goes on from parts, and two from the file of one, with moments: the next step is the same."""
    root, _ = trained
    want = run_forked(1, _train, {}, tmp_path / "a", _checkpoint(root / "one"))
    for name in DIVIDED:
        got = run_forked(1, _train, {}, tmp_path / name, _checkpoint(root / name))
        assert [value for step in got for value in step] == pytest.approx(
            [v for step in want for v in step], abs=1e-5
        )
    for number, source in enumerate(("one", "tp")):
        got = run_forked(2, _train, DIVIDED["fsdp2"], tmp_path / str(number), _checkpoint(root / source))
        for ours, theirs in zip(got, want, strict=True):
            assert ours == pytest.approx(theirs, abs=1e-5)


def test_an_index_that_lacks_a_part_or_leaves_the_folder_is_refused(trained, tmp_path):
    root, _ = trained
    folder = tmp_path / "step-00000003"
    shutil.copytree(_checkpoint(root / "fsdp2"), folder)
    whole = read_json(folder / "model.index.json")
    name = "embedding.weight"
    boxes = whole["tensors"][name]["boxes"]
    write_json(
        folder / "model.index.json",
        {"tensors": {**whole["tensors"], name: {**whole["tensors"][name], "boxes": boxes[:1]}}},
    )
    with pytest.raises(CheckpointError, match=r"embedding.weight is not whole in the files of model.index.json"):
        load_model(folder, _model())
    boxes[0]["file"] = "../model-00000.safetensors"
    write_json(folder / "model.index.json", whole)
    with pytest.raises(CheckpointError, match="a file that is not beside it"):
        check_weights(folder, _model())


def _model():
    return LanguageModel(build(ModelConfig, MODEL, "model"))


def _checkpoint(folder):
    return folder / "step-00000003"


def _train(settings, folder, source):
    """(loss, gradient norm) of three steps from initial values, or from a checkpoint; for each process."""
    devices = int(os.environ["WORLD_SIZE"])
    config = build(TrainConfig, {"devices": devices, "accelerator": "cpu", **settings}, "train")
    now = join_processes(config)
    with torch.device("meta") if settings else nullcontext():
        model = _model()
    division: Division = divide_model(config, model, now)
    optimizer = make_optimizer(config, model)
    if source is None:
        fill(model, division, model.initial_values(0, division.shapes_of(model)))
    else:
        load_model(source, model, division)
        load_optimizer(source, model, optimizer, division)
    found = []
    for step in range(STEPS):
        tokens = torch.randint(0, 65, (4, 24), generator=torch.Generator().manual_seed(step))
        own = tokens.chunk(now.data)[now.data_rank]
        total = torch.tensor(4 * 23 / now.replicas)
        loss = model.loss(own, torch.ones(own.shape), total_weight=total)[0]
        model.zero_grad()
        loss.backward()
        norm = clip_gradients(model, division, 0.5)
        optimizer.found_inf = torch.zeros(())  # as the training module sets it
        optimizer.step()
        loss = loss.detach()
        if now.replicas > 1:
            torch.distributed.all_reduce(loss, group=now.group("replicas"))
        found.append((float(loss) / now.replicas, float(norm)))
    with torch.no_grad():
        model.hidden(tokens)  # as a probe does, before a checkpoint is written
    save_checkpoint(folder, Progress(step=STEPS), model, optimizer, "model: {}\n", 2, division)
    return found


def test_a_piece_outside_rows_is_nothing():
    assert Piece((4, 0), (9, 0), (3, 2)).in_rows(0, 4) is None
    assert Piece((4, 0), (9, 0), (3, 2)).in_rows(5, 10) == Piece((0, 0), (10, 0), (2, 2))
