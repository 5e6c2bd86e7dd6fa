"""Bulk inference: tables of any size through the pipelines, on several processes or machines."""
