"""`--help`: what a command does, how it is called, and every setting with its type, default and meaning. Without torch."""

import textwrap
from dataclasses import fields

from lcprobe.config import Config
from lcprobe.data.config import Recipe, Stage
from lcprobe.errors import unknown_name
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.mixers import MIXERS
from lcprobe.models.positional import POSITIONAL
from lcprobe.probing.config import Grid
from lcprobe.schema import described
from lcprobe.tasks import TASKS
from lcprobe.tasks.presets import PRESETS

TRAIN = """\
train.py: train the matched models of a study.

usage: python train.py CONFIG.yaml ... [key=value ...] [--plan]

  CONFIG.yaml   merged left to right; key=value on top: train.lr=0.003 model.d_model=256 'data.corpus=[my/folder]'
                ${{train.lr}} is another key's value, ${{times:300,${{train.batch_tokens}}}} a product
  --plan        print runs, sizes, costs and estimates, and stop
  --help [ROOM] this text, or the settings of one room: {rooms}
  --version     versions

examples
  python train.py configs/quickstart.yaml
  python train.py configs/quickstart.yaml study.name=mine train.context_length=256 --plan
  python train.py runs/quickstart/mamba2/config.yaml study.folder=again     (a run's resolved copy makes it once more)

Every run is a folder runs/<study>/<run> with config.yaml, metrics.csv, checkpoints, status.json. The same command goes on
where it was interrupted. Exit codes: 0 done, 2 bad input, 4 numerics, 5 no valid checkpoint, 6 locked, 74 input/output,
75 stopped early and resumable, 130 interrupted.
"""

EVALUATE = """\
evaluate.py: probe trained models, test what the numbers mean, write the report.

usage: python evaluate.py STUDY|RUN|CHECKPOINT|CONFIG.yaml ... [key=value ...] [--plan]
       python evaluate.py STUDY|RUN|CHECKPOINT ... [key=value ...] --harness TASK ... | --frozen FILE ...

  STUDY         runs/<study>: every run of it, compared in one report
  RUN           runs/<study>/<run>: its newest valid checkpoint
  CHECKPOINT    a folder with model.safetensors and config.yaml
  CONFIG.yaml   settings on top of the study's own; alone, it names the study to probe
  --plan        print cells, tokens, and the smallest differences that the grid can see, and stop
  --harness     tasks of lm-eval instead (pip install 'lcprobe[lmeval]'), settings under probe.harness; <folder>/harness,
                a file for each model, task and settings
  --frozen      RULER or BABILong files instead, JSON lines, scored by RULER's substring rule and by ours side by side,
                settings under probe.frozen; <folder>/frozen, a file for each model, file and settings
  --cheat       instead of models, policies that look nothing up answer the tasks: none may score above chance
  --help [ROOM] this text, or the settings of one room: {rooms}

examples
  python evaluate.py runs/quickstart
  python evaluate.py runs/quickstart/mamba2 runs/other/mamba2 study.name=both
  python evaluate.py runs/quickstart 'probe.grids=[{{lengths: [1, 2], n: 500}}]' --plan
  python evaluate.py runs/quickstart 'pe.extend=[pi,yarn,self_extend]' pe.factor=4      (each beside the model as trained)
  python evaluate.py runs/quickstart/mamba2 probe.harness.limit=50 --harness niah_single_1 lambada_openai
  python evaluate.py runs/quickstart/mamba2 --frozen data/vt/validation.jsonl data/qa_1/validation.jsonl
  python evaluate.py configs/quickstart.yaml --cheat      (needs no trained run)

Records go to <folder>/records, one Parquet file a finished unit; a rerun does what is missing. The report is
<folder>/report.html. Exit codes as for train.py.
"""

DATA = """\
lcprobe-data: prepare a corpus, or train a tokenizer.

usage: lcprobe-data prepare CONFIG.yaml ... [key=value ...]     tokens, haystacks and a manifest under data.folder
       lcprobe-data tokenizer OUT.json VOCAB CONFIG.yaml ...    a byte-level BPE from data.corpus

example
  lcprobe-data prepare configs/quickstart.yaml 'data.corpus=[my/folder]' data.text_field=body
"""


def rooms() -> list[str]:
    """Top-level keys of the config."""
    return [f.name for f in fields(Config)]


def text(intro: str, room: str | None) -> str:
    """The help of a command, of all rooms or one. Raises ConfigError for an unknown room."""
    if room is not None and room not in rooms():
        raise unknown_name("--help", room, rooms())
    lines = [intro.format(rooms=" ".join(rooms()))] if room is None else []
    lines.append("settings (key: type, default)\n")
    for key, kind, default, doc in described(Config, ""):
        if room is None or key.split(".")[0] == room:
            lines += _entry(key, kind, default, doc)
    for title, cls, where in (
        ("data.recipes.NAME", Recipe, "data"),
        ("data.mixture[i]", Stage, "data"),
        ("probe.grids[i]", Grid, "probe"),
    ):
        if room in (None, where):
            for entry in described(cls, title):
                lines += _entry(*entry)
    if room in (None, "model"):
        lines.append(f"\nmixers: {' | '.join(sorted(MIXERS))}; positional: {' | '.join(sorted(POSITIONAL))}")
    if room in (None, "pe"):
        lines += textwrap.wrap(f"extensions: none | {' | '.join(EXTENSIONS)}", 112, subsequent_indent="  ")
    if room in (None, "probe", "data"):
        lines.append(f"tasks: {' | '.join(sorted(TASKS))}")
        lines += textwrap.wrap(f"presets: {' | '.join(PRESETS)}", 112, subsequent_indent="  ")
    return "\n".join(lines)


def _entry(key: str, kind: str, default: str, doc: str) -> list[str]:
    shown = default if len(default) <= 60 else default[:57] + "..."
    head = f"  {key}: {kind}, {shown}"
    return [head, *textwrap.wrap(doc, 112, initial_indent="      ", subsequent_indent="      ")]
