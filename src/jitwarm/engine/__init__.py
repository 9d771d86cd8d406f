"""Plan, run, report.

`plan` makes one ordered, de-duplicated list of keys and touches nothing. `run` makes each key warm, one failure being one row.
The report is a function of the events that both emit.
"""
