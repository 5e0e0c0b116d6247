"""Which backend serves a call of an op: a pure function of what the call asks for, what each backend offers
(`abilities`), and what is installed. It imports no peer and looks at no device.

`auto` takes the first backend of the op, in the order of `ABILITIES`, that fits the call. A backend chosen by name
serves every call of the ops that have it, or refuses it with the reason; ops that lack it are left to `auto`. float64
is always PyTorch's: kernels accumulate in float32. What only later versions of a peer have is a matter of `since`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch

from lcprobe_kernels.errors import ArgumentError


@dataclass(frozen=True)
class Request:
    """What a call asks of an op. needs: names in `abilities.FEATURES[op]`."""

    op: str
    device: str
    """Type of the device: cuda, cpu, meta."""
    dtype: torch.dtype
    needs: frozenset[str] = frozenset()
    head_dim: int = 0
    """Width of a head, or 0 where it does not matter."""
    capability: tuple[int, int] | None = None
    """Compute capability of the GPU, (9, 0) for sm_90; None: unknown, or no GPU."""


@dataclass(frozen=True)
class Ability:
    """What a backend can do for one op."""

    why: str
    """Why `auto` takes it where it fits, in one line."""
    offers: frozenset[str]
    """Features of `abilities.FEATURES[op]` that it has."""
    devices: tuple[str, ...] = ("cuda",)
    """Types of devices; empty: any."""
    dtypes: tuple[torch.dtype, ...] = (torch.float16, torch.bfloat16, torch.float32)
    capability: tuple[int, int] = (0, 0)
    """Least compute capability of a GPU."""
    below: tuple[int, int] | None = None
    """Compute capability from which on it is not for GPUs."""
    max_head_dim: int | None = None
    head_dim_multiple: int = 1
    lse_columns: int = 0
    """Columns beside a head that the gradient of the log-sum-exp takes."""
    by_name: Mapping[str, str] = field(default_factory=dict)
    """Why `auto` leaves it to be chosen by name: by type of device, by dtype, or "" for every call."""
    since: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """First version of the peer that has a feature, for features that its earlier versions lack."""


@dataclass(frozen=True)
class Choice:
    """The backend of a call, why it is that one, and why each of the op's others is not."""

    backend: str
    reason: str
    against: Mapping[str, str]


def choose(
    request: Request,
    chosen: str,
    abilities: Mapping[str, Ability],
    features: Mapping[str, str],
    missing: Mapping[str, str],
    versions: Mapping[str, tuple[int, ...]],
) -> Choice:
    """abilities: of the op's backends, in the order in which `auto` tries them. features: the words for needs.
    missing: why backends do not work on this machine, for those that do not. versions: of the peers that are
    installed.

    Raises ArgumentError where `chosen` names a backend that has the op and does not fit this call.
    """
    if request.dtype == torch.float64:
        others = dict.fromkeys(abilities.keys() - {"torch"}, "float64: kernels accumulate in float32")
        return Choice("torch", "float64 is always PyTorch's", others)
    forced = chosen in abilities and _on_device(abilities[chosen], request)
    against: dict[str, str] = {}
    unfit = {
        name: missing.get(name) or misfit(a, request, features, versions.get(name)) for name, a in abilities.items()
    }
    for name, ability in abilities.items():
        why = unfit[name] if forced else _by_name(ability, request) or unfit[name]
        if forced and name != chosen:
            why = why or f"kernels.backend={chosen}"
        if why is not None:
            against[name] = why
    if forced and chosen in against:
        others = [name for name in abilities if unfit[name] is None]
        raise ArgumentError(
            "kernels.backend", f"{chosen} for {request.op}: {against[chosen]}", " | ".join(["auto", *others])
        )
    taken = chosen if forced else next(name for name in abilities if name not in against)
    later = {name: f"after {taken} in auto's order" for name in abilities if name != taken and name not in against}
    reason = f"kernels.backend={chosen}" if forced else abilities[taken].why
    return Choice(taken, reason, against | later)


def misfit(
    ability: Ability, request: Request, features: Mapping[str, str], version: tuple[int, ...] | None = None
) -> str | None:
    """Why a backend cannot serve a call, in a few words; None: it can. version: of a peer; None: the newest."""
    if not _on_device(ability, request):
        return f"runs on {' and '.join(ability.devices)}"
    if request.dtype not in ability.dtypes:
        return f"no {_short(request.dtype)}"
    if request.device == "cuda" and request.capability is not None and request.capability < ability.capability:
        return f"needs sm_{ability.capability[0]}{ability.capability[1]} or newer"
    if ability.below is not None and request.capability is not None and request.capability >= ability.below:
        return f"needs a GPU before sm_{ability.below[0]}{ability.below[1]}"
    lacking = [words for name, words in features.items() if name in request.needs and name not in ability.offers]
    if version is not None:
        early = [name for name, first in ability.since.items() if name in request.needs and version < first]
        lacking += [f"{features[name]} before {dotted(ability.since[name])}" for name in early]
    if lacking:
        return f"no {' and no '.join(lacking)}"
    width = request.head_dim + (ability.lse_columns if "lse gradient" in request.needs else 0)
    if ability.max_head_dim is not None and width > ability.max_head_dim:
        return f"heads of at most {ability.max_head_dim}, here {width}"
    if width % ability.head_dim_multiple:
        return f"heads of a multiple of {ability.head_dim_multiple}, here {width}"
    return None


def _on_device(ability: Ability, request: Request) -> bool:
    return not ability.devices or request.device in ability.devices


def _by_name(ability: Ability, request: Request) -> str | None:
    for key in ("", request.device, _short(request.dtype)):
        if key in ability.by_name:
            return f"by name only: {ability.by_name[key]}"
    return None


def dotted(version: tuple[int, ...]) -> str:
    """A version as it is written."""
    return ".".join(map(str, version))


def _short(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
