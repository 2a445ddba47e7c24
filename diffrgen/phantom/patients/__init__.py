"""The truth: patients, their anatomy, and the exact state of each of their studies."""
