"""What is to be done in a study's folder: files that a launcher writes and workers read.

work/train.json   launch, retries, and the trials of a sweep in W&B's format (else study.yaml is trained)
work/probe.json   launch, retries, and what evaluate.py was given: folders, addresses and settings
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from lcprobe.errors import ConfigError, DataError, unknown_name
from lcprobe.files import digest_json, read_json, write_json
from lcprobe.locks import waited_claim
from lcprobe.merging import Settings
from lcprobe.studies.status import WORK

TRAIN, PROBE = "train", "probe"
UNIT = {"kind": str, "name": str, "group": str, "folder": str, "flops": (int, float), "steps": int}
MODEL = {"name": str, "units": dict, "groups": list, "text": (str, type(None)), "unmade": list, "notes": str}
"""What `lcprobe status` reads of a run or trial, and of a model, in known_units."""


@dataclass(frozen=True)
class TrainOrder:
    """launch: its number, from 1; 0: of no launcher. trials: configs by the names of trials; empty: study.yaml."""

    launch: int = 0
    retries: int = 2
    trials: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class ProbeOrder:
    """folders, models: what is probed, models by their addresses; config: a whole config that names a study, in their
    place; settings: on top, as (key, value) pairs."""

    launch: int = 0
    retries: int = 2
    folders: tuple[str, ...] = ()
    models: tuple[str, ...] = ()
    config: Mapping[str, Any] | None = None
    settings: tuple[tuple[str, Any], ...] = ()

    @property
    def digest(self) -> str:
        """Of what is to be probed, and how."""
        return digest_json([self.folders, self.models, self.config, self.settings])[:16]

    @property
    def laid_on(self) -> Settings:
        """The settings as they were given."""
        return Settings(tuple((key, value) for key, value in self.settings))


Order = TypeVar("Order", TrainOrder, ProbeOrder)


def write_order(study: Path, order: Order) -> Order:
    """Write an order as the next launch, which it returns."""
    path = _path(study, type(order))
    try:
        before = int(read_json(path)["launch"])
    except (OSError, ValueError, KeyError, TypeError):
        before = 0
    order = replace(order, launch=before + 1)
    write_json(path, asdict(order))
    return order


def add_to_order(study: Path, order: TrainOrder) -> TrainOrder:
    """As `write_order`, with the trials that the order before had: agents of a sweep, each with a launcher, may share
    a folder."""
    with waited_claim(study / WORK, "train.json", str(study), wait="notes what is to be trained"):
        before = _read(study, TrainOrder)
        earlier = {} if before is None else before.trials
        return write_order(study, replace(order, trials={**earlier, **order.trials}))


def train_order(study: Path) -> TrainOrder | None:
    """What is to be trained; None where the folder says nothing of it."""
    found = _read(study, TrainOrder)
    return TrainOrder() if found is None and (study / "study.yaml").is_file() else found


def probe_order(study: Path) -> ProbeOrder | None:
    """What is to be probed; None where nobody has asked for it."""
    return _read(study, ProbeOrder)


def order_of(study: Path) -> tuple[TrainOrder | None, ProbeOrder | None]:
    """Both. Raises ConfigError for a folder that has none."""
    train, probe = train_order(study), probe_order(study)
    if train is None and probe is None:
        allowed = "the folder of a study, which train.py or evaluate.py with launcher=... has begun"
        raise ConfigError("command line", str(study), allowed)
    return train, probe


def known_units(study: Path, kind: str) -> dict[str, Any]:
    """What there is to do, as the command that began it wrote it, in `lcprobe status`'s files; empty without. Raises
    DataError for a file that is not readable, or of another form."""
    path = study / WORK / f"{kind}_units.json"
    if not path.is_file():
        return {}
    try:
        found = read_json(path)
        own, form = (found["units"], UNIT) if kind == TRAIN else (found["models"], MODEL)
        if isinstance(own, list) and all(_fits(one, form) for one in own):
            return found
    except (OSError, ValueError, KeyError, TypeError):
        pass
    raise DataError(f"{path}: not readable; allowed: the command again, which writes it")


def _fits(given: Any, form: Mapping[str, Any]) -> bool:
    return isinstance(given, dict) and all(isinstance(given.get(name), kind) for name, kind in form.items())


def check_wanted(study: Path, wanted: Sequence[str]) -> None:
    """Raises ConfigError for names of units that a study does not have, and as `order_of`."""
    allowed: list[str] = []
    for kind, order, units in zip((TRAIN, PROBE), order_of(study), ("units", "models"), strict=True):
        if order is not None:
            allowed += [kind, *(unit["name"] for unit in known_units(study, kind).get(units, []))]
    for name in wanted:
        if name not in allowed:
            raise unknown_name("--units", name, dict.fromkeys(allowed))


def _path(study: Path, kind: type[TrainOrder] | type[ProbeOrder]) -> Path:
    return study / WORK / f"{TRAIN if kind is TrainOrder else PROBE}.json"


def _read(study: Path, kind: type[Order]) -> Order | None:
    path = _path(study, kind)
    if not path.is_file():
        return None
    try:
        found = read_json(path)
        if kind is ProbeOrder:
            found |= {"folders": tuple(found["folders"]), "models": tuple(found["models"])}
            found |= {"settings": tuple((k, v) for k, v in found["settings"])}
        return kind(**found)
    except (OSError, ValueError, KeyError, TypeError):
        raise DataError(
            f"{path}: not readable; allowed: the command with launcher=... again, which writes it"
        ) from None
