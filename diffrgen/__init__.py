"""DiffRGenNet: difference-aware chest X-ray report generation (MIDL 2025)."""

__version__ = "0.1.0"
