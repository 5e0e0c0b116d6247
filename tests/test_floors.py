"""The house: imports go down only, importing does nothing, files stay readable, and --help needs no torch."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GROUND = {"errors", "files", "seeds", "schema", "choices", "tracking", "records"}
# what each room may import besides itself and the ground floor; configs of rooms are readable from config.py
FLOORS = {
    "models": set(),
    "tasks": set(),
    "data": {"tasks", "models"},
    "training": {"data", "tasks", "models"},
    "probing": {"data", "tasks", "models"},
    "analysis": {"data", "tasks", "models"},
    "cli": {"studies", "training", "probing", "analysis", "data", "tasks", "models", "config"},
    "studies": {"training", "probing", "analysis", "data", "tasks", "models", "config"},
}
SOURCES = sorted((ROOT / "lcprobe").rglob("*.py")) + sorted((ROOT / "kernels").rglob("*.py"))


def imports_of(path):
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_go_down_only(path):
    parts = path.relative_to(ROOT).with_suffix("").parts
    for name in imports_of(path):
        top = name.split(".")
        if parts[0] == "kernels":
            peers = {"mamba_ssm", "fla", "flash_attn", "causal_conv1d"}  # inside functions, where they are installed
            assert top[0] in {"lcprobe_kernels", "torch", "triton"} | peers | sys.stdlib_module_names, name
            continue
        if top[0] != "lcprobe" or len(top) < 2:
            continue
        room = parts[1] if len(parts) > 2 else None
        if room is None:
            if parts[1] == "config":
                assert top[1] in GROUND or top[-1] == "config", name
            else:
                assert top[1] in GROUND, name
        elif top[1] != room and top[1] not in GROUND:
            assert top[1] in FLOORS[room], f"{room} imports {name}"


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_hold_one_idea(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_importing_reads_no_file_and_no_environment_and_no_device():
    """Every module of both packages, with the calls forbidden once the libraries below them are loaded."""
    names = []
    for path in SOURCES:
        parts = path.relative_to(ROOT).with_suffix("").parts
        parts = parts[1:] if parts[0] == "kernels" else parts
        names.append(".".join(p for p in parts if p != "__init__"))
    code = """
import builtins, os, sys, importlib
import torch, numpy, lightning.pytorch, tokenizers, pyarrow.parquet, omegaconf, yaml, rich.console, rich.table, safetensors.torch
import matplotlib.figure, jinja2, pandas
for name in ("torch.utils.data", "lightning.pytorch.callbacks", "matplotlib.backends.backend_agg", "rich.progress"):
    importlib.import_module(name)
def forbid(what):
    def stop(*a, **k):
        caller = sys._getframe(1).f_globals.get("__name__", "")
        if caller.startswith("lcprobe"):
            raise SystemExit(f"{caller} uses {what} at import: {a}")
        return real[what](*a, **k)
    return stop
real = {"open": builtins.open, "getenv": os.getenv, "cuda": torch.cuda.is_available}
builtins.open, os.getenv, torch.cuda.is_available = forbid("open"), forbid("getenv"), forbid("cuda")
for name in NAMES:
    importlib.import_module(name)
""".replace("NAMES", repr(names))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("command", ["train.py", "evaluate.py"])
def test_help_explains_itself_without_torch(command):
    code = f"""
import sys, runpy
sys.argv = ["{command}", "--help"]
try:
    runpy.run_path("{command}", run_name="__main__")
except SystemExit as stop:
    assert not stop.code, stop.code
heavy = [m for m in ("torch", "lightning", "numpy", "pandas", "wandb", "datasets") if m in sys.modules]
assert not heavy, heavy
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr
    for key in (
        "usage:",
        "train.context_length",
        "data.corpus",
        "probe.grids[i].lengths",
        "mixers: attention | mamba2",
    ):
        assert key in done.stdout


def test_the_folder_kernels_hides_no_package():
    """From the root, `kernels/` is a namespace package; transformers must still import and run."""
    code = """
import torch, transformers
c = transformers.LlamaConfig(hidden_size=16, intermediate_size=16, num_hidden_layers=1, num_attention_heads=2, vocab_size=20)
print(transformers.LlamaForCausalLM(c)(torch.zeros(1, 3, dtype=torch.long)).logits.shape)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert "[1, 3, 20]" in done.stdout, done.stderr


def test_no_pickle_and_no_code_from_configs():
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        for word in ("import pickle", "torch.load(", "yaml.load(", "eval(", "exec(", "_target_:"):
            found = [
                line for line in text.splitlines() if word in line and ".eval(" not in line and "def eval" not in line
            ]
            assert not found, f"{path.name}: {found}"
