"""The web page and the API of a run: uploads are not stored, one queue serves the model, reports are explained."""

from __future__ import annotations

from diffrgen.serving.options import ServeOptions, UploadLimits
from diffrgen.serving.server import serve

__all__ = ["ServeOptions", "UploadLimits", "serve"]
