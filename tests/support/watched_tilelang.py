"""Call TileLang's own factory, watched by the adapter: `python watched_tilelang.py N`. Prints what was seen, as JSON."""

import json
import sys

import tilelang_kernels

from jitwarm import Target
from jitwarm.backends._tilelang import TileLangBackend

backend, seen = TileLangBackend(), []
with backend.pin(Target("cuda", "90")), backend.watch(seen.append):
    tilelang_kernels.lazy_add(N=int(sys.argv[1]))
    tilelang_kernels.lazy_add(N=int(sys.argv[1]))  # warm by now
print(json.dumps([(one.what, one.function, one.specialization) for one in seen]))
