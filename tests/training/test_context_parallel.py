"""Training with sequences divided over processes: the steps of one process, from the command line to the weights."""

import os
import socket
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from lcprobe.cli import commands
from lcprobe.cli.commands import train_main
from lcprobe.files import read_json
from lcprobe.studies.tracking import read_metrics
from tests.tiny import CONTEXT, write_config

MODEL = {
    "layout": "attention+mlp, mamba2, rwkv7+rwkv7, rg_lru",
    "d_ff": 24,
    "positions": {"type": "randomized", "max_length": 512},
}
MIXERS = {
    "attention": {"head_dim": 8, "d_conv": 4, "window": 40},
    "mamba2": {"head_dim": 8, "d_state": 8, "chunk_size": 16},
    "rwkv7": {"head_dim": 8},
    "rg_lru": {"n_blocks": 2},
}
TRAIN = {
    "lr": 0.001, "context_length": 64, "tokens": 64 * 4 * 20, "batch_tokens": 256, "threads": 1, "log_every": 1,
    "accelerator": "cpu", "length_schedule": [{"until": 0.5, "length": 0.5}, {"length": 1}],
}  # fmt: skip
DATA = {"mixture": [{"lm": 0.25, "episodes": {"lines": 1}, "lengths": [1]}]}
SAME = ("train/loss", "train/text_loss", "train/answer_loss", "train/grad_norm")


def process(rank: int, size: int, port: int, arguments: list[str], log: str) -> None:
    torch.set_num_threads(1)
    world = {"WORLD_SIZE": size, "RANK": rank, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": size}
    os.environ.update({name: str(value) for name, value in world.items()})
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), GLOO_SOCKET_IFNAME="lo")
    os.dup2(os.open(f"{log}-{rank}", os.O_WRONLY | os.O_CREAT), 2)
    os._exit(commands.train_main(arguments))


def together(size: int, arguments: list[str], log: str) -> None:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    processes = [CONTEXT.Process(target=process, args=(rank, size, port, arguments, log)) for rank in range(size)]
    for one in processes:
        one.start()
    for rank, one in enumerate(processes):
        one.join(1200)  # torch.compile takes minutes on a busy machine
        assert one.exitcode == 0, Path(f"{log}-{rank}").read_text()[-3000:]


@pytest.mark.parametrize(
    ("devices", "both", "more"),
    [
        pytest.param(2, [], [], id="two"),
        pytest.param(4, [], [], id="four", marks=pytest.mark.slow),
        pytest.param(4, ["train.initial_state={type: passed, chain: 2}"], [], id="passed", marks=pytest.mark.slow),
        pytest.param(2, ["train.initial_state.type=preceding"], [], id="preceding", marks=pytest.mark.slow),
        pytest.param(2, ["train.initial_state={type: noise, share: 0.5}"], [], id="noise", marks=pytest.mark.slow),
        pytest.param(4, ["train.initial_state.type=fitted"], [], id="fitted", marks=pytest.mark.slow),
        pytest.param(2, [], ["train.compile=true"], id="compiled", marks=pytest.mark.slow),
    ],
)
def test_divided_sequences_train_like_whole_ones(tmp_path, data_settings, devices, both, more):
    """With 4 devices, two have other rows of each step. both: settings of all; more: of the divided ones."""
    given = {
        "model": {**MODEL, "mixers": MIXERS},
        "match": {"budget": None},
        "grid": {},
        "probe": {"while_training": None},
    }
    folders = {}
    for name in ("one", "divided"):
        (tmp_path / name).mkdir()
        folders[name] = write_config(tmp_path / name, {**data_settings, **DATA}, train=TRAIN, **given)
    assert train_main([str(folders["one"]), *both]) == 0
    extra = ["train.context_parallel=2", f"train.devices={devices}", *both, *more]
    together(devices, [str(folders["divided"]), *extra], str(tmp_path / "log"))
    runs = {name: next((tmp_path / name / "runs" / "tiny").glob("*/checkpoints")).parent for name in folders}
    one, divided = (read_json(runs[name] / "status.json") for name in folders)
    assert one["data_digest"] == divided["data_digest"]
    assert divided["tokens"] == 64 * 4 * 20
    for whole, row in zip(*(read_metrics(run / "metrics.csv") for run in runs.values()), strict=True):
        assert {name for name in SAME if name in whole} == {name for name in SAME if name in row}
        for name in set(SAME) & set(whole):
            assert row[name] == pytest.approx(whole[name], rel=1e-4), name
    a, b = (load_file(max((run / "checkpoints").glob("step-*")) / "model.safetensors") for run in runs.values())
    apart = torch.cat([(a[k] - b[k]).abs().flatten() for k in a])
    if both:  # AdamW moves a weight by up to the rate where its gradients are no more than rounding: some of 76,492
        assert int((apart > 1e-5).sum()) <= 20
        assert float(apart.max()) < TRAIN["lr"]
    else:
        assert float(apart.max()) < 1e-5


def test_what_divided_sequences_exclude_is_one_line(tmp_path, data_settings, capsys):
    config, odd = write_config(tmp_path, data_settings), ["train.context_length=63", "train.batch_tokens=252"]
    assert train_main([str(config), "train.context_parallel=2", "train.devices=2", *odd]) == 2
    expected = "error: train.context_parallel: given 2; allowed: a divisor of every length trained at (63)"
    assert expected in capsys.readouterr().err
