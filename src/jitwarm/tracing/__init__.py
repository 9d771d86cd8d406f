"""From a dispatch function and the declared spaces of its inputs to the set of reachable compile keys.

source -> lift         the function's syntax tree, rewritten so that it can run on symbols (refusals: what cannot be)
runs -> spans          boxes of inputs: intervals with residues
periodic -> nodes      numbers as functions of a point with what is proven of them
cuts -> engine         deciding tests for whole boxes, splitting the boxes
symbols, calls         what a lifted function computes with, and calls
search -> expand       regions, confirmed by the real function; the public functions
    explanation        regions for people
definition             what no tracing can honour, told where a class is defined
places                 the author's line with a caret, for messages
"""

from jitwarm.tracing.expand import Trace, collected_traces, trace, trace_dispatch
from jitwarm.tracing.explanation import Explanation, explain, explanation_of, noted
from jitwarm.tracing.search import Region

__all__ = [
    "Explanation",
    "Region",
    "Trace",
    "collected_traces",
    "explain",
    "explanation_of",
    "noted",
    "trace",
    "trace_dispatch",
]
