"""Bundle an encoder that was distilled on raw text: in int8, with the declaration of a sentence encoder.

    python runs/bundle_encoder.py RUN NAME

RUN is the folder of a finished run of `pocketbert distill --task feature-extraction`, NAME the name of the bundled
model, whose folder in src/pocketbert/bundled is replaced, but for its card, README.md. Vectors are the normalised mean
of the last hidden states, as training compared them. The emoji of emoji.tsv take places of the vocabulary that BERT
left unused, alone and inside words, each with the mean vector of the words beside it. Of the paths in run.json the last
parts remain. Of the tokenizer, vocab.txt is kept, which says all in a third of the bytes of tokenizer.json.
"""

from __future__ import annotations

import argparse
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert.bundles import BUNDLED
from pocketbert.checkpoints import read_tensors, write_tensors, write_text
from pocketbert.runtime.quantized_folders import quantize_folder

MOST_TOKENS = 256  # that an input of a sentence encoder is cut to; training saw 128
MODULES = ("Transformer", "Pooling", "Normalize")


def teach_emoji(folder: Path) -> int:
    """Give emoji the vectors of words, in a folder with BERT's vocabulary; return how many tokens that makes."""
    tensors, vocabulary = read_tensors(folder), (folder / "vocab.txt").read_text(encoding="utf-8").splitlines()
    table = tensors[next(name for name in tensors if name.endswith("word_embeddings.weight"))]
    numbers = {word: number for number, word in enumerate(vocabulary)}
    unused = (number for number, word in enumerate(vocabulary) if word.startswith("[unused"))
    lines = (Path(__file__).parent / "emoji.tsv").read_text(encoding="utf-8").splitlines()
    taken = 0
    for emoji, words in (line.split("\t") for line in lines):
        if emoji in numbers:  # of a run that went on from the bundled encoder
            continue
        vector = np.mean([table[numbers[word]] for word in words.split()], axis=0)
        for token in (emoji, f"##{emoji}"):
            number = next(unused)
            vocabulary[number], table[number] = token, vector
            taken += 1
    write_tensors(folder / "model.safetensors", tensors)
    write_text(folder / "vocab.txt", "\n".join(vocabulary) + "\n")
    return taken


def declare(folder: Path, width: int) -> None:
    """Write what sentence-transformers reads: mean pooling, and vectors of length 1."""
    kinds = [
        {"idx": index, "name": str(index), "path": f"{index}_{name}" if index else "",
         "type": f"sentence_transformers.models.{name}"}
        for index, name in enumerate(MODULES)
    ]  # fmt: skip
    pooling = {"word_embedding_dimension": width, "pooling_mode_mean_tokens": True}
    limits = {"max_seq_length": MOST_TOKENS, "do_lower_case": False}
    for name, content in (
        ("modules.json", kinds), ("1_Pooling/config.json", pooling), ("sentence_bert_config.json", limits)
    ):  # fmt: skip
        write_text(folder / name, json.dumps(content, indent=1) + "\n")


def without_folders(value: Any) -> Any:
    """The value with absolute paths reduced to their last part."""
    if isinstance(value, dict):
        return {key: without_folders(one) for key, one in value.items()}
    if isinstance(value, list):
        return [without_folders(one) for one in value]
    return Path(value).name if isinstance(value, str) and Path(value).is_absolute() else value


def main() -> None:
    """Quantise RUN into the bundled folder."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("run", type=Path)
    parser.add_argument("name")
    options = parser.parse_args()
    bundled = BUNDLED / options.name
    with tempfile.TemporaryDirectory() as temporary:
        folder, original = Path(temporary) / "int8", Path(temporary) / "fp32"
        shutil.copytree(options.run, original, ignore=shutil.ignore_patterns("checkpoints", "tokenizer.json", "runs"))
        print(f"{teach_emoji(original)} tokens of emoji")
        quantize_folder(original, folder)
        width = json.loads((folder / "config.json").read_text())["hidden_size"]
        declare(folder, width)
        record = without_folders(json.loads((folder / "run.json").read_text()))
        write_text(folder / "run.json", json.dumps(record, indent=1) + "\n")
        card = bundled / "README.md"
        if card.exists():
            shutil.copy(card, folder)
        shutil.rmtree(bundled, ignore_errors=True)
        shutil.copytree(folder, bundled)
    size = sum(file.stat().st_size for file in bundled.rglob("*") if file.is_file())
    print(f"{bundled.name}: {size / 1e6:.1f} MB")


if __name__ == "__main__":
    main()
