"""Mutants of the ops that normalise: attention, rms_norm, linear_cross_entropy."""

from validation.mutants.mutant import Mutant

FWD, BWD = "attention/triton_fwd.py", "attention/triton_bwd.py"
NORM, LOSS = "rms_norm/triton_norm.py", "linear_cross_entropy/triton_loss.py"

SOFTMAX = (
    Mutant(FWD, "see = (d >= low) & ((d < high) | (j < sinks))", "see = (d >= low) & ((d <= high) | (j < sinks))"),
    Mutant(
        FWD,
        "((d < high) | (j < sinks)) & ((j >= 0) & (j < n_keys))",
        "((d < high) | (j <= sinks)) & ((j >= 0) & (j < n_keys))",
    ),
    Mutant(FWD, "see = (d >= low) &", "see = (d > low) &"),
    Mutant(
        FWD, "see & (apart >= chunk_low) & (apart < chunk_high)", "see & (apart >= chunk_low) & (apart <= chunk_high)"
    ),
    Mutant(FWD, "see = see & (docs_q == docs_k)", "see = see"),
    Mutant(FWD, "(last_p - j < high)", "(last_p - j <= high)"),
    Mutant(FWD, "(p - last_j >= low)", "(p - last_j >= low - 1)"),
    Mutant(FWD, "(last_p - j < high) | (last_j < sinks)", "(last_p - j < high) | (j < sinks)"),
    Mutant(FWD, "tl.maximum(p - high + 1, floor)", "tl.maximum(p - high + 2, floor)"),
    Mutant(
        FWD, "tl.maximum(p - high + 1, floor)", "tl.maximum(p - high, floor)", "a tile more, of which nothing is seen"
    ),
    Mutant(
        FWD, "floor, end = 0, tl.minimum(n_keys, last - low + 1)", "floor, end = 0, tl.minimum(n_keys, last - low)"
    ),
    Mutant(FWD, "chunk - chunk_high + 1) * chunk, 0)", "chunk - chunk_high + 2) * chunk, 0)"),
    Mutant(FWD, "tl.cdiv(tl.minimum(sinks, end) - sink, BN)", "tl.cdiv(tl.minimum(sinks, end) - sink - 1, BN)"),
    Mutant(FWD, "total = total * kept + tl.sum(weights, 1)", "total = total + tl.sum(weights, 1)"),
    Mutant(FWD, "out = out * kept[:, None] + dot(", "out = out + dot("),
    Mutant(FWD, "per = tl.cdiv(n_sink + n_band, parts)", "per = (n_sink + n_band) // parts"),
    Mutant(FWD, "weights = (lse - top).exp()", "weights = lse.exp()", "the same sum, were it not for overflow"),
    Mutant(FWD, "s += (f_q - f_k) * _E", "s += f_q - f_k"),
    Mutant(BWD, "share -= tl.load(dlse + at", "share += tl.load(dlse + at"),
    Mutant(
        BWD,
        "begin, end = tl.maximum(start + low - offset, 0), tl.minimum(seqlen, last + high - offset)",
        "begin, end = tl.maximum(start + low - offset, 0), tl.minimum(seqlen, last + high - offset - 1)",
    ),
    Mutant(BWD, "end = tl.where(start < sinks, seqlen, end)", "end = tl.where(start + BN < sinks, seqlen, end)"),
    Mutant(
        BWD,
        "begin = tl.maximum(begin, (start // chunk + chunk_low) * chunk - offset)",
        "begin = tl.maximum(begin, (start // chunk + chunk_low + 1) * chunk - offset)",
    ),
    Mutant(
        BWD,
        "stop = tl.where(step * BN - BN + 1 >= high, sinks, n_keys)",
        "stop = tl.where(step * BN - BN + 2 >= high, sinks, n_keys)",
    ),
    Mutant(BWD, "around = (back + BN) // BN", "around = (back + BN + 1) // BN"),
    Mutant(BWD, "df -= tl.sum(ds, 1)", "df = -tl.sum(ds, 1)"),
    Mutant(BWD, "diagonals = (reach + bn - 2) // bn + 1 - lowest", "diagonals = (reach + bn - 2) // bn - lowest"),
    Mutant(BWD, "out * (scale / _E)", "out * scale"),
    Mutant(NORM, "u = u * (z / (1.0 + tl.exp(-z)))", "u = u / (1.0 + tl.exp(-z))"),
    Mutant(NORM, "scale = tl.rsqrt(tl.sum(u * u, 1) / d + eps)", "scale = tl.rsqrt(tl.sum(u * u, 1) / BD + eps)"),
    Mutant(NORM, "live = (r < rows) & (step + tl.arange(0, ROWS) < strip)", "live = r < rows"),
    Mutant(
        NORM,
        "r = tl.program_id(0) * strip + step + tl.arange(0, ROWS)",
        "r = tl.program_id(0) * strip + tl.arange(0, ROWS)",
    ),
    Mutant(NORM, "dweight += tl.sum(g * normed, 0)", "dweight = tl.sum(g * normed, 0)"),
    Mutant(NORM, "(tl.sum(dn * normed, 1) / d)[:, None]", "(tl.sum(dn * normed, 1))[:, None]"),
    Mutant(NORM, "du * plain * sigmoid * (1.0 + z * (1.0 - sigmoid))", "du * plain * sigmoid"),
    Mutant(LOSS, "norm = norm * tl.exp(peak - shift) + tl.sum", "norm = norm + tl.sum"),
    Mutant(LOSS, "scale = w * (1.0 + 2.0 * z_loss * lse)", "scale = w * (1.0 + z_loss * lse)"),
    Mutant(LOSS, "tl.where(j == target, w, 0.0)) * slope", "tl.where(j == target, w, 0.0))"),
    Mutant(
        LOSS,
        "picked = tl.where((target >= 0) & (target < vocab), picked",
        "picked = tl.where((target >= 0) & (target <= vocab), picked",
    ),
    Mutant(
        LOSS,
        "tl.store(own + j, tl.where(ignored, 0.0, gradient), mask=j < vocab)",
        "tl.store(own + j, gradient, mask=j < vocab)",
    ),
    Mutant(LOSS, "tl.where(ignored, 0.0, lse - picked))", "lse - picked)"),
)
