"""Mutants of the ops that normalise: attention, rms_norm, linear_cross_entropy."""

from validation.mutants.mutant import faults

SOFTMAX = (
    *faults(
        "attention/triton_fwd.py",
        ("see = (d >= low) & ((d < high) | (j < sinks))", "see = (d >= low) & ((d <= high) | (j < sinks))"),
        (
            "((d < high) | (j < sinks)) & ((j >= 0) & (j < n_keys))",
            "((d < high) | (j <= sinks)) & ((j >= 0) & (j < n_keys))",
        ),
        ("see = (d >= low) &", "see = (d > low) &"),
        ("see & (apart >= chunk_low) & (apart < chunk_high)", "see & (apart >= chunk_low) & (apart <= chunk_high)"),
        ("see = see & (docs_q == docs_k)", "see = see"),
        ("(last_p - j < high)", "(last_p - j <= high)"),
        ("(p - last_j >= low)", "(p - last_j >= low - 1)"),
        ("(last_p - j < high) | (last_j < sinks)", "(last_p - j < high) | (j < sinks)"),
        ("tl.maximum(p - high + 1, floor)", "tl.maximum(p - high + 2, floor)"),
        ("tl.maximum(p - high + 1, floor)", "tl.maximum(p - high, floor)", "a tile more, of which nothing is seen"),
        ("floor, end = 0, tl.minimum(n_keys, last - low + 1)", "floor, end = 0, tl.minimum(n_keys, last - low)"),
        ("chunk - chunk_high + 1) * chunk, 0)", "chunk - chunk_high + 2) * chunk, 0)"),
        ("tl.cdiv(tl.minimum(sinks, end) - sink, BN)", "tl.cdiv(tl.minimum(sinks, end) - sink - 1, BN)"),
        ("total = total * kept + tl.sum(weights, 1)", "total = total + tl.sum(weights, 1)"),
        ("out = out * kept[:, None] + dot(", "out = out + dot("),
        ("per = tl.cdiv(n_sink + n_band, parts)", "per = (n_sink + n_band) // parts"),
        ("weights = (lse - top).exp()", "weights = lse.exp()", "the same sum, were it not for overflow"),
        ("s += (f_q - f_k) * _E", "s += f_q - f_k"),
    ),
    *faults(
        "attention/triton_bwd.py",
        ("share -= tl.load(dlse + at", "share += tl.load(dlse + at"),
        (
            "begin, end = tl.maximum(start + low - offset, 0), tl.minimum(seqlen, last + high - offset)",
            "begin, end = tl.maximum(start + low - offset, 0), tl.minimum(seqlen, last + high - offset - 1)",
        ),
        ("end = tl.where(start < sinks, seqlen, end)", "end = tl.where(start + BN < sinks, seqlen, end)"),
        (
            "begin = tl.maximum(begin, (start // chunk + chunk_low) * chunk - offset)",
            "begin = tl.maximum(begin, (start // chunk + chunk_low + 1) * chunk - offset)",
        ),
        (
            "stop = tl.where(step * BN - BN + 1 >= high, sinks, n_keys)",
            "stop = tl.where(step * BN - BN + 2 >= high, sinks, n_keys)",
        ),
        ("around = (back + BN) // BN", "around = (back + BN + 1) // BN"),
        ("df -= tl.sum(ds, 1)", "df = -tl.sum(ds, 1)"),
        ("diagonals = (reach + bn - 2) // bn + 1 - lowest", "diagonals = (reach + bn - 2) // bn - lowest"),
        ("out * (scale / _E)", "out * scale"),
    ),
    *faults(
        "rms_norm/triton_norm.py",
        ("u = u * (z / (1.0 + tl.exp(-z)))", "u = u / (1.0 + tl.exp(-z))"),
        ("scale = tl.rsqrt(tl.sum(u * u, 1) / d + eps)", "scale = tl.rsqrt(tl.sum(u * u, 1) / BD + eps)"),
        ("live = (r < rows) & (step + tl.arange(0, ROWS) < strip)", "live = r < rows"),
        (
            "r = tl.program_id(0) * strip + step + tl.arange(0, ROWS)",
            "r = tl.program_id(0) * strip + tl.arange(0, ROWS)",
        ),
        ("dweight += tl.sum(g * normed, 0)", "dweight = tl.sum(g * normed, 0)"),
        ("(tl.sum(dn * normed, 1) / d)[:, None]", "(tl.sum(dn * normed, 1))[:, None]"),
        ("du * plain * sigmoid * (1.0 + z * (1.0 - sigmoid))", "du * plain * sigmoid"),
    ),
    *faults(
        "linear_cross_entropy/triton_loss.py",
        ("norm = norm * tl.exp(peak - shift) + tl.sum", "norm = norm + tl.sum"),
        ("scale = w * (1.0 + 2.0 * z_loss * lse)", "scale = w * (1.0 + z_loss * lse)"),
        ("tl.where(j == target, w, 0.0)) * slope", "tl.where(j == target, w, 0.0))"),
        (
            "picked = tl.where((target >= 0) & (target < vocab), picked",
            "picked = tl.where((target >= 0) & (target <= vocab), picked",
        ),
        (
            "tl.store(own + j, tl.where(ignored, 0.0, gradient), mask=j < vocab)",
            "tl.store(own + j, gradient, mask=j < vocab)",
        ),
        ("tl.where(ignored, 0.0, lse - picked))", "lse - picked)"),
    ),
)
