"""Distil: fine-tune a student on what teachers say of the data, besides what its labels say.

The output folder is that of `finetune`, with `teachers/` in it: what the teachers said, unless a cache elsewhere is
named. On raw text, where nobody says anything, an encoder learns its teachers' hidden states and attention.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console

from pocketbert.configs import PreTrainedConfig
from pocketbert.corpus.vocabulary import prune_vocabulary
from pocketbert.data.augment import alter_all
from pocketbert.data.batches import Batches
from pocketbert.data.tables import Example, Table, read_table
from pocketbert.errors import ConfigError
from pocketbert.features import IGNORED, Features
from pocketbert.models.auto import load_trained
from pocketbert.models.init_from_teacher import init_from_teacher
from pocketbert.models.pretrained import PreTrainedModel
from pocketbert.recipes.distill_options import DistillOptions
from pocketbert.recipes.finetune import FinetuneResult, Lesson, learn
from pocketbert.recipes.models import prepare, read_tokenizer
from pocketbert.tasks import find_task
from pocketbert.tasks.base import EncodedTask, Task
from pocketbert.tasks.classification import TextClassification, encode_table, table_texts
from pocketbert.tasks.evaluation import Scores
from pocketbert.tasks.raw_text import RawText
from pocketbert.tokenization import AutoTokenizer, BertTokenizer
from pocketbert.training.distillation import Distillation, check_pairs, pair_layers
from pocketbert.training.objectives import Objective
from pocketbert.training.progress import Progress
from pocketbert.training.state import latest_state
from pocketbert.training.teachers import TaughtBatches, TeacherCache, hash_model, inputs_of


def distill(options: DistillOptions, *, console: Console | None = None, argv: Sequence[str] = ()) -> FinetuneResult:
    """Distil a student from teachers, or continue to.

    Args:
        options: what to do.
        console: where to show progress: a bar if it is a terminal, lines otherwise; the log gets the lines when None.
        argv: the command to note in `run.json`.

    Raises:
        DataError: something is wrong with the data.
        ConfigError: options contradict each other, the model, or the run that is to be resumed; a teacher has other
            labels or pieces of words; the cache is of something else.
        CheckpointError: a model, state or cache cannot be read or written, or the output folder is in use.
        TrainingInterrupted: SIGINT or SIGTERM came; the state is saved.
        TrainingError: the loss is not a number.
    """
    if options.task == RawText.name:
        return learn(options, RawText, Imitating, console=console, argv=argv)
    return learn(options, find_task(options.task), Distilling, console=console, argv=argv)


class Distilling(Lesson):
    """What teachers say of the data, besides its labels."""

    options: DistillOptions

    def facts(self) -> dict[str, Any]:
        """The teachers by hash, and the unlabelled file."""
        further = {} if self.unlabelled is None else {"unlabelled": self.unlabelled.sha256()}
        return {"teachers": [hash_model(teacher) for teacher in self.read.values()], **further}

    @cached_property
    def read(self) -> dict[str, PreTrainedModel]:
        """The teachers as they are in their files."""
        return {name: load_trained(name, self.task.head) for name in self.options.teacher}

    @cached_property
    def unlabelled(self) -> Table | None:
        """The further texts."""
        if self.options.unlabelled is None:
            return None
        assert isinstance(self.task, TextClassification)
        pair = self.task.train.columns.text_pair
        text = self.task.train.columns.text if pair is not None else None
        return read_table(self.options.unlabelled, text=text, text_pair=pair, labelled=False)

    def prepare(self, folder: Path) -> tuple[BertTokenizer, PreTrainedModel]:
        """Tokenizer and student, who may begin as a part of the first teacher; and the teachers, made to fit."""
        options = self.options
        begins = latest_state(folder / "checkpoints") is None
        wanted = self._pruned() if begins and options.keep_vocabulary is not None else None
        self.tokenizer, student = prepare(folder, options, self.task, self.tell, wanted)
        self.teachers = [self._teacher(name, student.config).to(self.device) for name in options.teacher]
        self.pairs = [
            options.layers or pair_layers(student.config.num_hidden_layers, teacher.config.num_hidden_layers)
            for teacher in self.teachers
        ]
        for pairs, teacher in zip(self.pairs, self.teachers, strict=True):
            check_pairs(pairs, student.config.num_hidden_layers, teacher.config.num_hidden_layers)
        if begins and options.from_teacher:
            fresh = init_from_teacher(student, self.teachers[0], self.pairs[0])
            of = sum(1 for _ in student.parameters())
            self.tell(f"{of - len(fresh)} of {of} tensors begin as those of {options.teacher[0]}")
        return self.tokenizer, student

    def objective(self, model: PreTrainedModel, max_length: int) -> tuple[Objective, Batches]:
        """All losses; of texts on altered and unlabelled ones as well."""
        self.encoded: Any = self.task.encode(self.tokenizer, model.config, max_length)
        if isinstance(self.task, TextClassification):
            self.encoded = self._with_more_texts(self.task, self.encoded)
        batches: Any = self.batches()
        caches = self._ask(inputs_of(self.encoded.features))
        if caches:
            return self._distillation(model, []), TaughtBatches(batches, caches)
        return self._distillation(model, self.teachers), batches

    def _distillation(self, model: PreTrainedModel, teachers: Sequence[PreTrainedModel]) -> Distillation:
        widths = [teacher.config.hidden_size for teacher in self.teachers]
        return Distillation(model, self.options.weights(), pairs=self.pairs, widths=widths, teachers=teachers)

    # ── teachers ──

    def _teacher(self, name: str, student: PreTrainedConfig) -> PreTrainedModel:
        """A teacher that speaks the student's ids and labels: its embeddings [words, …] and its head in their order."""
        teacher = self.read[name]
        order = self._order_of_labels(name, teacher.config, student)
        rows = self._rows_of_pieces(name, student.vocab_size)
        with torch.no_grad():
            embeddings = teacher.get_input_embeddings()
            table = embeddings.weight[rows].clone()
            teacher.resize_token_embeddings(len(rows)).weight.copy_(table)
            if order is not None:
                head: Any = teacher.classifier
                head.weight.copy_(head.weight[order].clone())
                head.bias.copy_(head.bias[order].clone())
        return teacher

    def _order_of_labels(self, name: str, config: PreTrainedConfig, student: PreTrainedConfig) -> list[int] | None:
        """For each label of the data its place among the teacher's; None where the head has no labels."""
        ours = self.task.label_names(student) if isinstance(self.task, Task) else None
        if ours is None:
            return None
        theirs = self.options.teacher_labels or tuple(config.id2label[i] for i in sorted(config.id2label))
        if len(theirs) != config.num_labels:
            raise ConfigError(f"{name} has {config.num_labels} labels, not {len(theirs)} ({', '.join(theirs)})")
        if not ours and config.num_labels == 1:
            return [0]
        folded = [label.casefold() for label in theirs]
        if sorted(folded) != sorted(label.casefold() for label in ours):
            wanted = ", ".join(ours) or "a number"
            raise ConfigError(
                f"the labels of the teacher {name} ({', '.join(theirs)}) are not those of the data ({wanted}); if they "
                "mean the same, say which is which with --teacher-labels"
            )
        return [folded.index(label.casefold()) for label in ours]

    def _rows_of_pieces(self, name: str, words: int) -> npt.NDArray[np.int64]:
        """For each id of the student's tokenizer the teacher's id of the same piece."""
        theirs = AutoTokenizer.from_pretrained(name)
        own, there = self.tokenizer.get_vocab(), theirs.get_vocab()
        lacking = sorted(own.keys() - there.keys(), key=own.__getitem__)
        otherwise = [name for name in _SPLITTING if getattr(self.tokenizer, name) != getattr(theirs, name)]
        if lacking or otherwise:
            what = (
                f"lacks {len(lacking):,} of the student's pieces ({', '.join(lacking[:5])})"
                if lacking
                else f"has another {', '.join(otherwise)}"
            )
            raise ConfigError(
                f"the tokenizer of the teacher {name} {what}: both must read the same pieces, so give the student the "
                "teacher's tokenizer"
            )
        rows = np.full(words, there[str(theirs.pad_token)], dtype=np.int64)  # there may be more rows than pieces
        for piece, i in own.items():
            rows[i] = there[piece]
        return rows

    def _pruned(self) -> BertTokenizer:
        """The tokenizer of the options with the pieces alone that the texts use most."""
        options = self.options
        assert options.tokenizer is not None
        assert options.keep_vocabulary is not None
        whole = read_tokenizer(options.tokenizer)
        counts: Counter[int] = Counter()
        further = [] if self.unlabelled is None else table_texts(self.unlabelled)
        texts = chain(self.task.texts(), further)
        while some := list(islice(texts, 512)):
            encoded = whole(some, add_special_tokens=False, return_attention_mask=False, verbose=False)
            for ids in encoded["input_ids"]:
                counts.update(ids)
        kept = prune_vocabulary(whole.get_vocab(), counts, options.keep_vocabulary)
        switches = {name: getattr(whole, name) for name in _SPLITTING}
        return BertTokenizer(vocab=kept, model_max_length=whole.model_max_length, **switches)

    # ── examples ──

    def _with_more_texts(self, task: TextClassification, encoded: EncodedTask[Example]) -> EncodedTask[Example]:
        """Add altered and unlabelled texts, which have no label, to the labelled ones."""
        features: list[Any] = list(encoded.features)
        max_length = encoded.evaluation.max_length
        further = [Example(text, pair, None, 0) for text, pair in zip(*self._altered(task.train), strict=True)]
        if further:
            features += encode_table(replace(task.train, examples=further), self.tokenizer, max_length)
        if self.unlabelled is not None:
            features += encode_table(self.unlabelled, self.tokenizer, max_length)
        labels: Any = encoded.targets["labels"]
        shape = len(features) - len(labels), *labels.shape[1:]
        none = np.full(shape, math.nan if task.labels.regression else IGNORED, labels.dtype)
        if len(none):
            self.tell(f"{len(none):,} further texts without labels")
        return replace(encoded, features=features, targets={"labels": np.concatenate([labels, none])})

    def _altered(self, table: Table) -> tuple[list[str], list[str | None]]:
        # The same for every seed of a run, so that what teachers say can be kept for all of them.
        mask, copies, seed = str(self.tokenizer.mask_token), self.options.augment, 0
        texts = alter_all([example.text for example in table.examples], copies, mask, seed)
        if table.columns.text_pair is None:
            return texts, [None] * len(texts)
        seconds = [example.text_pair or "" for example in table.examples]
        return texts, [*alter_all(seconds, copies, mask, seed + 1)]

    def _ask(self, features: Sequence[Features]) -> list[tuple[TeacherCache, list[int]]]:
        """What the teachers say of everything, from the disk; nothing where they have to run beside the student."""
        options = self.options
        self._check_lengths(max(len(one) for one in features))
        layers = [[there for _, there in pairs] if options.hidden_weight > 0 else [] for pairs in self.pairs]
        tokens = sum(len(one) for one in features)
        columns = sum(
            len(set(kept)) * teacher.config.hidden_size for kept, teacher in zip(layers, self.teachers, strict=True)
        )
        gigabytes = 2e-9 * tokens * columns  # in fp16
        if options.attention_weight > 0 or gigabytes > options.cache_gigabytes:
            why = (
                "attention maps are not kept"
                if options.attention_weight > 0
                else f"their hidden states take {gigabytes:.1f} GB, --cache-gigabytes is {options.cache_gigabytes:g}"
            )
            self.tell(f"the teachers run beside the student: {why}")
            return []
        caches = []
        for number, (teacher, kept) in enumerate(zip(self.teachers, layers, strict=True)):
            folder = Path(options.cache or Path(options.output) / "teachers") / f"teacher-{number}"
            cache = TeacherCache(folder, teacher, features, sorted(set(kept)), bf16=self.bf16)
            with Progress(len(features), self.console, "asking the teacher", "text") as progress:
                cache.fill(progress)
            cache.open()
            caches.append((cache, kept))
        return caches

    def _check_lengths(self, longest: int) -> None:
        for name, teacher in zip(self.options.teacher, self.teachers, strict=True):
            if longest > teacher.config.max_position_embeddings:
                raise ConfigError(
                    f"the teacher {name} reads {teacher.config.max_position_embeddings} tokens, and there are texts of "
                    f"{longest}; lower --max-length"
                )


class Imitating(Distilling):
    """What encoders make of raw text: hidden states and attention. It is measured by the same, on other text."""

    task: RawText  # type: ignore[assignment]

    def objective(self, model: PreTrainedModel, max_length: int) -> tuple[Objective, Batches]:
        """Both losses, with the teachers beside the student: what they make of a corpus is not kept."""
        self.encoded = self.task.encode(self.tokenizer, model.config, max_length)
        self._check_lengths(max_length)
        return self._distillation(model, self.teachers), self.batches()

    def metrics(self) -> list[str]:
        """The loss, and its terms."""
        terms = self.options.weights()
        weights = {"hidden_loss": terms.hidden_weight, "attention_loss": terms.attention_weight}
        return ["loss", *(name for name, weight in weights.items() if weight > 0)]

    @torch.no_grad()
    def evaluate(self, objective: Objective) -> Scores:
        """The losses on text that was kept back."""
        parts = list(self.encoded.held_out())
        totals: Counter[str] = Counter()
        for part in parts:
            totals.update(objective.units(part))
        sums: Counter[str] = Counter()
        for part in parts:
            tensors = {name: torch.from_numpy(array).to(self.device) for name, array in part.items()}
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
                shares = objective(tensors, totals)
            sums.update({name: value.item() for name, value in shares.items()})
        return {name: sums[name.removesuffix("_loss")] for name in self.metrics()}

    def write(self, folder: Path) -> None:
        """Nothing: text without labels has no answers."""


# What decides into which words a text falls, and what becomes of their letters.
_SPLITTING = ("do_lower_case", "strip_accents", "tokenize_chinese_chars", "clean_text", "wordpieces_prefix")
