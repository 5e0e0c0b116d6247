"""Results: all findings of a study, computed once; summary, figures, tables and page only read them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TypeVar

import pyarrow as pa

from lcprobe.analysis.findings.cells import Cell, Measured, PanelKey
from lcprobe.analysis.findings.contrasts import Contrast, Kind, contrasts
from lcprobe.analysis.findings.extrapolation import Extrapolation, extrapolations
from lcprobe.analysis.findings.families import Claim, corrected
from lcprobe.analysis.findings.gates import Gate, closed_panels, gates
from lcprobe.analysis.findings.half_life import HalfLife, half_lives
from lcprobe.analysis.findings.load_records import load_records
from lcprobe.analysis.findings.published_cells import Comparison, comparisons
from lcprobe.analysis.findings.reach import Reach, reaches
from lcprobe.analysis.findings.text_curves import TextClaim, TextCurves, text_curves
from lcprobe.analysis.findings.training_length.collapses import Collapse, collapses
from lcprobe.analysis.findings.training_length.depth_effects import DepthEffect, depth_effects
from lcprobe.analysis.findings.training_length.length_fits import LengthFit, length_fits
from lcprobe.analysis.inputs import StudyFacts

T = TypeVar("T", bound=Claim)


@dataclass(frozen=True)
class Results:
    """Findings of a study. The lists are in the order task, format, model; half_lives has one entry per reach;
    length_fits, collapses and depth_effects are empty without an architecture at several training lengths; published
    without a model of the published study."""

    data: Measured
    cells: list[Cell]
    contrasts: list[Contrast]
    extrapolations: list[Extrapolation]
    reaches: list[Reach]
    half_lives: list[HalfLife]
    gates: list[Gate]
    text: list[TextCurves]
    length_fits: list[LengthFit]
    collapses: list[Collapse]
    depth_effects: list[DepthEffect]
    published: list[Comparison]

    @property
    def study(self) -> StudyFacts:
        """Facts about the study."""
        return self.data.study

    @cached_property
    def cell_at(self) -> dict[tuple[PanelKey, int, float], Cell]:
        """Cells by panel, length and depth."""
        return {(cell.where, cell.length, cell.depth): cell for cell in self.cells}

    def own_tokens(self, where: PanelKey, length: int | None) -> float | None:
        """Mean tokens of a panel's episodes at a length, under the model's own tokenizer; None without any."""
        known = [] if length is None else self._own_tokens.get((where, length), [])
        return sum(known) / len(known) if known else None

    @cached_property
    def _own_tokens(self) -> dict[tuple[PanelKey, int], list[float]]:
        found: dict[tuple[PanelKey, int], list[float]] = {}
        for where, panel in self.data.panels.items():
            for length, total, count in zip(panel.lengths, *panel.scores["episode_tokens"], strict=True):
                known = count > 0
                found[where, length] = (total[known] / count[known]).tolist()
        return found

    @property
    def incomplete(self) -> list[Cell]:
        """Planned cells that lack some of their samples."""
        return [
            cell
            for cell in self.cells
            if cell.planned is not None and (cell.samples != cell.planned or cell.n_failed)
        ]

    @property
    def claims(self) -> list[Claim]:
        """Everything that may be a finding, parts of gates and of effective lengths included."""
        claims: list[Claim] = [*self.contrasts, *self.extrapolations, *self.reaches, *self.length_fits]
        claims += [*self.depth_effects, *(claim for t in self.text for claim in (t.rise, t.state))]
        return claims + [part for of in (*self.gates, *self.extrapolations) for part in of.parts]

    def of(self, *kinds: Kind) -> list[Contrast]:
        """Contrasts of some kinds."""
        return [contrast for contrast in self.contrasts if contrast.kind in kinds]


def analyse(study: StudyFacts, records: pa.Table, context: pa.Table | None = None) -> Results:
    """Run every test of a study. records: of SCHEMA; context: measurements on plain text, of CONTEXT_SCHEMA.

    Raises DataError for records that cannot be counted (see `load_records`).
    """
    data = load_records(study, records)
    gate_of_each, text = gates(data), text_curves(study, context)
    closed, fits = closed_panels(gate_of_each), length_fits(data, gate_of_each)
    claims: list[Claim] = [
        *gate_of_each,
        *contrasts(data, closed),
        *extrapolations(data, closed),
        *reaches(data, closed),
        *fits,
        *depth_effects(data),
        *(claim for curves in text for claim in (curves.rise, curves.state)),
    ]
    claims = corrected(claims)  # one error rate for all of them
    reach_of_each, of_text = _of(claims, Reach), _of(claims, TextClaim)
    return Results(
        data=data,
        cells=data.cells(),
        contrasts=_of(claims, Contrast),
        extrapolations=_of(claims, Extrapolation),
        reaches=reach_of_each,
        half_lives=half_lives(data, reach_of_each),
        gates=_of(claims, Gate),
        text=[
            replace(t, rise=rise, state=state)
            for t, rise, state in zip(text, of_text[::2], of_text[1::2], strict=True)
        ],
        length_fits=_of(claims, LengthFit),
        collapses=collapses(data, fits),
        depth_effects=_of(claims, DepthEffect),
        published=comparisons(data),
    )


def _of(claims: Sequence[Claim], kind: type[T]) -> list[T]:
    return [claim for claim in claims if isinstance(claim, kind)]
