"""The house: imports go down only and in no circle, importing does nothing, files stay readable, and --help needs no torch."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
GROUND = {
    "version",
    "errors",
    "files",
    "json_lines",
    "locks",
    "merging",
    "dialect",
    "lengths",
    "seeds",
    "schema",
    "choices",
    "tracking",
    "records",
    "hub",
    "training_data",
    "words",
}
FLOORS = {
    "models": set(),
    "tasks": set(),
    "data": {"tasks", "models"},
    "training": {"data", "tasks", "models"},
    "probing": {"data", "tasks", "models"},
    "analysis": {"data", "tasks", "models"},
    "studies": {"training", "probing", "analysis", "data", "tasks", "models", "config"},
    "api": {"studies", "training", "probing", "analysis", "data", "tasks", "models", "config"},
    "cli": {"studies", "training", "probing", "analysis", "data", "tasks", "models", "config"},
}
"""What each room may import beside itself and the ground floor; config.py reads the rooms' config modules."""
SUB_ROOMS = {
    "studies": ("planning", "training", "evaluation"),
    "analysis": ("stats", "published", "findings", "report"),
    "tasks": ("text", "parts"),
    "probing": ("engines", "inference", "scoring", "runner", "policies", "external"),
}
"""Sub-rooms, and files beside them, from the bottom up: each may import those before it."""
MAX_LINES, MAX_MODULES = 400, 15
CROWDED = {"lcprobe/models/positional", "lcprobe/models/mixers", "lcprobe/models/checkpoints"}
"""Folders that may hold more modules: one encoding, one mixer, or one format, each."""
SOURCES = sorted((ROOT / "lcprobe").rglob("*.py")) + sorted((ROOT / "kernels").rglob("*.py"))
MODULES = {path: path.relative_to(ROOT).with_suffix("").parts for path in SOURCES}


def dotted(path: Path) -> str:
    parts = MODULES[path][1:] if MODULES[path][0] == "kernels" else MODULES[path]
    return ".".join(part for part in parts if part != "__init__")


@cache
def tree_of(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


KNOWN = {dotted(path) for path in SOURCES}


@cache
def imports_of(path: Path) -> frozenset[str]:
    """Modules that a file imports, anywhere in it."""
    names: set[str] = set()
    for node in ast.walk(tree_of(path)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            module = node.module or ""
            names |= {f"{module}.{a.name}" if f"{module}.{a.name}" in KNOWN else module for a in node.names}
    return frozenset(names)


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_imports_go_down_only(path):
    parts = MODULES[path]
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
            elif parts[1] == "__main__":
                assert top[1] == "cli", name
            elif parts[1] != "__init__":  # the package's names are imported from the rooms on first use
                assert top[1] in GROUND, name
        elif top[1] != room and top[1] not in GROUND:
            assert top[1] in FLOORS[room], f"{room} imports {name}"


def test_packages_that_a_checkout_may_lack_are_imported_by_name():
    """Else the type checker passes or fails by what is installed beside the code."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["optional-dependencies"]
    test = {re.split(r"[^\w-]", text)[0] for text in extras["test"]}
    others = {re.split(r"[^\w-]", text)[0] for extra in extras.values() for text in extra} - test
    optional = {name.replace("-", "_") for name in others} | {"grpc"}
    assert {"duckdb", "ray", "trackio", "flash_attn"} <= optional
    assert {
        f"{dotted(path)}: {name}" for path in SOURCES for name in imports_of(path) if name.split(".")[0] in optional
    } == set()


def test_modules_import_each_other_in_no_circle():
    graph = {dotted(path): {name for name in imports_of(path) if name in KNOWN} for path in SOURCES}
    assert _circle(graph) is None


@pytest.mark.parametrize("room", sorted(FLOORS))
def test_sub_rooms_depend_on_each_other_one_way(room):
    """A sub-room is one node; a file beside the sub-rooms is one too."""
    graph: dict[str, set[str]] = {}
    for path in SOURCES:
        parts = MODULES[path]
        if parts[:2] != ("lcprobe", room):
            continue
        inside = [name.split(".") for name in imports_of(path) if name.startswith(f"lcprobe.{room}.")]
        node = _node(list(parts), room)
        graph.setdefault(node, set()).update(other for name in inside if (other := _node(name, room)) != node)
    graph.pop("__init__", None)
    assert _circle(graph) is None
    order = SUB_ROOMS.get(room, ())
    for i, low in enumerate(order):
        assert not graph[low] & set(order[i + 1 :]), f"{room}/{low} imports what lies above it"


def _node(parts: list[str], room: str) -> str:
    """The sub-room or the file of a room that a module is in."""
    return parts[2] if len(parts) > 2 else "__init__"


def _circle(graph: dict[str, set[str]]) -> list[str] | None:
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        return error.args[1]
    return None


@pytest.mark.parametrize("path", SOURCES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_files_hold_one_idea(path):
    assert len(path.read_text(encoding="utf-8").splitlines()) <= MAX_LINES


def test_folders_can_be_taken_in_at_a_glance():
    folders: dict[str, int] = {}
    for path in SOURCES:
        if path.name != "__init__.py":
            folder = path.parent.relative_to(ROOT).as_posix()
            folders[folder] = folders.get(folder, 0) + 1
    assert {f: n for f, n in folders.items() if n > MAX_MODULES and f not in CROWDED} == {}


def test_every_folder_says_what_it_is_for():
    for folder in {path.parent for path in SOURCES}:
        if folder.name == "kernels":
            continue
        face = folder / "__init__.py"
        assert face.is_file(), folder
        assert ast.get_docstring(ast.parse(face.read_text(encoding="utf-8"))), face


def test_importing_reads_no_file_and_no_environment_and_no_device():
    """Every module of both packages, with the calls forbidden once the libraries below them are loaded."""
    names = [dotted(path) for path in SOURCES]
    code = """
import builtins, os, sys, importlib
import torch, numpy, lightning.pytorch, tokenizers, pyarrow.parquet, omegaconf, yaml, rich.console, rich.table, safetensors.torch
import altair, vl_convert, jinja2, pandas
for name in ("torch.utils.data", "lightning.pytorch.callbacks", "rich.progress"):
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
        "mixers: attention | delta_product",
    ):
        assert key in done.stdout


def test_the_folder_kernels_hides_no_package():
    """From the root, `kernels/` is a namespace package; transformers must still import and run."""
    import torch
    import transformers

    assert str(ROOT) in map(os.path.abspath, sys.path), "the root is where packages are looked for, before theirs"
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    model = transformers.LlamaForCausalLM(transformers.LlamaConfig(**sizes, vocab_size=20))
    assert model(torch.zeros(1, 3, dtype=torch.long)).logits.shape == (1, 3, 20)


def test_no_pickle_and_no_code_from_configs():
    for path in SOURCES:
        text = path.read_text(encoding="utf-8")
        for word in ("import pickle", "torch.load(", "yaml.load(", "eval(", "exec(", "_target_:"):
            safe = (".eval(", "literal_eval(", "def eval", "weights_only=True")
            found = [line for line in text.splitlines() if word in line and not any(s in line for s in safe)]
            assert not found, f"{path.name}: {found}"


def test_contracts_are_code():
    """No hasattr and no getattr with a default: an attribute that may be missing belongs in a base class or a Protocol."""
    for path in SOURCES:
        for node in ast.walk(tree_of(path)):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                probes = node.func.id == "hasattr" or (node.func.id == "getattr" and len(node.args) > 2)
                assert not probes, f"{path}:{node.lineno}"
