"""How processes share attention: by heads of queries, and of keys and values."""

from collections.abc import Collection

from lcprobe.models.tensor_parallel.split import Section, Split, heads


def attention_splits(
    names: Collection[str], n_heads: int, n_kv_heads: int, head_dim: int, gate_width: int, n: int
) -> dict[str, Split]:
    """Of the parameters `names` of an attention layer, for n processes. Raises ConfigError where heads do not
    divide."""
    for name, number in (("n_heads", n_heads), ("n_kv_heads", n_kv_heads)):
        Split(0, heads(number)).check(n, f"{name} of attention")
    qkv = heads(n_heads * head_dim, n_kv_heads * head_dim, n_kv_heads * head_dim)
    rows = Split(0, (*qkv, *(heads(gate_width) if gate_width else ())))
    of_all = Split(0, (Section(head_dim, divided=False),))
    splits = {
        "in_proj.weight": rows,
        "in_proj.bias": rows,
        "conv_weight": Split(0, qkv),
        "conv_bias": Split(0, qkv),
        "q_norm_weight": of_all,
        "k_norm_weight": of_all,
        "sink_logit": Split(0, heads(n_heads)),
        "out_proj.weight": Split(1, heads(n_heads * head_dim)),
    }
    return {name: split for name, split in splits.items() if name in names}
