"""What published models say of themselves: the entries of their `config.json` that decide kernels."""

MIXTRAL = {
    "architectures": ["MixtralForCausalLM"], "model_type": "mixtral", "torch_dtype": "bfloat16", "hidden_size": 4096,
    "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32,
    "num_local_experts": 8, "num_experts_per_tok": 2, "sliding_window": None, "max_position_embeddings": 32768,
}  # fmt: skip
GPTQ_INT4 = {"quant_method": "gptq", "bits": 4, "group_size": 128, "sym": True, "desc_act": False}
GPTQ_INT8 = {**GPTQ_INT4, "bits": 8}
AWQ = {"quant_method": "awq", "bits": 4, "group_size": 128, "zero_point": True, "version": "gemm"}
MIXTRAL_GPTQ = {**MIXTRAL, "torch_dtype": "float16", "quantization_config": GPTQ_INT4}
MIXTRAL_AWQ = {**MIXTRAL, "torch_dtype": "float16", "quantization_config": AWQ}
QWEN3_30B = {
    "architectures": ["Qwen3MoeForCausalLM"], "model_type": "qwen3_moe", "torch_dtype": "bfloat16", "hidden_size": 2048,
    "intermediate_size": 6144, "moe_intermediate_size": 768, "num_attention_heads": 32, "num_key_value_heads": 4,
    "head_dim": 128, "num_hidden_layers": 48, "num_experts": 128, "num_experts_per_tok": 8, "decoder_sparse_step": 1,
    "mlp_only_layers": [], "use_sliding_window": False, "sliding_window": None, "max_window_layers": 48,
    "max_position_embeddings": 40960,
}  # fmt: skip
FP8_BLOCKS = {"quant_method": "fp8", "activation_scheme": "dynamic", "fmt": "e4m3", "weight_block_size": [128, 128]}
QWEN3_30B_FP8 = {**QWEN3_30B, "quantization_config": FP8_BLOCKS}
QWEN3_30B_GPTQ = {**QWEN3_30B, "torch_dtype": "float16", "quantization_config": GPTQ_INT4}
QWEN3_235B_FP8 = {
    **QWEN3_30B_FP8, "hidden_size": 4096, "intermediate_size": 12288, "moe_intermediate_size": 1536,
    "num_attention_heads": 64, "num_hidden_layers": 94,
}  # fmt: skip
QWEN15_MOE_GPTQ = {
    "architectures": ["Qwen2MoeForCausalLM"], "model_type": "qwen2_moe", "torch_dtype": "float16", "hidden_size": 2048,
    "intermediate_size": 5632, "moe_intermediate_size": 1408, "shared_expert_intermediate_size": 5632,
    "num_attention_heads": 16, "num_key_value_heads": 16, "num_hidden_layers": 24, "num_experts": 60,
    "num_experts_per_tok": 4, "decoder_sparse_step": 1, "use_sliding_window": False, "sliding_window": 32768,
    "max_window_layers": 21, "max_position_embeddings": 8192, "quantization_config": GPTQ_INT4,
}  # fmt: skip
DEEPSEEK_V2_LITE = {
    "architectures": ["DeepseekV2ForCausalLM"], "model_type": "deepseek_v2", "torch_dtype": "bfloat16", "hidden_size": 2048,
    "intermediate_size": 10944, "moe_intermediate_size": 1408, "n_routed_experts": 64, "n_shared_experts": 2,
    "num_experts_per_tok": 6, "first_k_dense_replace": 1, "kv_lora_rank": 512, "num_attention_heads": 16,
    "num_key_value_heads": 16, "num_hidden_layers": 27, "max_position_embeddings": 163840,
}  # fmt: skip
LLAMA4_SCOUT = {
    "architectures": ["Llama4ForConditionalGeneration"], "model_type": "llama4", "torch_dtype": "bfloat16",
    "text_config": {
        "model_type": "llama4_text", "hidden_size": 5120, "intermediate_size": 8192, "intermediate_size_mlp": 16384,
        "num_attention_heads": 40, "num_key_value_heads": 8, "head_dim": 128, "num_hidden_layers": 48,
        "num_local_experts": 16, "num_experts_per_tok": 1, "interleave_moe_layer_step": 1,
        "max_position_embeddings": 10485760, "torch_dtype": "bfloat16",
    },
}  # fmt: skip
QWEN3_NEXT = {
    "architectures": ["Qwen3NextForCausalLM"], "model_type": "qwen3_next", "torch_dtype": "bfloat16", "hidden_size": 2048,
    "intermediate_size": 5120, "moe_intermediate_size": 512, "num_attention_heads": 16, "num_key_value_heads": 2,
    "head_dim": 256, "num_hidden_layers": 48, "full_attention_interval": 4, "num_experts": 512, "num_experts_per_tok": 10,
    "decoder_sparse_step": 1, "mlp_only_layers": [], "max_position_embeddings": 262144,
}  # fmt: skip
QWEN3_NEXT_80B = {  # with the linear layers, as published
    **QWEN3_NEXT, "hidden_act": "silu", "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_num_key_heads": 16,
    "linear_num_value_heads": 32, "linear_value_head_dim": 128,
}  # fmt: skip
QWEN35_DENSE = {  # the family's other layout, with a recurrent state in fp32
    "architectures": ["Qwen3_5ForConditionalGeneration"], "model_type": "qwen3_5", "torch_dtype": "bfloat16",
    "text_config": {
        "model_type": "qwen3_5_text", "hidden_size": 4096, "intermediate_size": 12288, "num_attention_heads": 16,
        "num_key_value_heads": 4, "head_dim": 256, "num_hidden_layers": 32, "full_attention_interval": 4, "hidden_act": "silu",
        "linear_conv_kernel_dim": 4, "linear_key_head_dim": 128, "linear_num_key_heads": 16, "linear_num_value_heads": 32,
        "linear_value_head_dim": 128, "mamba_ssm_dtype": "float32", "max_position_embeddings": 262144,
    },
}  # fmt: skip
LLAMA31_8B = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "torch_dtype": "bfloat16", "hidden_size": 4096,
    "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32,
    "max_position_embeddings": 131072,
}  # fmt: skip
LLAMA31_8B_NVFP4 = {
    **LLAMA31_8B,
    "quantization_config": {
        "quant_method": "modelopt", "quant_algo": "NVFP4", "kv_cache_scheme": {"num_bits": 8, "type": "float", "dynamic": False},
    },
}  # fmt: skip
GEMMA3_12B = {
    "architectures": ["Gemma3ForConditionalGeneration"], "model_type": "gemma3", "torch_dtype": "bfloat16",
    "text_config": {
        "model_type": "gemma3_text", "hidden_size": 3840, "intermediate_size": 15360, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 256, "num_hidden_layers": 48, "sliding_window": 1024,
        "max_position_embeddings": 131072,
    },
}  # fmt: skip
BAMBA_9B = {
    "architectures": ["BambaForCausalLM"], "model_type": "bamba", "torch_dtype": "bfloat16", "hidden_size": 4096,
    "intermediate_size": 14336, "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 32,
    "attn_layer_indices": [9, 18, 27], "max_position_embeddings": 262144,
}  # fmt: skip
GRANITE4_H_SMALL = {  # the state layers as published, without the experts
    "architectures": ["GraniteMoeHybridForCausalLM"], "model_type": "granitemoehybrid", "torch_dtype": "bfloat16",
    "hidden_size": 4096, "hidden_act": "silu", "num_attention_heads": 32, "num_key_value_heads": 8, "num_hidden_layers": 40,
    "layer_types": [*["mamba"] * 5, "attention", *["mamba"] * 9, "attention", *["mamba"] * 9, "attention", *["mamba"] * 9,
                    "attention", *["mamba"] * 4],
    "mamba_conv_bias": True, "mamba_d_conv": 4, "mamba_d_head": 64, "mamba_d_state": 128, "mamba_expand": 2,
    "mamba_n_groups": 1, "mamba_n_heads": 128, "intermediate_size": 768, "max_position_embeddings": 131072,
}  # fmt: skip
NEMOTRON_H_8B = {
    "architectures": ["NemotronHForCausalLM"], "model_type": "nemotron_h", "torch_dtype": "bfloat16", "hidden_size": 4096,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "num_hidden_layers": 52, "conv_kernel": 4,
    "hybrid_override_pattern": "M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M*-M-M-M-M-M-", "mamba_head_dim": 64,
    "mamba_hidden_act": "silu", "mamba_num_heads": 128, "n_groups": 8, "ssm_state_size": 128, "use_conv_bias": True,
    "intermediate_size": 21504, "max_position_embeddings": 8192,
}  # fmt: skip

MOE_MODELS = {
    "Mixtral-8x7B": MIXTRAL,
    "Mixtral-8x7B GPTQ int4": MIXTRAL_GPTQ,
    "Mixtral-8x7B AWQ": MIXTRAL_AWQ,
    "Qwen1.5-MoE-A2.7B GPTQ int4": QWEN15_MOE_GPTQ,
    "Qwen3-30B-A3B": QWEN3_30B,
    "Qwen3-30B-A3B GPTQ int4": QWEN3_30B_GPTQ,
    "Qwen3-30B-A3B FP8": QWEN3_30B_FP8,
    "Qwen3-235B-A22B FP8": QWEN3_235B_FP8,
    "DeepSeek-V2-Lite": DEEPSEEK_V2_LITE,
    "Llama-4-Scout": LLAMA4_SCOUT,
    "Qwen3-Next-80B-A3B": QWEN3_NEXT,
}
WHOLE_MODELS = {  # one of each kind, with what the sampler asks for
    "Llama-3.1-8B": {**LLAMA31_8B, "vocab_size": 128256},
    "Llama-3.1-8B NVFP4": {**LLAMA31_8B_NVFP4, "vocab_size": 128256},
    "Mixtral-8x7B GPTQ int4": {**MIXTRAL_GPTQ, "vocab_size": 32000},
    "Gemma-3-12B": {**GEMMA3_12B, "vocab_size": 262208},
    "Granite-4.0-H-Small": {**GRANITE4_H_SMALL, "vocab_size": 100352},
    "Qwen3-Next-80B-A3B": {**QWEN3_NEXT_80B, "vocab_size": 151936},
}
