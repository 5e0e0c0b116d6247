"""A phone book: the whole context is lines of a name and a number, and one name's number is queried.

Source: Jelassi et al. 2024, arXiv 2402.01032 (phone-book look-up). This is `niah` in the haystack `needles` and
nothing else: the same lines, questions, controls and draws, with the formats of a book. Differs from the source: no
worked examples before the question, names are adjective-noun pairs, the target entry at an exact depth. RULER's
niah_multikey_2 is the nearest relative, with sentences instead of lines and a random depth.

     zany-owl: 4071932; misty-harp: 7730154; agile-bison: 2209417; ...  misty-harp:      -> " 7730154"

Guessing scores 1 / entries; there are at least four.
"""

from dataclasses import dataclass

from lcprobe.errors import require
from lcprobe.tasks.assembly import Axes
from lcprobe.tasks.niah import NIAH, NIAHConfig
from lcprobe.tasks.text.haystack import Materials


@dataclass(frozen=True)
class PhoneBookConfig:
    """One book. Length and depth are factors of the grid; formats are a book's."""

    n_queries: int = 1
    """Names that are queried, one after the other."""
    digits: int = 7
    """Digits of a number."""

    def check(self, at: str) -> None:
        """Raises ConfigError for numbers out of range."""
        require(f"{at}.n_queries", self.n_queries, self.n_queries >= 1, ">= 1")
        require(f"{at}.digits", self.digits, 5 <= self.digits <= 15, "5 .. 15, so that no two entries need share one")


class PhoneBook(NIAH):
    """`niah` with a book's settings; controls as there."""

    Config = PhoneBookConfig
    axes = Axes(haystack=("needles",), key=("words",), value=("numbers",))

    def __init__(self, config: PhoneBookConfig, materials: Materials):
        n = config.n_queries
        super().__init__(
            NIAHConfig(n + 3, n_queries=n, template="line", digits=config.digits, word_pairs=True), materials
        )
