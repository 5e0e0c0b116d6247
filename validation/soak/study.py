"""A round of the soak: a tiny study of two models, trained, probed and reported from nothing, as the commands do it;
and the figures of its report alone, many times.

Figures are drawn by vl-convert in V8, which compiles a function once it is hot, more of them for some thousands of
figures: 0.5 kB a figure between 1,000 and 4,000 of them, 0.2 kB up to 8,000. That is no leak, and in half an hour it
does not end, so that figures are drawn before the rounds.
"""

import gc
import io
import shutil
from collections.abc import Callable
from contextlib import redirect_stderr, redirect_stdout
from itertools import cycle, islice
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np

from lcprobe.analysis.report import write
from lcprobe.analysis.report.charts.render import render, render_spec
from lcprobe.cli.commands import evaluate_main, train_main
from lcprobe.dialect import write_yaml
from validation.soak.judgement import IN_V8
from validation.soak.levels import at_the_end

TOKENS = 64 * 4 * 24
CONFIG: dict[str, Any] = {
    "model": {
        "d_model": 16,
        "d_ff": 32,
        "mixers": {"attention": {"head_dim": 8}, "mamba2": {"head_dim": 8, "d_state": 8, "chunk_size": 16}},
    },
    "grid": {"model.layout": ["mamba2 x 2", "attention+mlp, mamba2"]},
    "train": {
        "context_length": 64, "tokens": TOKENS, "batch_tokens": 64 * 4, "lr": 0.01, "log_every": 1,
        "checkpoint_every": TOKENS // 4, "threads": 1,
    },
    "data": {
        "recipes": {"lines": {"task": {"type": "niah", "n_keys": 2, "template": "line", "digits": 2}}},
        "mixture": [{"lm": 0.5, "episodes": {"lines": 1}, "lengths": [1]}],
    },
    "probe": {
        "tasks": {"single": {"type": "niah", "n_keys": 1, "template": "line", "digits": 2}},
        "grids": [{"lengths": [1, 2], "depths": 2, "n": 6}],
        "context": {"lengths": [1], "n": 2, "kept": [8]},
        "while_training": {"tasks": ["single"], "lengths": [1], "depths": 1, "n": 4},
    },
    "track": {"wandb": "off"},
}  # fmt: skip


def rounds_of(home: Path) -> Callable[[], None]:
    """What does a round, with its corpus and runs in `home`, and leaves no run. It raises RuntimeError where a
    command ends with another exit code than 0."""
    corpus, config, runs = home / "corpus.txt", home / "soak.yaml", home / "runs"
    words = ["the", "river", "stone", "light", "door", "morning", "letter", "carries", "finds", "old", "green"]
    dice = np.random.default_rng(0)
    lines = [" ".join(dice.choice(words, 9)) + "." for _ in range(4000)]
    corpus.write_text("\n".join(lines) + "\n", encoding="utf-8")
    data = {**CONFIG["data"], "corpus": [str(corpus)], "folder": str(home / "data"), "held_out": 0.2}
    study = {"name": "soak", "folder": str(runs)}
    config.write_text(write_yaml({**CONFIG, "data": data, "study": study}), encoding="utf-8")

    def one_round() -> None:
        said = io.StringIO()
        with redirect_stdout(said), redirect_stderr(said):
            codes = train_main([str(config)]), evaluate_main([str(runs / "soak")])
        if codes != (0, 0):
            raise RuntimeError(f"a round ended with {codes}: {said.getvalue()[-500:]}")
        gc.collect()
        shutil.rmtree(runs)

    return one_round


def draw_figures(of_round: Callable[[], None], n: int) -> int:
    """Do a round, and draw its figures again, in turn, n in all; print what V8 has in memory meanwhile. Returns how
    many the round draws."""
    specs: list[dict[str, Any]] = []

    def kept(chart: Any) -> Any:
        specs.append(chart.to_dict(validate=False))
        return render(chart)

    with patch.object(write, "render", kept):
        of_round()
    for number, spec in enumerate(islice(cycle(specs), n)):
        if number % 1000 == 0:
            print(f"{number} figures drawn: {IN_V8} {at_the_end().get(IN_V8, 0):.2f}", flush=True)
        render_spec(spec)
    return len(specs)
