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
    first, parts = places[0], [_part_shape(place, ours[place.parameter].shape) for place in places]
    shape = [sum(part[0] for part in parts), *parts[0][1:]] if parts[0] else []
    if first.transposed:
        shape[-2:] = [shape[-1], shape[-2]]
    for at in sorted(first.ones):
        shape.insert(at, 1)
    return tuple(shape)


def _part_shape(place: Place, shape: tuple[int, ...]) -> list[int]:
    """The shape there of what a place fills. shape: of the whole parameter."""
    if place.folded or not shape:
        return list(place.folded)
    own = [_count(place.rows, shape[0]), *shape[1:]]
    own[-1] = own[-1] if place.columns is None else _count(place.columns, shape[-1])
    return own


def _count(rows: Rows, n: int) -> int:
    if rows is None:
        return n
    return len(range(*rows.indices(n))) if isinstance(rows, slice) else len(rows)


@torch.no_grad()
def fill(ours: Mapping[str, Tensor], places: tuple[Place, ...], stored: StoredTensor) -> None:
    """Copy one of their tensors from its file into our parameters, in pieces where its rows lie as ours do."""
    place = places[0]
    by_rows = len(places) == 1 and not place.transposed and not place.folded and 0 not in place.ones and stored.shape
    if by_rows and not isinstance(place.rows, Tensor) and not isinstance(place.columns, Tensor):
        target = _target(ours[place.parameter].data, place)
        for first, piece in stored.pieces():
            target[first : first + len(piece)].copy_(_without_ones(piece, place))
        return
    whole = stored.whole()
    for one in places:
        _put(ours[one.parameter].data, one, whole)


def _put(parameter: Tensor, place: Place, theirs: Tensor) -> None:
    """Copy one of their tensors into a parameter of ours."""
    value = _ours(theirs, place)
    if isinstance(place.rows, Tensor):
        parameter[place.rows] = value.reshape(-1, *parameter.shape[1:]).to(parameter)
    elif isinstance(place.columns, Tensor):
        parameter[..., place.columns] = value.to(parameter)
    else:
        target = _target(parameter, place)
        target.copy_(value.reshape(target.shape) if place.folded else value)


def _target(parameter: Tensor, place: Place) -> Tensor:
    """What a place fills, a view unless its rows or columns are an index."""
    rows = parameter if place.rows is None else parameter[place.rows]
    return rows if place.columns is None else rows[..., place.columns]


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
    value = _target(ours[place.parameter].detach(), place)
    return value.reshape(place.folded) if place.folded else value


def gathered(
    places: Places, theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor] | None = None
) -> dict[str, Tensor]:
    """Our parameters, made of their tensors in memory; or gradients of ours, made of theirs. ours: parameters of
    these shapes, which places with columns or `folded` need."""
    rows: dict[str, int] = {}
    for name in places:
        for place in places_of(places, name):
            rows[place.parameter] = max(rows.get(place.parameter, 0), _end(place.rows))
    found: dict[str, Tensor] = {}
    for name in places:
        for place in places_of(places, name):
            value = theirs[name].detach()
            if place.parameter not in found:
                if ours is not None:
                    shape = ours[place.parameter].shape
                else:
                    part = _ours(value, place)
                    shape = part.shape if place.rows is None else (rows[place.parameter], *part.shape[1:])
                found[place.parameter] = value.new_empty(shape)
            _put(found[place.parameter], place, value)
    return found


def _end(rows: Rows) -> int:
    """Where rows end, 0 for all of a parameter."""
    if rows is None:
        return 0
    return int(rows.stop) if isinstance(rows, slice) else int(rows.max()) + 1
