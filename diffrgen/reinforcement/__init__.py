"""Training a run further on the scores of the reports that it samples."""
