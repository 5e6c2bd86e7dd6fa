"""Passages ranked by how well they answer a query: by a cross encoder, or by the vectors of a sentence encoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from pocketbert.configs import AutoConfig
from pocketbert.errors import ConfigError
from pocketbert.pipelines.base import Pipeline
from pocketbert.runtime.stream import PAUSE, Answer, Job
from pocketbert.sentences.arguments import choose_prompt
from pocketbert.sentences.cross_encoder import CrossEncoder
from pocketbert.sentences.declared import read_declared
from pocketbert.sentences.sentence_transformer import SentenceTransformer
from pocketbert.sentences.vectors import similarity


class Ranker:
    """Scores passages for a query as they are read; the model's head says how.

    Args:
        model: a folder or a hub name.

    Attributes:
        kind: "cross-encoder" or "sentence-encoder".
        max_length: number of tokens that an input is cut to.
        cut_note: as of pipelines.
        whole_texts: as of pipelines.

    Raises:
        CheckpointError: the model cannot be read, or declares what is not supported.
        ConfigError: the model is a classifier with several labels.
    """

    def __init__(self, model: str | Path) -> None:
        declared = read_declared(model)
        config = AutoConfig.from_pretrained(declared.encoder)
        self.model: CrossEncoder | SentenceTransformer
        if declared.pooling is None and config.saved_head == "ForSequenceClassification":
            if config.num_labels != 1:
                raise ConfigError(f"{model} has {config.num_labels} labels: ranking needs a model with one label")
            self.model, self.kind = CrossEncoder(model), "cross-encoder"
        else:
            self.model, self.kind = SentenceTransformer(model), "sentence-encoder"
        self.pipeline: Pipeline = self.model.pipeline
        self.max_length, self.tokenizer = self.pipeline.max_length, self.pipeline.tokenizer
        self.cut_note, self.whole_texts = self.pipeline.cut_note, self.pipeline.whole_texts

    def stream(self, passages: Iterable[Any], *, query: str, windows: bool = False) -> Iterator[Answer]:
        """The score of each passage, in order, as a float; `runtime.stream.PAUSE` among them is passed on.

        With `windows`, what is longer than the model's input is read whole, as by the classes.
        """
        model = self.model
        if isinstance(model, CrossEncoder):
            pairs = (one if one is PAUSE else (query, one) for one in passages)
            made = model.job(choose_prompt(model.prompts, None, None, model.default_prompt_name), windows=windows)
            for answer in model.pipeline.run(pairs, made):
                yield answer._replace(value=float(model.activation_fn(answer.value)[0]))
            return
        vector, how = model.encode_query(query, windows=windows), model.similarity_fn_name
        job: Job = model.job(choose_prompt(model.prompts, None, "document"), windows=windows)
        for answer in model.pipeline.run(passages, job):
            yield answer._replace(value=float(similarity(vector, answer.value, how)[0, 0]))
