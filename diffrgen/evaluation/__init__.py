"""Evaluation: reports written for studies or images, scored beside blind baselines."""
