"""Projections that the masks share: their weights are summed before the products."""
