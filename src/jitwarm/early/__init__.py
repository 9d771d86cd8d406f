"""Keys are built while a server loads its weights, by one process per node that is no part of the server.

    worker, rank 0: EarlyBuilder --- spec, "loaded", "at the seam" ---> python -m jitwarm.early   has the node's turn, builds
    worker, rank 1: EarlyBuilder -------------------------------------> python -m jitwarm.early   waits for its turn, asleep

A builder is to a bake what a bake is to a user: it plans the same configuration and builds into the same store, each key under
the key's lock. So nothing has to be handed over: a worker finds in the store what was built, waits for what is being built, and
builds the rest. If a builder dies the next one has its turn; when a worker ends, its builder ends with it.
"""

from jitwarm.early.behind import Behind
from jitwarm.early.handle import EarlyBuilder, Spec

__all__ = ["Behind", "EarlyBuilder", "Spec"]
