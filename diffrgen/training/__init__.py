"""Training: options and presets, preparation of a run, the loop, its log, its checkpoints and its ends."""
