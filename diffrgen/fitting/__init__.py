"""Fitting weights, whatever they are of: the optimiser, the order of a pass, the loop over steps, and how it is resumed."""
