"""Large numbers and bytes in few characters, durations and estimated times."""

from collections import Counter
from collections.abc import Sequence

SHORT = ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e3, "K"))
SHORT_BYTES = ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "KB"))


def distinct_numbers(values: Sequence[float]) -> list[str]:
    """Numbers with six digits, or all where two texts would be equal."""
    count = Counter(f"{value:g}" for value in values)
    return [repr(value) if count[f"{value:g}"] > 1 else f"{value:g}" for value in values]


def short(n: float) -> str:
    """A number in at most six characters: `812`, `27.1K`, `331K`, `2.00M`."""
    return _scaled(n, SHORT)


def short_bytes(n: float) -> str:
    """`812 B`, `65.5 KB`, `1.20 GB`, in powers of 1000."""
    text = _scaled(n, SHORT_BYTES)
    number = text.rstrip("TGMKB")
    return f"{number} {text[len(number) :] or 'B'}"


def duration(seconds: float) -> str:
    """`0:55`, `6:10`, `1:02:03`, and from two days on `3 d 4 h`."""
    whole = max(0, round(seconds))
    if whole >= 48 * 3600:
        return f"{whole // 86400} d {whole % 86400 // 3600} h"
    hours, minutes = whole // 3600, whole % 3600 // 60
    return f"{hours}:{minutes:02d}:{whole % 60:02d}" if hours else f"{minutes}:{whole % 60:02d}"


def roughly(seconds: float) -> str:
    """An estimated time with two digits: `40 s`, `12 min`, `4.1 h`, `3.2 days`."""
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min" if seconds >= 600 else f"{seconds / 60:.1f} min"
    hours = seconds / 3600
    return f"{hours:.1f} h" if hours < 48 else f"{hours / 24:.3g} days"


def _scaled(n: float, units: tuple[tuple[float, str], ...]) -> str:
    for size, unit in units:
        if abs(n) >= 0.9995 * size:
            scaled = n / size
            digits = 2 if abs(scaled) < 9.995 else 1 if abs(scaled) < 99.95 else 0
            return f"{scaled:.{digits}f}{unit}"
    return f"{n:.0f}" if n == int(n) or abs(n) >= 100 else f"{n:.3g}"
