"""Data sources: one module per source, one protocol."""
