"""Distillation: fine-tuning of a student on the outputs of teachers, besides the labels of the data.

The output folder is as of `finetune`, with `teachers/` in it: the cached outputs of the teachers, unless the options
name another folder. On raw text, an encoder is trained on the teachers' hidden states and attention.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from rich.console import Console

from pocketbert.configs import PreTrainedConfig
from pocketbert.corpus.calibration_text import calibration_text
from pocketbert.corpus.pretraining_batches import PackedBatch
from pocketbert.corpus.vocabulary import prune_vocabulary
from pocketbert.data.augment import augment_all
from pocketbert.data.batches import Batches
from pocketbert.data.logit_tables import LogitTable
from pocketbert.data.tables import Example, Table, read_table
from pocketbert.errors import ConfigError
from pocketbert.features import IGNORED, fit
from pocketbert.models import bf16
from pocketbert.models.predict import TorchPredictor
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.recipes.distill_options import DistillOptions
from pocketbert.recipes.epoch_run import EpochRun, FinetuneResult, MeasureLatency, carry_out
from pocketbert.recipes.finetune import FinetuneRun
from pocketbert.recipes.models import prepare_model, read_tokenizer
from pocketbert.recipes.teacher_models import TeacherModels
from pocketbert.tasks.base import EncodedTask
from pocketbert.tasks.classification import TextClassification, encode_table, table_texts
from pocketbert.tasks.evaluation import Scores
from pocketbert.tasks.raw_text import EncodedText, MaskedText, RawText
from pocketbert.tasks.similarity import Similarity
from pocketbert.tokenization import BertTokenizer
from pocketbert.training.callbacks import Callback
from pocketbert.training.encoder_distillation import EncoderDistillation
from pocketbert.training.engine_teachers import EngineTeacher, engine_teachers
from pocketbert.training.objectives import Objective
from pocketbert.training.state import latest_state
from pocketbert.training.teachers import BatchesWithTeacher, inputs_of


def distill(
    options: DistillOptions,
    *,
    console: Console | None = None,
    argv: Sequence[str] = (),
    measure_latency: MeasureLatency | None = None,
    callback: Callback | None = None,
) -> FinetuneResult:
    """Distil one or more teachers into a student, or resume such a run; alone or under `torchrun`.

    Args:
        options: teachers, student, data and hyperparameters.
        console: where to show progress: a bar on a terminal, lines otherwise; without a console lines go to the log.
        argv: the command, for `run.json`.
        measure_latency: measures the latency of the model folder, for the model card.
        callback: receives steps and evaluations, and may end the run.

    Raises:
        DataError: the data is invalid.
        ConfigError: options contradict each other, the model, or the run to resume; a teacher has other labels or
            another vocabulary; the cache is of other data or another teacher.
        CheckpointError: a model, training state or cache cannot be read or written, or the output folder is in use.
        TrainingInterrupted: SIGINT or SIGTERM arrived; the training state is saved.
        TrainingError: the loss is not finite.
    """
    kind = EncoderDistillationRun if options.task == RawText.name else DistillationRun
    return carry_out(kind, options, console=console, argv=argv, measure_latency=measure_latency, callback=callback)


class DistillationRun(FinetuneRun):
    """A run on labelled data whose targets are the labels and the outputs of teachers."""

    options: DistillOptions
    teachers: TeacherModels
    unlabelled: Table | None = None
    cached = False

    def read(self) -> None:
        """Read the data of the task, further texts without labels, and the teachers."""
        super().read()
        options, task = self.options, self.data
        if options.unlabelled is not None:
            assert isinstance(task, TextClassification)
            pair = task.train.columns.text_pair
            text = task.train.columns.text if pair is not None else None
            self.unlabelled = read_table(options.unlabelled, text=text, text_pair=pair, labelled=False)
        self.teachers = TeacherModels(options, task.head)
        self.tables = [LogitTable(path) for path in options.teacher_logits]

    def facts(self) -> dict[str, Any]:
        """Return the files and the teachers by hash."""
        further = {} if self.unlabelled is None else {"unlabelled": self.unlabelled.sha256()}
        tables = {"teacher_logits": [table.sha256() for table in self.tables]} if self.tables else {}
        return {**super().facts(), "teachers": self.teachers.hashes, **further, **tables}

    def prepare(self) -> tuple[BertTokenizer, PreTrainedModel]:
        """Return tokenizer and student, which may be initialised from the first teacher."""
        options = self.options
        starts = latest_state(self.folder / "checkpoints") is None
        pruned = self._pruned_tokenizer() if starts and options.keep_vocabulary is not None else None
        tokenizer, student = prepare_model(self.folder, options, self.data, self.log, pruned)
        self.teachers.fit(tokenizer, student.config, self.data.label_names(student.config), self.device, self.log)
        if starts and options.init is not None:
            self.teachers.initialise(student, self.log)
        return tokenizer, student

    def objective(self, model: PreTrainedModel) -> Objective:
        """Return all losses of the distillation."""
        return self.teachers.objective(model, cached=self.cached)

    def encode(self, tokenizer: BertTokenizer, config: PreTrainedConfig) -> EncodedTask[Any]:
        """Return the encoded data, with augmented and unlabelled texts."""
        encoded: EncodedTask[Any] = self.data.encode(tokenizer, config, self.max_length(config))
        if isinstance(self.data, TextClassification):
            return self._with_unlabelled_texts(self.data, encoded, tokenizer, config)
        return encoded

    def batches(self) -> Batches:
        """Return the training batches, with the cached outputs of the teachers where they can be cached."""
        options = self.options
        labelled = self.encoded.batches(batch_size=options.batch_size, parts=self.parts, seed=options.seed)
        caches = self.teachers.cache(
            inputs_of(labelled.features), self.console, self.log, self.processes, bf16=self.bf16
        )
        self.cached = bool(caches)
        return BatchesWithTeacher(labelled, caches) if caches else labelled

    # ── vocabulary and texts ──

    def _pruned_tokenizer(self) -> BertTokenizer:
        """Return the tokenizer of the options with only the most frequent tokens of the texts."""
        options = self.options
        assert options.tokenizer is not None
        assert options.keep_vocabulary is not None
        whole = read_tokenizer(options.tokenizer)
        if not whole.knows_words:
            raise ConfigError(
                f"--keep-vocabulary takes tokens out of WordPiece, and {options.tokenizer} has another model"
            )
        counts: Counter[int] = Counter()
        further = [] if self.unlabelled is None else table_texts(self.unlabelled)
        texts = chain(self.data.texts(), further)
        while part := list(islice(texts, 512)):
            encoded = whole(part, add_special_tokens=False, return_attention_mask=False, verbose=False)
            for ids in encoded["input_ids"]:
                counts.update(ids)
        vocabulary = prune_vocabulary(whole.get_vocab(), counts, options.keep_vocabulary)
        return BertTokenizer(vocab=vocabulary, model_max_length=whole.model_max_length, **whole.splitting)

    def _with_unlabelled_texts(
        self,
        task: TextClassification,
        encoded: EncodedTask[Example],
        tokenizer: BertTokenizer,
        config: PreTrainedConfig,
    ) -> EncodedTask[Example]:
        """Add augmented and unlabelled texts, which have no label, to the labelled ones; and logits from tables."""
        features: list[Any] = list(encoded.features)
        length = encoded.evaluation.max_length
        augmented = [Example(text, pair, None, 0) for text, pair in self._augmented(task.train, tokenizer)]
        if augmented:
            features += encode_table(replace(task.train, examples=augmented), tokenizer, length)
        if self.unlabelled is not None:
            features += encode_table(self.unlabelled, tokenizer, length)
        labels: Any = encoded.targets["labels"]
        shape = len(features) - len(labels), *labels.shape[1:]
        missing = np.full(shape, math.nan if task.labels.regression else IGNORED, labels.dtype)
        if len(missing):
            self.log(f"{len(missing):,} further texts without labels")
        targets = {"labels": np.concatenate([labels, missing])}
        if self.tables:
            examples = [*task.train.examples, *augmented, *(self.unlabelled.examples if self.unlabelled else ())]
            keys = [(example.text, example.text_pair) for example in examples]
            names, absent = task.label_names(config) or (), self.folder / "texts-without-logits.jsonl"
            targets["table_logits"] = np.stack([table.lookup(keys, names, absent) for table in self.tables], axis=1)
        return replace(encoded, features=features, targets=targets)

    def _augmented(self, table: Table, tokenizer: BertTokenizer) -> list[tuple[str, str | None]]:
        # The same for every seed of a run, so that all of them can share the cached outputs of the teachers.
        mask, copies, seed = str(tokenizer.mask_token), self.options.augment, 0
        texts = augment_all([example.text for example in table.examples], copies, mask, seed)
        seconds: list[str | None] = [None] * len(texts)
        if table.columns.text_pair is not None:
            pairs = [example.text_pair or "" for example in table.examples]
            seconds = [*augment_all(pairs, copies, mask, seed + 1)]
        return list(zip(texts, seconds, strict=True))


class EncoderDistillationRun(EpochRun):
    """A run on raw text: the targets are the hidden states and attention of teachers, on held-out text as well."""

    options: DistillOptions
    data: RawText
    encoded: EncodedText
    teachers: TeacherModels

    def read(self) -> None:
        """Read the corpus and the teachers."""
        self.data = (MaskedText if self.options.word_weight > 0 else RawText)(self.options)
        self.teachers = TeacherModels(self.options, "Model")
        self.similarities = [Similarity(path) for path in self.options.similarity_data]

    def facts(self) -> dict[str, Any]:
        """Return the corpus, the teachers and the pairs of texts by hash."""
        pairs = {"similarity": [similarity.facts() for similarity in self.similarities]} if self.similarities else {}
        return {"data": self.data.facts(), "teachers": self.teachers.hashes, **pairs}

    def prepare(self) -> tuple[BertTokenizer, PreTrainedModel]:
        """Return tokenizer and student, which may be initialised from the first teacher."""
        starts = latest_state(self.folder / "checkpoints") is None
        tokenizer, student = prepare_model(self.folder, self.options, self.data, self.log)
        self.teachers.fit(tokenizer, student.config, None, self.device, self.log)
        if starts and self.options.init == "copy":
            self.teachers.initialise(student.base_model, self.log)
        elif starts and self.options.init == "refit" and self.options.resume_from is None:
            self.teachers.refit(student.base_model, self._calibration_text(tokenizer, student.config), self.console)
        return tokenizer, student

    def _calibration_text(self, tokenizer: BertTokenizer, config: PreTrainedConfig) -> list[PackedBatch]:
        """Return the text that the layers of the student are fitted to."""
        options, corpus = self.options, self.data.corpora["train"]
        corpus.check_vocabulary(tokenizer)
        length = self.max_length(config)
        self.teachers.check_lengths(length)
        self.log(f"initialising the student by least squares on {options.init_tokens:,} tokens of {corpus.folder}")
        return calibration_text(corpus, length, options.init_tokens, options.seed)

    def encode(self, tokenizer: BertTokenizer, config: PreTrainedConfig) -> EncodedText:
        """Return the encoded text, with masked copies for the masked-word loss."""
        options = self.options
        length = min(fit(tokenizer), config.max_tokens)
        self.pairs = [similarity.encode(tokenizer, length) for similarity in self.similarities]
        encoded = self.data.encode(tokenizer, config, self.max_length(config))
        copies = options.word_share if options.word_weight > 0 else 0.0
        # Where anything computes with all tokens of an example at once, short texts would be padded to the longest.
        padded = not bf16.is_there() or options.attention_weight > 0 or options.relation_weight > 0
        merges = self.bf16 and self.device.type == "cpu" and self.processes.count == 1 and not padded
        return replace(encoded, copies=copies, short=options.short_share, pairs=options.pair_share, merges=merges)

    def objective(self, model: PreTrainedModel) -> Objective:
        """Return all losses; the teachers run with the student, as their outputs on a corpus are not cached."""
        options, teachers = self.options, self.teachers
        teachers.check_lengths(self.encoded.max_length)
        return EncoderDistillation(
            model,
            options.encoder_weights(),
            pairs=teachers.pairs,
            teachers=teachers.models,
            layer_local=options.layer_local,
            engines=self._engines(),
        )

    def _engines(self) -> list[EngineTeacher]:
        """Return the teachers on the engine, which on a CPU is faster than PyTorch in bf16; none in fp32."""
        options, teachers = self.options, self.teachers
        if not self.bf16 or self.device.type != "cpu" or options.attention_weight > 0 or options.relation_weight > 0:
            return []
        counts = [teacher.config.num_hidden_layers for teacher in teachers.models]
        if options.layer_local:
            counts = [max(other for _, other in pairs) for pairs in teachers.pairs]
        engines = engine_teachers(teachers.models, counts)
        self.log(f"the teachers run {'on the engine in int8' if engines else 'in PyTorch in bf16'}")
        return engines

    @torch.no_grad()
    def evaluate(self, objective: Objective) -> Scores:
        """Return the losses on held-out text, and the correlations of similarities."""
        batches = list(self.encoded.held_out())
        totals: Counter[str] = Counter()
        for batch in batches:
            totals.update(objective.units(batch))
        sums: Counter[str] = Counter()
        for batch in batches:
            tensors = {name: torch.from_numpy(array).to(self.device) for name, array in batch.items()}
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                shares = objective(tensors, totals)
            sums.update({name: value.item() for name, value in shares.items()})
        predictor = TorchPredictor(self.evaluated(objective).base_model)
        correlations = {
            similarity.metric: similarity(predictor, inputs)
            for similarity, inputs in zip(self.similarities, self.pairs, strict=True)
        }
        return {name: sums[name.removesuffix("_loss")] for name in self._losses()} | correlations

    def metrics(self) -> list[str]:
        """Return the names of all metrics; the loss selects the best model, unless --metric names another."""
        return [*self._losses(), *(similarity.metric for similarity in self.similarities)]

    def _losses(self) -> list[str]:
        """Return the names of the loss and its terms, and of the accuracy of masked words."""
        weights = self.options.encoder_weights()
        terms = {
            "hidden_loss": weights.hidden_weight, "attention_loss": weights.attention_weight,
            "relation_loss": weights.relation_weight, "sentence_loss": weights.sentence_weight,
            "masked_loss": weights.word_weight,
            "masked_accuracy": weights.word_weight,
            "pair_loss": weights.pair_weight,
        }  # fmt: skip
        return ["loss", *(name for name, weight in terms.items() if weight > 0)]

    def write_predictions(self, folder: Path) -> None:
        """Write nothing: there are no predictions for raw text."""
