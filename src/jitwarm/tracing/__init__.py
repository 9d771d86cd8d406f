"""From a dispatch function and the declared spaces of its inputs to the set of reachable compile keys."""

from jitwarm.tracing.trace import Trace, Witness, collected_traces, trace, trace_dispatch

__all__ = ["Trace", "Witness", "collected_traces", "trace", "trace_dispatch"]
