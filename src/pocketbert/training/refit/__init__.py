"""Initialisation of a student by least squares: its matrices are fitted to what its teacher computes for a text."""
