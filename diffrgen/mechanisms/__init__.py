"""Which inputs a trained network uses: its losses with one part taken from another study."""
