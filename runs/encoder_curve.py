"""The curve of an encoder that was distilled on raw text in pieces: tokens, losses and zero-shot correlation.

    python runs/encoder_curve.py NAME RUN...

NAME is that of the bundled model, each RUN the folder of a run of `pocketbert distill --task feature-extraction`, in
the order in which they continued each other: its evaluations, with the tokens of all steps so far, in
benchmarks/results.
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmarks"))
from common import write_results

MEASURES = ("loss", "hidden_loss", "sentence_loss", "masked_loss", "masked_accuracy", "pair_loss", "dev_spearman")


def rows(folders: list[Path]) -> list[dict[str, Any]]:
    """One row per evaluation. A run that starts at a step above 0 goes on with the steps of the one before it."""
    found: list[dict[str, Any]] = []
    done = before = 0
    for folder in folders:
        run = json.loads((folder / "run.json").read_text())
        history, options = run["history"], run["options"]
        per_step = options["batch_size"] * options["max_length"]
        if not options["resume_from"]:
            done, before = before, 0
        for entry in history:
            measures = {name: round(entry[name], 4) if name in entry else "" for name in MEASURES}
            tokens = done + entry["step"] * per_step
            found.append(
                {"phase": folder.name, "step": entry["step"], "million tokens": round(tokens / 1e6, 2), **measures}
            )
            before = tokens
    return found


if __name__ == "__main__":
    write_results(f"encoder_{sys.argv[1]}", rows([Path(name) for name in sys.argv[2:]]))
