"""Adapters over the real compilers, one package each; underscored, so that none shadows the compiler it adapts.

An adapter imports its compiler inside functions only, knows the contract and the author's base classes and nothing else of
jitwarm, and keeps what differs between the compiler's versions in one module, `internals`.
"""
