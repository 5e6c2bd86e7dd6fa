"""Thin assemblies of data, model, objective and loop: what the shell's commands run."""
