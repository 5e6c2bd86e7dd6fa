"""Model folders and hub names → configuration and tensors, and back. NumPy only: PyTorch is not needed here."""

from pocketbert.checkpoints.files import atomic_write, write_text
from pocketbert.checkpoints.folders import open_tensors, read_config, read_tensors
from pocketbert.checkpoints.hub import resolve
from pocketbert.checkpoints.names import match_names
from pocketbert.checkpoints.safetensors_files import write_tensors

__all__ = [
    "atomic_write",
    "match_names",
    "open_tensors",
    "read_config",
    "read_tensors",
    "resolve",
    "write_tensors",
    "write_text",
]
