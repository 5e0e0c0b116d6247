"""Moves numbers between their tensors and our parameters, as a `Place` says; import and export are inverses."""

from collections.abc import Mapping

import torch
from torch import Tensor

from lcprobe.models.checkpoints.contract import Place, Places, Rows
from lcprobe.models.checkpoints.files import StoredTensor


def places_of(places: Places, name: str) -> tuple[Place, ...]:
    """The places of one of their tensors."""
    found = places[name]
    return (found,) if isinstance(found, Place) else found


def their_shape(places: tuple[Place, ...], ours: Mapping[str, Tensor]) -> tuple[int, ...]:
    """The shape of one of their tensors. ours: the parameters by name, which may be on the meta device."""
    first, rows = places[0], 0
    shape = list(ours[first.parameter].shape)
    for place in places:
        rows += _count(place.rows, len(ours[place.parameter])) if shape else 0
    shape = [rows, *shape[1:]] if shape else shape
    if first.transposed:
        shape[-2:] = [shape[-1], shape[-2]]
    for at in sorted(first.ones):
        shape.insert(at, 1)
    return tuple(shape)


def _count(rows: Rows, n: int) -> int:
    if rows is None:
        return n
    return len(range(*rows.indices(n))) if isinstance(rows, slice) else len(rows)


@torch.no_grad()
def fill(ours: Mapping[str, Tensor], places: tuple[Place, ...], stored: StoredTensor) -> None:
    """Copy one of their tensors from its file into our parameters, in pieces where its rows lie as ours do."""
    place = places[0]
    by_rows = len(places) == 1 and not place.transposed and 0 not in place.ones and stored.shape
    if by_rows and not isinstance(place.rows, Tensor):
        parameter = ours[place.parameter].data
        target = parameter if place.rows is None else parameter[place.rows]
        for first, piece in stored.pieces():
            target[first : first + len(piece)].copy_(_without_ones(piece, place))
        return
    whole = stored.whole()
    for one in places:
        _put(ours[one.parameter].data, one, whole)


def _put(parameter: Tensor, place: Place, theirs: Tensor) -> None:
    """Copy one of their tensors into a parameter of ours."""
    value = _ours(theirs, place)
    if place.rows is None:
        parameter.copy_(value)
    else:
        parameter[place.rows] = value.to(parameter)


def _ours(theirs: Tensor, place: Place) -> Tensor:
    """What a place takes of one of their tensors, in our shape."""
    value = _without_ones(theirs, place)
    value = value.mT if place.transposed else value
    return value if place.of is None else value[place.of]


def _without_ones(theirs: Tensor, place: Place) -> Tensor:
    return theirs.squeeze(place.ones) if place.ones else theirs


def taken(ours: Mapping[str, Tensor], places: tuple[Place, ...]) -> Tensor:
    """One of their tensors, from our parameters: a view of one where that is possible."""
    first = places[0]
    value = _rows(ours, first)
    if len(places) > 1:
        parts = [_rows(ours, one) for one in places]
        rows = sum(part.shape[0] for part in parts)
        value = torch.empty(rows, *value.shape[1:], dtype=value.dtype, device=value.device)
        for one, part in zip(places, parts, strict=True):
            value[one.of] = part
    value = value.mT if first.transposed else value
    for at in sorted(first.ones):
        value = value.unsqueeze(at)
    return value


def _rows(ours: Mapping[str, Tensor], place: Place) -> Tensor:
    parameter = ours[place.parameter].detach()
    return parameter if place.rows is None else parameter[place.rows]


def gathered(places: Places, theirs: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our parameters, made of their tensors in memory; or gradients of ours, made of theirs."""
    rows: dict[str, int] = {}
    for name in places:
        for place in places_of(places, name):
            rows[place.parameter] = max(rows.get(place.parameter, 0), _end(place.rows))
    found: dict[str, Tensor] = {}
    for name in places:
        for place in places_of(places, name):
            value = _ours(theirs[name].detach(), place)
            if place.rows is None:
                found[place.parameter] = value
                continue
            if place.parameter not in found:
                found[place.parameter] = value.new_empty(rows[place.parameter], *value.shape[1:])
            found[place.parameter][place.rows] = value
    return found


def _end(rows: Rows) -> int:
    """Where rows end, 0 for all of a parameter."""
    if rows is None:
        return 0
    return int(rows.stop) if isinstance(rows, slice) else int(rows.max()) + 1
