"""Every command in Chinese and in Arabic, with small models that were trained on made-up tables of these languages."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from helpers.languages import LANGUAGES, Language
from helpers.runs import config_in
from helpers.seeds import SEED
from helpers.service import running
from helpers.shell import Outcome
from pocketbert.metrics import squad_scores
from pocketbert.tokenization import AutoTokenizer

Run = Callable[..., Outcome]


@pytest.fixture(params=list(LANGUAGES))
def language(request: pytest.FixtureRequest) -> Language:
    return LANGUAGES[request.param]


@pytest.fixture
def train(run: Run, tmp_path: Path) -> Callable[..., Path]:
    """Fine-tune from scratch on a file."""
    config = config_in(tmp_path, hidden_dropout_prob=0.0, max_position_embeddings=64)

    def train(data: Path, *more: Any) -> Path:
        folder = tmp_path / f"模型 {data.stem}"
        outcome = run(
            "finetune", data, "--from-scratch", config, "--vocab-size", "150", "--output", folder, "--batch-size", "8",
            "--learning-rate", "1e-2", "--seed", str(SEED), "--no-tensorboard", "--device", "cpu", *more,
        )  # fmt: skip
        assert outcome.code == 0, outcome.err
        return folder

    return train


@pytest.mark.learning
def test_classes(run: Run, train: Callable[..., Path], language: Language, tmp_path: Path) -> None:
    data, dev = language.table(tmp_path / "标注 تصنيف.csv", 96), language.table(tmp_path / "dev.csv", 24, seed=1)
    assert not [one for one in run("check", data).lines if one["kind"] in ("language", "duplicate", "unusable")]
    folder = train(data, "--eval-data", dev, "--epochs", "5")
    texts = [text for text, _ in language.reviews(6, seed=2)]
    answers = run("classify", "--model", folder, *texts).lines
    assert [one["text"] for one in answers] == texts
    assert {one["label"] for one in answers} <= {*language.labels}
    [why] = run("classify", "--model", folder, "--explain", texts[0]).lines
    for word in why["words"]:
        assert texts[0][word["start"] : word["end"]] == word["word"]
    assert len(why["words"]) > 2
    table = run("classify", "--model", folder, "--explain", "--table", *texts).text
    assert all(text[:9] in table for text in texts)
    assert "\u2068" not in table  # not a terminal

    reports = [tmp_path / "first", tmp_path / "second"]
    run("quantize", folder, tmp_path / "int8").lines  # noqa: B018
    for model, report in zip((folder, tmp_path / "int8"), reports, strict=True):
        run("evaluate", model, dev, "--output", report).lines  # noqa: B018
        page = (report / "report.html").read_text(encoding="utf-8")
        assert language.labels[0] in page
    assert run("compare", *reports).lines
    [card] = run("info", folder).lines
    assert set(card["labels"]) == {*language.labels}
    answered = tmp_path / "answers.csv"
    outcome = run("classify", "--model", folder, "--file", dev, "--output", answered)
    assert outcome.code == 0, outcome.err
    _exported(run, folder, dev, language, tmp_path)
    _distilled(run, folder, data, language, tmp_path)
    _served(folder, texts, answers)


def _exported(run: Run, folder: Path, dev: Path, language: Language, tmp_path: Path) -> None:
    """Files of ONNX and of the web give the labels and the scores of the folder."""
    [own] = run("evaluate", folder, dev).lines
    for form in ("onnx", "web"):
        [line] = run("export", folder, tmp_path / form, "--format", form, "--text", _texts_of(dev, tmp_path)).lines
        path = Path(line["path"])
        [found] = run("evaluate", path if form == "onnx" else path.parent, dev).lines
        assert found["accuracy"] == pytest.approx(own["accuracy"], abs=0.0 if form == "onnx" else 0.1)
        files = (tmp_path / form).rglob("*.json")
        assert any(language.labels[0] in str(json.loads(file.read_text(encoding="utf-8"))) for file in files)


def _texts_of(table: Path, tmp_path: Path) -> Path:
    """The texts of a table as lines, to compare an exported file on."""
    with table.open(encoding="utf-8", newline="") as file:
        texts = [row[0] for row in csv.reader(file)][1:]
    lines = tmp_path / "نصوص.txt"
    lines.write_text("\n".join(texts), encoding="utf-8")
    return lines


def _distilled(run: Run, teacher: Path, data: Path, language: Language, tmp_path: Path) -> None:
    """A student with the teacher's vocabulary has its labels, and answers texts of the language."""
    student = tmp_path / "学生 طالب"
    outcome = run(
        "distill", data, "--teacher", teacher, "--from-scratch", config_in(tmp_path, max_position_embeddings=64),
        "--init", "copy", "--output", student, "--epochs", "1", "--seed", str(SEED), "--device", "cpu",
        "--no-tensorboard",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    [answer] = run("classify", "--model", student, language.reviews(1, seed=4)[0][0]).lines
    assert answer["label"] in language.labels


def _served(folder: Path, texts: list[str], answers: list[dict[str, Any]]) -> None:
    """The service answers as the command does, with the places of the words that it explains."""
    with running(f"reviews={folder}") as service:
        found = service.ask("/v1/classify", {"inputs": texts, "top_k": 1, "explain": True}).json["results"]
    for text, [best], answer in zip(texts, found, answers, strict=True):
        assert best["label"] == answer["label"]
        assert best["score"] == pytest.approx(answer["score"], abs=1e-5)
        assert all(text[word["start"] : word["end"]] == word["word"] for word in best["words"])


@pytest.mark.learning
def test_tags(run: Run, train: Callable[..., Path], language: Language, tmp_path: Path) -> None:
    folder = train(language.tagged(tmp_path / "train.conll", 60), "--task", "token-classification", "--epochs", "4")
    stories = language.stories(5, seed=3)
    for (text, *names), found in zip(
        stories, run("tag", "--model", folder, *[s[0] for s in stories]).lines, strict=True
    ):
        assert [one["text"] for one in found["entities"]] == names  # with the marks at their ends
        assert all(text[one["start"] : one["end"]] == one["text"] for one in found["entities"])
    shown = run("tag", "--model", folder, "--table", stories[0][0]).text
    assert f"[PER {stories[0][1]}]" in shown
    assert stories[0][2] in run("tag", "--model", folder, "--table", "--explain", stories[0][0]).text


@pytest.mark.learning
def test_answers(run: Run, train: Callable[..., Path], language: Language, tmp_path: Path) -> None:
    data = language.questions(tmp_path / "train.json", 60)
    folder = train(data, "--task", "question-answering", "--epochs", "12", "--learning-rate", "5e-3")
    [metrics] = run("evaluate", folder, data).lines
    assert metrics["exact_match"] > 0.9
    for text, who, where in language.stories(4, seed=5):
        found = run("answer", language.who, language.where, "--model", folder, "--context", text).lines
        assert [one["answer"] for one in found] == [who, where]
        assert all(text[one["start"] : one["end"]] == one["answer"] for one in found)
    shown = run("answer", language.where, "--model", folder, "--context", text, "--table", "--explain").text
    assert where in shown


@pytest.mark.learning
def test_choices(run: Run, train: Callable[..., Path], language: Language, tmp_path: Path) -> None:
    folder = train(language.choices(tmp_path / "choices.jsonl", 40), "--task", "multiple-choice", "--epochs", "1")
    [(_, who, _)] = language.stories(1, seed=6)
    [found] = run("choose", "--model", folder, language.space.join((who, language.lives)), *language.places).lines
    assert sorted(one["choice"] for one in found["choices"]) == sorted(language.places)


@pytest.mark.slow
def test_pretraining(run: Run, language: Language, tmp_path: Path) -> None:
    """From raw text to an encoder of the language: prepare, pretrain, transfer, bench."""
    raw, corpus = tmp_path / "raw.txt", tmp_path / "corpus"
    documents = [[text for text, _ in language.reviews(40, seed)] for seed in range(40)]
    raw.write_text("\n\n".join(" ".join(document) for document in documents), encoding="utf-8")
    how = ["--vocab-size", "200", "--held-out", "0.2", "--language", language.name, "--similarity", "0"]
    assert run("prepare", raw, corpus, *how).code == 0
    short = ["--mini", "--steps", "4", "--length", "24", "--batch-size", "8", "--no-tensorboard", "--device", "cpu"]
    teacher, student = tmp_path / "معلم", tmp_path / "学生"
    outcome = run("pretrain", corpus, teacher, "--preset", "ib-bert", *short)
    assert outcome.code == 0, outcome.err
    outcome = run("transfer", corpus, student, "--teacher", teacher, "--layer-steps", "1", *short)
    assert outcome.code == 0, outcome.err
    text = language.reviews(1)[0][0]
    assert run("fill-mask", "--model", student, f"{text}{language.space}[MASK]").lines[0]["gaps"]
    assert run("bench", student, "--batch", "1", "--length", "12").lines


def test_bundled_encoder_and_corpus(run: Run, language: Language, tmp_path: Path) -> None:
    texts = [text for text, _ in language.reviews(4)]
    assert len(run("embed", *texts).lines) == 4
    ranked = run("rank", texts[2], *texts).lines
    assert texts[2] in json.dumps(ranked[0], ensure_ascii=False)
    assert len(run("fill-mask", f"{texts[0]}{language.space}[MASK]").lines) == 1
    raw = tmp_path / "raw.txt"
    documents = [[text for text, _ in language.reviews(20, seed)] for seed in range(4)]
    raw.write_text("\n\n".join(" ".join(document) for document in documents), encoding="utf-8")
    [found] = run("prepare", raw, tmp_path / "corpus", "--vocab-size", "200", "--language", language.name).lines
    assert found["documents"] == 4
    assert found["sentences"] == 80  # at the stops of the language
    assert AutoTokenizer.from_pretrained(tmp_path / "corpus").tokenize(texts[0])


def test_answers_are_compared_by_bare_words() -> None:
    assert squad_scores("中国的首都北京", ["北京"], empty=False) == pytest.approx((0.0, 4 / 9))
    assert squad_scores("“北京”。", ["北京"], empty=False) == (1.0, 1.0)
    assert squad_scores("الرِّيَاضِ،", ["الرياض"], empty=False) == (1.0, 1.0)
    assert squad_scores("المدينة الرياض", ["الرياض"], empty=False) == pytest.approx((0.0, 2 / 3))
    assert squad_scores("the “Seine”", ["Seine"], empty=False) == (0.0, 0.0)  # as the official script has it


def test_tables_as_people_write_them(run: Run, language: Language, tmp_path: Path) -> None:
    """Full-width and Arabic commas between columns, and numbers in digits of the language."""
    data = tmp_path / "scores.csv"
    rows = [(text.replace(language.comma, ""), i) for i, (text, _) in enumerate(language.reviews(60))]

    def written(number: int) -> str:
        whole, tenths = divmod(number, 10)
        return (
            "".join(language.digits[int(digit)] for digit in str(whole))
            + "٫．"[not language.space]
            + language.digits[tenths]
        )

    header = language.comma.join((language.header[0], "分数" if language.name == "zh" else "الدرجة"))
    data.write_text("\n".join([header, *(f"{text}{language.comma}{written(i)}" for text, i in rows)]), encoding="utf-8")
    outcome = run(
        "finetune", data, "--dry-run", "--from-scratch", config_in(tmp_path), "--vocab-size", "150",
        "--output", tmp_path / "out",
    )  # fmt: skip
    assert outcome.code == 0, outcome.err
    assert "number" in outcome.out + outcome.err
    found = tmp_path / "problems.csv"
    run("check", data, "--output", found)
    with found.open(encoding="utf-8", newline="") as file:
        assert not [row for row in csv.DictReader(file) if row["kind"] == "unusable"]
