"""The public names as a user's type checker sees them: `mypy` reads this file, nothing runs it."""

from pathlib import Path
from typing import assert_type

import pocketbert
from pocketbert import (
    PRESETS,
    AutoConfig,
    AutoTokenizer,
    BertConfig,
    BertModel,
    BertTokenizer,
    CheckpointError,
    MobileBertConfig,
    MobileBertForQuestionAnswering,
    PocketBertError,
    PreTrainedConfig,
    SqueezeBertConfig,
    SqueezeBertForSequenceClassification,
    SqueezeBertTokenizer,
    pipeline,
)
from pocketbert.pipelines import Pipeline, QuestionAnswering


def configurations(folder: Path) -> None:
    assert_type(pocketbert.__version__, str)
    assert_type(PRESETS["mobilebert-uncased"], PreTrainedConfig)
    config = SqueezeBertConfig(num_hidden_layers=2, id2label={0: "no", 1: "yes"})
    assert_type(config.replace(q_groups=2), SqueezeBertConfig)
    assert_type(BertConfig.from_pretrained("bert-base-uncased", revision="main", num_labels=3), BertConfig)
    assert_type(AutoConfig.from_pretrained(folder), PreTrainedConfig)
    assert_type(MobileBertConfig().true_hidden_size, int)
    config.save_pretrained(folder)


def tokenizers(folder: Path) -> None:
    assert_type(SqueezeBertTokenizer.from_pretrained(folder), SqueezeBertTokenizer)
    tokenizer = AutoTokenizer.from_pretrained("google/mobilebert-uncased", local_files_only=True)
    assert_type(tokenizer, BertTokenizer)
    encoding = tokenizer("A text.", "Another.", truncation=True, max_length=16, return_tensors="np")
    assert_type(encoding.tokens(), list[str])
    assert_type(encoding.word_ids(0), list[int | None])


def models(folder: Path) -> None:
    model = SqueezeBertForSequenceClassification(SqueezeBertConfig())
    assert_type(model.num_parameters(), int)
    model.save_pretrained(folder)
    reader = MobileBertForQuestionAnswering.from_pretrained(folder, local_files_only=True)
    assert_type(reader, MobileBertForQuestionAnswering)
    encoder, info = BertModel.from_pretrained(folder, output_loading_info=True)
    assert_type(encoder, BertModel)
    assert_type(info, dict[str, list[str]])


def pipelines() -> None:
    assert_type(pipeline("question-answering", model="my-reader"), QuestionAnswering)
    assert_type(pipeline("text-classification", top_k=None), Pipeline)


def errors(error: CheckpointError) -> PocketBertError:
    return error
