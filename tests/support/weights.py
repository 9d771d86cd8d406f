"""A Llama's weights as a file of safetensors, for engines that load for real."""

import torch
from safetensors.torch import save_file


def write(file, config, dtype=torch.bfloat16):
    """Random weights for a configuration as `engine_kit.MODEL`; returns the number of bytes."""
    hidden, inner, vocabulary = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    n_queries = config["num_attention_heads"] * config["head_dim"]
    n_keys = config["num_key_value_heads"] * config["head_dim"]
    shapes = {
        "self_attn.q_proj": (n_queries, hidden), "self_attn.k_proj": (n_keys, hidden), "self_attn.v_proj": (n_keys, hidden),
        "self_attn.o_proj": (hidden, n_queries), "mlp.gate_proj": (inner, hidden), "mlp.up_proj": (inner, hidden),
        "mlp.down_proj": (hidden, inner), "input_layernorm": (hidden,), "post_attention_layernorm": (hidden,),
    }  # fmt: skip
    tensors = {
        f"model.layers.{layer}.{name}.weight": torch.randn(shape, dtype=dtype) * 0.02
        for layer in range(config["num_hidden_layers"])
        for name, shape in shapes.items()
    }
    tensors |= {
        "model.embed_tokens.weight": torch.randn(vocabulary, hidden, dtype=dtype),
        "model.norm.weight": torch.ones(hidden, dtype=dtype),
        "lm_head.weight": torch.randn(vocabulary, hidden, dtype=dtype),
    }
    save_file(tensors, file)
    return file.stat().st_size
