"""LiteRT files, for phones."""
