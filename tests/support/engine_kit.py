"""The model and the environment of a vLLM engine that tests start."""

import os
import tempfile
from pathlib import Path

SUPPORT = Path(__file__).parent
# A Llama of two layers, one head size, and a vocabulary of 512.
MODEL = {
    "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_size": 256, "intermediate_size": 512,
    "num_attention_heads": 4, "num_key_value_heads": 2, "num_hidden_layers": 2, "vocab_size": 512, "head_dim": 64,
    "max_position_embeddings": 512, "torch_dtype": "float32", "rms_norm_eps": 1e-5, "hidden_act": "silu",
    "bos_token_id": 1, "eos_token_id": 2, "tie_word_embeddings": False,
}  # fmt: skip
IN_ONE_PROCESS = {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}  # starts sooner
# Of all engines: what vLLM has read of a model's class, for which it otherwise starts a process that imports all of vLLM again.
VLLM_CACHE = Path(tempfile.gettempdir()) / f"jitwarm-tests-{os.getuid()}" / "vllm"
CACHES = {"TRITON_CACHE_DIR", "TILELANG_CACHE_DIR", "CUTE_DSL_CACHE_DIR"}


def environment(directory, site, store):
    """Variables of an engine with a home, a path of packages and a store of its own."""
    inherited = {n: v for n, v in os.environ.items() if not n.startswith(("JITWARM_", "VLLM_")) and n not in CACHES}
    return inherited | {
        "HOME": str(directory), "XDG_CACHE_HOME": str(directory / "cache"), "PYTHONPATH": f"{site}:{SUPPORT}",
        "VLLM_CACHE_ROOT": str(VLLM_CACHE), "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1",
        "JITWARM_EARLY": "0",  # what happens at the seam; `test_early` has the head start
        "JITWARM_CACHE_DIR": str(store), "JITWARM_TARGET": "cuda:90", "JITWARM_PLUGINS": "alpha,beta",
    }  # fmt: skip
