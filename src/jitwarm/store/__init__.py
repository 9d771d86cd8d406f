"""The store: the compilers' own disk caches under one root, and a manifest that says what is in them.

A store directory is code: whoever can write it decides what runs on the GPU. So it is private (mode 0700), and one that
others can write is refused.
"""

from jitwarm.store.records import Recorder, read_records
from jitwarm.store.store import Entry, Store, write_json
from jitwarm.store.tuned import TunedRecord, TunedStore

__all__ = ["Entry", "Recorder", "Store", "TunedRecord", "TunedStore", "read_records", "write_json"]
