"""Backends: what is chosen, refused and reported. The report says what the ops do."""

import subprocess
import sys

import pytest
import torch
from lcprobe_kernels import OPS, ArgumentError, backends
from lcprobe_kernels.__main__ import main

CPU, GPU = torch.device("cpu"), torch.device("cuda")  # only named: nothing is put there


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
    for name, (text,) in rows.items():
        why = backends.missing(name)
        assert text == f"no: {why}" if why is not None else text.startswith("yes"), name


def test_the_report_covers_every_op_and_follows_the_choice(capsys):
    assert main(["--backend", "torch"]) == 0
    rows = columns(capsys.readouterr().out, "op, backend torch")
    assert rows == {op: ["torch", "torch"] for op in OPS}
    assert backends._chosen == "auto"  # the choice was the report's alone


@pytest.mark.parametrize("name", ["cuda", "Triton", ""])
def test_a_wrong_name_is_one_line_and_exit_2(name, capsys):
    assert main(["--backend", name]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == f"error: kernels.backend: given {name!r}; allowed: {' | '.join(backends.BACKENDS)}\n"


def test_a_backend_that_cannot_work_here_is_one_line_and_exit_2(capsys, monkeypatch):
    monkeypatch.setattr(backends, "find_spec", lambda _: None)
    assert main(["--backend", "fla"]) == 2
    assert capsys.readouterr().err == (
        "error: kernels.backend: given 'fla'; allowed: one that works here (fla is not installed: pip install 'lcprobe[cuda]')\n"
    )


def test_the_command_itself():
    bad = subprocess.run(
        [sys.executable, "-m", "lcprobe_kernels", "--backend", "nope"], capture_output=True, text=True
    )
    assert (bad.returncode, bad.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize("op", OPS)
def test_float64_always_takes_matrix_products(op, monkeypatch):
    for chosen in backends.BACKENDS:
        monkeypatch.setattr(backends, "_chosen", chosen)
        assert backends.path_of(op, GPU, torch.float64) == "torch"


def test_a_chosen_peer_that_lacks_the_op_leaves_it_to_auto(monkeypatch):
    by_itself = backends.path_of("ssd", GPU, torch.float32)
    monkeypatch.setattr(backends, "_chosen", "fla")
    assert backends.path_of("gated_linear_attention", GPU, torch.float32) == "fla"
    assert backends.path_of("gated_linear_attention", CPU, torch.float32) == "torch"
    assert backends.path_of("ssd", GPU, torch.float32) == by_itself


@pytest.mark.parametrize(
    ("chosen", "installed", "dtype", "want"),
    [
        ("auto", True, torch.bfloat16, "fla"),
        ("auto", True, torch.float32, "torch"),
        ("auto", False, torch.bfloat16, "torch"),
        ("triton", True, torch.bfloat16, "fla"),
        ("fla", True, torch.float32, "fla"),
        ("fla", True, torch.float64, "torch"),
        ("torch", True, torch.bfloat16, "torch"),
    ],
)
def test_the_path_of_gated_linear_attention_on_a_gpu(chosen, installed, dtype, want, monkeypatch):
    monkeypatch.setattr(backends, "_chosen", chosen)
    monkeypatch.setattr(backends, "missing", lambda _: None if installed else "not here")
    assert backends.path_of("gated_linear_attention", GPU, dtype) == want
    assert backends.path_of("gated_linear_attention", CPU, dtype) == "torch"


def test_using_puts_the_choice_back_even_after_an_error():
    with pytest.raises(ZeroDivisionError), backends.using("torch"):
        assert backends._chosen == "torch"
        _ = 1 / 0
    assert backends._chosen == "auto"
    with pytest.raises(ArgumentError):
        backends.use("numpy")
    assert backends._chosen == "auto"
