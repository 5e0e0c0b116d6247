"""work/train_units.json: the trials and runs of a study with what they cost, for `lcprobe status`, which plans
nothing."""

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lcprobe.config import Config
from lcprobe.files import digest_json, read_json, write_json
from lcprobe.locks import waited_claim
from lcprobe.schema import plain
from lcprobe.studies.planning.costs import training_flops
from lcprobe.studies.planning.plan import PlannedRun, StudyPlan
from lcprobe.studies.status import WORK
from lcprobe.studies.training.lr_sweep import trial_folder, trials_of

TRIAL, RUN = "trial", "run"
UNITS = "train_units.json"


@dataclass(frozen=True)
class UnitFacts:
    """kind: trial or run. group: its model. folder: within the study's. flops: of its budget, as planned;
    settings: see `settings_of`."""

    kind: str
    name: str
    group: str
    folder: str
    flops: float
    steps: int
    tokens: int
    settings: str


def write_train_units(plan: StudyPlan) -> None:
    """Write the units of a plan."""
    write_json(plan.folder / WORK / UNITS, {"units": [asdict(unit) for unit in _units_of(plan)]})


def add_train_units(plan: StudyPlan) -> None:
    """Add the units of one run of several (study.run) to what is known of its study, in place of what was noted of a
    run with another budget or model, which had not begun. Other processes may do so at once."""
    path, units = plan.folder / WORK / UNITS, [asdict(unit) for unit in _units_of(plan)]
    with waited_claim(plan.folder / WORK, UNITS, str(plan.folder), wait="notes what there is to do"):
        known = _known(path)
        noted = {(str(one.get("kind")), str(one.get("name"))): one for one in known}
        for unit in units:
            before = noted.get((unit["kind"], unit["name"]), {})
            # a run's own config, by which processes of a run on several devices train it, has the rate of a sweep
            if {**before, "settings": ""} != {**unit, "settings": ""}:
                noted[unit["kind"], unit["name"]] = unit
        if [*noted.values()] != known:
            write_json(path, {"units": [*noted.values()]})


def _units_of(plan: StudyPlan) -> list[UnitFacts]:
    trials = [trial for own in trials_of(plan).values() for trial in own]
    units = [_facts(TRIAL, trial, trial_folder(plan, trial), plan.folder) for trial in trials]
    if not plan.config.study.lr_sweep.only:
        units += [_facts(RUN, run, run.folder, plan.folder) for run in plan.runs]
    return units


def _known(path: Path) -> list[dict[str, Any]]:
    """The units of a file; none where it is missing or damaged."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        return [one for one in read_json(path)["units"] if isinstance(one, dict)]
    return []


def settings_of(config: Config) -> str:
    """Digest of all settings that what becomes of a run, as it was planned, depends on: of a sweep's runs, with the
    sweep that will give them their rates."""
    whole = plain(config)
    rates = {name: whole["study"][name] for name in ("lr_sweep", "tuned_by")}
    return digest_json([*(whole[name] for name in ("model", "data", "train", "seed")), rates])[:16]


def _facts(kind: str, run: PlannedRun, folder: Path, study: Path) -> UnitFacts:
    train = run.config.train
    flops = training_flops(run.matched.cost, train.trained_tokens)
    place = folder.relative_to(study).as_posix()
    return UnitFacts(
        kind, run.name, run.group, place, flops, train.steps, train.trained_tokens, settings_of(run.config)
    )
