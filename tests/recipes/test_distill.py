"""Distillation from a table: what a student takes over, what is asked only once, and what is refused."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.labelled import reviews, write_csv
from helpers.processes import kill_when, newest
from helpers.runs import CONFIGS, TEACHER, contents
from helpers.seeds import SEED
from helpers.tokenizers import SPECIAL, tokenizer_of
from pocketbert.configs import AutoConfig
from pocketbert.data.augment import augment_all
from pocketbert.errors import ConfigError, DataError, TrainingError
from pocketbert.models.auto import AutoModelForSequenceClassification
from pocketbert.models.bert import BertForSequenceClassification
from pocketbert.recipes import teacher_models
from pocketbert.recipes.distill import distill
from pocketbert.recipes.distill_options import DistillOptions
from pocketbert.recipes.finetune import finetune
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.tokenization import AutoTokenizer, BertTokenizer
from pocketbert.training.teachers import TeacherCache

Make = Callable[..., DistillOptions]


@pytest.fixture(scope="module")
def teacher(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that knows the words."""
    folder = tmp_path_factory.mktemp("teacher")
    (folder / "config.json").write_text(
        json.dumps({**TEACHER, "hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0})
    )
    data = write_csv(folder / "reviews.csv", reviews(200, seed=5))
    run = FinetuneOptions(
        data=data, output=folder / "model", from_scratch=str(folder / "config.json"), vocab_size=120, epochs=10,
        batch_size=8, learning_rate=5e-3, tensorboard=False, seed=SEED,
    )  # fmt: skip
    assert finetune(run).metrics["accuracy"] == 1.0
    return folder / "model"


@pytest.fixture
def make(tmp_path: Path, teacher: Path, config: Callable[..., str]) -> Make:
    """Options of a run of a second, with changes."""

    def options(**changes: Any) -> DistillOptions:
        data = tmp_path / "reviews.csv"
        if not data.exists():
            write_csv(data, reviews(80))
        defaults: dict[str, Any] = {
            "data": data, "output": tmp_path / "out", "teacher": (str(teacher),), "epochs": 2, "batch_size": 8,
            "learning_rate": 5e-3, "tensorboard": False, "seed": SEED,
        }  # fmt: skip
        if "model" not in changes:
            defaults["from_scratch"] = config(
                q_groups=2, k_groups=2, v_groups=2, intermediate_groups=2, output_groups=2, num_hidden_layers=2
            )
        return DistillOptions(**{**defaults, **changes})

    return options


def permuted(teacher: Path, folder: Path, **changes: Any) -> str:
    """The teacher with its labels, and the ids of its pieces, in another order."""
    model = AutoModelForSequenceClassification.from_pretrained(teacher)
    vocabulary = AutoTokenizer.from_pretrained(teacher).get_vocab()
    pieces = sorted(vocabulary, key=vocabulary.__getitem__)
    order = [*range(5), *range(len(pieces) - 1, 4, -1)]
    with torch.no_grad():
        words = model.get_input_embeddings().weight
        words[: len(order)] = words[order].clone()
        for parameter in (model.classifier.weight, model.classifier.bias):
            parameter.copy_(parameter.flip(0).clone())
    model.config = model.config.replace(**{"id2label": {0: "good", 1: "bad"}, **changes})
    model.save_pretrained(folder)
    BertTokenizer(vocab={pieces[i]: place for place, i in enumerate(order)}).save_pretrained(folder)
    return str(folder)


def weights(folder: Path) -> dict[str, np.ndarray]:
    model = AutoModelForSequenceClassification.from_pretrained(folder)
    return {name: tensor.numpy() for name, tensor in model.state_dict().items()}


ALL: dict[str, Any] = {"alpha": 0.5, "temperature": 2.0, "hidden_weight": 1.0, "augment": 1}


@pytest.mark.learning
@pytest.mark.usefixtures("pictures")
def test_a_student_learns_what_the_labels_do_not_say(make: Make, tmp_path: Path, teacher: Path) -> None:
    wrong = write_csv(
        tmp_path / "wrong.csv", [(text, ("bad", "good")[i % 3 == 0]) for i, (text, _) in enumerate(reviews(160))]
    )
    test = write_csv(tmp_path / "test.csv", reviews(60, seed=8))
    result = distill(make(data=wrong, eval_data=test, alpha=1.0, epochs=8), argv=["pocketbert", "distill"])
    assert result.metrics["accuracy"] > 0.95
    run = json.loads((result.folder / "run.json").read_text())
    assert run["options"]["alpha"] == 1.0
    assert len(run["teachers"][0]) == 64
    assert AutoConfig.from_pretrained(result.folder).model_type == "squeezebert"
    assert sorted(path.name for path in result.folder.iterdir()) == [
        "README.md", "checkpoints", "config.json", "curves.png", "evaluation", "last", "model.safetensors",
        "reliability.png", "report.html", "run.json", "teachers", "tokenizer.json", "tokenizer_config.json",
        "vocab.txt",
    ]  # fmt: skip


@pytest.mark.slow
def test_labels_and_pieces_are_matched_by_name(make: Make, tmp_path: Path, teacher: Path) -> None:
    other = permuted(teacher, tmp_path / "other")
    tokenizer = str(teacher)
    one = distill(make(output=tmp_path / "a", **ALL))
    two = distill(make(output=tmp_path / "b", teacher=(other,), tokenizer=tokenizer, **ALL))
    for name, tensor in weights(one.folder).items():
        np.testing.assert_allclose(weights(two.folder)[name], tensor, rtol=1e-3, atol=1e-5, err_msg=name)

    unnamed = permuted(teacher, tmp_path / "unnamed", id2label={0: "LABEL_0", 1: "LABEL_1"})
    with pytest.raises(ConfigError, match=r"LABEL_0, LABEL_1.*bad, good.*--teacher-labels"):
        distill(make(output=tmp_path / "c", teacher=(unnamed,), tokenizer=tokenizer))
    with pytest.raises(ConfigError, match=r"unnamed has 2 labels, not 3 \(good, bad, dull\)"):
        distill(
            make(
                output=tmp_path / "c",
                teacher=(unnamed,),
                teacher_labels=("good", "bad", "dull"),
                tokenizer=tokenizer,
                resume=True,
            )
        )
    named = make(
        output=tmp_path / "c",
        teacher=(unnamed,),
        teacher_labels=("good", "bad"),
        tokenizer=tokenizer,
        resume=True,
        **ALL,
    )
    three = distill(named)
    for by_name, in_order in zip(three.history, two.history, strict=True):
        assert by_name == pytest.approx(in_order)


@pytest.mark.slow
def test_killed_and_resumed(make: Make, tmp_path: Path) -> None:
    changes = {**ALL, "epochs": 2, "eval_every": 3, "init": "copy"}
    whole = distill(make(output=tmp_path / "whole", **changes))
    broken = make(output=tmp_path / "broken", resume=True, **changes)
    states = tmp_path / "broken" / "checkpoints"
    kill_when(lambda: newest(states) > 0, distill, broken)
    result = distill(broken)
    assert contents(result.folder) == contents(whole.folder)
    assert result.history == whole.history


def test_the_teacher_is_asked_once(make: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    one = distill(make(output=tmp_path / "a", cache=cache, **ALL))
    monkeypatch.setattr(TeacherCache, "_run", lambda *_: pytest.fail("asked again"))
    two = distill(make(output=tmp_path / "b", cache=cache, **ALL))
    assert contents(two.folder) == contents(one.folder)
    with pytest.raises(ConfigError, match="other data"):
        distill(make(output=tmp_path / "c", cache=cache, **{**ALL, "augment": 2}))


def test_the_teachers_run_beside_the_student_where_too_much_would_be_kept(make: Make, tmp_path: Path) -> None:
    one = distill(make(output=tmp_path / "a", epochs=1, **ALL))
    two = distill(make(output=tmp_path / "b", epochs=1, cache_gigabytes=0.0, **ALL))
    assert (one.folder / "teachers").exists()
    assert not (two.folder / "teachers").exists()
    assert two.metrics["loss"] == pytest.approx(one.metrics["loss"], rel=0.05)  # what is kept is rounded to fp16


def test_several_teachers_of_any_family(make: Make, tmp_path: Path, teacher: Path, config: Callable[..., str]) -> None:
    mobile = finetune(
        FinetuneOptions(
            data=tmp_path / "reviews.csv", output=tmp_path / "mobile", from_scratch=config("mobilebert"),
            tokenizer=str(teacher), epochs=1, tensorboard=False,
        )
    ) if make() else None  # fmt: skip
    assert mobile is not None
    result = distill(make(teacher=(str(teacher), str(mobile.folder)), epochs=1, attention_weight=0.1, **ALL))
    assert np.isfinite(result.metrics["loss"])


def test_a_student_that_begins_as_its_teacher(make: Make, tmp_path: Path, teacher: Path) -> None:
    result = distill(
        make(
            from_scratch=_full(tmp_path), init="copy", learning_rate=1e-9, epochs=1, alpha=1.0,
            keep_vocabulary=70,
        )
    )  # fmt: skip
    assert result.metrics["accuracy"] == 1.0
    kept = AutoTokenizer.from_pretrained(result.folder)
    assert len(kept) == 70
    assert kept.tokenize("a lovely film") == ["a", "lovely", "film"]


def _full(folder: Path) -> str:
    """A SqueezeBERT of the teacher's shape, without groups."""
    groups = dict.fromkeys(
        ("q_groups", "k_groups", "v_groups", "post_attention_groups", "intermediate_groups", "output_groups"), 1
    )
    shape = {**CONFIGS["squeezebert"], "num_hidden_layers": 4, "intermediate_size": 32, **groups}
    (folder / "full.json").write_text(json.dumps(shape))
    return str(folder / "full.json")


def test_texts_without_labels(make: Make, tmp_path: Path) -> None:
    further = tmp_path / "further.jsonl"
    further.write_text("\n".join(json.dumps({"text": text}) for text, _ in reviews(50, seed=3)))
    result = distill(make(unlabelled=further, epochs=1, alpha=0.5))
    assert result.steps == (72 + 50 + 7) // 8
    run = json.loads((result.folder / "run.json").read_text())
    assert len(run["unlabelled"]) == 64
    with pytest.raises(DataError, match=r"gone\.csv"):
        distill(make(output=tmp_path / "b", unlabelled=tmp_path / "gone.csv"))


def test_numbers(make: Make, tmp_path: Path, teacher: Path) -> None:
    data = tmp_path / "numbers.csv"
    rows = [(text, f"{0.5 + 3 * (label == 'good')}") for text, label in reviews(80)]
    write_csv(data, rows)
    config = AutoConfig.from_pretrained(teacher).replace(num_labels=1, id2label={0: "x"}, problem_type="regression")
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(tmp_path / "numbers")
    AutoTokenizer.from_pretrained(teacher).save_pretrained(tmp_path / "numbers")
    result = distill(make(data=data, teacher=(str(tmp_path / "numbers"),), augment=1, epochs=1))
    assert list(result.metrics) == ["pearson", "spearman", "loss"]
    with pytest.raises(ConfigError, match=r"\(bad, good\) are not those of the data \(a number\)"):
        distill(make(output=tmp_path / "b", data=data))


@pytest.mark.slow
@pytest.mark.learning
def test_several_labels(make: Make, tmp_path: Path, teacher: Path) -> None:
    data = tmp_path / "several.jsonl"
    rows = [
        {"text": text, "label": ["good", "bad"] if i % 5 == 0 else [label]}
        for i, (text, label) in enumerate(reviews(80))
    ]
    data.write_text("\n".join(map(json.dumps, rows)))
    result = distill(make(data=data, augment=1, hidden_weight=1.0, epochs=8))
    assert AutoConfig.from_pretrained(result.folder).problem_type == "multi_label_classification"
    assert result.metrics["micro_f1"] > 0.5


def logits_of(texts: list[str], teacher: Path) -> list[dict[str, Any]]:
    """The rows of a table of a teacher's logits, computed without padding, labels by name."""
    model, tokenizer = (
        AutoModelForSequenceClassification.from_pretrained(teacher),
        AutoTokenizer.from_pretrained(teacher),
    )
    rows = []
    for text in texts:
        with torch.no_grad():
            logits = model(torch.tensor([tokenizer(text)["input_ids"]])).logits[0].tolist()
        names = [model.config.id2label[i] for i in range(len(logits))]
        rows.append({"text": text, "logits": dict(reversed(list(zip(map(str.upper, names), logits, strict=True))))})
    return rows


@pytest.mark.slow
def test_a_teacher_that_was_run_elsewhere(make: Make, tmp_path: Path, teacher: Path) -> None:
    """The same teacher twice, once by its logits, has the targets of the teacher itself."""
    changes: dict[str, Any] = {"augment": 1, "alpha": 1.0, "epochs": 1}
    table = tmp_path / "logits.jsonl"
    table.write_text(json.dumps({"text": "x", "logits": {"good": 1, "bad": 2}}))
    broken = make(output=tmp_path / "a", teacher_logits=(str(table),), resume=True, **changes)
    with pytest.raises(DataError, match=r"logits\.jsonl: has no logits for .* texts .*texts-without-logits\.jsonl"):
        distill(broken)
    absent = tmp_path / "a" / "texts-without-logits.jsonl"
    texts = [json.loads(line)["text"] for line in absent.read_text().splitlines()]
    table.write_text("\n".join(map(json.dumps, logits_of(texts, teacher))))
    one, two = distill(broken), distill(make(output=tmp_path / "b", **changes))
    for mixed, plain in zip(one.history, two.history, strict=True):
        assert mixed == pytest.approx(plain, rel=1e-3)
    assert len(json.loads((one.folder / "run.json").read_text())["teacher_logits"][0]) == 64

    rows = logits_of(texts, teacher)
    for row in rows:
        row["logits"] = {name: -value for name, value in row["logits"].items()}
    table.write_text("\n".join(map(json.dumps, rows)))
    other = distill(make(output=tmp_path / "c", teacher_logits=(str(table),), **changes))
    assert other.metrics["loss"] != pytest.approx(one.metrics["loss"], rel=1e-3)
    with pytest.raises(ConfigError, match=r"teacher_logits: was"):
        distill(broken)
    rows = [{**row, "logits": {"positive": 0.5, "bad": 0.5}} for row in rows]
    table.write_text("\n".join(map(json.dumps, rows)))
    with pytest.raises(DataError, match=r"has logits of positive, bad, and the labels are bad, good"):
        distill(make(output=tmp_path / "d", teacher_logits=(str(table),), **changes))


def test_logits_alone(make: Make, tmp_path: Path, teacher: Path) -> None:
    """A teacher of which nothing is there but its logits is imitated as the teacher itself."""
    table, tokenizer = tmp_path / "logits.jsonl", str(teacher)
    changes: dict[str, Any] = {"alpha": 1.0, "epochs": 1}
    alone = {"teacher": (), "teacher_logits": (str(table),), "tokenizer": tokenizer}
    plain = make(output=tmp_path / "a", **changes)
    with Path(plain.data).open() as file:
        texts = [row["text"] for row in csv.DictReader(file)]
    table.write_text("\n".join(map(json.dumps, logits_of(list(dict.fromkeys(texts)), teacher))))
    one, other = distill(make(output=tmp_path / "b", **changes, **alone)), distill(plain)
    for mine, theirs in zip(one.history, other.history, strict=True):
        assert mine == pytest.approx(theirs, rel=1e-3)


def test_a_few_tokens_may_be_unknown_to_a_teacher(tmp_path: Path) -> None:
    words = [f"w{i}" for i in range(300)]
    theirs = [*SPECIAL, *words]
    lines: list[str] = []
    tokenizer_of(theirs).save_pretrained(tmp_path)
    ours = tokenizer_of([*SPECIAL, "\u2603", *reversed(words[1:])])
    rows = teacher_models._embedding_rows(str(tmp_path), ours, 306, lines.append)
    assert lines == [f"1 of the student's tokens are unknown to the teacher {tmp_path}: \u2603, …"]
    assert rows.tolist() == [0, 1, 2, 3, 4, theirs.index("[UNK]"), *range(len(theirs) - 1, 5, -1), 0]
    many = tokenizer_of([*SPECIAL, "a", "b", "c", "d", *words[4:]])
    with pytest.raises(ConfigError, match=r"lacks 4 of the student's tokens \(a, b, c, d\)"):
        teacher_models._embedding_rows(str(tmp_path), many, 305, lines.append)


def test_what_is_refused(make: Make, tmp_path: Path, teacher: Path) -> None:
    model = BertForSequenceClassification.from_pretrained(teacher)
    model.save_pretrained(tmp_path / "stranger")
    tokenizer_of([*SPECIAL, "x"]).save_pretrained(tmp_path / "stranger")
    tokenizer = str(teacher)
    with pytest.raises(ConfigError, match=r"stranger lacks \d+ of the student's tokens"):
        distill(make(teacher=(str(tmp_path / "stranger"),), tokenizer=tokenizer))
    model.save_pretrained(tmp_path / "cased")
    vocabulary = AutoTokenizer.from_pretrained(teacher).get_vocab()
    BertTokenizer(vocab=vocabulary, do_lower_case=False).save_pretrained(tmp_path / "cased")
    with pytest.raises(ConfigError, match="cased has another do_lower_case"):
        distill(make(output=tmp_path / "b", teacher=(str(tmp_path / "cased"),), tokenizer=tokenizer))
    other = write_csv(tmp_path / "other.csv", [("a film", "one"), ("the film", "two")] * 10)
    with pytest.raises(ConfigError, match=r"\(bad, good\) are not those of the data \(one, two\)"):
        distill(make(output=tmp_path / "c", data=other))
    with pytest.raises(ConfigError, match="1:9"):
        distill(make(output=tmp_path / "d", layers=((1, 9),), hidden_weight=1.0))
    with pytest.raises(TrainingError):
        distill(make(output=tmp_path / "e", learning_rate=1e30, clip=1e30))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"teacher": ()}, "--teacher"),
        ({"teacher": (), "teacher_logits": ("x",), "from_scratch": "y"}, "needs a --tokenizer"),
        (
            {"teacher": (), "teacher_logits": ("x",), "model": "m", "hidden_weight": 1.0},
            "--hidden-weight 1.0 needs a --teacher",
        ),
        ({"teacher": (), "teacher_logits": ("x",), "model": "m", "augment": 1}, "--augment 1 needs a --teacher"),
        ({"alpha": 2.0}, "alpha"),
        ({"alpha": 0.0}, "all distillation weights are 0"),
        ({"augment": -1}, "--augment"),
        ({"vocab_size": 100}, "--keep-vocabulary"),
        ({"model": "x", "init": "copy"}, "--init copy initialises a student --from-scratch"),
        ({"init": "guess"}, "--init guess must be one of copy, refit"),
        ({"from_scratch": "x", "init": "refit"}, "--init refit is for --task feature-extraction"),
        ({"init_tokens": 0}, "--init-tokens"),
        ({"model": "x", "keep_vocabulary": 100}, "--keep-vocabulary"),
        ({"task": "poetry"}, "--task poetry must be one of text-classification"),
        ({"task": "question-answering", "teacher_logits": ("x",)}, "--teacher-logits x is not for"),
        ({"task": "question-answering", "augment": 1}, "--augment 1 is not for --task question-answering"),
        ({"task": "multiple-choice", "teacher_labels": ("a", "b")}, "--teacher-labels a,b is not for"),
        ({"task": "token-classification", "unlabelled": "x"}, "--unlabelled x is not for"),
        ({"task": "feature-extraction"}, "--hidden-weight 1"),
        ({"task": "feature-extraction", "word_weight": 1.0}, "--hidden-weight 1"),
        ({"task": "feature-extraction", "sentence_weight": -1.0}, "sentence_weight=-1.0 must not be negative"),
        ({"task": "feature-extraction", "hidden_weight": 1.0, "word_share": 0.0}, "--word-share 0.0 must lie"),
        (
            {"task": "feature-extraction", "hidden_weight": 1.0, "similarity_data": ("a/x.tsv", "b/x.tsv")},
            "--similarity-data a/x.tsv,b/x.tsv must be files with different names",
        ),
        ({"similarity_data": ("x.tsv",)}, "--similarity-data x.tsv is for --task feature-extraction"),
        (
            {"task": "feature-extraction", "hidden_weight": 1.0, "word_weight": 1.0, "layer_local": True},
            "--word-weight 1.0 is not for --layer-local",
        ),
        ({"task": "feature-extraction", "sentence_weight": 1.0, "layer_local": True}, "--hidden-weight 0.0 must be"),
        ({"task": "feature-extraction", "relation_weight": 1.0, "relation_heads": 0}, "--relation-heads 0 must be"),
        ({"task": "feature-extraction", "hidden_weight": 1.0, "freeze": "pooler"}, "--freeze pooler must be one of"),
        (
            {"task": "feature-extraction", "hidden_weight": 1.0, "short_share": 0.01},
            "--short-share 0.01 must leave and replace examples of a batch of 8",
        ),
        ({"task": "feature-extraction", "hidden_weight": 1.0, "short_share": 1.0}, "--short-share 1.0 must leave"),
        (
            {"task": "feature-extraction", "hidden_weight": 1.0, "short_share": 0.5, "pair_share": 0.6},
            "--pair-share 0.6 must leave and replace examples of a batch of 8",
        ),
        (
            {"task": "feature-extraction", "hidden_weight": 1.0, "pair_share": 0.1},
            "--pair-share 0.1 must leave and replace",
        ),
        (
            {"task": "feature-extraction", "hidden_weight": 1.0, "pair_weight": 1.0},
            "--pair-weight 1.0 needs pairs: give --pair-share",
        ),
        ({"pair_share": 0.5}, "--pair-share 0.5 is for --task feature-extraction"),
        ({"word_weight": 1.0}, "--word-weight 1.0 is for --task feature-extraction"),
        ({"sentence_weight": 1.0}, "--sentence-weight 1.0 is for --task feature-extraction"),
        ({"task": "feature-extraction", "hidden_weight": 1.0, "keep_vocabulary": 70}, "--keep-vocabulary 70 is not"),
    ],
)
def test_options_that_contradict_each_other(make: Make, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        distill(make(**changes))


def test_altered_texts() -> None:
    texts = ["one two three four five six seven", "", "alone"]
    altered = augment_all(texts, 200, "[MASK]", seed=1)
    assert altered == augment_all(texts, 200, "[MASK]", seed=1)
    assert altered != augment_all(texts, 200, "[MASK]", seed=2)
    assert set(altered[1::3]) == {""}
    assert set(altered[2::3]) == {"alone", "[MASK]"}
    long = [text.split() for text in altered[::3]]
    words = texts[0].split()
    for some in long:
        starts = [
            s for s in range(len(words) - len(some) + 1)
            if all(a in (b, "[MASK]") for a, b in zip(some, words[s : s + len(some)], strict=True))
        ]  # fmt: skip
        assert starts
    assert 0.15 < np.mean([len(some) < 7 for some in long]) < 0.35
    assert max(len(some) for some in long if len(some) < 7) == 5
    assert 0.05 < np.mean([word == "[MASK]" for some in long for word in some]) < 0.15
