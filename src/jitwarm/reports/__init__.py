"""Reports on a start, made from its event log alone: for a terminal, for machines, for Perfetto, for a browser; and the CI gate.

reading -> folding -> one model of the start (`start.Start`) -> terminal | document | trace | page | difference | gate
"""
