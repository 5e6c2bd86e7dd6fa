"""Every task on small made-up data: from a file to a model, and scores that were computed by hand."""

import json
import math
import random
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.evaluation import metrics_of
from helpers.labelled import NAMES, PIECES, PLACES, choices_file, conll_file, squad_file, stories
from helpers.tokenizers import tokenizer_of
from pocketbert.configs import AutoConfig, BertConfig, SqueezeBertConfig
from pocketbert.data.batches import BatchOrder, LabelledBatches
from pocketbert.data.choices import Choice, Choices
from pocketbert.data.columns import Columns
from pocketbert.data.conll import Sentence, Sentences
from pocketbert.data.labels import Labels
from pocketbert.data.squad import Question, Questions
from pocketbert.data.tables import Example, Table
from pocketbert.errors import CheckpointError, ConfigError, DataError
from pocketbert.features import IGNORED, Features
from pocketbert.models.squeezebert import SqueezeBertForTokenClassification
from pocketbert.pipelines import pipeline
from pocketbert.recipes.epoch_run import FinetuneResult
from pocketbert.recipes.finetune import finetune
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.runtime.engine import Engine
from pocketbert.tasks.choices import ChoiceEvaluation
from pocketbert.tasks.classification import TextEvaluation
from pocketbert.tasks.evaluate import read_evaluation
from pocketbert.tasks.questions import AnswerEvaluation, QuestionAnswering
from pocketbert.tasks.tagging import TagEvaluation
from pocketbert.tokenization import BertTokenizer
from pocketbert.training.objectives import TokenLoss

Options = Callable[..., FinetuneOptions]


@pytest.fixture
def tokenizer() -> BertTokenizer:
    return tokenizer_of(PIECES)


@pytest.fixture
def run(options: Options, config: Callable[..., str], tmp_path: Path, tokenizer: BertTokenizer) -> Callable[..., Any]:
    """Fine-tune from scratch on a file."""
    tokenizer.save_pretrained(tmp_path / "tokenizer")

    def run(task: str, data: Path, **changes: Any) -> FinetuneResult:
        scratch = config(vocab_size=len(PIECES), max_position_embeddings=64, hidden_dropout_prob=0.0)
        defaults: dict[str, Any] = {
            "task": task, "data": data, "from_scratch": scratch, "tokenizer": str(tmp_path / "tokenizer"),
            "epochs": 12, "learning_rate": 5e-3, "output": tmp_path / task,
        }  # fmt: skip
        if "model" in changes:
            del defaults["from_scratch"], defaults["tokenizer"]
        return finetune(options(**{**defaults, **changes}))

    return run


def on_both(folder: Path, data: Path, expected: Mapping[str, float], **options: Any) -> None:
    """PyTorch and the engine measure what the run said."""
    evaluation = read_evaluation(folder, data, **options)
    for metrics in (
        metrics_of(folder, data, **options),
        evaluation(Engine.from_pretrained(folder, evaluation.head)),
    ):
        assert metrics == pytest.approx(dict(expected), abs=1e-3)


# ── from a file to a model ──


@pytest.mark.learning
def test_questions(run: Callable[..., Any], tmp_path: Path) -> None:
    data, dev = squad_file(tmp_path / "a.json", 60), squad_file(tmp_path / "dev.json", 20, seed=1)
    result = run("question-answering", data, eval_data=dev)
    assert list(result.metrics) == ["f1", "exact_match"]
    assert result.metrics["exact_match"] > 0.9
    on_both(result.folder, dev, result.metrics)
    answer = pipeline("question-answering", result.folder)
    assert answer(question="where ?", context="the eve sings in oslo .")["answer"] == "oslo"
    predictions = json.loads((result.folder / "evaluation" / "predictions.json").read_text())
    assert predictions.keys() == {f"{i}-{j}" for i in range(20) for j in range(2)}
    best = json.loads((result.folder / "evaluation" / "nbest_predictions.json").read_text())
    assert best.keys() == predictions.keys()
    for key, entries in best.items():
        assert entries[0]["text"] == predictions[key]
        assert entries[0].keys() == {"text", "probability", "start_logit", "end_logit"}
        assert sum(entry["probability"] for entry in entries) == pytest.approx(1.0)
    assert not (result.folder / "evaluation" / "null_odds.json").exists()


@pytest.mark.slow
@pytest.mark.learning
def test_questions_that_have_no_answer(run: Callable[..., Any], tmp_path: Path) -> None:
    data = squad_file(tmp_path / "a.json", 60, impossible=True)
    dev = squad_file(tmp_path / "dev.json", 10, impossible=True, seed=1)
    result = run("question-answering", data, eval_data=dev)
    assert list(result.metrics)[:4] == ["f1", "exact_match", "has_answer_f1", "no_answer_f1"]
    assert result.metrics["no_answer_f1"] > 0.9
    assert result.metrics["best_f1"] >= result.metrics["f1"] > 0.8
    on_both(result.folder, dev, result.metrics)
    odds = json.loads((result.folder / "evaluation" / "null_odds.json").read_text())
    predictions = json.loads((result.folder / "evaluation" / "predictions.json").read_text())
    assert {key: value > 0 for key, value in odds.items()} == {key: not text for key, text in predictions.items()}


@pytest.mark.learning
@pytest.mark.parametrize("scheme", ["iob1", "bioes"])
def test_tags(run: Callable[..., Any], tmp_path: Path, scheme: str) -> None:
    data, dev = conll_file(tmp_path / "a.txt", 60, scheme), conll_file(tmp_path / "dev.txt", 20, scheme, seed=1)
    result = run("token-classification", data, eval_data=dev)
    assert list(result.metrics) == ["f1", "precision", "recall", "accuracy", "loss"]
    assert result.metrics["f1"] > 0.9
    labels = list(AutoConfig.from_pretrained(result.folder).id2label.values())
    prefixes = {"iob1": ["O", "B-LOC", "I-LOC", "B-PER", "I-PER"], "bioes": ["O", "S-LOC", "S-PER"]}
    assert labels == prefixes[scheme]
    on_both(result.folder, dev, result.metrics)
    # The scheme of the file does not matter: entities are compared.
    other = metrics_of(result.folder, conll_file(tmp_path / "iob2.txt", 20, "iob2", seed=1))
    assert other["f1"] == pytest.approx(result.metrics["f1"])
    [found] = pipeline("token-classification", result.folder, aggregation_strategy="first")(["the max works in rome"])
    assert [(one["entity_group"], one["word"]) for one in found] == [("PER", "max"), ("LOC", "rome")]
    lines = (result.folder / "evaluation" / "predictions.conll").read_text().splitlines()
    assert len([line for line in lines if line]) == 100
    table = (result.folder / "evaluation" / "entities.tsv").read_text().splitlines()
    assert [line.split("\t")[0] for line in table] == ["type", "LOC", "PER"]
    assert table[1].split("\t")[-1] == "20"


@pytest.mark.learning
def test_parts_of_speech(run: Callable[..., Any], tmp_path: Path) -> None:
    result = run("token-classification", conll_file(tmp_path / "a.txt", 40), label_column="2", epochs=6)
    assert list(result.metrics) == ["accuracy", "loss"]
    assert result.metrics["accuracy"] > 0.9
    assert list(AutoConfig.from_pretrained(result.folder).id2label.values()) == ["DT", "IN", "NN", "VB"]


@pytest.mark.learning
def test_choices(run: Callable[..., Any], tmp_path: Path) -> None:
    data, dev = choices_file(tmp_path / "a.jsonl", 80), choices_file(tmp_path / "dev.jsonl", 20, seed=1)
    result = run("multiple-choice", data, eval_data=dev)
    assert list(result.metrics) == ["accuracy", "loss"]
    assert result.metrics["accuracy"] > 0.8
    on_both(result.folder, dev, result.metrics)
    choose = pipeline("multiple-choice", result.folder)
    assert choose(prompt="ann lives", choices=["sings sings", "in ann", "in oslo"])[0]["choice"] == "in oslo"
    header, *rows = (result.folder / "evaluation" / "predictions.tsv").read_text().splitlines()
    assert header.split("\t") == ["line", "label", "predicted", "prompt", "right", "chosen"]
    assert len(rows) == 20


@pytest.mark.slow
@pytest.mark.learning
def test_several_labels(run: Callable[..., Any], tmp_path: Path) -> None:
    rows = [
        {"text": f"{name} {verb} {place}", "label": sorted({*(["person"] if name < "c" else []), verb} - {"works"})}
        for name, verb, place in stories(120)
    ]
    data = tmp_path / "a.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    result = run("text-classification", data)
    assert list(result.metrics) == [
        "micro_f1", "macro_f1", "accuracy", "loss", "brier_loss", "calibration_error",
    ]  # fmt: skip
    assert result.metrics["micro_f1"] > 0.9
    config = AutoConfig.from_pretrained(result.folder)
    assert (config.problem_type, list(config.id2label.values())) == (
        "multi_label_classification", ["lives", "person", "sings"],
    )  # fmt: skip
    found = pipeline("text-classification", result.folder)("ann lives rome", top_k=None)
    assert {one["label"] for one in found if one["score"] > 0.5} == {"person", "lives"}
    on_both(result.folder, data, metrics_of(result.folder, data))


@pytest.mark.learning
def test_a_number(run: Callable[..., Any], tmp_path: Path) -> None:
    rows = [{"text": f"{name} {verb}", "label": 0.5 + NAMES.index(name)} for name, verb, _ in stories(80)]
    data = tmp_path / "a.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    result = run("text-classification", data)
    assert list(result.metrics) == ["pearson", "spearman", "loss"]
    assert result.metrics["pearson"] > 0.9
    header, first, *_ = (result.folder / "evaluation" / "predictions.tsv").read_text().splitlines()
    assert header.split("\t") == ["line", "label", "predicted", "score"]
    assert abs(float(first.split("\t")[1]) - float(first.split("\t")[2])) < 1.5


def test_the_parts_of_a_batch_give_the_gradient_of_the_whole() -> None:
    """They hold unequal numbers of words with a tag, and one of them none."""
    torch.manual_seed(0)
    config = SqueezeBertConfig(
        vocab_size=30, hidden_size=32, embedding_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, id2label={0: "O", 1: "A", 2: "B"}, hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    objective = TokenLoss(SqueezeBertForTokenClassification(config))
    labels = [[1, IGNORED, 2, 0, 1], [IGNORED, 2], [IGNORED, IGNORED, IGNORED], [0, 0]]
    features = [
        Features(np.arange(5, 5 + len(row), dtype=np.int32), np.zeros(len(row), dtype=np.int32)) for row in labels
    ]
    order = BatchOrder([len(one) for one in features], batch_size=4, seed=0)
    gradients, losses = [], []
    for parts in (1, 4):
        batch = LabelledBatches(features, {"labels": [np.array(row) for row in labels]}, order, parts=parts)(0)
        totals: Counter[str] = Counter()
        for part in batch:
            totals.update(objective.units(part))
        assert totals == {"examples": 4, "tokens": 7}
        objective.zero_grad()
        shares = [objective({name: torch.from_numpy(x) for name, x in part.items()}, totals)["loss"] for part in batch]
        torch.stack(shares).sum().backward()
        losses.append(torch.stack(shares).sum().item())
        gradients.append([p.grad.clone() for p in objective.parameters() if p.grad is not None])
    assert losses[0] == pytest.approx(losses[1])
    for whole, split in zip(*gradients, strict=True):
        torch.testing.assert_close(split, whole, atol=1e-6, rtol=1e-4)


def test_a_head_of_another_task_starts_fresh(
    run: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [f"{name} {verb},{'no' if name < 'c' else 'yes'}" for name, verb, _ in stories(40)]
    data = tmp_path / "a.csv"
    data.write_text("text,label\n" + "\n".join(rows))
    classifier = run("text-classification", data, epochs=1).folder
    tagger = conll_file(tmp_path / "a.txt", 40)
    with caplog.at_level("INFO", "pocketbert"):
        folder = run("token-classification", tagger, model=str(classifier), label_column="2", epochs=1).folder
    assert "the head was initialised randomly, as it was trained for another task" in caplog.text
    assert AutoConfig.from_pretrained(folder).num_labels == 4
    with pytest.raises(CheckpointError, match="is a SqueezeBertForTokenClassification"):
        Engine.from_pretrained(folder, "ForSequenceClassification")


# ── scores by hand ──


class Said:
    """A predictor that gives prepared outputs, one after the other."""

    def __init__(self, *outputs: dict[str, Any]) -> None:
        self.outputs = [{name: np.array(values, dtype=np.float32) for name, values in one.items()} for one in outputs]
        self.most = 0

    def __call__(self, inputs: Sequence[Features]) -> list[dict[str, np.ndarray]]:
        self.most = max(self.most, len(inputs))
        now, self.outputs = self.outputs[: len(inputs)], self.outputs[len(inputs) :]
        return now


def test_choices_by_hand(tokenizer: BertTokenizer) -> None:
    rows = Choices(Path("x"), [Choice("ann", ("in rome", "in ann"), 0, 1), Choice("bob", ("one", "two", "who"), 2, 2)])
    said = Said(*({"logits": [x]} for x in (1.0, 0.0, 0.0, 2.0, 0.0)))
    metrics = ChoiceEvaluation({"dev": rows}, tokenizer, 64)(said)
    first = math.log(math.exp(1) + 1) - 1
    second = math.log(math.exp(2) + 2)
    assert metrics == {"accuracy": 0.5, "loss": pytest.approx((first + second) / 2)}


def test_several_labels_by_hand(tokenizer: BertTokenizer) -> None:
    examples = [Example("one", None, ("a", "b"), 1), Example("two", None, (), 2), Example("who", None, ("c",), 3)]
    table = Table(Path("x"), examples, Columns("text", None, "label"))
    labels = Labels(("a", "b", "c"), several=True)
    logits = ([3.0, -1.0, -2.0], [-1.0, -1.0, 4.0], [-1.0, -1.0, 5.0])
    metrics = TextEvaluation({"dev": table}, labels, tokenizer, 64)(Said(*({"logits": row} for row in logits)))
    # a: right; b: missed; c: right once and wrong once.
    assert metrics["micro_f1"] == pytest.approx(2 * 2 / (3 + 3))
    assert metrics["macro_f1"] == pytest.approx((1 + 0 + 2 / 3) / 3)
    assert metrics["accuracy"] == pytest.approx(1 / 3)
    gold = np.array([[1, 1, 0], [0, 0, 0], [0, 0, 1]])
    expected = np.mean([math.log1p(math.exp(x)) - x * y for x, y in zip(np.ravel(logits), gold.ravel(), strict=True)])
    assert metrics["loss"] == pytest.approx(expected)


def test_tags_by_hand_in_windows(tokenizer: BertTokenizer) -> None:
    """[CLS] ann in [SEP], [CLS] in rome [SEP]: what the second says of "in" does not count."""
    rows = Sentences(Path("x"), [Sentence(("ann", "in", "rome"), ("I-PER", "O", "I-LOC"), 1)])
    tags = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")
    first, second = np.zeros((4, 5)), np.zeros((4, 5))
    first[1, 1] = 2.0
    second[1, 1], second[2, 2] = 9.0, 2.0
    evaluation = TagEvaluation({"dev": rows}, tags, tokenizer, 4)
    metrics = evaluation(Said({"logits": first}, {"logits": second}))
    losses = [math.log(math.exp(2) + 4) - 2, math.log(5), math.log(math.exp(2) + 4)]
    assert metrics == {
        "f1": pytest.approx(1 / 2), "precision": 0.5, "recall": 0.5, "accuracy": pytest.approx(2 / 3),
        "loss": pytest.approx(np.mean(losses)),
    }  # fmt: skip
    [prediction] = evaluation.predicted["dev"]
    assert (prediction.tags, prediction.unread, evaluation.cut) == (["B-PER", "O", "I-PER"], 0, 0)


def test_questions_by_hand(tokenizer: BertTokenizer, tmp_path: Path) -> None:
    """[CLS] who ? [SEP] the ann lives in rome [SEP]: one question is answered, one wrongly not."""
    context = "the ann lives in rome"
    examples = [Question("a", "who ?", context, ((4, "ann"),)), Question("b", "who ?", context, ((17, "rome"),))]
    examples += [Question("c", "who ?", context, ()), Question("d", "who ?", context, ())]
    rows = Questions(Path("x"), examples)

    def output(start: int, end: int, logit: float, null: float) -> dict[str, Any]:
        starts, ends = np.full(10, -9.0), np.full(10, -9.0)
        starts[start], ends[end] = logit, logit
        starts[0] = ends[0] = null
        return {"start_logits": starts, "end_logits": ends}

    said = Said(output(4, 5, 3.0, 1.0), output(8, 8, 2.0, 2.5), output(5, 5, 0.0, 1.0), output(6, 6, 2.0, 1.9))
    evaluation = AnswerEvaluation({"dev": rows}, tokenizer, 64)
    metrics = evaluation(said)
    # a: "the ann" (right but for the article); b: none, though there is one; c: none, rightly; d: "lives", wrongly.
    assert metrics == {
        "f1": 0.5, "exact_match": 0.5, "has_answer_f1": 0.5, "no_answer_f1": 0.5,
        # Differences of null and best: -4, 1, 2, -0.2. At -4 only a gets an answer, and all but b are right.
        "best_exact_match": 0.75, "best_exact_match_threshold": -4.0, "best_f1": 0.75, "best_f1_threshold": -4.0,
    }  # fmt: skip
    evaluation.write(tmp_path)
    assert json.loads((tmp_path / "predictions.json").read_text()) == {"a": "the ann", "b": "", "c": "", "d": "lives"}
    odds = json.loads((tmp_path / "null_odds.json").read_text())
    assert odds == pytest.approx({"a": -4, "b": 1, "c": 2, "d": -0.2}, abs=1e-6)
    best = json.loads((tmp_path / "nbest_predictions.json").read_text())
    assert (best["b"][0]["text"], best["b"][0]["start_logit"]) == ("", 5.0)
    assert best["b"][1]["text"] == "rome"


def test_every_token_of_a_passage_is_in_a_window_and_answers_are_found_there(tokenizer: BertTokenizer) -> None:
    chance = random.Random(3)
    words = [chance.choice(NAMES + PLACES) for _ in range(150)]
    context = " ".join(words)
    place = sum(len(word) + 1 for word in words[:97])
    rows = Questions(Path("x"), [Question("a", "who ?", context, ((place, " ".join(words[97:99])),))])
    evaluation = AnswerEvaluation({"dev": rows}, tokenizer, 40)
    [windows] = evaluation.encode(rows.examples)
    seen: set[int] = set()
    for window in windows:
        seen |= set(window.offsets[:, 0].tolist())
        assert len(window) <= 40
    assert len(seen) == 150
    assert sum(int(window.max_context.sum()) for window in windows) == 150
    task = object.__new__(QuestionAnswering)
    task.train = rows
    features, targets = task.targets([windows], BertConfig())
    found = [
        tokenizer.decode(one.input_ids[start : end + 1].tolist()) if start else ""
        for one, start, end in zip(features, targets["start_positions"], targets["end_positions"], strict=True)
    ]
    assert set(found) == {"", " ".join(words[97:99])}


def test_memory_holds_one_chunk(tokenizer: BertTokenizer) -> None:
    examples = [Choice("ann", ("in rome", "in ann"), i % 2, i) for i in range(1000)]
    said = Said(*({"logits": [float(i % 2)]} for i in range(2000)))
    heard: list[tuple[int, float]] = []
    ChoiceEvaluation({"dev": Choices(Path("x"), examples)}, tokenizer, 64)(said, lambda *x: heard.append(x))
    assert said.most == 2 * ChoiceEvaluation.chunk
    assert heard[0] == (1, 0.001)
    assert heard[-1] == (1000, 1.0)


# ── bad input ──


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"task": "poetry"}, ConfigError, "--task poetry must be one of text-classification, token-"),
        ({"task": "question-answering", "labels": ("a", "b")}, ConfigError, "--labels a,b is not for --task question-"),
        ({"task": "multiple-choice", "glue": "rte"}, ConfigError, "--glue rte is not for --task multiple-choice"),
        ({"task": "token-classification", "text_column": "word"}, ConfigError, "word: columns of CoNLL files are num"),
        ({"task": "question-answering"}, DataError, r"reviews\.csv: must be a file with one of the suffixes \.json"),
        ({"task": "token-classification"}, DataError, r"reviews\.csv, line \d+: has \d+ columns, the first line has 1|"
         r"line 1: has 1 columns"),
        ({"task": "multiple-choice"}, DataError, r"reviews\.csv: expected SWAG's columns"),
    ],
)  # fmt: skip
def test_options_and_files_of_other_tasks(
    options: Options, changes: dict[str, Any], error: type[Exception], says: str
) -> None:
    with pytest.raises(error, match=says):
        finetune(options(**changes))


def test_what_cannot_be_learned_from(options: Options, tmp_path: Path) -> None:
    def refused(task: str, data: Path, says: str, **changes: Any) -> None:
        with pytest.raises(DataError, match=says):
            finetune(options(task=task, data=data, **changes))

    wrong = squad_file(tmp_path / "a.json", 3)
    wrong.write_text(wrong.read_text().replace('"answer_start": 4', '"answer_start": 5'))
    refused("question-answering", wrong, r"a\.json, question 0-0: the answer .* is not at character 5 .*is at 4")
    nothing = tmp_path / "b.json"
    qas = [{"id": i, "question": "who ?", "answers": []} for i in range(3)]
    nothing.write_text(json.dumps({"data": [{"paragraphs": [{"context": "the ann", "qas": qas}]}]}))
    refused("question-answering", nothing, "no question has an answer")
    refused("question-answering", squad_file(tmp_path / "c.json", 1), "too few examples .*--eval-data")

    same = tmp_path / "same.txt"
    same.write_text("ann O\n\nbob O\n\neve O\n")
    refused("token-classification", same, "all words have the tag 'O'; two tags are needed")
    train = conll_file(tmp_path / "a.txt", 5)
    dev = tmp_path / "dev.txt"
    dev.write_text("x NN O\nrome NN I-MISC\n")
    refused("token-classification", train, r"dev\.txt, line 2: the tag 'I-MISC' of 'rome' is not a tag", eval_data=dev)

    rows = [{"prompt": "p", "choices": ["a", "b"], "label": 1}, {"prompt": "q", "choices": ["a", "b"], "label": 1}]
    ends = tmp_path / "a.jsonl"
    ends.write_text("\n".join(map(json.dumps, rows)))
    refused("multiple-choice", ends, "all 2 questions have the label 1", eval_data=ends)
    rows[1] = {"prompt": "q", "choices": ["a", "b", "c"], "label": 0}
    ends.write_text("\n".join(map(json.dumps, rows)))
    refused("multiple-choice", ends, r"a\.jsonl, line 2: has 3 choices where the first", eval_data=ends)

    mixed = tmp_path / "mixed.jsonl"
    mixed.write_text('{"text": "a", "label": ["x"]}\n{"text": "b", "label": "x"}\n')
    refused("text-classification", mixed, r"mixed\.jsonl, line 2: the label 'x' is not a list of some of x")


def test_a_question_longer_than_its_window(run: Callable[..., Any], tmp_path: Path) -> None:
    data = squad_file(tmp_path / "a.json", 8)
    data.write_text(data.read_text().replace("who ?", "who " * 70, 1))
    with pytest.raises(DataError, match=r"a\.json, question 0-0: has 70 tokens, .* no room .* in a window of 64"):
        run("question-answering", data, eval_data=squad_file(tmp_path / "dev.json", 8))


def test_a_question_that_is_cut_is_said(
    run: Callable[..., Any], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    data = squad_file(tmp_path / "a.json", 8)
    data.write_text(data.read_text().replace("who ?", "who " * 20, 1))
    run("question-answering", data, eval_data=data, epochs=1)
    assert "only the first 10 tokens of a question are read, for example of 0-0" in caplog.text
    assert caplog.text.count("only the first") == 1


def test_evaluating_with_what_does_not_fit(run: Callable[..., Any], tmp_path: Path) -> None:
    folder = run("token-classification", conll_file(tmp_path / "a.txt", 20), epochs=1).folder
    other = tmp_path / "other.txt"
    other.write_text("x NN O\n\nrome NN B-MISC\n")
    with pytest.raises(DataError, match=r"other\.txt, line 3: the tag 'B-MISC' of 'rome' is not a tag of the model"):
        read_evaluation(folder, other)
    with pytest.raises(ConfigError, match=r"--glue does not apply to .*ForTokenClassification"):
        read_evaluation(folder, other, glue="rte")
