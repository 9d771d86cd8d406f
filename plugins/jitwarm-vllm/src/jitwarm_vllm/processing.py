"""What requests ask of runner V2's sampler beside temperature, top-k and top-p: penalties, bias, bad words, min-p, logprobs.

Each kernel works on all rows of a step at once, and which request asks for what is data. So one key does for most of them: the
first request with a penalty meets it. Only log probabilities are compiled by how many of them are asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import triton

from jitwarm import Choices, IntClass, IntRange, JitKernel, TensorSpec, Unresolved, WarmupConfig
from jitwarm_vllm.declaring import declared
from jitwarm_vllm.sampling import REQUEST_OF_ROW, Sampled, SamplerKernel, sampled

_PLACE = "vllm.v1.worker.gpu.sample."
_BITS = 32  # tokens per word of the mask of a prompt
_MOST_LOGPROBS_AT_ONCE = 1024
_PROCESSED = TensorSpec("float32", ("tokens", "vocab"))
_OF_REQUESTS = TensorSpec("int32", ("requests",))
_VALUES = TensorSpec("float32", ("requests",))
_TABLE = TensorSpec("int32", ("requests", "tokens"))


class MinP(SamplerKernel):
    """Masks logits far below the largest."""

    name = "sampler_min_p"
    place = (_PLACE + "min_p", "_min_p_kernel")
    fixed = {  # noqa: RUF012 - never mutated
        "BLOCK_SIZE": 1024,
        "logits_ptr": _PROCESSED,
        "expanded_idx_mapping_ptr": REQUEST_OF_ROW,
        "min_p_ptr": _VALUES,
    }

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names."""

        logits_stride: IntClass
        vocab_size: IntClass

    def dispatch(self, *, of_model: Sampled, is_lone: bool) -> CompileKey:
        """As `apply_min_p` launches it."""
        stride = of_model.row_stride(is_processed=True, is_lone=is_lone)
        return self.CompileKey(IntClass.of(stride), IntClass.of(of_model.vocab_size))


class Penalties(SamplerKernel):
    """Repetition, frequency and presence penalties."""

    name = "sampler_penalties"
    place = (_PLACE + "penalties", "_penalties_kernel")
    fixed = {  # noqa: RUF012 - never mutated
        "BLOCK_SIZE": 8192,
        "logits_ptr": _PROCESSED,
        "expanded_idx_mapping_ptr": REQUEST_OF_ROW,
        "token_ids_ptr": TensorSpec("int32", ("tokens",)),
        "expanded_local_pos_ptr": TensorSpec("int32", ("tokens",)),
        "repetition_penalty_ptr": _VALUES,
        "frequency_penalty_ptr": _VALUES,
        "presence_penalty_ptr": _VALUES,
        "prompt_bin_mask_ptr": _TABLE,
        "output_bin_counts_ptr": _TABLE,
    }
    derived = {"output_bin_counts_stride": ("vocab_size",)}  # noqa: RUF012 - never mutated

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names."""

        logits_stride: IntClass
        vocab_size: IntClass
        prompt_bin_mask_stride: IntClass

    def dispatch(self, *, of_model: Sampled, is_lone: bool) -> CompileKey:
        """As `apply_penalties` launches it."""
        stride = of_model.row_stride(is_processed=True, is_lone=is_lone)
        words = -(-of_model.vocab_size // _BITS)
        return self.CompileKey(IntClass.of(stride), IntClass.of(of_model.vocab_size), IntClass.of(words))

    def launch_args(self, key: CompileKey) -> dict[str, Any]:
        """What the launch passes; counts are [requests, vocab], masks [requests, words]."""
        return {**self.named(key), "output_bin_counts_stride": key.vocab_size}


class Bincount(SamplerKernel):
    """Counts the tokens of a request that comes with a penalty."""

    name = "sampler_bincount"
    place = (_PLACE + "penalties", "_bincount_kernel")
    fixed = {  # noqa: RUF012 - never mutated
        "BLOCK_SIZE": 1024,
        "expanded_idx_mapping_ptr": REQUEST_OF_ROW,
        "all_token_ids_ptr": _TABLE,
        "prompt_len_ptr": _OF_REQUESTS,
        "prefill_len_ptr": _OF_REQUESTS,
        "prompt_bin_mask_ptr": _TABLE,
        "output_bin_counts_ptr": _TABLE,
    }

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names."""

        all_token_ids_stride: IntClass
        prompt_bin_mask_stride: IntClass
        output_bin_counts_stride: IntClass

    def inputs(self, of_model: Sampled) -> Mapping[str, Any]:
        """It sees no logits."""
        return {"of_model": of_model, "room": _room(of_model)}

    def dispatch(self, *, of_model: Sampled, room: int) -> CompileKey:
        """As `bincount` launches it."""
        words = IntClass.of(-(-of_model.vocab_size // _BITS))
        return self.CompileKey(IntClass.of(room), words, IntClass.of(of_model.vocab_size))


class BadWords(SamplerKernel):
    """Masks the last token of a sequence that a request forbids."""

    name = "sampler_bad_words"
    place = (_PLACE + "bad_words", "_bad_words_kernel")
    fixed = {  # noqa: RUF012 - never mutated
        "logits_ptr": _PROCESSED,
        "expanded_idx_mapping_ptr": REQUEST_OF_ROW,
        "bad_word_token_ids_ptr": _TABLE,
        "bad_word_offsets_ptr": _TABLE,
        "num_bad_words_ptr": _OF_REQUESTS,
        "all_token_ids_ptr": _TABLE,
        "prompt_len_ptr": _OF_REQUESTS,
        "total_len_ptr": _OF_REQUESTS,
        "input_ids_ptr": TensorSpec("int32", ("tokens",)),
        "expanded_local_pos_ptr": TensorSpec("int32", ("tokens",)),
    }

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names."""

        logits_stride: IntClass
        bad_word_token_ids_stride: IntClass
        bad_word_offsets_stride: IntClass
        all_token_ids_stride: IntClass

    def inputs(self, of_model: Sampled) -> Mapping[str, Any]:
        """Also how much vLLM lets a request forbid."""
        envs = self.module.envs
        n_tokens, n_words = int(envs.VLLM_MAX_BAD_WORDS_TOTAL_TOKENS), int(envs.VLLM_MAX_NUM_BAD_WORDS)
        return {**super().inputs(of_model), "room": _room(of_model), "n_tokens": n_tokens, "n_words": n_words}

    def dispatch(self, *, of_model: Sampled, is_lone: bool, room: int, n_tokens: int, n_words: int) -> CompileKey:
        """As `apply_bad_words` launches it."""
        stride = of_model.row_stride(is_processed=True, is_lone=is_lone)
        return self.CompileKey(IntClass.of(stride), IntClass.of(n_tokens), IntClass.of(n_words + 1), IntClass.of(room))


class LogitBias(SamplerKernel):
    """Allowed tokens, bias, and the shortest answer; with a grammar, stop tokens come back where nothing else is left."""

    name = "sampler_logit_bias"
    place = (_PLACE + "logit_bias", "_bias_kernel")
    fixed = {  # noqa: RUF012 - never mutated
        "LOGITS_BLOCK_SIZE": 8192,
        "logits_ptr": _PROCESSED,
        "expanded_idx_mapping_ptr": REQUEST_OF_ROW,
        "num_allowed_token_ids_ptr": _OF_REQUESTS,
        "allowed_token_ids_ptr": _TABLE,
        "num_logit_bias_ptr": _OF_REQUESTS,
        "bias_token_ids_ptr": _TABLE,
        "bias_ptr": TensorSpec("float32", ("requests", "tokens")),
        "pos_ptr": TensorSpec("int64", ("tokens",)),
        "min_lens_ptr": _OF_REQUESTS,
        "num_stop_token_ids_ptr": _OF_REQUESTS,
        "restore_when_all_masked_ptr": _OF_REQUESTS,
        "stop_token_ids_ptr": _TABLE,
    }

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names, case aside."""

        logits_stride: IntClass
        vocab_size: IntClass
        allowed_token_ids_stride: IntClass
        bias_token_ids_stride: IntClass
        bias_stride: IntClass
        stop_token_ids_stride: IntClass
        block_size: int
        check_all_masked_rows: bool

    def inputs(self, of_model: Sampled) -> Mapping[str, Any]:
        """Also how many tokens vLLM lets a request name."""
        return {
            **super().inputs(of_model),
            "n_allowed": int(self.module.MAX_NUM_ALLOWED_TOKEN_IDS),
            "n_biased": int(self.module.MAX_NUM_LOGIT_BIAS_TOKENS),
            "n_stop": int(self.module.MAX_NUM_STOP_TOKEN_IDS),
            "is_restoring": Choices(False, True),
        }

    def dispatch(
        self, *, of_model: Sampled, is_lone: bool, n_allowed: int, n_biased: int, n_stop: int, is_restoring: bool
    ) -> CompileKey:
        """As `apply_logit_bias` launches it."""
        return self.CompileKey(
            logits_stride=IntClass.of(of_model.row_stride(is_processed=True, is_lone=is_lone)),
            vocab_size=IntClass.of(of_model.vocab_size),
            allowed_token_ids_stride=IntClass.of(n_allowed),
            bias_token_ids_stride=IntClass.of(n_biased),
            bias_stride=IntClass.of(n_biased),
            stop_token_ids_stride=IntClass.of(n_stop),
            block_size=triton.next_power_of_2(max(n_allowed, n_biased, n_stop)),
            check_all_masked_rows=is_restoring,
        )


class Logprobs(SamplerKernel):
    """Log probabilities of the sampled token and of as many others as some request of the step asks for."""

    name = "sampler_logprobs"
    place = (_PLACE + "logprob", "_topk_log_softmax_kernel")
    fixed = {"BLOCK_SIZE": 1024}  # noqa: RUF012 - never mutated
    derived = {"topk_ids_stride": ("topk",)}  # noqa: RUF012 - never mutated

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names, case aside."""

        dtype: str
        logits_stride: IntClass
        topk: IntClass
        vocab_size: IntClass
        topk_block_size: int

    def get_warmup_keys(self, config: WarmupConfig) -> list[Any]:
        """None where vLLM tells logits as they are."""
        of_model = sampled(config)
        is_told = of_model is not None and not of_model.logprobs_mode.endswith("logits")
        return super().get_warmup_keys(config) if is_told else []

    def inputs(self, of_model: Sampled) -> Mapping[str, Any]:
        """From none beside the token's own to the most that vLLM accepts."""
        most = of_model.max_logprobs if of_model.max_logprobs >= 0 else of_model.vocab_size
        return {
            **super().inputs(of_model),
            "num_logprobs": IntRange(0, most + 1),
            "is_processed": _kinds_of_logits(of_model),
        }

    def dispatch(self, *, of_model: Sampled, is_lone: bool, num_logprobs: int, is_processed: bool) -> CompileKey:
        """As `compute_token_logprobs` launches it."""
        topk = num_logprobs + 1
        return self.CompileKey(
            dtype="float32" if is_processed else of_model.dtype,
            logits_stride=IntClass.of(of_model.row_stride(is_processed=is_processed, is_lone=is_lone)),
            topk=IntClass.of(topk),
            vocab_size=IntClass.of(of_model.vocab_size),
            topk_block_size=min(triton.next_power_of_2(topk), _MOST_LOGPROBS_AT_ONCE),
        )

    def launch_args(self, key: CompileKey) -> dict[str, Any]:
        """What the launch passes; output and ids are [tokens, topk]."""
        return {
            **self.named(key),
            "output_ptr": TensorSpec("float32", ("tokens", "topk")),
            "logits_ptr": TensorSpec(key.dtype, ("tokens", "vocab")),
            "topk_ids_ptr": TensorSpec("int64", ("tokens", "topk")),
            "topk_ids_stride": key.topk,
        }


class Ranks(SamplerKernel):
    """How many tokens are at least as likely as the sampled one."""

    name = "sampler_ranks"
    place = (_PLACE + "logprob", "_ranks_kernel")
    fixed = {"BLOCK_SIZE": 8192}  # noqa: RUF012 - never mutated

    @dataclass(frozen=True)
    class CompileKey:
        """Field names are the kernel's parameter names."""

        dtype: str
        logits_stride: IntClass
        vocab_size: IntClass

    def inputs(self, of_model: Sampled) -> Mapping[str, Any]:
        """Those logits whose probabilities or scores are told."""
        return {**super().inputs(of_model), "is_processed": _kinds_of_logits(of_model)}

    def dispatch(self, *, of_model: Sampled, is_lone: bool, is_processed: bool) -> CompileKey:
        """As `compute_topk_scores` launches it."""
        return self.CompileKey(
            dtype="float32" if is_processed else of_model.dtype,
            logits_stride=IntClass.of(of_model.row_stride(is_processed=is_processed, is_lone=is_lone)),
            vocab_size=IntClass.of(of_model.vocab_size),
        )

    def launch_args(self, key: CompileKey) -> dict[str, Any]:
        """What the launch passes."""
        return {
            **self.named(key),
            "output_ptr": TensorSpec("int64", ("tokens",)),
            "logits_ptr": TensorSpec(key.dtype, ("tokens", "vocab")),
            "token_ids_ptr": TensorSpec("int64", ("tokens",)),
        }


def _room(of_model: Sampled) -> int:
    """Tokens from one request's row of all its tokens to the next one's."""
    if of_model.max_model_len is None:
        raise Unresolved(
            "the length that a request may reach decides this kernel, and nobody has said it", "set max_model_len"
        )
    return of_model.max_model_len


def _kinds_of_logits(of_model: Sampled) -> Choices:
    """Whether logits are told before they are processed, or after, where a step may have nothing to process."""
    return Choices(False, True) if of_model.logprobs_mode.startswith("processed") else Choices(False)


def kernels() -> list[JitKernel]:
    """Every declaration, or why not."""
    return [declared(kind) for kind in (MinP, Penalties, Bincount, BadWords, LogitBias, Logprobs, Ranks)]
