"""What a unit's records are of, in the words of a query."""

from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True)
class Summary:
    """model, task, length: what every record of the unit has in these columns. precision: of the model's numbers.
    rows: records. Empty or 0: not stated in the unit's facts, as none of its records may be."""

    model: str = ""
    checkpoint: str = ""
    suite: str = ""
    task: str = ""
    code: str = ""
    length: int = 0
    precision: str = ""
    rows: int = 0

    def may_have(self, models: tuple[str, ...], tasks: tuple[str, ...], lengths: tuple[int, ...]) -> bool:
        """Whether some record may be of one of the models, tasks and lengths; empty: of any."""
        pairs = ((self.model, models), (self.task, tasks), (self.length, lengths))
        return all(not wanted or not own or own in wanted for own, wanted in pairs)


def summary_of(facts: dict[str, Any], rows: int) -> Summary:
    """The summary of a unit from the facts that its records depend on."""
    texts = {
        "model": "name", "checkpoint": "checkpoint", "suite": "suite", "task": "task", "code": "code",
        "precision": "precision",
    }  # fmt: skip
    named = {own: str(facts.get(theirs, "")) for own, theirs in texts.items()}
    cells = facts.get("cells", [])
    lengths = {int(cell["length"]) for cell in cells}
    return Summary(**named, length=lengths.pop() if len(lengths) == 1 else 0, rows=rows)


def summary_to_json(summary: Summary) -> dict[str, str | int]:
    """As JSON; empty fields are left out."""
    return {name: value for name, value in asdict(summary).items() if value}


def summary_from_json(written: dict[str, Any]) -> Summary:
    """Of what `summary_to_json` gives. Raises TypeError and ValueError for anything else."""
    known = {f.name: type(f.default) for f in fields(Summary)}
    if any(not isinstance(value, known[name]) for name, value in written.items() if name in known):
        raise ValueError("not a summary")
    return Summary(**{name: value for name, value in written.items() if name in known})
