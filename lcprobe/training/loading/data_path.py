"""How fast a core makes batches, for `--plan`: as `python -m benchmarks data_path` measured it. Imports no torch."""

from itertools import pairwise

MEASURED = {
    (0.0, 2048): 19.57,
    (0.0, 8192): 38.15,
    (0.05, 2048): 9.85,
    (0.05, 8192): 27.91,
    (0.5, 2048): 2.78,
    (0.5, 8192): 12.87,
}
"""(share of rows that are episodes, tokens of a row) -> million tokens per second of a core. A test holds them
against benchmarks/results/data_path-cpu.json."""
SHARES, LENGTHS = sorted({share for share, _ in MEASURED}), sorted({length for _, length in MEASURED})


def tokens_of_a_core(episodes: float, length: int) -> float:
    """Tokens per second of one core that makes batches. episodes: their share of rows, 0 .. 1; length: of a row.

    The time of a token is a straight line between measured ones: by the share, and by 1 / length, as what is done
    once a row (an episode, a cut from the shards) is shared by its tokens. Beyond the table the last line goes on,
    but rows longer than those measured are taken to be no faster.
    """
    per_length = {length: _line(_seconds(length), episodes) for length in LENGTHS}
    of_inverse = sorted((1 / length, seconds) for length, seconds in per_length.items())
    return 1 / _line(of_inverse, max(1 / length, 1 / LENGTHS[-1]))


def _seconds(length: int) -> list[tuple[float, float]]:
    """(share, seconds of a token) at a measured length."""
    return [(share, 1e-6 / MEASURED[share, length]) for share in SHARES]


def _line(points: list[tuple[float, float]], at: float) -> float:
    """Straight lines through the points, in order; the first and the last go on."""
    (x0, y0), (x1, y1) = next(((a, b) for a, b in pairwise(points) if at <= b[0]), (points[-2], points[-1]))
    return y0 + (y1 - y0) * (at - x0) / (x1 - x0)
