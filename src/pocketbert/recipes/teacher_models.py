"""The teachers of a distillation: their labels, vocabularies, layers and cached outputs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console

from pocketbert.configs import PreTrainedConfig
from pocketbert.corpus.pretraining_batches import PackedBatch
from pocketbert.errors import ConfigError
from pocketbert.features import Features
from pocketbert.models.auto import load_trained
from pocketbert.models.init_from_teacher import init_from_teacher
from pocketbert.models.pretrained import EncoderModel, PreTrainedModel
from pocketbert.recipes.distill_options import DistillOptions
from pocketbert.tokenization import AutoTokenizer, BertTokenizer
from pocketbert.training.distillation import Distillation, check_pairs, pair_layers
from pocketbert.training.distributed import ProcessGroup
from pocketbert.training.progress import Progress
from pocketbert.training.refit.refit import refit_from_teacher, source_layers
from pocketbert.training.teachers import TeacherCache, hash_model

MOST_UNKNOWN = 0.01  # of a student's tokens, those that a teacher may lack


class TeacherModels:
    """The teachers of a distillation.

    Args:
        options: the options of the run.
        head: the head of the teachers.

    Raises:
        CheckpointError: a teacher cannot be read.
    """

    def __init__(self, options: DistillOptions, head: str) -> None:
        self.options = options
        self.models: list[PreTrainedModel] = [load_trained(name, head) for name in options.teacher]
        self.hashes = [hash_model(teacher) for teacher in self.models]

    def fit(
        self,
        tokenizer: BertTokenizer,
        student: PreTrainedConfig,
        labels: tuple[str, ...] | None,
        device: torch.device,
        log: Callable[[str], None],
    ) -> None:
        """Adapt the teachers to a student: rows of embeddings and labels in its order, and pairs of layers.

        Args:
            tokenizer: the student's tokenizer.
            student: the student's configuration.
            labels: its labels in the order of its outputs: () for a number, None for a head without labels.
            device: where the teachers compute.
            log: prints a line.

        Raises:
            ConfigError: a teacher has another vocabulary, other labels or too few layers.
        """
        options = self.options
        for name, teacher in zip(options.teacher, self.models, strict=True):
            order = None if labels is None else self._label_order(name, teacher.config, labels)
            rows = _embedding_rows(name, tokenizer, student.vocab_size, log)
            with torch.no_grad():
                table = teacher.get_input_embeddings().weight[rows].clone()
                teacher.resize_token_embeddings(len(rows)).weight.copy_(table)
                if order is not None:
                    head: Any = teacher.classifier
                    head.weight.copy_(head.weight[order].clone())
                    head.bias.copy_(head.bias[order].clone())
            teacher.to(device)
        layers = student.num_hidden_layers
        self.pairs = [
            options.layers or pair_layers(layers, teacher.config.num_hidden_layers) for teacher in self.models
        ]
        for pairs, teacher in zip(self.pairs, self.models, strict=True):
            check_pairs(pairs, layers, teacher.config.num_hidden_layers)

    def _label_order(self, name: str, config: PreTrainedConfig, labels: tuple[str, ...]) -> list[int]:
        """Return the position of each label of the student among the outputs of a teacher."""
        own = self.options.teacher_labels or tuple(config.id2label[i] for i in sorted(config.id2label))
        if len(own) != config.num_labels:
            raise ConfigError(f"{name} has {config.num_labels} labels, not {len(own)} ({', '.join(own)})")
        if not labels and config.num_labels == 1:
            return [0]
        folded = [label.casefold() for label in own]
        if sorted(folded) != sorted(label.casefold() for label in labels):
            wanted = ", ".join(labels) or "a number"
            raise ConfigError(
                f"the labels of the teacher {name} ({', '.join(own)}) are not those of the data ({wanted}); if they "
                f"mean the same, give the data's names in the teacher's order with --teacher-labels"
            )
        return [folded.index(label.casefold()) for label in labels]

    def initialise(self, student: PreTrainedModel, log: Callable[[str], None]) -> None:
        """Initialise a student with those weights of the first teacher that fit."""
        fresh = init_from_teacher(student, self.models[0], self.pairs[0])
        total = sum(1 for _ in student.parameters())
        log(f"{total - len(fresh)} of {total} tensors initialised from {self.options.teacher[0]}")

    def refit(self, student: EncoderModel, text: Sequence[PackedBatch], console: Console | None) -> None:
        """Initialise a student from the first teacher, with layers fitted to packed batches of text.

        Raises:
            ConfigError: the shapes of the two do not fit.
            DataError: the text is too short, or too uniform.
        """
        teacher = self.models[0].base_model
        sources = source_layers(self.options.layers, student.config.num_hidden_layers, teacher.config.num_hidden_layers)
        batches = [{name: torch.from_numpy(array) for name, array in batch.items()} for batch in text]
        refit_from_teacher(student, teacher, sources, batches, console)

    def objective(self, student: PreTrainedModel, *, cached: bool) -> Distillation:
        """Return the distillation objective; the teachers run beside the student unless their outputs are cached."""
        return Distillation(
            student,
            self.options.weights(),
            pairs=self.pairs,
            widths=[teacher.config.hidden_size for teacher in self.models],
            teachers=[] if cached else self.models,
        )

    def check_lengths(self, longest: int) -> None:
        """Raise `ConfigError` where inputs are longer than a teacher can read."""
        for name, teacher in zip(self.options.teacher, self.models, strict=True):
            if longest > teacher.config.max_tokens:
                raise ConfigError(
                    f"inputs have up to {longest} tokens, and the teacher {name} reads at most "
                    f"{teacher.config.max_tokens}: lower --max-length"
                )

    def cache(
        self,
        features: Sequence[Features],
        console: Console | None,
        log: Callable[[str], None],
        processes: ProcessGroup,
        *,
        bf16: bool,
    ) -> list[tuple[TeacherCache, list[int]]]:
        """Return the cached outputs of each teacher with its layers; none where the teachers must run with the student.

        Args:
            features: all training inputs.
            console: where to show progress.
            log: prints a line.
            processes: those that share the work.
            bf16: whether the teachers compute in bfloat16.
        """
        options = self.options
        self.check_lengths(max(len(example) for example in features))
        layers = [[layer for _, layer in pairs] if options.hidden_weight > 0 else [] for pairs in self.pairs]
        tokens = sum(len(example) for example in features)
        columns = sum(
            len(set(own)) * teacher.config.hidden_size for own, teacher in zip(layers, self.models, strict=True)
        )
        gigabytes = 2e-9 * tokens * columns  # in fp16
        if options.attention_weight > 0 or gigabytes > options.cache_gigabytes:
            reason = (
                "attention maps are not cached"
                if options.attention_weight > 0
                else f"their hidden states take {gigabytes:.1f} GB, --cache-gigabytes is {options.cache_gigabytes:g}"
            )
            log(f"the teachers run with the student: {reason}")
            return []
        caches = []
        for number, (teacher, own) in enumerate(zip(self.models, layers, strict=True)):
            folder = Path(options.cache or Path(str(options.output)) / "teachers") / f"teacher-{number}"
            cache = TeacherCache(folder, teacher, features, sorted(set(own)), bf16=bf16)
            with Progress(len(features), console, "running the teacher", "text") as progress:
                cache.fill(progress, processes)
            processes.wait()
            cache.open()
            caches.append((cache, own))
        return caches


def _embedding_rows(name: str, student: BertTokenizer, size: int, log: Callable[[str], None]) -> npt.NDArray[np.int64]:
    """Return [size] for each id of the student's tokenizer the teacher's id of the same token.

    A few tokens that the teacher lacks, as emoji that a student has instead of BERT's unused tokens, are unknown to it.

    Raises:
        ConfigError: the teacher's vocabulary lacks many tokens, or its tokenizer splits texts in another way.
    """
    teacher = AutoTokenizer.from_pretrained(name)
    own, other = student.get_vocab(), teacher.get_vocab()
    missing = sorted(own.keys() - other.keys(), key=own.__getitem__)
    ours, theirs = student.splitting, teacher.splitting
    different = [name for name in ours.keys() | theirs.keys() if ours.get(name) != theirs.get(name)]
    few = len(missing) <= MOST_UNKNOWN * len(own) and teacher.unk_token in other
    if different or (missing and not few):
        what = (
            f"lacks {len(missing):,} of the student's tokens ({', '.join(missing[:5])})"
            if missing
            else f"has another {', '.join(sorted(different))}"
        )
        raise ConfigError(
            f"the tokenizer of the teacher {name} {what}: both must read the same tokens, so use the teacher's "
            f"tokenizer (--tokenizer)"
        )
    if missing:
        log(f"{len(missing):,} of the student's tokens are unknown to the teacher {name}: {', '.join(missing[:5])}, …")
    rows = np.full(size, other[str(teacher.pad_token)], dtype=np.int64)  # there may be more rows than tokens
    for token, i in own.items():
        rows[i] = other[token if token in other else str(teacher.unk_token)]
    return rows
