"""Signatures of the peers' functions that adapters call, copied from the source of the named version, without
annotations. A stand-in behind `as_published` takes no call that the peer would not take."""

import functools
import inspect

SIGNATURES = {
    "mamba-ssm 2.3.2.post1, mamba_ssm/ops/triton/ssd_combined.py": {
        "_mamba_chunk_scan_combined_fwd": "x, dt, A, B, C, chunk_size, D=None, z=None, dt_bias=None, initial_states=None, "
        "seq_idx=None, cu_seqlens=None, dt_softplus=False, dt_limit=(0.0, float('inf'))",
        "_mamba_chunk_scan_combined_bwd": "dout, x, dt, A, B, C, out, chunk_size, D=None, z=None, dt_bias=None, "
        "initial_states=None, dfinal_states=None, seq_idx=None, dt_softplus=False, dt_limit=(0.0, float('inf')), dx=None, "
        "ddt=None, dB=None, dC=None, dz=None, recompute_output=False",
    },
    "causal-conv1d 1.7.0, causal_conv1d/cpp_functions.py": {
        "causal_conv1d_fwd_function": "x, weight, bias, seq_idx, initial_states, final_states_out, silu_activation",
        "causal_conv1d_bwd_function": "x, weight, bias, dout, seq_idx, initial_states, dfinal_states, dx, "
        "return_dinitial_states, silu_activation",
    },
    "flash-attn 2.8.3, flash_attn/flash_attn_interface.py": {
        "_flash_attn_forward": "q, k, v, dropout_p, softmax_scale, causal, window_size_left, window_size_right, softcap, "
        "alibi_slopes, return_softmax",
        "_flash_attn_varlen_forward": "q, k, v, cu_seqlens_q, cu_seqlens_k, max_seqlen_q, max_seqlen_k, dropout_p, "
        "softmax_scale, causal, window_size_left=-1, window_size_right=-1, softcap=0.0, alibi_slopes=None, "
        "return_softmax=False, block_table=None, leftpad_k=None, seqused_k=None, zero_tensors=False",
        "_flash_attn_backward": "dout, q, k, v, out, softmax_lse, dq, dk, dv, dropout_p, softmax_scale, causal, "
        "window_size_left, window_size_right, softcap, alibi_slopes, deterministic, rng_state=None",
        "_flash_attn_varlen_backward": "dout, q, k, v, out, softmax_lse, dq, dk, dv, cu_seqlens_q, cu_seqlens_k, "
        "max_seqlen_q, max_seqlen_k, dropout_p, softmax_scale, causal, window_size_left, window_size_right, softcap, "
        "alibi_slopes, deterministic, rng_state=None, zero_tensors=False",
    },
    "flash-attn-4 4.0.0b36, flash_attn/cute/interface.py": {
        "_flash_attn_fwd": "q, k, v, qv=None, cu_seqlens_q=None, cu_seqlens_k=None, seqused_q=None, seqused_k=None, "
        "max_seqlen_q=None, max_seqlen_k=None, min_seqlen_k=None, page_table=None, softmax_scale=None, causal=False, "
        "softcap=None, window_size_left=None, window_size_right=None, learnable_sink=None, tile_mn=None, "
        "mma_pv_is_rs=None, intra_wg_overlap=None, num_threads=384, num_splits=1, pack_gqa=None, _arch=None, "
        "score_mod=None, mask_mod=None, block_sparse_tensors=None, return_lse=False, out=None, lse=None, "
        "aux_tensors=None, aux_scalars=None, q_descale=None, k_descale=None, v_descale=None, gather_kv_indices=None, "
        "scheduler_metadata=None, seqlen_k_per_split=None, disable_scheduler_metadata=False, "
        "gather_bwd_recompute_p=False",
        "_flash_attn_bwd": "q, k, v, out, dout, lse, softmax_scale=None, causal=False, softcap=0.0, "
        "window_size_left=None, window_size_right=None, m_block_size=64, n_block_size=128, num_threads=256, "
        "pack_gqa=False, num_stages_Q=2, num_stages_dO=2, SdP_swapAB=False, dKV_swapAB=False, dQ_swapAB=False, "
        "AtomLayoutMSdP=2, AtomLayoutNdKV=2, AtomLayoutMdQ=2, V_in_regs=False, cu_seqlens_q=None, cu_seqlens_k=None, "
        "seqused_q=None, seqused_k=None, max_seqlen_q=None, max_seqlen_k=None, deterministic=False, dq=None, dk=None, "
        "dv=None, score_mod=None, score_mod_bwd=None, mask_mod=None, aux_tensors=None, aux_scalars=None, "
        "block_sparse_tensors=None, dlse=None, learnable_sink=None",
    },
    "fla-core 0.6.0, fla/ops": {
        "chunk_gla": "q, k, v, g, scale=None, initial_state=None, output_final_state=False, state_v_first=False, "
        "cu_seqlens=None, cu_seqlens_cpu=None",
        "chunk_simple_gla": "q, k, v, g=None, g_gamma=None, scale=None, initial_state=None, output_final_state=False, "
        "state_v_first=False, cu_seqlens=None, cu_seqlens_cpu=None, **kwargs",
        "chunk_rwkv6": "r, k, v, w, u, scale=None, initial_state=None, output_final_state=False, cu_seqlens=None, "
        "cu_seqlens_cpu=None, **kwargs",
        "chunk_gdn2": "q, k, v, g, b, w, scale=None, initial_state=None, output_final_state=False, "
        "use_qk_l2norm_in_kernel=False, use_gate_in_kernel=False, cu_seqlens=None, cu_seqlens_cpu=None, safe_gate=False, "
        "lower_bound=None, disable_recompute=False, return_intermediate_states=False, state_v_first=False, "
        "cp_context=None, **kwargs",
        "chunk_dplr_delta_rule": "q, k, v, a, b, gk, scale=None, initial_state=None, output_final_state=False, "
        "cu_seqlens=None, cu_seqlens_cpu=None, safe_gate=False, chunk_size=None, disable_recompute=False, "
        "cp_context=None, lower_bound=None, **kwargs",
        "chunk_gated_delta_rule": "q, k, v, g, beta, scale=None, initial_state=None, output_final_state=False, "
        "use_qk_l2norm_in_kernel=False, use_beta_sigmoid_in_kernel=False, allow_neg_eigval=False, state_v_first=False, "
        "cu_seqlens=None, cu_seqlens_cpu=None, chunk_indices=None, cp_context=None, **kwargs",
        "chunk_kda": "q, k, v, g, beta, scale=None, initial_state=None, output_final_state=False, "
        "use_qk_l2norm_in_kernel=False, use_gate_in_kernel=False, use_beta_sigmoid_in_kernel=False, "
        "allow_neg_eigval=False, safe_gate=False, lower_bound=None, disable_recompute=False, "
        "return_intermediate_states=False, state_v_first=False, cu_seqlens=None, cu_seqlens_cpu=None, cp_context=None, "
        "use_graph=False, max_num_seqs=None, **kwargs",
        "fused_recurrent_hgrn_fwd": "x, g, initial_state=None, output_final_state=False, cu_seqlens=None",
        "fused_recurrent_hgrn_bwd": "g, o, do, dht=None, initial_state=None, cu_seqlens=None",
    },
}


def published(name):
    """The signature of a function, without **kwargs: fla takes any further name there and does nothing with it."""
    (text,) = [functions[name] for functions in SIGNATURES.values() if name in functions]
    signature = inspect.signature(eval(f"lambda {text}: None"))
    kept = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    return signature.replace(parameters=kept)


def as_published(name, stand_in):
    """`stand_in`, called with all arguments by name, behind the signature of the peer's function `name`. Raises
    TypeError for a call that does not fit it."""
    signature = published(name)
    unknown = inspect.signature(stand_in).parameters.keys() - signature.parameters.keys()
    assert not unknown, f"{name} has no {unknown}"

    @functools.wraps(stand_in)
    def call(*args, **kwargs):
        bound = signature.bind(*args, **kwargs)
        bound.apply_defaults()
        taken = inspect.signature(stand_in).parameters
        unread = {k: v for k, v in bound.arguments.items() if k not in taken}
        assert all(v == signature.parameters[k].default for k, v in unread.items()), f"{name}: {unread} is not read"
        return stand_in(**{k: v for k, v in bound.arguments.items() if k in taken})

    return call
