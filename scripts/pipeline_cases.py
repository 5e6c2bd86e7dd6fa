"""The cases of compare_pipelines.py: models, arguments and forms of inputs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from pocketbert import BertTokenizer, SqueezeBertConfig

LIMIT = 48  # tokens that the tiny models read
WORDS = ("the", "film", "match", "is", "was", "in", "a", "great", "dull", "paris", "marie", "capital", "of", "who")
LETTERS = "abcdefghijklmnopqrstuvwxyz"
TEXT, OTHER = "Marie was in Paris.", "The film is dull"
LONG = " ".join(f"{word} of paris" for word in WORDS * 3)
PASSAGE = "Marie was born in Warsaw. The capital of France is Paris, who knows"

#: The tasks with the head of their models, and the names of the labels.
HEADS: dict[str, tuple[str, tuple[str, ...]]] = {
    "text-classification": ("ForSequenceClassification", ("dull", "great", "plain")),
    "zero-shot-classification": ("ForSequenceClassification", ("contradiction", "neutral", "entailment")),
    "token-classification": ("ForTokenClassification", ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")),
    "question-answering": ("ForQuestionAnswering", ("LABEL_0", "LABEL_1")),
    "fill-mask": ("ForMaskedLM", ("LABEL_0", "LABEL_1")),
    "multiple-choice": ("ForMultipleChoice", ("LABEL_0", "LABEL_1")),
    "feature-extraction": ("Model", ("LABEL_0", "LABEL_1")),
}
ASKED = {"question": "Who was in Paris?", "context": PASSAGE}
CHOICES = {"prompt": "The film", "choices": ["is great", "is dull", "was in Paris"]}
LABELS = ["film", "match", "capital"]

#: What each task is asked where a case does not say it, and what it always needs besides.
INPUTS: dict[str, Any] = {
    "text-classification": [TEXT, OTHER],
    "zero-shot-classification": [TEXT, OTHER],
    "token-classification": [TEXT, OTHER],
    "question-answering": ASKED,
    "fill-mask": ["The [MASK] is great.", "Paris is the [MASK] of [MASK]."],
    "multiple-choice": [CHOICES],
    "feature-extraction": [TEXT, OTHER],
}
#: What a classifier's `config.json` states, so that decisions differ from the best label.
CALIBRATION = {"calibration": {"temperature": 1.0, "answer_share": {"0.5": 0.999}, "conformal": {"0.9": 0.0}}}
ALWAYS: dict[str, dict[str, Any]] = {"zero-shot-classification": {"candidate_labels": LABELS}}


@dataclass(frozen=True)
class Case:
    """An argument of the calls of a task.

    Args:
        task: the task.
        name: of the argument.
        value: of the argument.
        inputs: of the calls.
        beside: other arguments, also of the calls without `name`.
        ours: whether transformers has no such argument, or another meaning for it.
        older: whether only transformers 4 has it.
    """

    task: str
    name: str
    value: Any
    inputs: Any = None
    beside: dict[str, Any] = field(default_factory=dict)
    ours: bool = False
    older: bool = False

    @property
    def asked(self) -> Any:
        """The inputs."""
        return INPUTS[self.task] if self.inputs is None else self.inputs


def _case(task: str, **given: Any) -> Case:
    """A case with the one argument that no field of `Case` is called after."""
    fields = {name: given.pop(name) for name in ("inputs", "beside", "ours", "older") if name in given}
    [(name, value)] = given.items()
    return Case(task, name, value, **fields)


def cases() -> list[Case]:
    """All cases."""
    classify, zero, tag, fill = "text-classification", "zero-shot-classification", "token-classification", "fill-mask"
    ask, choose, embed = "question-answering", "multiple-choice", "feature-extraction"
    pair = {"text": LONG, "text_pair": TEXT}
    words = [["Marie", "was", "in", "Paris"], ["dull", "film"]]
    long_hypothesis = {"hypothesis_template": LONG[:150] + "{}"}
    cut = {"truncation": True, "max_length": 8}
    return [
        _case(classify, top_k=1),
        _case(classify, top_k=2),
        _case(classify, top_k=None),
        *(_case(classify, function_to_apply=name) for name in ("sigmoid", "NONE")),
        _case(classify, truncation="only_first", inputs=[{"text": LONG[:150], "text_pair": LONG[:150]}]),
        _case(classify, max_length=8, beside={"truncation": True}),
        _case(classify, max_length=8, inputs=[pair], beside={"truncation": "longest_first"}),
        _case(classify, text_pair="the match was great"),
        _case(classify, return_all_scores=True, older=True),
        _case(classify, windows=True, inputs=[LONG], ours=True),
        _case(classify, min_confidence=0.999, ours=True),
        _case(classify, answer_share=0.5, ours=True),
        _case(classify, conformal=0.9, ours=True),
        _case(classify, explain=True, ours=True),
        _case(zero, candidate_labels=["great", "paris"], beside={"candidate_labels": LABELS}),
        _case(zero, candidate_labels="great, paris"),
        _case(zero, hypothesis_template="{} is the film"),
        _case(zero, multi_label=True),
        _case(zero, entailment="neutral", ours=True),
        _case(zero, contradiction="neutral", beside={"multi_label": True}, ours=True),
        _case(zero, windows=True, inputs=[LONG], ours=True),
        _case(zero, max_length=30, inputs=[LONG], ours=True),
        _case(zero, truncation="longest_first", beside=long_hypothesis, inputs=[LONG], ours=True),
        *(_case(tag, aggregation_strategy=name) for name in ("simple", "first", "average", "max")),
        _case(tag, ignore_labels=["I-LOC", "B-PER"]),
        _case(tag, ignore_labels=[]),
        _case(tag, is_split_into_words=True, inputs=words),
        _case(tag, delimiter=" / ", inputs=words, beside={"is_split_into_words": True}),
        _case(tag, delimiter="", inputs=words, beside={"is_split_into_words": True, "aggregation_strategy": "first"}),
        _case(tag, stride=4, beside={"aggregation_strategy": "simple"}),
        _case(tag, stride=20, inputs=[LONG], beside={"aggregation_strategy": "simple"}, ours=True),
        _case(tag, grouped_entities=True, older=True),
        _case(tag, ignore_subwords=True, inputs=[PASSAGE], beside={"grouped_entities": True}, older=True),
        _case(tag, max_length=8, inputs=[LONG], ours=True),
        _case(tag, explain=True, ours=True),
        _case(ask, top_k=3, older=True),
        _case(ask, topk=3, older=True),
        _case(ask, max_answer_len=3, older=True),
        _case(ask, max_seq_len=24, ours=True),
        _case(ask, explain=True, ours=True),
        _case(ask, doc_stride=3, beside={"max_seq_len": 24, "max_question_len": 10}, ours=True),
        _case(ask, max_question_len=3, ours=True),
        _case(ask, align_to_words=False, older=True),
        _case(ask, handle_impossible_answer=True, beside={"top_k": 20}, ours=True),
        _case(ask, null_threshold=-100.0, beside={"handle_impossible_answer": True}, ours=True),
        _case(fill, top_k=2),
        _case(fill, targets=["film", "match"]),
        _case(fill, targets="paris"),
        _case(fill, tokenizer_kwargs={"truncation": True, "max_length": 10}, inputs=["the [MASK] is " + LONG]),
        _case(fill, max_length=10, inputs=["the [MASK] is " + LONG], ours=True),
        _case(embed, tokenize_kwargs=cut, inputs=[LONG]),
        _case(embed, max_length=8, inputs=[LONG], ours=True),
        _case(embed, truncation=True, inputs=[LONG], beside={"tokenize_kwargs": {"max_length": 8}}),
        _case(embed, return_tensors=True),
        _case(embed, pooling="mean", ours=True),
        _case(embed, normalize=True, beside={"pooling": "cls"}, ours=True),
        _case(embed, dimensions=4, beside={"pooling": "cls"}, ours=True),
        _case(embed, prompt="the ", ours=True),
        _case(embed, prompt_name="query", ours=True),
        _case(embed, windows=True, inputs=[LONG], beside={"pooling": "mean"}, ours=True),
        _case(choose, max_length=6, ours=True),
    ]  # fmt: skip


#: Values of the arguments that choose nothing, of each the tasks of transformers that take it.
NOTHING: dict[str, tuple[Any, tuple[str, ...]]] = {
    "batch_size": (2, tuple(HEADS)),
    "num_workers": (0, tuple(HEADS)),
    "padding": (True, ("text-classification", "zero-shot-classification", "feature-extraction")),
    "truncation": (True, ("text-classification", "zero-shot-classification", "feature-extraction")),
    "stride": (0, ("text-classification",)),
    "pad_to_multiple_of": (8, ()),
    "padding_side": ("right", ("text-classification",)),
    "add_special_tokens": (True, ("text-classification",)),
    "return_token_type_ids": (True, ("text-classification",)),
    "return_attention_mask": (True, ("text-classification",)),
    "return_overflowing_tokens": (False, ("text-classification",)),
    "return_special_tokens_mask": (False, ("text-classification",)),
    "return_offsets_mapping": (False, ("text-classification",)),
    "return_length": (False, ("text-classification",)),
    "verbose": (False, ("text-classification",)),
}


#: Arguments that a task refuses where others take them.
REFUSED = {("max_length", "question-answering")}

#: Arguments of `pipeline`, and what the pipeline is asked.
MADE: list[tuple[str, dict[str, Any], Any]] = [
    ("text-classification", {"top_k": None, "device": -1}, TEXT),
    ("text-classification", {"top_k": 1, "batch_size": 2, "dtype": "float32"}, TEXT),
    ("text-classification", {"truncation": True, "max_length": 8, "use_fast": True}, [LONG, TEXT]),
    ("zero-shot-classification", {"candidate_labels": "film, match", "multi_label": True, "device": "cpu"}, TEXT),
    ("token-classification", {"aggregation_strategy": "simple", "num_workers": 0, "dtype": "auto"}, TEXT),
    ("fill-mask", {"top_k": 2, "model_kwargs": {"attn_implementation": "eager"}}, "[MASK] is in Paris"),
    ("feature-extraction", {"truncation": True, "return_tensors": True, "trust_remote_code": False}, TEXT),
]


def forms() -> Iterator[tuple[str, str, Callable[[], Any]]]:
    """Forms of inputs that both take: the task, a name, and what makes them."""
    from transformers.pipelines.pt_utils import KeyDataset, KeyPairDataset

    rows: Any = [{"text": TEXT, "other": OTHER}, {"text": OTHER, "other": TEXT}]
    gaps: Any = [{"text": "the [MASK] is"}, {"text": "[MASK] and [MASK]"}]
    for task in ("text-classification", "token-classification", "feature-extraction", "zero-shot-classification"):
        yield task, "a text", lambda: TEXT
        yield task, "a list", lambda: [TEXT, OTHER]
        yield task, "a list of one text", lambda: [TEXT]
        yield task, "a generator", lambda: (text for text in [TEXT, OTHER])
        yield task, "KeyDataset", lambda: KeyDataset(rows, "text")
    yield "fill-mask", "a text", lambda: gaps[0]["text"]
    yield "fill-mask", "a list", lambda: [gap["text"] for gap in gaps]
    yield "fill-mask", "a list of one text", lambda: [gaps[1]["text"]]
    yield "fill-mask", "a generator", lambda: (gap["text"] for gap in gaps)
    yield "fill-mask", "KeyDataset", lambda: KeyDataset(gaps, "text")
    yield "text-classification", "a dictionary", lambda: {"text": TEXT, "text_pair": OTHER}
    yield "text-classification", "a dictionary of one text", lambda: {"text": TEXT}
    yield "text-classification", "dictionaries", lambda: [{"text": TEXT}, {"text": TEXT, "text_pair": OTHER}]
    yield "text-classification", "texts and dictionaries", lambda: [TEXT, {"text": TEXT, "text_pair": OTHER}]
    yield "text-classification", "a pair in three lists", lambda: [[[TEXT, OTHER]]]
    yield "text-classification", "KeyPairDataset", lambda: KeyPairDataset(rows, "text", "other")


# ── models ──


def make_models(folder: Path) -> dict[str, Path]:
    """A tiny model of each task in a folder of its own, with random weights that tell one word from another."""
    import torch

    from pocketbert.models.auto import model_class

    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    pieces = [*special, *WORDS, *LETTERS, *(f"##{letter}" for letter in LETTERS), *"./?"]
    tokenizer = BertTokenizer(vocab={piece: i for i, piece in enumerate(dict.fromkeys(pieces))}, model_max_length=LIMIT)
    torch.manual_seed(0)
    made = {}
    for task, (head, labels) in HEADS.items():
        config = SqueezeBertConfig(
            vocab_size=len(tokenizer), hidden_size=32, embedding_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=64, max_position_embeddings=LIMIT, id2label=dict(enumerate(labels)),
            extra=CALIBRATION if task == "text-classification" else {},
        )  # fmt: skip
        model = model_class(config, head)(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0.0, 2.0 if "word_embeddings" in name else 0.3)
        made[task] = folder / task
        model.save_pretrained(made[task])
        tokenizer.save_pretrained(made[task])
    _declare(made["feature-extraction"])
    return made


def _declare(folder: Path) -> None:
    """Declare a pooling and a prompt, as sentence-transformers does."""
    kinds = {"": "Transformer", "1_Pooling": "Pooling"}
    modules = [
        {"idx": i, "name": str(i), "path": path, "type": f"sentence_transformers.models.{kind}"}
        for i, (path, kind) in enumerate(kinds.items())
    ]
    (folder / "1_Pooling").mkdir()
    files: dict[str, Any] = {
        "modules.json": modules,
        "1_Pooling/config.json": {"pooling_mode_mean_tokens": True},
        "config_sentence_transformers.json": {"prompts": {"query": "who is in "}},
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
