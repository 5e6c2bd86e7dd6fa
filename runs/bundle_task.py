"""Bundle a task model that was made from the bundled encoder: in int8, without the tensors that the encoder has.

    python runs/bundle_task.py RUN NAME

RUN is the folder of a finished run with `--freeze embeddings`, NAME the name of the bundled model, whose folder in
src/pocketbert/bundled is replaced, but for its card, README.md. Of the paths in run.json the last parts remain.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from bundle_encoder import without_folders

from pocketbert.bundles import BUNDLED
from pocketbert.checkpoints import write_text
from pocketbert.runtime.quantized_folders import quantize_folder

FILES = ("config.json", "model.safetensors", "tokenizer_config.json", "vocab.txt")


def main() -> None:
    """Quantise RUN into the bundled folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    options = parser.parse_args()
    bundled = BUNDLED / options.name
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary) / "int8"
        quantize_folder(options.run, folder, share=True)
        bundled.mkdir(exist_ok=True)
        for name in FILES:
            shutil.copy(folder / name, bundled)
        record = without_folders(json.loads((folder / "run.json").read_text()))
        write_text(bundled / "run.json", json.dumps(record, indent=1) + "\n")
    size = sum(file.stat().st_size for file in bundled.rglob("*") if file.is_file())
    print(f"{bundled.name}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
