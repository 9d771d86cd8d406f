"""vLLM's own kernels, declared for jitwarm: what each can become is derived from vLLM's host code, and compiled ahead of use.

The way through this package: `plugin` (what is declared) -> one module per family of kernels -> `real` (vLLM's kernels on a
machine with no GPU) and `platform` (whose answers vLLM's host code gets there).
"""
