"""The web page and the API of a run: uploads that leave no trace, one queue for the model, a report with its reasons."""

from __future__ import annotations

from diffrgen.serving.options import ServeOptions, UploadLimits
from diffrgen.serving.server import serve

__all__ = ["ServeOptions", "UploadLimits", "serve"]
