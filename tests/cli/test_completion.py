"""Completion in the real shells that are installed: what is typed, then a tab, then enter, is what a command gets."""

import fcntl
import os
import pty
import re
import select
import shutil
import subprocess
import termios
import time

import pytest

from lcprobe.cli.commands import COMMANDS, DATA_COMMANDS, main
from lcprobe.cli.completion.scripts import SCRIPTS
from lcprobe.cli.completion.words import WITHOUT_SETTINGS, completion_words
from lcprobe.cli.help import INTRODUCTIONS

SHELLS = [
    pytest.param(
        shell,
        marks=[
            pytest.mark.skipif(shutil.which(shell) is None, reason=f"no {shell} here"),
            *([pytest.mark.slow] if shell != "bash" else []),
        ],
    )
    for shell in SCRIPTS
]
TYPED = [
    ("lcprobe expl\t", "<explain>"),
    ("lcprobe train model.d_m\t7", "<train><model.d_model=7>"),
    ("lcprobe train mode\td_m\t7", "<train><model.d_model=7>"),
    ("lcprobe train study.plan_for=h1\t", "<train><study.plan_for=h100>"),
    ("lcprobe train model.mixers.attention.window_c\tfa\t", "<train><model.mixers.attention.window_counts_self=false>"),
    ("lcprobe evaluate --ch\t", "<evaluate><--cheat>"),
    ("lcprobe train --help gated_del\t", "<train><--help><gated_deltanet>"),
    ("lcprobe train min\t--plan", "<train><mine.yaml><--plan>"),
    ("lcprobe evaluate my_ru\t", "<evaluate><my_runs/>"),
    ("lcprobe data prep\t", "<data><prepare>"),
    ("lcprobe completion z\t", "<completion><zsh>"),
    ("lcprobe evaluate ~/ho\t", "<evaluate><HOME/home_runs/>"),
    ("lcprobe train ~/ho\tmine.y\t", "<train><HOME/home_runs/mine.yaml>"),
    ("lcprobe train 'with sp\tmine.y\t", "<train><with space/mine.yaml>"),
    ("lcprobe figure mod\ta,b", "<figure><models=a,b>"),
    ("lcprobe table colu\tmodel", "<table><columns=model>"),
    ("lcprobe train gri\ttrain.weight_d\t3", "<train><grid.train.weight_decay=3>"),
]  # fmt: skip
"""What is typed, and the words that the command then has."""
START = {
    "bash": ["bash", "--norc", "--noprofile", "-i"],
    "zsh": ["zsh", "-f", "-i"],
    "fish": ["fish", "--no-config", "-i"],
}
SETUP = {
    "bash": "lcprobe() { printf '<%s>' \"$@\"; echo; }",
    "zsh": "autoload -U compinit; compinit -u -D; lcprobe() { printf '<%s>' \"$@\"; echo }",
    "fish": "function lcprobe; printf '<%s>' $argv; echo; end",
}


class Typist:
    """An interactive shell at a terminal."""

    def __init__(self, shell: str, folder, home):
        environment = {**os.environ, "TERM": "xterm", "HOME": str(home), "XDG_CONFIG_HOME": str(home), "PS1": "$ "}
        self._ends, end = pty.openpty()
        self._process = subprocess.Popen(
            START[shell], stdin=end, stdout=end, stderr=end, cwd=folder, env=environment, start_new_session=True,
            preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0),
        )  # fmt: skip
        os.close(end)

    def type(self, text: str) -> None:
        for part in re.split("(\t)", text):
            os.write(self._ends, part.encode())
            time.sleep(0.05)  # what arrives in one piece with a tab may be taken for pasted text

    def until(self, pattern: str, seconds: float = 20) -> str:
        seen, end = "", time.monotonic() + seconds
        while not re.search(pattern, seen):
            assert time.monotonic() < end, f"{pattern!r} not in {seen!r}"
            if select.select([self._ends], [], [], 0.2)[0]:
                seen += os.read(self._ends, 65536).decode(errors="replace")
        return seen

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._ends)


@pytest.mark.parametrize("shell", SHELLS)
def test_what_is_completed_is_what_the_command_gets(shell, tmp_path, capsys):
    assert main(["completion", shell]) == 0
    (tmp_path / "home").mkdir()
    script = tmp_path / "home" / "script"
    script.write_text(capsys.readouterr().out)
    folder, home = tmp_path / "folder", tmp_path / "home"
    for path in (folder / "my_runs", folder / "with space", home / "home_runs"):
        path.mkdir(parents=True)
    for path in (folder / "with space", home / "home_runs"):
        (path / "mine.yaml").write_text("")
    for name in ("mine.yaml", "mine.txt"):
        (folder / name).write_text("")
    typist = Typist(shell, folder, tmp_path / "home")
    try:
        typist.type(f"{SETUP[shell]}\nsource {script}\necho rea''dy\n")
        typist.until("ready")
        for typed, words in TYPED:
            typist.type(f"{typed}\n")
            words = words.replace("HOME", str(home))
            typist.until(re.escape(words).replace("/>", "/?>") + "(?!<)")  # zsh takes a last slash away
    finally:
        typist.close()


def test_every_command_and_option_of_the_help_is_completed():
    words = completion_words(SCRIPTS, DATA_COMMANDS)
    assert words.commands == list(COMMANDS)
    assert set(words.options["evaluate"]) == {
        "--plan",
        "--full",
        "--cheat",
        "--harness",
        "--frozen",
        "--help",
        "--version",
    }
    assert set(words.options["train"]) == {"--plan", "--full", "--help", "--version"}
    assert words.keys["train.schedule"] == ["cosine", "wsd", "constant"]
    assert words.keys["train.lr"] == []
    assert {"mamba2", "yarn", "rope", "ruler/vt", "tasks", "mixers"} <= set(words.names)
    assert {"models", "task", "title", "width"} < set(words.keys_of("figure"))
    assert "columns" in words.keys_of("table")
    assert not {"train.lr", "columns"} & set(words.keys_of("figure"))
    assert {"task", "theirs", "data.folder"} < set(words.keys_of("explain"))
    takes = {name for name, text in INTRODUCTIONS.items() if "key=value" in text or "CONFIG.yaml" in text}
    assert takes == set(COMMANDS) - WITHOUT_SETTINGS | {"figure", "table"}


def test_an_unknown_shell_is_one_line(capsys):
    assert main(["completion", "fsh"]) == 2
    assert "bash | zsh | fish; did you mean 'fish'?" in capsys.readouterr().err
