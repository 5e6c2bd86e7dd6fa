"""Reports on models: one page each, and the comparison of two."""
