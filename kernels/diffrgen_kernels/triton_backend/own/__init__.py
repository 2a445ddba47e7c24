"""Own projections for each mask, and every call that the other families have no kernels for."""
