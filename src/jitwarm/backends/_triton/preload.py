"""What a compile process for Triton has done before it forks: imported by name in a template, nowhere else.

Triton's cache key begins with a hash over Triton's own libraries, several hundred megabytes, made once per process. Made here,
every forked worker has it.
"""

import contextlib

import triton
import triton.compiler
import triton.language
from triton.backends import backends

for name in backends:
    with contextlib.suppress(Exception):  # a compiler that does not import here says why when it is needed
        __import__(f"triton.backends.{name}.compiler")
with contextlib.suppress(AttributeError):  # where it lies is no public interface; then each worker makes it
    triton.runtime.cache.triton_key()
