"""Backends: what is chosen, refused and reported. The report says what the ops do."""

import runpy
import sys
from types import SimpleNamespace

import pytest
import torch
from lcprobe_kernels import OPS, ArgumentError, __main__, backends, peers
from lcprobe_kernels.__main__ import main
from lcprobe_kernels.attention import Mask, attention

GPU = torch.device("cuda")  # only named: nothing is put there


def columns(out: str, first: str) -> dict[str, list[str]]:
    """A table of the report: the rows under the heading that begins with `first`."""
    lines = iter(out.splitlines())
    next(line for line in lines if line.startswith(first))
    rows = {}
    for line in lines:
        if not line:
            break
        name, *rest = [cell for cell in line.split("  ") if cell]
        rows[name] = [cell.strip() for cell in rest]
    return rows


def test_the_report_says_why_a_backend_does_not_work(capsys):
    assert main([]) == 0
    out = capsys.readouterr().out
    assert f"torch {torch.__version__}" in out
    rows = columns(out, "backend")
    assert list(rows) == list(backends.BACKENDS)
    for name, cells in rows.items():
        why = backends.missing(name)
        assert cells[-1] == f"no: {why}" if why is not None else cells[-1].startswith("yes"), name


def test_the_report_covers_every_op_and_follows_the_choice(capsys):
    assert main(["--backend", "torch"]) == 0
    rows = columns(capsys.readouterr().out, "op")
    assert rows == {op: ["-", "torch", "torch"] for op in OPS}
    assert backends._chosen == "auto"


def test_the_report_is_of_a_device_that_is_not_here_too(capsys, monkeypatch):
    monkeypatch.setattr(backends, "unusable", lambda name, try_import=False: None)
    assert main(["attention", "ssd", "--device", "sm_90", "--dtype", "bf16"]) == 0
    out = capsys.readouterr().out
    lines = [[cell.strip() for cell in line.split("  ") if cell] for line in out.splitlines()]
    taken = {(line[0], line[1]): line[2:] for line in lines if line and line[0] in OPS}
    assert taken["attention", "ALiBi"] == ["flash_attn"]
    assert taken["attention", "chunks"] == ["triton", "flash_attn: no chunks; sdpa: no chunks"]
    assert taken["ssd", "documents"] == ["mamba_ssm"]
    assert "by name only (float32)" in next(line[1] for line in lines if line and line[0] == "ssd: mamba_ssm")
    assert main(["attention", "--device", "sm_75", "--dtype", "bf16"]) == 0
    assert "flash_attn: needs sm_80 or newer" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "named"),
    [(["attn"], "op: given 'attn'"), (["--device", "h100"], "--device"), (["--dtype", "int8"], "--dtype")],
)
def test_wrong_words_are_one_line_and_exit_2(words, named, capsys):
    assert main(words) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith(f"error: {named}")
    assert captured.err.count("\n") == 1


@pytest.mark.parametrize(
    ("found", "why"),
    [
        (None, "flash-attn is not installed: pip install flash-attn"),
        ("2.5.8", "flash-attn 2.5.8 is installed: the adapter is for >= 2.7, < 3"),
        ("3.0.0b1", "flash-attn 3.0.0b1 is installed: the adapter is for >= 2.7, < 3"),
        ("2.8.3.post2", None),
    ],
)
def test_a_peer_counts_in_versions_that_its_adapter_is_for(found, why, monkeypatch):
    monkeypatch.setattr(peers, "installed", lambda name: found)
    assert peers.unusable("flash_attn") == why


def test_a_peer_whose_extension_does_not_import_is_named():
    assert peers._broken("no_such_cuda_extension").startswith("no_such_cuda_extension does not import: No module")


@pytest.mark.parametrize("name", ["cuda", "Triton", ""])
def test_a_wrong_name_is_one_line_and_exit_2(name, capsys):
    assert main(["--backend", name]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"error: kernels.backend: given {name!r}; allowed: {' | '.join(backends.BACKENDS)}\n"


def test_a_backend_that_cannot_work_here_is_one_line_and_exit_2(capsys, monkeypatch):
    monkeypatch.setattr(peers, "installed", lambda name: None)
    assert main(["--backend", "fla"]) == 2
    assert capsys.readouterr().err == (
        "error: kernels.backend: given 'fla'; allowed: one that works here "
        "(fla-core is not installed: pip install fla-core)\n"
    )


def test_a_config_is_read_by_the_installed_command(capsys, monkeypatch):
    command = SimpleNamespace(load=lambda: lambda words: print(*words) or 75)
    monkeypatch.setattr(__main__, "entry_points", lambda group, name: [command] * (group == "console_scripts"))
    assert main(["tiny.yaml", "model.d_model=8", "--device", "sm_90"]) == 75
    assert capsys.readouterr().out == "kernels tiny.yaml model.d_model=8 --device sm_90\n"
    monkeypatch.setattr(__main__, "entry_points", lambda group, name: [])
    assert main(["model.d_model=8"]) == 2
    assert (
        capsys.readouterr().err == "error: a config: given without lcprobe; allowed: with it (pip install lcprobe)\n"
    )


@pytest.mark.filterwarnings("ignore:.*found in sys.modules")
def test_the_command_itself(capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["lcprobe_kernels", "--backend", "nope"])
    with pytest.raises(SystemExit) as left:
        runpy.run_module("lcprobe_kernels", run_name="__main__")
    assert (left.value.code, capsys.readouterr().err.count("\n")) == (2, 1)


@pytest.mark.parametrize("op", OPS)
def test_float64_always_takes_matrix_products(op, monkeypatch):
    for chosen in backends.BACKENDS:
        monkeypatch.setattr(backends, "_chosen", chosen)
        assert backends.path_of(op, GPU, torch.float64) == "torch"


def test_calls_are_recorded_on_the_meta_device_too():
    q, x = (torch.empty(2, 5, 4, 8, device="meta", requires_grad=True) for _ in range(2))
    with backends.recording() as calls:
        attention(q, x, x, mask=Mask(high=3), return_lse=True)
    attention(q, x, x)
    assert [(c.op, c.device, c.needs) for c in calls] == [
        ("attention", "meta", frozenset({"gradients", "lse gradient", "lse", "window"}))
    ]


def test_using_puts_the_choice_back_even_after_an_error():
    with pytest.raises(ZeroDivisionError), backends.using("torch"):
        assert backends._chosen == "torch"
        _ = 1 / 0
    assert backends._chosen == "auto"
    with pytest.raises(ArgumentError):
        backends.use("numpy")
    assert backends._chosen == "auto"
