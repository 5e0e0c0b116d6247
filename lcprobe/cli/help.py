"""`--help`: what a command does, how it is called, and every setting with its type, default and meaning. Imports no
torch."""

import textwrap
from collections.abc import Iterable, Iterator
from dataclasses import fields

from lcprobe.cli.kernels import KERNELS
from lcprobe.cli.pages import HELP_WIDTH, LISTS, page, setting
from lcprobe.cli.records import RECORDS
from lcprobe.cli.study_help import CONSOLIDATE, STATUS, SWEEP, SYNC, WORK
from lcprobe.config import Config
from lcprobe.data.config import Recipe, Stage
from lcprobe.models.extend import EXTENSIONS
from lcprobe.models.mixers import MIXERS
from lcprobe.models.mlps import MLPS
from lcprobe.models.positional import POSITIONAL
from lcprobe.probing.config import Grid
from lcprobe.probing.explain.config import ExplainConfig
from lcprobe.schema import describe_fields
from lcprobe.tasks import TASKS
from lcprobe.tasks.presets import PRESETS

OVERVIEW = """\
lcprobe: train matched sequence models at a fixed context length, then probe what they retrieve from context.

usage: lcprobe COMMAND ...   (or python -m lcprobe COMMAND ...)

  train       train the matched models of a study
  evaluate    probe trained models and write the report
  explain     say why somebody else's number for a model is not yours
  data        prepare a corpus, or train a tokenizer
  export      write a grid's samples for other harnesses: JSON lines, lm-eval tasks, an inspect_ai task
  score       take the outputs of other harnesses into the records and the report
  sweep       train the trials of a sweep in W&B's format, without a server
  consolidate put checkpoints that several processes wrote in parts into the form that one process writes
  work        take what is free of a study until nothing is left: one of several processes, on any machine
  status      what of a study is done, running, failed and waiting, and how long the rest takes
  sync        send what was tracked offline in Weights & Biases
  records     count, query and export the records of studies; put small files together
  figure      make one figure of a report again, for a paper: other models, sizes, names; PDF, SVG or PNG
  table       make one table of a report again: other rows, columns, names; LaTeX or CSV
  kernels     print this machine, the backends that work on it, and what each op runs
  config      print the resolved configuration
  completion  print a script that completes all of this in bash, zsh or fish

  COMMAND --help    what a command does, how it is called, and its settings
  --help NAME       the page of anything that a config can name, such as mamba2, rope, yarn or niah; lists of them:
                    mixers, encodings, extensions, tasks, ...
  --version         the version of lcprobe
"""

TRAIN = """\
lcprobe train: train the matched models of a study. In a checkout, python train.py is the same command.

usage: lcprobe train CONFIG.yaml ... [key=value ...] [--plan [--full]]

  CONFIG.yaml   merged left to right; key=value on top: train.lr=0.003 model.d_model=256 'data.corpus=[my/folder]'
                mappings merge; one with type, or with _replace_: true, replaces the old one; key=_drop_ takes a key
                away; ${{train.lr}} is another key's value,
                ${{times:300,${{train.batch_tokens}}}} a product
  --plan        print models, sizes, costs and estimates, and stop; --full: all columns, runs and notes (training
                writes them to plan.csv and plan.txt in the study's folder)
  --help [KEY]  this text, or the settings under one key: {sections}
  --help NAME   the page of anything that a config can name, such as mamba2, rope, yarn, niah or ruler/vt, or a list:
                {lists}
  --version     the version of lcprobe

examples
  lcprobe train configs/quickstart.yaml
  lcprobe train configs/quickstart.yaml study.name=mine train.context_length=256 --plan
  lcprobe train runs/quickstart/s0-mamba2/config.yaml study.folder=again     (a run's resolved config trains it again)

Every run is a folder runs/<study>/<run> with config.yaml, metrics.csv, checkpoints and status.json. The same command
resumes after an interruption. Exit codes: 0 done, 2 bad input, 4 numerics, 5 no valid checkpoint, 6 locked,
74 input/output, 75 stopped early and resumable, 130 interrupted.
"""

EVALUATE = """\
lcprobe evaluate: probe trained or published models, test the differences between them, and write the report. In a
checkout, python evaluate.py is the same command.

usage: lcprobe evaluate STUDY|RUN|CHECKPOINT|hf:ORG/NAME|CONFIG.yaml ... [key=value ...] [--plan [--full]]
       lcprobe evaluate STUDY|RUN|CHECKPOINT ... [key=value ...] --harness TASK ... | --frozen FILE ...
       lcprobe evaluate STUDY|RUN|CHECKPOINT|CONFIG.yaml ... [key=value ...] --cheat

  STUDY         runs/<study>: every run of it, compared in one report
  RUN           runs/<study>/<run>: its newest valid checkpoint
  CHECKPOINT    a folder with model.safetensors and config.yaml, or one with a published model
  hf:ORG/NAME   a model on the Hugging Face hub, or hf:ORG/NAME@REVISION; several at once and mixed with own runs need
                a study.name (study.models lists them in a config, with what their files do not say)
  CONFIG.yaml   settings on top of the study's own; alone, it names the study to probe
  --plan        print cells, tokens, hours, memory, and the smallest differences that the grid can detect, and stop;
                --full: all columns, lengths and notes
  --harness     run tasks of lm-eval (pip install 'lcprobe[lmeval]') instead, with the settings of probe.harness;
                results in <folder>/harness, one file per model, task and settings
  --frozen      run files of RULER or BABILong (JSON lines) instead, scored by RULER's substring rule and by exact
                match, with the settings of probe.frozen; results in <folder>/frozen, one file per model, file and
                settings
  --cheat       leakage check: shortcut policies without retrieval answer the tasks in place of models; none may
                score above chance
  --help [KEY]  this text, or the settings under one key: {sections}
  --help NAME   the page of anything that a config can name, such as mamba2, rope, yarn, niah or ruler/vt, or a list:
                {lists}
  --version     the version of lcprobe

examples
  lcprobe evaluate runs/quickstart
  lcprobe evaluate runs/quickstart/s0-mamba2 runs/other/mamba2 study.name=both
  lcprobe evaluate hf:state-spaces/mamba2-2.7b configs/probe/ruler.yaml probe.weights=bf16
  lcprobe evaluate runs/quickstart checkpoints/my-llama study.name=both    (a folder with config.json and weights)
  lcprobe evaluate runs/quickstart 'probe.grids=[{{lengths: [1, 2], n: 500}}]' --plan
  lcprobe evaluate runs/quickstart 'pe.extend=[pi,yarn,self_extend]' pe.factor=4    (besides the model as trained)
  lcprobe evaluate runs/quickstart/s0-mamba2 probe.harness.limit=50 --harness niah_single_1 lambada_openai
  lcprobe evaluate runs/quickstart/s0-mamba2 --frozen data/vt/validation.jsonl data/qa_1/validation.jsonl
  lcprobe evaluate configs/quickstart.yaml --cheat      (needs no trained run)

Records go to <folder>/records, one Parquet file per finished unit; a rerun computes what is missing. The report is
<folder>/report.html. With other settings or models it is <folder>/reports/NAME/report.html, and replaces none: NAME
is study.name, or tasks and a digest. Exit codes as for lcprobe train.
"""

EXPLAIN = """\
lcprobe explain: say which change of the measurement accounts for the difference between somebody's number for a model
and ours: sampling noise, scorer, budget, length accounting, tokenizer, begin token, chat template, instruction, other
samples, or aggregation.

usage: lcprobe explain RUN|CHECKPOINT|hf:ORG/NAME task=TASK length=TOKENS theirs=NUMBER [n=SAMPLES] [key=value ...]

  RUN           runs/<study>/<run>: its newest valid checkpoint
  CHECKPOINT    a folder with model.safetensors and config.yaml, or a published checkpoint
  hf:ORG/NAME   a published model
  key=value     their number and what is known of how it was measured (below); keys of the config too, such as
                data.folder=... and probe.batch_tokens=...

examples
  lcprobe explain runs/quickstart/s0-mamba2 task=multikey length=256 theirs=0.62 n=250
  lcprobe explain RUN task=ruler/niah_single_1 length=[2048,4096] theirs=[0.62,0.21] n=500 scorer=substring budget=128
  lcprobe explain RUN task=ruler/vt length=4096 theirs=0.4 outputs=their_predictions.jsonl out=why.json

Our number is measured first. Where it is compatible with theirs, the rest is not; else every condition is measured on
the same samples, read once where only the scorer differs. Exit codes as for lcprobe evaluate.
"""

DATA = """\
lcprobe data: prepare a corpus, or train a tokenizer. Training and probing prepare a corpus that is not there yet.

usage: lcprobe data prepare CONFIG.yaml ... [key=value ...]     tokens, haystacks and a manifest under data.folder
       lcprobe data tokenizer OUT.json VOCAB CONFIG.yaml ...    a byte-level BPE from data.corpus

example
  lcprobe data prepare configs/quickstart.yaml 'data.corpus=[my/folder]' data.text_field=body
"""

EXPORT = """\
lcprobe export: write the samples of a grid for other harnesses, as JSON lines with prompt, answer, factors and token
counts, as lm-eval tasks and as an inspect_ai task.

usage: lcprobe export CONFIG.yaml ... [key=value ...]

  CONFIG.yaml   probe.tasks and probe.grids, data.tokenizer, and data.corpus, which is prepared as for lcprobe
                evaluate, so that the samples are its samples; lengths: multiples of train.context_length, or tokens

examples
  lcprobe export configs/quickstart.yaml configs/probe/ruler.yaml study.name=mine
  lcprobe export study.yaml data.tokenizer=checkpoints/my-llama probe.export.bos=true

Everything is below runs/<study>/export: samples, lm_eval (for --include_path), inspect_ai.
"""

SCORE = """\
lcprobe score: take the outputs of other harnesses to exported samples into the records of a study and its report.

usage: lcprobe score EXPORT_FOLDER FILE ... --model NAME [study.name=NAME] [study.folder=FOLDER]

  FILE          lm-eval's samples (--log_samples), logs of inspect_ai as JSON, or JSON lines with id and output; files
                of both of lm-eval's kinds of tasks at once give likelihoods and texts
  --model       the name in records and report

Samples without output are named and are no trials. The same files again change nothing; other ones of the same model
replace what it said before. Refused, with nothing written: the name of a model that was probed in the study, a study
of another grid, and one whose models answered other samples in the same cells.

example
  lcprobe score runs/mine/export out/samples_lcprobe_mine_greedy_*.jsonl --model my-llama
"""

FIGURE = """\
lcprobe figure: make one figure of a report again, with other choices, as PDF, SVG, PNG or its Vega-Lite JSON. Nothing
is probed again; intervals and tests are those of the report.

usage: lcprobe figure FOLDER [FIGURE] [key=value ...]

  FOLDER        with report.json: runs/<study>, or runs/<study>/reports/<report>
  FIGURE        a chart (length, heatmap, depth, distance, ...), or the name of one figure; without: a list of them
  key=value     choices, below

examples
  lcprobe figure runs/quickstart
  lcprobe figure runs/quickstart length task=multikey out=fig1.pdf width=300 height=180 title=
  lcprobe figure runs/quickstart heatmap models=mamba2,hybrid names.mamba2=Mamba-2 width=140

"""

TABLE = """\
lcprobe table: make one table of a report again, with other choices, as LaTeX (booktabs) or CSV. Nothing is probed
again.

usage: lcprobe table FOLDER [TABLE] [key=value ...]

  FOLDER        with report.json: runs/<study>, or runs/<study>/reports/<report>
  TABLE         a file of tables/ without its suffix: reach, page/effective-length; without: a list of them
  key=value     choices, below

examples
  lcprobe table runs/quickstart exact-match-on-multikey out=table1.tex names.mamba2=Mamba-2
  lcprobe table runs/quickstart cells task=multikey lengths=128,512 columns=model,length,depth,accuracy,interval

"""

CONFIG = """\
lcprobe config: check a configuration and print it resolved: files merged, key=value on top, other keys at their
defaults.

usage: lcprobe config CONFIG.yaml ... [key=value ...]

  --help [KEY]  this text and all settings, or the settings under one key: {sections}
  --help NAME   the page of anything that a config can name, or a list: {lists}

example
  lcprobe config configs/quickstart.yaml train.lr=0.003
"""

COMPLETION = """\
lcprobe completion: print a script that completes commands, options, keys of the config with their values, names after
--help, configs and folders.

usage: lcprobe completion bash|zsh|fish

examples
  lcprobe completion bash > ~/.local/share/bash-completion/completions/lcprobe   (or in ~/.bashrc: source <(...))
  lcprobe completion zsh > "${{fpath[1]}}/_lcprobe"
  lcprobe completion fish > ~/.config/fish/completions/lcprobe.fish

The script has the words of this version; print it again after an update.
"""

INTRODUCTIONS = {
    "train": TRAIN,
    "evaluate": EVALUATE,
    "explain": EXPLAIN,
    "data": DATA,
    "export": EXPORT,
    "score": SCORE,
    "sweep": SWEEP,
    "consolidate": CONSOLIDATE,
    "work": WORK,
    "status": STATUS,
    "sync": SYNC,
    "records": RECORDS,
    "figure": FIGURE,
    "table": TABLE,
    "kernels": KERNELS,
    "config": CONFIG,
    "completion": COMPLETION,
}
"""By command; braces are doubled, {sections} are the top-level keys, {lists} the lists of names."""
WITH_SETTINGS = ("train", "evaluate", "config")
"""Commands whose help ends with the list of settings."""
WITH_OWN_SETTINGS = ("explain", "figure", "table")
"""Commands with settings that no config has."""


def intros() -> dict[str, str]:
    """What each command does and how it is called, by its title, without the list of settings: for the reference
    pages."""
    return {"lcprobe": OVERVIEW} | {f"lcprobe {name}": _introduction(name) for name in INTRODUCTIONS}


def help_of(command: str, section: str | None) -> str:
    """`--help` of a command; with settings, those of all sections or of one, or the page of a registered name. Raises
    ConfigError for an unknown section or name."""
    if command in WITH_OWN_SETTINGS:
        described = describe_fields(own_settings(command), "")
        lines = [line for key, kind, default, doc in described for line in setting(key, kind, default, doc)]
        return "\n".join([_introduction(command), "settings (key: type, default)\n", *lines])
    if command not in WITH_SETTINGS:
        return _introduction(command)
    if section is not None and section not in config_sections():
        if lines := [line for key, *rest in _every_setting() if _is_of(key, section) for line in setting(key, *rest)]:
            return "\n".join(["settings (key: type, default)\n", *lines])
        return page(section, config_sections())
    lines = [_introduction(command)] if section is None else []
    return "\n".join([*lines, *_settings(section)])


def own_settings(command: str) -> type:
    """The settings of a command that is told nothing of the config."""
    if command == "explain":
        return ExplainConfig
    from lcprobe.analysis.report.exports.choices import FigureChoices, TableChoices  # imports numpy

    return FigureChoices if command == "figure" else TableChoices


def _introduction(command: str) -> str:
    return INTRODUCTIONS[command].format(sections=" ".join(config_sections()), lists=" ".join(LISTS))


def config_sections() -> list[str]:
    """Top-level keys of the config."""
    return [f.name for f in fields(Config)]


def _settings(section: str | None) -> list[str]:
    """Every setting of all sections, or of one."""
    lines = ["settings (key: type, default)\n"]
    for key, kind, default, doc in _every_setting():
        if section is None or key.split(".")[0] == section:
            lines += setting(key, kind, default, doc)
    lines.append("")
    if section in (None, "model"):
        lines += [*_names("mixers", MIXERS.names), *_names("mlps", sorted(MLPS))]
        lines += _names("positional", sorted(POSITIONAL))
    if section in (None, "pe"):
        lines += _names("extensions", ["none", *EXTENSIONS])
    if section in (None, "probe", "data"):
        lines += [*_names("tasks", sorted(TASKS)), *_names("presets", PRESETS)]
    return lines


def _every_setting() -> Iterator[tuple[str, str, str, str]]:
    """Key, type, default and docstring of all settings, those of the entries of lists last."""
    yield from describe_fields(Config, "")
    for title, cls in (("data.recipes.NAME", Recipe), ("data.mixture[i]", Stage), ("probe.grids[i]", Grid)):
        yield from describe_fields(cls, title)


def _is_of(key: str, asked: str) -> bool:
    """Whether a key is what is asked for, or a part of it."""
    return key == asked or (key.startswith(asked) and key[len(asked)] in ".[")


def _names(title: str, names: Iterable[str]) -> list[str]:
    return textwrap.wrap(f"{title}: {' | '.join(names)}", HELP_WIDTH, subsequent_indent="  ", break_on_hyphens=False)
