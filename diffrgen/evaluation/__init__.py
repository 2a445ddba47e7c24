"""Evaluation: generated reports scored beside image-free baselines."""
