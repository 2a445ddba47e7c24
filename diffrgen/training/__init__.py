"""Training: options and presets, preparation of a run, the loop, its log and its checkpoints."""
