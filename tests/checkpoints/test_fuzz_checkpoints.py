import subprocess
import sys
from pathlib import Path

SCRIPT = Path(__file__).parents[2] / "scripts" / "fuzz_checkpoints"


def test_a_few_hundred_damaged_files() -> None:
    """The script takes any number; it checks that each ends in a `CheckpointError` or in the right tensors."""
    command = [sys.executable, str(SCRIPT), "--inputs", "300", "--seed", "1"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("300 inputs with seed 1: ")
    assert "none wrong" in done.stdout
