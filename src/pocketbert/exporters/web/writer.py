"""Writes folders for browsers and Node, which the npm package `pocketbert` loads."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

import pocketbert
from pocketbert.checkpoints.checksums import with_checksums
from pocketbert.checkpoints.files import atomic_write, write_text
from pocketbert.decisions import stated_thresholds
from pocketbert.decode import unit
from pocketbert.errors import ConfigError
from pocketbert.exporters.options import ExportOptions
from pocketbert.exporters.source import Source
from pocketbert.exporters.web.plans import as_json
from pocketbert.exporters.writer import Writer
from pocketbert.runtime.plan import Plan, Rows, operations_of, tensors_of
from pocketbert.runtime.quantize import quantize
from pocketbert.tokenization import BertTokenizer

VERSION = 1  # of the folder; the package reads its own version only
MODEL, TENSORS, VOCABULARY = "model.json", "model.safetensors", "vocab.txt"


class WebWriter(Writer):
    """Writes folders of `model.json`, `model.safetensors` and `vocab.txt`.

    The first has the plan, the options of the tokenizer and whatever decoding needs: labels, thresholds, pooling. The
    second has the tensors in the order in which steps need them, so that a reader builds the program while it arrives.
    In int8 a quantized model keeps its int8 weights.

    Raises:
        ConfigError: the model has a tokenizer or a layer that the package lacks.
    """

    def __init__(self, source: Source, options: ExportOptions) -> None:
        super().__init__(source, options)
        self.described = described(source)

    def write(self, path: Path, precision: str) -> None:
        """Write the model in one precision."""
        plan = self._plan(precision)
        vocabulary = self.source.tokenizer.get_vocab()
        words = "".join(f"{token}\n" for token in sorted(vocabulary, key=vocabulary.__getitem__))
        write_text(path / VOCABULARY, words)
        write_tensors_in_order(path / TENSORS, {name: plan.tensors[name] for name in _order(plan)})
        written = {
            "format": "pocketbert web",
            "version": VERSION,
            "written_by": pocketbert.__version__,
            "precision": precision,
            "files": {name: _identity(path / name) for name in (TENSORS, VOCABULARY)},
            **self.described,
            "plan": as_json(plan),
        }
        write_text(path / MODEL, json.dumps(written, ensure_ascii=False, separators=(",", ":")) + "\n")

    def _plan(self, precision: str) -> Plan:
        source = self.source
        if precision == "fp32":
            return source.fp32_plan
        return source.plan if source.config.quantized else quantize(source.fp32_plan)


def described(source: Source) -> dict[str, Any]:
    """What an answer depends on beside the plan and the vocabulary."""
    return {
        "head": source.head,
        "model": type(source.config).__name__.removesuffix("Config") + source.head,
        "labels": [source.config.id2label[i] for i in sorted(source.config.id2label)],
        "problem_type": source.config.problem_type,
        "thresholds": stated_thresholds(source.config),
        "calibration": source.config.extra.get("calibration"),
        "sentences": _sentences(source) if source.head == "Model" else None,
        "tokenizer": _tokenizer(source),
    }


def _identity(path: Path) -> dict[str, Any]:
    """Size and digest of a file, by which caches tell its versions apart."""
    with path.open("rb") as file:
        return {"bytes": path.stat().st_size, "sha256": hashlib.file_digest(file, "sha256").hexdigest()}


def _order(plan: Plan) -> list[str]:
    """The names of the tensors in the order in which steps need them."""
    names: dict[str, None] = {}
    for stage in plan.stages:
        for operation in operations_of(stage):
            if isinstance(stage, Rows):
                names.update(dict.fromkeys(tensors_of(operation)))  # type: ignore[arg-type]
            elif (bias := getattr(operation, "bias", None)) is not None:
                names[bias] = None
    return list(names)


def write_tensors_in_order(path: Path, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file with checksums whose tensors lie as they are given; the library would sort them."""
    types = {np.dtype(np.float32): "F32", np.dtype(np.int8): "I8"}
    rows = {name: np.ascontiguousarray(array) for name, array in tensors.items()}
    ends = np.cumsum([array.nbytes for array in rows.values()], dtype=np.int64).tolist()
    header = {
        name: {"dtype": types[array.dtype], "shape": array.shape, "data_offsets": [end - array.nbytes, end]}
        for (name, array), end in zip(rows.items(), ends, strict=True)
    }
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    with atomic_write(path) as file:
        file.writelines(with_checksums(len(text).to_bytes(8, "little") + text + b"".join(map(bytes, rows.values()))))


def _tokenizer(source: Source) -> dict[str, Any]:
    """What decides how texts become token ids, besides the vocabulary."""
    tokenizer = source.tokenizer
    _refuse_tokenizer(source.model, tokenizer)
    vocabulary = tokenizer.get_vocab()
    return {
        "lower_case": bool(tokenizer.do_lower_case),
        "strip_accents": bool(tokenizer.do_lower_case if tokenizer.strip_accents is None else tokenizer.strip_accents),
        "chinese": bool(tokenizer.tokenize_chinese_chars),
        "clean_text": bool(tokenizer.clean_text),
        "prefix": tokenizer.wordpieces_prefix,
        "longest_word": tokenizer.most_characters,
        "cls": tokenizer.cls_token_id,
        "sep": tokenizer.sep_token_id,
        "pad": tokenizer.pad_token_id,
        "mask": tokenizer.mask_token_id,
        "unknown": tokenizer.unk_token_id,
        "words": tokenizer.vocab_size,  # of the vocabulary; the added tokens behind them are none of its
        "special": [vocabulary[token] for token in tokenizer.all_special_tokens],
        "added": [
            {
                "id": vocabulary[token.content],
                "normalized": token.normalized,
                "takes_left": token.lstrip,
                "takes_right": token.rstrip,
            }
            for token in tokenizer.added_tokens
        ],
        "max_length": source.max_tokens,
        "truncation_side": tokenizer.truncation_side,
    }


def _refuse_tokenizer(model: str | Path, tokenizer: BertTokenizer) -> None:
    """Raise `ConfigError` unless texts are split as by BERT: the package has no other tokenizer."""
    name = type(tokenizer).__name__
    if not tokenizer.knows_words:
        raise ConfigError(f"{model} has a {name}, and the web format supports only WordPiece: export it to onnx")
    if not tokenizer.splits_as_bert:
        raise ConfigError(
            f"{model} has a {name} with steps that BERT's lacks, and the web format supports only BERT's: export it "
            f"to onnx"
        )
    if max(tokenizer.get_vocab().values()) >= len(tokenizer):
        raise ConfigError(f"{model} has a {name} whose ids have gaps, which the web format does not support")
    if tokenizer.wordpieces_prefix != "##":  # by which the package knows where words begin
        raise ConfigError(
            f"{model} has a {name} with pieces that begin with {tokenizer.wordpieces_prefix!r}, and the web format "
            f"supports only ##: export it to onnx"
        )
    if alone := [token.content for token in tokenizer.added_tokens if token.single_word]:
        raise ConfigError(
            f"{model} has a {name} with added tokens that must be separate words, such as {alone[0]!r}, which the "
            f"web format does not support: export it to onnx"
        )


def _sentences(source: Source) -> dict[str, Any]:
    """How the vectors of an encoder are meant to be made."""
    declared = source.declared
    if any(layer is not unit for layer in declared.layers):
        names = ", ".join(type(layer).__name__ for layer in declared.layers if layer is not unit)
        raise ConfigError(
            f"{source.model} has layers after its pooling ({names}), which the web format does not support"
        )
    return {
        "pooling": declared.poolings,
        "include_prompt": declared.pooling is None or declared.pooling.include_prompt,
        "normalize": declared.has_unit_length,
        "prompts": dict(declared.prompts),
        "default_prompt": declared.default_prompt,
        "dimensions": declared.dimensions,
        "similarity": declared.similarity,
    }
