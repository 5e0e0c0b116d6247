"""Invariances: the same logits by chunks, single tokens, forks, packing and padding, ours and transformers'.

Ours: every registered mixer and every pattern of configs/model/, in float64 and float32. A cell is the largest
difference from full forward passes, relative to the largest logit (`checks`); or why there is none.
"""

import warnings
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from typing import Any

import torch

from lcprobe.errors import unknown_name
from validation.invariances.checks import COLUMNS, Subject, WrongShape
from validation.invariances.ours import Ours, built, models
from validation.invariances.peer_models import SETTINGS, tiny
from validation.invariances.peers import NotOffered, Peer

TITLE = "invariances: largest difference from full forward passes, relative to the largest logit"
OPTIONS = ("only", "whose")
GROUP = ("whose", "model")
TOLERANCES = {"float64": 1e-9, "float32": 1e-5}
OURS = "lcprobe"
NOT_OFFERED, REFUSES, WRONG_SHAPE = "not offered", "refuses: ", "wrong shape: "
WIDEST = 120
"""Characters of an error's first sentence that are kept."""


def measure(options: dict[str, str]) -> list[dict[str, Any]]:
    """One row per model, dtype and way of calling it. options: only (a model's name), whose (lcprobe | transformers).

    Without transformers there are rows of ours alone. Raises ConfigError for an unknown name.
    """
    known = {OURS: dict(models()), "transformers": SETTINGS}
    if options.get("whose", OURS) not in known:
        raise unknown_name("whose", options["whose"], known)
    sides = {options["whose"]: known[options["whose"]]} if "whose" in options else known
    names = [name for side in sides.values() for name in side]
    if "only" in options and options["only"] not in names:
        raise unknown_name("only", options["only"], names)
    rows: list[dict[str, Any]] = []
    for whose, side in sides.items():
        for name in side:
            if options.get("only", name) == name:
                rows += our_rows(name, side[name]) if whose == OURS else peer_rows(name)
    return rows


def our_rows(name: str, settings: dict[str, Any]) -> list[dict[str, Any]]:
    """The rows of a model of ours: a fault raises, whatever it is."""
    rows = []
    for dtype in (torch.float64, torch.float32):
        subject = Ours(built(settings, dtype))
        cells = {column: check(subject) for column, check in COLUMNS.items()}
        rows.append(_row(OURS, name, "", str(dtype).split(".")[1], cells))
    return rows


def peer_rows(name: str) -> list[dict[str, Any]]:
    """The rows of a class of transformers; none where it is not installed."""
    try:
        whose = f"transformers {version('transformers')}"
        from transformers.utils import logging
    except ImportError:
        return []
    before = logging.get_verbosity()
    logging.set_verbosity_error()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return [_row(whose, name, *call) for call in _calls(name)]
    finally:
        logging.set_verbosity(before)


def _calls(name: str) -> Iterator[tuple[str, str, dict[str, float | str]]]:
    for call in ("usual", "explicit"):
        cells = {column: outcome(check, Peer(tiny(name), call == "explicit")) for column, check in COLUMNS.items()}
        yield call, "float32", cells


def outcome(check: Callable[[Subject], float], subject: Subject) -> float | str:
    """The difference; or what stands for it where a peer has no such call, refuses it, or returns something else."""
    try:
        return check(subject)
    except NotOffered:
        return NOT_OFFERED
    except WrongShape as error:
        return WRONG_SHAPE + str(error)
    except Exception as error:  # of any kind: it is the finding
        first = str(error).strip().partition("\n")[0].partition(". ")[0]
        return f"{REFUSES}{type(error).__name__}: {first[:WIDEST]}"


def _row(whose: str, name: str, call: str, dtype: str, cells: Mapping[str, float | str]) -> dict[str, Any]:
    right = sum(is_right(cell, dtype) for cell in cells.values())
    wrong = sum(is_silently_wrong(cell, dtype) for cell in cells.values())
    row = {"whose": whose, "model": name, "call": call, "dtype": dtype, **cells}
    return {**row, "right": f"{right} of {len(cells)}", "silently wrong": wrong}


def is_right(cell: float | str, dtype: str) -> bool:
    """Whether a cell is a number within the tolerance of its dtype."""
    return not isinstance(cell, str) and cell <= TOLERANCES[dtype]


def is_silently_wrong(cell: float | str, dtype: str) -> bool:
    """Whether something was returned, and is wrong."""
    return cell.startswith(WRONG_SHAPE) if isinstance(cell, str) else not is_right(cell, dtype)


def notes(rows: list[dict[str, Any]]) -> list[str]:
    """How many are right, by side, dtype and call."""
    told = []
    sides = dict.fromkeys((row["whose"], row["dtype"], row["call"]) for row in rows)
    for whose, dtype, call in sides:
        own = [row for row in rows if (row["whose"], row["dtype"], row["call"]) == (whose, dtype, call)]
        cells = [row[column] for row in own for column in COLUMNS]
        numbers = [cell for cell in cells if is_right(cell, dtype)]
        worst = f", the largest {max(numbers):.1e}" if numbers else ""
        told.append(
            f"{whose}, {dtype}{', ' + call + ' call' if call else ''}: {len(numbers)} of {len(cells)} cells within "
            f"{TOLERANCES[dtype]:.0e}{worst}; {sum(row['silently wrong'] for row in own)} silently wrong"
        )
        if call:
            wrong = (f"{column} {sum(is_silently_wrong(row[column], dtype) for row in own)}" for column in COLUMNS)
            told.append(f"of {len(own)} classes, silently wrong by the {call} call: {', '.join(wrong)}")
    return told
