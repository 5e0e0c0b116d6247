"""Links and code of the documentation that MkDocs does not check."""

import ast
import re
from pathlib import Path

import pytest

import lcprobe

ROOT = Path(__file__).resolve().parent.parent.parent
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
LINK = re.compile(r"\]\((?!https?:|#)([^)#]+)(#[^)]*)?\)")
GENERATED = {"config.md", "cli.md", "registries.md", "records.md"}
"""Pages of the reference that are made when the site is built."""


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_links_lead_to_files(page):
    for target, _ in LINK.findall(page.read_text(encoding="utf-8")):
        path = page.parent / target
        assert path.exists() or path.name in GENERATED, f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_paths_that_are_named_exist(page):
    text = page.read_text(encoding="utf-8")
    for path in re.findall(r"`((?:lcprobe|kernels|tests|configs|validation|benchmarks|docs)/[\w./-]*[\w/])`", text):
        assert (ROOT / path).exists(), f"{page.name}: {path}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_python_in_pages_calls_what_there_is(page):
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "lcprobe":
                assert node.attr in lcprobe.__all__, f"{page.name}: lcprobe.{node.attr}"


@pytest.mark.parametrize("page", PAGES, ids=lambda p: p.relative_to(ROOT).as_posix())
def test_studies_in_pages_make_a_plan(page, tmp_path, capsys):
    """Every block of YAML that is a whole study is one that `--plan` accepts."""
    from lcprobe.cli.commands import train_main

    for i, block in enumerate(b for b in blocks(page, "yaml") if "study:" in b and "train:" in b):
        path = tmp_path / f"{i}.yaml"
        path.write_text(block)
        assert train_main([str(path), "--plan"]) == 0, capsys.readouterr().err
