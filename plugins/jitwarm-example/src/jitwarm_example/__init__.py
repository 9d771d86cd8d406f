"""Three kernels of the kind that serving uses, one per DSL, each with its declaration beside it."""
