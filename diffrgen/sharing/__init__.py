"""Sharing a run: the model card that tells what it is, and the upload of what may be shared."""
