"""Exporters: models as files for other engines, each verified by running it."""
