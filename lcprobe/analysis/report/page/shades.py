"""The shade of a proportion in a table: that of the heatmaps (cividis), readable on it, in the dark and on paper.

Cividis is perceived alike with and without a deficiency of colour vision, and its lightness is linear in the value
(Nuñez, Anderton & Renslow 2018, PLoS ONE 13(7) e0199239).
"""

from lcprobe.analysis.report.charts.heatmaps import LIGHT_BELOW

CIVIDIS = (
    "#00224e", "#123570", "#3b496c", "#575d6d", "#707173", "#8a8678", "#a59c74", "#c3b369", "#e1cc55", "#fee838",
)  # fmt: skip
DARK, LIGHT = "#000000", "#ffffff"


def shade(value: float) -> tuple[str, str]:
    """Colours of background and text of a proportion from 0 to 1, as `#rrggbb`."""
    place = min(max(value, 0.0), 1.0) * (len(CIVIDIS) - 1)
    i = min(int(place), len(CIVIDIS) - 2)
    low, high = (_channels(CIVIDIS[k]) for k in (i, i + 1))
    mixed = (round(a + (b - a) * (place - i)) for a, b in zip(low, high, strict=True))
    return "#" + "".join(f"{channel:02x}" for channel in mixed), LIGHT if value < LIGHT_BELOW else DARK


def _channels(colour: str) -> tuple[int, int, int]:
    red, green, blue = (int(colour[k : k + 2], 16) for k in (1, 3, 5))
    return red, green, blue
