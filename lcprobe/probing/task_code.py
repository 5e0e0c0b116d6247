"""Digest of the code that makes a task's episodes: records of two versions of a task never count together.

It covers the module of the task's class and of its bases, whatever these import from `lcprobe.tasks`,
`lcprobe.seeds` and, for a task from elsewhere, its own package, and the word lists. What does not run does not count:
comments, docstrings, line breaks. A module that another task alone imports does not count either.
"""

import ast
import importlib.util
import sys
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path
from typing import Any

from lcprobe import tasks
from lcprobe.files import digest_bytes

SHIPPED = ("lcprobe.tasks", "lcprobe.seeds")
"""What episodes are made of: modules with these names, and all below them."""


@lru_cache
def task_code(cls: type) -> str:
    """Digest of the code of a task's class, 64 hexadecimal digits. Of a class that was typed in and is in no file,
    only its bases count."""
    modules = {base.__module__ for base in cls.__mro__} - {*sys.stdlib_module_names, "builtins"}
    own = {name.split(".")[0] for name in modules if not name.startswith("lcprobe.")}
    scope, waiting, seen = (*SHIPPED, *sorted(own)), sorted(modules), dict[str, str]()
    while waiting:
        name = waiting.pop()
        path = _source(name)
        if name not in seen and path is not None:
            digest, imported = _module(path, name)
            seen[name] = digest
            waiting += [other for other in imported if _inside(other, scope)]
    parts = [f"{name} {digest}".encode() for name, digest in sorted(seen.items())]
    return digest_bytes(*parts, _word_lists().encode())


def code_of(source: str) -> str:
    """Python source as text that is equal for equal code, on every version of Python that can run it."""
    out: list[str] = []
    _write(ast.parse(source), out)
    return "".join(out)


@lru_cache(maxsize=256)
def _module(path: Path, name: str) -> tuple[str, tuple[str, ...]]:
    source = path.read_bytes().decode("utf-8")
    return digest_bytes(code_of(source).encode()), tuple(_imports(ast.parse(source), name, path))


def _imports(tree: ast.Module, name: str, path: Path) -> Iterator[str]:
    """Names of what a module imports: modules, and names in modules, which may be modules too."""
    package = name if path.name == "__init__.py" else name.rpartition(".")[0]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            dots = "." * node.level + (node.module or "")
            source = importlib.util.resolve_name(dots, package) if node.level else dots
            yield source
            yield from (f"{source}.{alias.name}" for alias in node.names)


@lru_cache(maxsize=1024)
def _source(name: str) -> Path | None:
    """The file of a module; None for what is no module, or in no file of Python source."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):  # a name in a module, or `__main__`
        return None
    return Path(spec.origin) if spec and spec.origin and spec.origin.endswith(".py") else None


def _inside(name: str, scope: tuple[str, ...]) -> bool:
    return any(name == room or name.startswith(f"{room}.") for room in scope)


def _write(node: Any, out: list[str]) -> None:
    """Append a syntax tree. Absent parts are left out: versions of Python differ in which ones they have."""
    if isinstance(node, ast.AST):
        out.append(f"{type(node).__name__}(")
        for name, value in ast.iter_fields(node):
            if value is not None and value != []:
                out.append(f"{name}=")
                _write(value, out)
        out.append(")")
    elif isinstance(node, list):
        out.append("[")
        for one in node:
            if not _is_docstring(one):
                _write(one, out)
        out.append("]")
    else:
        out.append(f"{node!r},")


def _is_docstring(node: Any) -> bool:
    """Whether a statement is a string alone, as docstrings are, those under a field too."""
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


@lru_cache(maxsize=1)
def _word_lists() -> str:
    folder = Path(tasks.__file__).parent / "assets"
    return digest_bytes(*(part for p in sorted(folder.glob("*.txt")) for part in (p.name.encode(), p.read_bytes())))
