"""Which attention layers of a configuration run on vLLM's Triton backend, and with what cache."""

import dataclasses

from jitwarm import AttentionGroup, WarmupConfig
from jitwarm_vllm import models

TRITON = "TRITON_ATTN"


def triton_layers(config: WarmupConfig, *kinds: str) -> list[AttentionGroup]:
    """Groups of these kinds on the backend TRITON_ATTN.

    A group names its backend where an engine has chosen it. Offline the settings `attention_backend` and, for `"vit"`,
    `mm_encoder_attn_backend` choose; without them no group is taken, as vLLM prefers other backends on NVIDIA GPUs.

    Raises:
        ModelConfigError: The settings or the model's `config.json` are wrong.
        NeedsModel: The layers are not known yet.
    """
    chosen = models.settings(config)
    groups = [group for group in models.configuration(config).attention if group.kind in kinds]
    by_setting = {"vit": chosen.mm_encoder_attn_backend}
    return [
        dataclasses.replace(group, block_size=chosen.block_size or group.block_size)
        for group in groups
        if (group.backend or by_setting.get(group.kind, chosen.attention_backend)) == TRITON
    ]


def cache_dtype(config: WarmupConfig, group: AttentionGroup) -> str:
    """The layers' KV cache dtype, as vLLM names it; `"auto"` where it is the model's."""
    return group.kv_cache_dtype or models.configuration(config).kv_cache_dtype
