"""Evaluation: scores of generated reports and of image-free baselines."""
