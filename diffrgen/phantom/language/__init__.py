"""The reports: `grammar` writes them in the wordings of `wordings/*.json`, `parser` reads them back."""
