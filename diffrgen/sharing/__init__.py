"""Sharing a run: the model card, and the upload of the files that may be shared."""
