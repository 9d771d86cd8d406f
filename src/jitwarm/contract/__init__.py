"""What third parties may rely on: keys, spaces, descriptors, targets, and the protocols of kernels and backends.

Imports the standard library and `jitwarm.errors` only.
"""
