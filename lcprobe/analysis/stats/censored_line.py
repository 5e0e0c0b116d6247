"""A line through values, some of which are only known to be larger: censored normal regression (Tobin 1958).

y = level + slope x (x - mean x) + normal error of one variance. A censored value adds the probability of a larger one
to the likelihood, so that it pulls the line up but never down; to leave it out, or to take its bound for its value,
would bias the slope. In theta = 1 / sd and level / sd the log-likelihood is concave (Olsen 1978).

Where nothing is censored this is least squares with Student's t. Else the bounds are those of the profile likelihood
at the cut-off that gives Student's t in that case, m log(1 + t^2 / (m - 2)), with the m values that are not censored.
"""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from lcprobe.analysis.stats.student_t import t975

MAX_SLOPE = 16.0
"""Slopes and levels (from the mean) beyond this are reported as unbounded."""
NEWTON_STEPS = 60
GOLDEN, TOLERANCE = (math.sqrt(5) - 1) / 2, 1e-4


class Bounded(NamedTuple):
    """An estimate with its 95 % bounds; infinite where the values set none."""

    value: float
    low: float
    high: float


class Line(NamedTuple):
    """level: at the mean of x. slope: per unit of x."""

    level: Bounded
    slope: Bounded


def censored_line(x: Sequence[float], y: Sequence[float], censored: Sequence[bool], least_sd: float) -> Line | None:
    """The line through (n,) values y at x; where `censored`, y is a lower bound of the value.

    least_sd: the error is taken to be at least this large: few values that agree by luck are no error of zero. None
    where x does not vary, or all values are censored.
    """
    xs, ys, cut = np.asarray(x, float), np.asarray(y, float), np.asarray(censored, bool)
    if len(xs) < 2 or np.ptp(xs) < 1e-9 or cut.all():
        return None
    xs = xs - xs.mean()
    if not cut.any():
        return _least_squares(xs, ys, least_sd)
    one = np.ones_like(xs)
    data = ys - ys[~cut].mean(), cut, 1 / least_sd
    slope = _profiled(lambda v: _largest(data[0] - v * xs, one, *data[1:]), int((~cut).sum()))
    level = _profiled(lambda v: _largest(data[0] - v * one, xs, *data[1:]), int((~cut).sum()))
    centre = float(ys[~cut].mean())
    return Line(Bounded(*(value + centre for value in level)), slope)


def _least_squares(x: np.ndarray, y: np.ndarray, least_sd: float) -> Line:
    n, spread = len(x), float(x @ x)
    level, slope = float(y.mean()), float(x @ y) / spread
    if n < 3:
        unknown = -math.inf, math.inf
        return Line(Bounded(level, *unknown), Bounded(slope, *unknown))
    residual = y - level - slope * x
    sd = max(math.sqrt(float(residual @ residual) / (n - 2)), least_sd)
    half = float(t975(n - 2)) * sd
    parts = [(level, half / math.sqrt(n)), (slope, half / math.sqrt(spread))]
    return Line(*(Bounded(value, value - h, value + h) for value, h in parts))


def _profiled(profile: Callable[[float], float], m: int) -> Bounded:
    """The maximum of a profile log-likelihood, and where it falls below the cut-off: it has a single peak."""
    peak, highest = _peak(profile)
    value = peak if abs(peak) < MAX_SLOPE - 1e-2 else math.copysign(math.inf, peak)
    if m < 3:
        return Bounded(value, -math.inf, math.inf)
    lowest = highest - m / 2 * math.log1p(float(t975(m - 2)) ** 2 / (m - 2))
    low, high = (_crossing(lambda v: profile(v) - lowest, peak, highest - lowest, end) for end in (-1, 1))
    return Bounded(value, low, high)


def _peak(profile: Callable[[float], float]) -> tuple[float, float]:
    """Golden section over -MAX_SLOPE .. MAX_SLOPE."""
    low, high = -MAX_SLOPE, MAX_SLOPE
    a, b = high - GOLDEN * (high - low), low + GOLDEN * (high - low)
    at_a, at_b = profile(a), profile(b)
    while high - low > TOLERANCE:
        if at_a < at_b:
            low, a, at_a, b = a, b, at_b, b + GOLDEN * (high - b)
            at_b = profile(b)
        else:
            high, b, at_b, a = b, a, at_a, a - GOLDEN * (a - low)
            at_a = profile(a)
    return (a, at_a) if at_a > at_b else (b, at_b)


def _crossing(above: Callable[[float], float], inside: float, at_inside: float, sign: int) -> float:
    """Where a function that is positive inside becomes negative: steps outwards, then regula falsi (Illinois)."""
    step, outside = 0.125, inside
    while True:
        outside += sign * step
        if abs(outside) > 2 * MAX_SLOPE:
            return sign * math.inf
        if (at_outside := above(outside)) < 0:
            break
        inside, at_inside, step = outside, at_outside, 2 * step
    while abs(outside - inside) > TOLERANCE:
        middle = inside + (outside - inside) * at_inside / (at_inside - at_outside)
        if not min(inside, outside) < middle < max(inside, outside):
            middle = (inside + outside) / 2
        at_middle = above(middle)
        if abs(at_middle) < 1e-6:
            return middle
        if at_middle > 0:
            inside, at_inside, at_outside = middle, at_middle, at_outside / 2
        else:
            outside, at_outside, at_inside = middle, at_middle, at_inside / 2
    return (inside + outside) / 2


def _largest(e: np.ndarray, w: np.ndarray, cut: np.ndarray, most: float) -> float:
    """Largest log-likelihood of e = (b / theta) w + error / theta, over b and 0 < theta <= most.

    Concave: the optimum has theta = most if it does not fall below there, else Newton's steps find it inside.
    """
    b = _newton(e, w, cut, (0.0, most), fixed=True)[0]
    value, gradient, _ = _log_likelihood(e, w, cut, b, most)
    if gradient[1] >= 0:
        return value
    scale = 1 / max(1 / most, float(np.abs(e).max()))
    b, theta = _newton(e, w, cut, (b * scale / most, scale), fixed=False)
    return _log_likelihood(e, w, cut, b, theta)[0]


def _newton(
    e: np.ndarray, w: np.ndarray, cut: np.ndarray, start: tuple[float, float], fixed: bool
) -> tuple[float, float]:
    """Newton's method for (b, theta), theta held fixed or not; steps are halved until they gain."""
    b, theta = start
    value, gradient, hessian = _log_likelihood(e, w, cut, b, theta)
    for _ in range(NEWTON_STEPS):
        if fixed:
            step = -gradient[0] / min(hessian[0], -1e-12), 0.0
        else:
            bb, bt, tt = hessian
            det = max(bb * tt - bt * bt, 1e-12)
            step = (bt * gradient[1] - tt * gradient[0]) / det, (bt * gradient[0] - bb * gradient[1]) / det
        size = 1.0
        while size > 1e-9:
            new = b + size * step[0], theta + size * step[1]
            if new[1] > 0:
                tried = _log_likelihood(e, w, cut, *new)
                if tried[0] >= value:
                    break
            size /= 2
        else:
            return b, theta
        gained, (b, theta), (value, gradient, hessian) = tried[0] - value, new, tried
        if gained < 1e-9:
            return b, theta
    return b, theta


def _log_likelihood(
    e: np.ndarray, w: np.ndarray, cut: np.ndarray, b: float, theta: float
) -> tuple[float, tuple[float, float], tuple[float, float, float]]:
    """Log-likelihood, its gradient (b, theta) and second derivatives (bb, b theta, theta theta)."""
    r = theta * e - b * w
    known, free = r[~cut], ~cut
    log, hazard = np.array([_upper_tail(z) for z in r[cut].tolist()]).reshape(-1, 2).T
    slope, bend = np.empty_like(r), np.ones_like(r)  # minus the first and second derivatives by r
    slope[free], slope[cut] = known, hazard
    bend[cut] = hazard * (hazard - r[cut])
    m = len(known)
    value = m * math.log(theta) - 0.5 * float(known @ known) + float(log.sum())
    gradient = float(slope @ w), m / theta - float(slope @ e)
    return value, gradient, (-float(bend @ (w * w)), float(bend @ (w * e)), -m / theta**2 - float(bend @ (e * e)))


def _upper_tail(z: float) -> tuple[float, float]:
    """Log of the probability of a standard normal value above z, and its hazard there."""
    if z > 25:
        return -0.5 * z * z - math.log(z * math.sqrt(2 * math.pi)), z + 1 / z
    tail = 0.5 * math.erfc(z / math.sqrt(2))
    return math.log(tail), math.exp(-0.5 * z * z) / math.sqrt(2 * math.pi) / tail
