"""`CrossEncoder`: scores of pairs of texts under the call signature of sentence-transformers, on the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from pocketbert import decode
from pocketbert.checkpoints.hub import hub_token
from pocketbert.errors import CheckpointError, InputError
from pocketbert.features import Features, encode_texts
from pocketbert.pipelines.base import Output, alone
from pocketbert.pipelines.texts import TextClassification
from pocketbert.runtime.engine import Engine
from pocketbert.runtime.stream import Job
from pocketbert.sentences.activations import ACTIVATIONS, Activation
from pocketbert.sentences.arguments import (
    as_inputs,
    check_call,
    check_loading,
    choose_prompt,
    full_name,
    read_activation,
    with_progress,
)
from pocketbert.sentences.declared import Declared, read_declared
from pocketbert.tokenization import BertTokenizer
from pocketbert.windows import encode_long_texts, mean


class CrossEncoder:
    """A model that scores pairs of texts, with the arguments and results that it has in sentence-transformers.

    Args:
        model_name_or_path: a folder, or a name on the hub, whose organisation is cross-encoder if it has none.
        num_labels: must be the number of labels that the model has.
        max_length: number of tokens that a pair is cut to, if fewer than the model takes.
        activation_fn: function of the logits, a callable or the name of a module of `torch.nn`. Default: as declared,
            the sigmoid for one label, none for several.
        prompts: name → text to put before the first text of a pair, beside those that the folder declares.
        default_prompt_name: of the prompt for calls that choose none.
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
        activation_fn: function of the logits, an array.
        num_labels: number of labels.

    Raises:
        CheckpointError: the model cannot be read, has no trained head, or declares what is not supported.
        InputError: an argument that cannot be meant.
    """

    def __init__(
        self,
        model_name_or_path: str | Path,
        num_labels: int | None = None,
        max_length: int | None = None,
        activation_fn: Any = None,
        *,
        prompts: Mapping[str, str] | None = None,
        default_prompt_name: str | None = None,
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
            declared = read_declared(full_name(model_name_or_path, "cross-encoder"), **where)
            if declared.pooling is not None:
                raise CheckpointError(f"{model_name_or_path} declares a pooling: it is a sentence encoder")
            engine = Engine.from_pretrained(declared.encoder, TextClassification.head, **where)
            tokenizer = declared.read_tokenizer(**where)
        assert engine.config is not None
        if max_length is not None:
            tokenizer.model_max_length = max_length
        self.pipeline = TextClassification(engine, tokenizer, engine.config)
        self.num_labels = engine.config.num_labels
        if num_labels not in (None, self.num_labels):
            raise InputError(f"num_labels={num_labels}: the model has {self.num_labels}")
        self.activation_fn = _activation(activation_fn, declared, engine.config.extra, self.num_labels)
        self.prompts = {**declared.prompts, **(prompts or {})}
        self.default_prompt_name = declared.default_prompt if default_prompt_name is None else default_prompt_name
        choose_prompt(self.prompts, None, self.default_prompt_name)

    @property
    def tokenizer(self) -> BertTokenizer:
        """The tokenizer."""
        return self.pipeline.tokenizer

    @property
    def max_seq_length(self) -> int:
        """Number of tokens that a pair is cut to, of the longer text first; older versions call it `max_length`."""
        return self.pipeline.max_length

    max_length = max_seq_length

    def predict(
        self,
        inputs: Any = None,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Any = None,
        apply_softmax: bool = False,
        convert_to_numpy: bool = True,
        convert_to_tensor: bool = False,
        device: Any = None,
        pool: Any = None,
        chunk_size: int | None = None,
        *,
        sentences: Any = None,
        windows: bool = False,
    ) -> Any:
        """The scores of a pair of texts, or of several pairs. Where pairs were cut, one line of the log says how many.

        Args:
            inputs: a pair (text, text), or an iterable of pairs.
            prompt_name: of the prompt to put before the first texts. Default: the model's default prompt.
            prompt: that prompt itself.
            batch_size: taken; the engine forms its own batches, and no result depends on them.
            show_progress_bar: on standard error. Default: where the log is as verbose as INFO.
            activation_fn: as for the class. Default: that of the model.
            apply_softmax: scores of several labels add up to 1.
            convert_to_numpy: False returns a list.
            convert_to_tensor: False.
            device: None or "cpu".
            pool: None.
            chunk_size: taken, and changes nothing without `pool`.
            sentences: another name of `inputs`.
            windows: read pairs longer than the model's input whole: the mean of the logits of the windows of the longer
                text, weighted by tokens. This argument is PocketBERT's own.

        Returns:
            An array [pairs] for a model of one label, otherwise [pairs, labels]; of one pair without the first axis.

        Raises:
            InputError: an input that is not a pair of texts, or an argument that cannot be meant.
        """
        check_call(batch_size=batch_size, convert_to_tensor=convert_to_tensor, device=device, pool=pool)
        given = sentences if inputs is None else inputs
        if isinstance(given, str):
            raise InputError(f"an input must be a pair of texts, not {given!r:.80}")
        pairs = as_inputs(given)
        single = bool(pairs) and isinstance(pairs[0], str)
        pairs = [pairs] if single else pairs
        activation = self.activation_fn if activation_fn is None else read_activation(activation_fn)
        before = choose_prompt(self.prompts, prompt, prompt_name, self.default_prompt_name)
        results = self.pipeline.noting(self.pipeline.run(pairs, self.job(before, windows=windows)))
        rows = [answer.value for answer in with_progress(results, len(pairs), show_progress_bar)]
        if not rows:
            return np.array([]) if convert_to_numpy else []
        scores = np.asarray(activation(np.stack(rows)), dtype=np.float32)
        if self.num_labels == 1 and scores.ndim > 1:
            scores = scores[:, 0]
        if apply_softmax and scores.ndim > 1:
            scores = decode.softmax(scores)
        if single:
            return scores[0]
        return scores if convert_to_numpy else list(scores)

    def job(self, prompt: str = "", *, windows: bool = False) -> Job:
        """The job of `pipeline.run`: pairs in, logits [labels] out, with `prompt` before the first texts."""
        pipeline = self.pipeline

        def encode(inputs: list[Any]) -> list[list[Features]]:
            for position, one in enumerate(inputs):
                if not isinstance(one, list | tuple | np.ndarray) or len(one) != 2:
                    raise InputError(f"an input must be a pair of texts, not {one!r:.80}", position)
            firsts = [f"{prompt}{first}" if isinstance(first, str) else first for first, _ in inputs]
            seconds = [second for _, second in inputs]
            if windows:
                return encode_long_texts(pipeline.tokenizer, firsts, seconds, max_length=pipeline.max_length)
            return alone(encode_texts(pipeline.tokenizer, firsts, seconds, max_length=pipeline.max_length))

        def read(pair: Any, features: Sequence[Features], outputs: Sequence[Output]) -> np.ndarray:
            return mean(features, [pipeline.array(output, "logits", 1) for output in outputs])

        return Job(encode, read)

    def rank(
        self,
        query: str,
        documents: Sequence[str],
        top_k: int | None = None,
        return_documents: bool = False,
        prompt_name: str | None = None,
        prompt: str | None = None,
        batch_size: int = 32,
        show_progress_bar: bool | None = None,
        activation_fn: Any = None,
        device: Any = None,
        pool: Any = None,
        chunk_size: int | None = None,
        *,
        windows: bool = False,
    ) -> list[dict[str, Any]]:
        """Documents by how well they answer a query, as `{"corpus_id", "score"}`, with `return_documents` also "text".

        `top_k` keeps the best ones; the other arguments are those of `predict`.

        Raises:
            InputError: the model has several labels, or an input or argument as for `predict`.
        """
        if self.num_labels != 1:
            raise InputError(f"rank needs a model with one label; this one has {self.num_labels}: use predict")
        if isinstance(documents, str):
            raise InputError("documents must be several texts, not one")
        texts = as_inputs(documents)
        scores = self.predict(
            [(query, text) for text in texts], prompt_name, prompt, batch_size, show_progress_bar, activation_fn,
            device=device, pool=pool, windows=windows,
        )  # fmt: skip
        ranked = sorted(enumerate(np.asarray(scores).tolist()), key=lambda item: -item[1])
        return [
            {"corpus_id": index, "score": score, **({"text": texts[index]} if return_documents else {})}
            for index, score in ranked[:top_k]
        ]


def _activation(given: Any, declared: Declared, extra: Mapping[str, Any], labels: int) -> Activation:
    """The function of a model's scores: as given, as declared by newer or older versions, or the usual one."""
    newer = extra.get("sentence_transformers")
    names = (
        declared.activation,
        newer.get("activation_fn") if isinstance(newer, dict) else None,
        extra.get("sbert_ce_default_activation_function"),
    )
    chosen = next((name for name in (given, *names) if name is not None), None)
    return ACTIVATIONS["Sigmoid" if labels == 1 else "Identity"] if chosen is None else read_activation(chosen)
