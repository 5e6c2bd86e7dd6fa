"""`SentenceTransformer`: sentence encoders under the call signature of sentence-transformers, on the engine."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.checkpoints.hub import hub_token
from pocketbert.errors import InputError
from pocketbert.features import fit
from pocketbert.pipelines.texts import FeatureExtraction
from pocketbert.runtime.engine import Engine
from pocketbert.runtime.stream import Job
from pocketbert.sentences.arguments import (
    as_inputs,
    check_call,
    check_device,
    check_loading,
    choose_prompt,
    full_name,
    with_progress,
)
from pocketbert.sentences.declared import SIMILARITIES, read_declared
from pocketbert.sentences.vectors import PRECISIONS, quantize_vectors, similarity, similarity_pairwise
from pocketbert.tokenization import BertTokenizer

OUTPUTS = ("sentence_embedding", "token_embeddings")


class SentenceTransformer:
    """A sentence encoder, with the arguments and results that it has in sentence-transformers, as NumPy arrays.

    Args:
        model_name_or_path: a folder, or a name on the hub, whose organisation is sentence-transformers if it has none.
        prompts: name → text to put before a text, beside those that the folder declares.
        default_prompt_name: of the prompt for calls that choose none.
        similarity_fn_name: "cosine", "dot", "euclidean" or "manhattan". Default: as declared, "cosine" otherwise.
        truncate_dim: how many numbers of a vector are kept. Default: as declared, all otherwise.
        cache_folder: where downloads are kept.
        revision: a branch, tag or commit on the hub.
        local_files_only: never download.
        device: None or "cpu".
        backend: "torch", which is the default elsewhere; the engine runs the model.
        token: of the hub, where that of `hf auth login` or HF_TOKEN is not meant.
        trust_remote_code: False.
        model_kwargs: none.
        processor_kwargs: none.
        config_kwargs: none.
        modules: none.

    Attributes:
        pipeline: the pipeline that runs it.
        prompts: name → text that is put before a text.
        default_prompt_name: of the prompt for calls that choose none.
        truncate_dim: how many numbers of a vector are kept; None keeps all.

    Raises:
        CheckpointError: the model cannot be read, or declares a module or an option that is not supported.
        InputError: an argument that cannot be meant.
    """

    def __init__(
        self,
        model_name_or_path: str | Path,
        *,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
        similarity_fn_name: str | None = None,
        truncate_dim: int | None = None,
        cache_folder: str | Path | None = None,
        revision: str | None = None,
        local_files_only: bool = False,
        device: Any = None,
        backend: str = "torch",
        token: bool | str | None = None,
        trust_remote_code: bool = False,
        model_kwargs: Mapping[str, Any] | None = None,
        processor_kwargs: Mapping[str, Any] | None = None,
        config_kwargs: Mapping[str, Any] | None = None,
        modules: Any = None,
    ) -> None:
        check_loading(
            device=device, backend=backend, trust_remote_code=trust_remote_code, modules=modules,
            model_kwargs=model_kwargs, processor_kwargs=processor_kwargs, config_kwargs=config_kwargs,
        )  # fmt: skip
        where: dict[str, Any] = {
            "revision": revision, "cache_dir": cache_folder, "local_files_only": local_files_only
        }  # fmt: skip
        with hub_token(token):
            declared = read_declared(full_name(model_name_or_path, "sentence-transformers"), **where)
            engine = Engine.from_pretrained(declared.encoder, "Model", **where)
            tokenizer = declared.read_tokenizer(**where)
        assert engine.config is not None
        self.pipeline = FeatureExtraction(engine, tokenizer, engine.config, declared)
        self.prompts = {"query": "", "document": "", **declared.prompts, **(prompts or {})}
        self.default_prompt_name = declared.default_prompt if default_prompt_name is None else default_prompt_name
        if self.default_prompt_name is not None:
            choose_prompt(self.prompts, None, self.default_prompt_name)
        self.similarity_fn_name = similarity_fn_name or declared.similarity or "cosine"
        self.truncate_dim = declared.dimensions if truncate_dim is None else truncate_dim
        self.pipeline.declared = replace(declared, dimensions=None)  # an attribute here, which may be changed

    @property
    def tokenizer(self) -> BertTokenizer:
        """The tokenizer."""
        return self.pipeline.tokenizer

    @property
    def max_seq_length(self) -> int:
        """Number of tokens that texts are cut to; it may be set to fewer than the model takes."""
        return self.pipeline.max_length

    @max_seq_length.setter
    def max_seq_length(self, tokens: int) -> None:
        config = self.pipeline.config
        self.pipeline.tokenizer.model_max_length = tokens
        self.pipeline.max_length = fit(self.pipeline.tokenizer, config.max_tokens)

    @property
    def similarity_fn_name(self) -> str:
        """Name of the function of `similarity`: "cosine", "dot", "euclidean" or "manhattan"."""
        return self._similarity

    @similarity_fn_name.setter
    def similarity_fn_name(self, name: Any) -> None:
        name = getattr(name, "value", name)  # of sentence-transformers' enumeration
        if name not in SIMILARITIES:
            raise InputError(f"similarity_fn_name={name!r} must be one of {', '.join(map(repr, SIMILARITIES))}")
        self._similarity: str = name

    @property
    def device(self) -> str:
        """Always "cpu"."""
        return "cpu"

    def get_embedding_dimension(self) -> int:
        """The width of the vectors."""
        return self._width() if self.truncate_dim is None else min(self._width(), self.truncate_dim)

    def _width(self) -> int:
        """The width of vectors that are not truncated."""
        return len(self.pipeline.declared.vector(np.zeros((1, self.pipeline.config.hidden_size), np.float32)))

    get_sentence_embedding_dimension = get_embedding_dimension

    def encode(
        self,
        inputs: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        output_value: str = "sentence_embedding",
        precision: str = "float32",
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        normalize_embeddings: bool = False,
        truncate_dim: int | None = None,
        pool: Any = None,
        chunk_size: int | None = None,
        *,
        sentences: Any = None,
        windows: bool = False,
    ) -> Any:
        """Encode one text, or several. Where texts were cut, one line of the log says how many.

        Args:
            inputs: a text, or an iterable of texts.
            prompt_name: of the prompt to put before each text. Default: the model's default prompt.
            prompt: that prompt itself.
            batch_size: taken; the engine forms its own batches, and no result depends on them.
            show_progress_bar: on standard error. Default: where the log is as verbose as INFO.
            output_value: "sentence_embedding", or "token_embeddings" for the vectors of all tokens.
            precision: "float32", "int8", "uint8", "binary" or "ubinary"; see `vectors.quantize_vectors`.
            convert_to_numpy: False returns a list of vectors.
            convert_to_tensor: False.
            device: None or "cpu".
            normalize_embeddings: give every vector length 1, after it was truncated.
            truncate_dim: how many numbers of a vector are kept. Default: the attribute.
            pool: None.
            chunk_size: taken, and changes nothing without `pool`.
            sentences: another name of `inputs`.
            windows: read texts longer than the model's input whole: the mean of the vectors of their windows, weighted
                by tokens. This argument is PocketBERT's own.

        Returns:
            An array [texts, width], of one text [width]; of "token_embeddings" a list of arrays [tokens, width].

        Raises:
            InputError: an input that is not a text, or an argument that cannot be meant.
        """
        inputs = sentences if inputs is None else inputs
        check_call(batch_size=batch_size, convert_to_tensor=convert_to_tensor, device=device, pool=pool)
        for name, value, allowed in (("output_value", output_value, OUTPUTS), ("precision", precision, PRECISIONS)):
            if value not in allowed:
                raise InputError(f"{name}={value!r} must be one of {', '.join(map(repr, allowed))}")
        single = isinstance(inputs, str)
        texts = [inputs] if single else as_inputs(inputs)
        tokens = output_value == "token_embeddings"
        before = choose_prompt(self.prompts, prompt, prompt_name, self.default_prompt_name)
        job = self.job(before, tokens=tokens, normalize=normalize_embeddings, dimensions=truncate_dim, windows=windows)
        results = self.pipeline.noting(self.pipeline.run(texts, job))
        vectors = [answer.value for answer in with_progress(results, len(texts), show_progress_bar)]
        if tokens:
            return vectors[0] if single else vectors
        if not vectors:
            return np.array([]) if convert_to_numpy else []
        array = quantize_vectors(np.stack(vectors), precision)
        if single:
            return array[0]
        return array if convert_to_numpy else list(array)

    def job(
        self,
        prompt: str,
        *,
        tokens: bool = False,
        normalize: bool = False,
        dimensions: int | None = None,
        windows: bool = False,
    ) -> Job:
        """The job of `pipeline.run`: texts in, vectors [width] out, or those of all `tokens`, [tokens, width]."""
        if tokens:
            return self.pipeline.arrays(prompt=prompt, windows=windows)
        kept = self.truncate_dim if dimensions is None else dimensions
        width = None if kept is None else min(kept, self._width())
        return self.pipeline.arrays(
            pooling="declared", normalize=normalize, prompt=prompt, dimensions=width, windows=windows
        )

    def encode_query(
        self, inputs: Any = None, prompt_name: str | None = None, prompt: str | None = None, *args: Any, **options: Any
    ) -> Any:
        """Encode queries: `encode` with the prompt "query" where none is given."""
        if prompt_name is None and prompt is None:
            prompt_name = "query"
        return self.encode(inputs, prompt_name, prompt, *args, **options)

    def encode_document(
        self, inputs: Any = None, prompt_name: str | None = None, prompt: str | None = None, *args: Any, **options: Any
    ) -> Any:
        """Encode documents: `encode` with the prompt "document" where none is given."""
        if prompt_name is None and prompt is None:
            prompt_name = "document"
        return self.encode(inputs, prompt_name, prompt, *args, **options)

    def similarity(self, embeddings1: Any, embeddings2: Any) -> NDArray[np.float32]:
        """[m, n] similarities of all vectors of the first with all of the second."""
        return similarity(embeddings1, embeddings2, self.similarity_fn_name)

    def similarity_pairwise(self, embeddings1: Any, embeddings2: Any) -> NDArray[np.float32]:
        """[n] similarities of the vectors at the same place."""
        return similarity_pairwise(embeddings1, embeddings2, self.similarity_fn_name)

    def to(self, device: Any) -> SentenceTransformer:
        """The encoder itself; `device` must be "cpu"."""
        check_device(device)
        return self
