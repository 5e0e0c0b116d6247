"""Every file under configs/, and the example of the README, can be planned as it is shipped: it fits the machine that
it names (study.plan_for), its lengths fit, and it trains what it probes. A part of a config is planned with the rest
that it is for; neither weights nor the network are needed."""

import re
from pathlib import Path

import pytest

from lcprobe.cli.commands import evaluate_main, train_main
from lcprobe.config import load, parse, read_settings
from lcprobe.studies.evaluation.evaluate_study import planned_targets
from lcprobe.studies.planning.memory.estimate import memory_notes
from lcprobe.studies.planning.not_trained import not_trained_notes
from lcprobe.studies.planning.plan import make_plan
from lcprobe.studies.planning.preflight import check_probes_fit
from lcprobe.studies.training.train_study import checked_plan

CONFIGS = sorted(Path("configs").rglob("*.yaml"))
HERE = ["data.corpus=[sotu]", "data.tokenizer=shipped"]
WITH: dict[str, list[str]] = {
    "configs/data/fineweb-edu.yaml": ["configs/study/matched-130m.yaml", "configs/probe/needles.yaml", *HERE],
    "configs/study/large.yaml": ["configs/probe/long.yaml"],
    "configs/sweep/quickstart.yaml": ["configs/quickstart.yaml"],
    "configs/probe/long.yaml": ["configs/study/large.yaml"],
    "configs/model/transformerpp-2.7b.yaml": ["match.budget=2.58e9"],
}
"""What a part is planned with, by file."""
COSTLY = [
    "configs/paper/check-3-documents.yaml", "configs/paper/exp-1-extrapolation.yaml", "configs/paper/exp-3-format.yaml",
    "configs/paper/tables-1-7-19.yaml", "configs/paper/tables-2-3.yaml", "configs/paper/question-1-architectures.yaml",
    "configs/paper/exp-2-position.yaml", "configs/probe/ruler.yaml", "configs/probe/every.yaml", "configs/probe/needles.yaml", "configs/data/fineweb-edu.yaml",
    "configs/paper/question-2-features.yaml", "configs/study/hybrid_position.yaml", "configs/study/positional.yaml",
]  # fmt: skip
"""Files with so many cells or runs that only the slow test plans them."""
UNFIT = ("too large for", "left out", "not trained", "nothing is probed")
"""What a note says of a plan that is not as it should be."""
LARGEST = 'grid.arch={mamba2-1to7: {model: {layout: "[mamba2+mlp x 7, attention+mlp]", n_layers: solve}}}'
"""Of the ladder, which takes long to solve: the architecture with the most memory."""


def words_of(path: Path) -> list[str]:
    """The arguments with which a file is planned: files before it, the file, settings."""
    rest = WITH.get(str(path), [])
    if path.parent.name == "model" and not rest and "solve" in path.read_text():
        rest = ["match.budget=130e6"]
    before = [word for word in rest if word.endswith(".yaml")]
    return [*before, str(path), *(word for word in rest if word not in before)]


def loaded(words):
    return load([w for w in words if w.endswith(".yaml")], [w for w in words if not w.endswith(".yaml")])


def trains(path: Path) -> bool:
    """Whether a file is about training: it has a model, or is a part of a study that has one."""
    mapping = loaded(words_of(path))
    return bool({"model", "grid"} & set(mapping)) or path.parent.name in ("data", "sweep")


def unfit(notes, names_machine):
    """Those of a plan's notes that say that something is not as it should be."""
    return [note for note in notes if any(word in note for word in UNFIT if names_machine or word != "too large for")]


def test_every_config_has_a_plan():
    assert {path.parent.name for path in CONFIGS} == {"configs", "data", "model", "paper", "probe", "study", "sweep"}
    assert len([path for path in CONFIGS if trains(path)]) > 25


@pytest.mark.parametrize("path", COSTLY)
def test_what_is_costly_to_plan_is_valid(path):
    assert parse(loaded(words_of(Path(path)))).probe.tasks


@pytest.mark.parametrize("path", [p for p in CONFIGS if trains(p) and str(p) not in COSTLY], ids=str)
def test_a_study_fits_the_machine_that_it_names_and_trains_what_it_probes(path):
    words = words_of(path)
    if path.name == "ladder.yaml":
        words = [*words, LARGEST]
    plan = make_plan(loaded(words))
    names_machine = plan.config.study.plan_for != "here" or bool(plan.config.probe.grids)
    notes = [*memory_notes(plan), *not_trained_notes([run.config for run in plan.runs]), *plan.notes]
    assert unfit(notes, names_machine) == []


@pytest.mark.parametrize("path", [p for p in CONFIGS if not trains(p) and str(p) not in COSTLY], ids=str)
def test_a_probe_fits_its_models(path):
    """Parts with tasks alone are planned for a model that was trained at 1,024 tokens; published ones by their shapes."""
    words = words_of(path)
    config = parse(loaded(words))
    if config.study.models:
        assert len(planned_targets([], read_settings(words, []), config)) == len(config.study.models)
    assert config.probe.grids
    assert check_probes_fit(config.probe, "shipped", None, [1024]).too_long == ()


def test_the_example_of_the_readme_is_clean(tmp_path):
    """It trains what it probes, its lengths fit, every cell has its controls, and its rates are swept for its budget:
    nothing limits its report that could have been known before."""
    found = re.search(r"```yaml\n(# mine\.yaml\n.*?)```", Path("README.md").read_text(), re.S)
    assert found is not None
    (tmp_path / "mine.yaml").write_text(found.group(1))
    mapping = load([str(tmp_path / "mine.yaml")], [f"study.folder={tmp_path}"])
    plan = checked_plan(mapping)
    assert [note for note in plan.notes if not note.endswith("give the same run")] == []
    assert memory_notes(plan) == []
    assert all(run.config.train.tokens % run.config.train.batch_tokens == 0 for run in plan.runs)
    sweep, probe = plan.config.study.lr_sweep, plan.config.probe
    assert len(sweep.lrs) >= 3
    assert all(sweep.tokens == run.config.train.tokens for run in plan.runs), "a rate is chosen for the whole budget"
    controls = {control for grid in probe.grids for control in grid.controls}
    assert {"none", "wrong_key", "zero_distance"} <= controls
    name = re.search(r'study\.runs\["(.*?)"\]', Path("README.md").read_text())
    assert name is not None
    assert name.group(1) in [run.name for run in plan.runs]


def test_what_is_probed_and_not_trained_is_said():
    study = [
        "data.recipes={lines: {task: {type: niah, template: line}, haystack: [corpus]}}",
        "data.mixture=[{episodes: {lines: 1}}]",
    ]
    probe = ["probe.tasks={a: {type: niah, template: line}, b: {type: niah, template: sentence}, c: vt}"]
    probe += ["probe.grids=[{haystack: [corpus, noise], value: [numbers, hex]}]"]
    assert not_trained_notes([parse(load([], [*study, *probe]))]) == [
        "probed and not trained: vt",
        "niah: probed and not trained in haystack noise; value hex; template sentence",
    ]
    assert not_trained_notes([parse(load([], [*study, *probe, "probe.grids=[{tasks: [a]}]"]))]) == []
    assert not_trained_notes([parse(load([], [*probe]))]) == [], "text alone"


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=str)
def test_every_config_prints_its_plan(path, tmp_path, capsys):
    """The commands themselves, in full: `train --plan` where there is something to train, else `evaluate --plan`."""
    words = [*words_of(path), f"study.folder={tmp_path}", "--plan", "--full"]
    if not trains(path) and not parse(loaded(words_of(path))).study.models:  # tasks alone, on the quickstart's models
        words = ["configs/quickstart.yaml", *words, "train.context_length=1024"]
    assert (train_main if trains(path) else evaluate_main)(words) == 0
    lines = capsys.readouterr().out.splitlines()
    named = parse(loaded(words_of(path))).study.plan_for != "here"
    assert unfit(lines, named) == []
