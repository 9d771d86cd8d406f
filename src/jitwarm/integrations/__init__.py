"""Servers that jitwarm warms: each finds us in its own way, and each has its own place in its start."""
