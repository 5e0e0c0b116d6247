"""The console script: its commands, their help without torch, wrong names, and the resolved configuration."""

import io
import os
import re
import signal
import subprocess
import sys
import time
import tomllib
from importlib import import_module
from pathlib import Path

import pytest
import yaml

from lcprobe import __version__
from lcprobe.cli.commands import COMMANDS, main
from lcprobe.cli.help import INTRODUCTIONS, help_of, intros
from lcprobe.cli.pages import KINDS, LISTS, page
from lcprobe.config import Config, load, parse
from lcprobe.data.sources.sotu import speeches
from lcprobe.errors import run_command
from lcprobe.locks import folder_lock
from lcprobe.probing.policies.cheating import POLICIES
from lcprobe.schema import describe_fields, plain
from lcprobe.tasks.names import CONTROLS, HAYSTACKS
from lcprobe.tasks.names import KINDS as VALUE_FORMATS
from lcprobe.tasks.presets import PRESETS
from tests.tiny import TINY

ROOT = Path(__file__).resolve().parent.parent.parent


@pytest.mark.parametrize("arguments", [[], ["--help"], ["-h"]])
def test_lcprobe_lists_its_commands(capsys, arguments):
    assert main(arguments) == 0
    shown = capsys.readouterr().out
    assert all(f"\n  {name} " in shown for name in COMMANDS)


def test_every_command_has_an_introduction():
    assert list(INTRODUCTIONS) == list(COMMANDS)
    assert list(intros()) == ["lcprobe", *(f"lcprobe {name}" for name in COMMANDS)]
    for title, text in intros().items():
        assert text.startswith(f"{title}: ")
        assert f"\nusage: {title}" in text
        assert "{" not in text.replace("${", "").replace("[{", ""), "formatted"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["trian"],
            "train | evaluate | explain | data | export | score | sweep | consolidate | work | status | sync | records | figure | table | kernels | config | completion; did you mean 'train'?",
        ),
        (
            ["xyz"],
            "train | evaluate | explain | data | export | score | sweep | consolidate | work | status | sync | records | figure | table | kernels | config | completion",
        ),
        (["--plan"], "train | evaluate"),
        (["kernels", "--bakend", "torch"], "--backend NAME"),
        (["kernels", "--backend"], "--backend NAME"),
        (["config", "configs/quickstart.yaml", "trian.lr=0.1"], "did you mean 'train'?"),
        (["config", "configs/quickstart.yaml", "model.mixers.mamba2.d_stat=4"], "did you mean 'd_state'?"),
        (["config", "configs"], "a .yaml file or key=value"),
        (["config", "configs/quickstart.yaml", "--plan"], "--help"),
        (["config", "--help", "modle"], "did you mean 'model'?"),
    ],
)
def test_mistakes_are_one_line(capsys, arguments, words):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.startswith("error: ")
    assert captured.err.count("\n") == 1
    assert words in captured.err


def test_an_unknown_backend_is_one_line(capsys):
    assert main(["kernels", "--backend", "tritn"]) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    assert "auto | triton" in captured.err


def test_config_prints_what_parses_to_the_same_configuration(capsys, tmp_path):
    arguments = ["configs/quickstart.yaml", "train.lr=0.003"]
    assert main(["config", *arguments]) == 0
    text = capsys.readouterr().out
    config = parse(load(arguments[:1], arguments[1:]))
    assert yaml.safe_load(text) == plain(config)
    (tmp_path / "resolved.yaml").write_text(text)
    assert parse(load([str(tmp_path / "resolved.yaml")], [])) == config
    assert yaml.safe_load(text)["train"]["lr"] == 0.003
    assert "weight_decay" in text, "defaults are written too"


def test_what_config_prints_can_be_planned(capsys, tmp_path):
    """A default rate beside study.tuned_by would be taken for one that the user wrote, and refused."""
    assert main(["config", "configs/quickstart.yaml"]) == 0
    path = tmp_path / "resolved.yaml"
    path.write_text(capsys.readouterr().out)
    assert main(["train", str(path), "--plan"]) == 0, capsys.readouterr().err


def test_kernels_reports_as_the_package_does(capsys):
    from lcprobe_kernels.__main__ import main as package

    assert main(["kernels", "--backend", "torch"]) == 0
    shown = capsys.readouterr().out
    assert package(["--backend", "torch"]) == 0
    assert capsys.readouterr().out == shown
    assert "ssd                     -     torch  torch" in shown


def test_kernels_of_a_config_says_which_layers_take_which_path_and_why(capsys, tmp_path):
    from lcprobe_kernels.__main__ import main as package

    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))
    assert main(["kernels", str(config), "--device", "sm_90", "--dtype", "bf16"]) == 0
    out = capsys.readouterr().out
    attention = next(line for line in out.splitlines() if line.startswith("training, attention with gradients"))
    assert "triton in hybrid (layer 0); not flash_attn: " in attention
    assert "training, ssd with gradients, documents: triton in hybrid (layer 1); mamba2 (layers 0-1)" in out
    assert "reading a prompt, ssd with initial state, final state: triton in hybrid (layer 1)" in out
    assert "\nssd by triton: our Triton kernels: gradients repeat bit by bit\n" in out
    assert package([str(config), "--device", "sm_90", "--dtype", "bf16"]) == 0
    assert capsys.readouterr().out == out
    assert package(["no_such.yaml"]) == 2
    assert capsys.readouterr().err.startswith("error: ")
    assert main(["kernels", str(config)]) == 0
    assert ": triton in" not in capsys.readouterr().out
    assert main(["train", str(config), "--plan", "--full"]) == 0
    assert "kernels: training, ssd with gradients" in capsys.readouterr().out
    assert main(["kernels", "configs/quickstart.yaml", "--device", "h100"]) == 2
    assert capsys.readouterr().err == "error: --device: given 'h100'; allowed: cpu | cuda | sm_80, sm_90 ...\n"


def test_no_help_imports_torch():
    code = f"""
import sys
from lcprobe.cli.commands import main
helps = [[name, "--help"] for name in {list(COMMANDS)!r}]
for arguments in ([], ["--version"], *helps, ["train", "--help", "model"]):
    assert main(arguments) == 0
    heavy = [m for m in ("torch", "lightning", "numpy", "pandas", "wandb", "datasets") if m in sys.modules]
    assert not heavy, (arguments, heavy)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert done.returncode == 0, done.stderr


def test_the_package_runs_as_the_console_script():
    command = [sys.executable, "-m", "lcprobe", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout) == (0, f"lcprobe {__version__}\n")


def test_console_scripts_point_at_functions():
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["scripts"]
    assert set(scripts) == {"lcprobe", "lcprobe-train", "lcprobe-evaluate", "lcprobe-data"}
    for name, target in scripts.items():
        module, function = target.split(":")
        command = getattr(import_module(module), function)
        assert command(["--version"]) == 0, name


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_ends_a_command_like_ctrl_c_and_releases_its_locks(tmp_path, capsys, number):
    before = signal.getsignal(number)

    def work():
        with folder_lock(tmp_path):
            assert (tmp_path / ".owner").is_file()
            try:
                os.kill(os.getpid(), number)
                time.sleep(10)
            except Exception:
                raise AssertionError("swallowed") from None

    assert run_command(work) == 75
    assert capsys.readouterr().err == (f"stopped by {number.name}: finished work is kept; the same command resumes\n")
    assert list(tmp_path.iterdir()) == []
    assert signal.getsignal(number) is before


def test_a_hang_up_that_is_ignored_stays_ignored(monkeypatch):
    """As under nohup."""
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        assert run_command(lambda: os.kill(os.getpid(), signal.SIGHUP)) == 0
    finally:
        signal.signal(signal.SIGHUP, before)


def test_a_path_that_the_terminal_cannot_show_is_no_error(tmp_path, monkeypatch):
    shown = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", shown)
    text = tmp_path / "tür.txt"
    text.write_text(next(iter(speeches()))[:8000])
    assert main(["data", "prepare", f"data.corpus=[{text}]", f"data.folder={tmp_path}/prepared-ö"]) == 0
    shown.seek(0)
    assert "prepared-\\xf6" in shown.read()


@pytest.mark.parametrize("name", LISTS)
def test_a_list_has_every_name_and_what_it_is(capsys, name):
    assert main(["--help", name]) == 0
    shown = capsys.readouterr().out
    listed = {line.split()[0]: line.split()[1:] for line in shown.splitlines() if re.match(r"  \S", line)}
    levels = {"haystacks": HAYSTACKS, "value_formats": VALUE_FORMATS, "controls": CONTROLS}
    names = {"presets": PRESETS, "policies": POLICIES, **levels}.get(name) or KINDS[name].registry
    assert set(names) <= set(listed)
    assert all(listed.values())
    assert not any(re.search(r"  The [\w-]+ mixer\.$|see the documentation", line) for line in shown.splitlines())


@pytest.mark.parametrize(
    ("words", "shown"),
    [
        (
            ["train", "--help", "mamba2"],
            ["mixer mamba2: in model.mixers.NAME", "arXiv 2405.21060", "  d_state: a whole"],
        ),
        (["--help", "yarn"], ["extension yarn: in pe.extend", "arXiv 2309.00071", "  ramp: dim | rotations, dim"]),
        (["evaluate", "--help", "niah"], ["task niah: in probe.tasks.NAME", "  n_keys: a whole number"]),
        (["config", "--help", "rwkv6"], ["mixer rwkv6: ", "\nMLP rwkv6: in model.mlp", "no settings"]),
        (["--help", "hex"], ["format of keys and values hex: in probe.grids[i].key", "--help value_formats"]),
        (["--help", "corpus"], ["haystack corpus: in probe.grids[i].haystack"]),
        (["--help", "words"], ["haystack words: ", "format of keys and values words: "]),
        (["--help", "wrong_key"], ["control wrong_key: in probe.grids[i].controls", "absent key"]),
        (["--help", "ruler/vt"], ["preset ruler/vt: ", "task vt: "]),
    ],
)
def test_help_has_a_page_of_every_name(capsys, words, shown):
    assert main(words) == 0
    printed = capsys.readouterr().out
    assert all(text in printed for text in shown)
    assert max(map(len, printed.splitlines())) <= 160


def test_a_key_of_the_config_has_its_help(capsys):
    """A tenth of them; those that stand for others have these, too."""
    for key, *_ in [*describe_fields(Config, "")][::12]:
        assert f"  {key}: " in help_of("train", key), key
    for key, below in (
        ("probe.grids", "  probe.grids[i].depths: "), ("data.mixture", "  data.mixture[i].until: "),
        ("study.lr_sweep", "  study.lr_sweep"), ("data.recipes", "  data.recipes.NAME.task: "),
    ):  # fmt: skip
        assert main(["train", "--help", key]) == 0
        shown = capsys.readouterr().out
        assert below in shown
        assert "  train.lr: " not in shown


@pytest.mark.parametrize("kind", KINDS)
def test_every_registered_name_has_a_page(kind):
    for name in KINDS[kind].registry:
        assert f"{KINDS[kind].one} {name}: in " in page(name)


def test_a_name_nearly_right_is_suggested(capsys):
    assert main(["--help", "mamab2"]) == 2
    assert capsys.readouterr().err.rstrip().endswith("or a name of a list; did you mean 'mamba2'?")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("data.corpus=[/nonexistent]", "data.corpus: given '/nonexistent'; allowed: sotu, an existing folder"),
        ("study.names={nope: X}", "study.names.nope: given 'X'; allowed: "),
        ("study.names={yarn: YaRN}", ""),
    ],
)
def test_a_plan_refuses_what_the_run_would(tmp_path, capsys, word, said):
    config = tmp_path / "tiny.yaml"
    config.write_text(yaml.safe_dump(TINY))
    assert main(["train", str(config), f"study.folder={tmp_path}/runs", word, "--plan"]) == (2 if said else 0)
    assert said in capsys.readouterr().err
