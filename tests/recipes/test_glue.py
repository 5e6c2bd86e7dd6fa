"""GLUE from its files to a submission, whatever the order in which a model has its labels."""

import json
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner

from helpers.evaluation import metrics_of
from helpers.processes import ask
from helpers.tokenizers import SPECIAL, tokenizer_of
from pocketbert.cli import app
from pocketbert.configs import AutoConfig, SqueezeBertConfig
from pocketbert.data.glue import GLUE
from pocketbert.errors import ConfigError, DataError, InputError
from pocketbert.features import Features
from pocketbert.metrics import glue_average, glue_score
from pocketbert.models.squeezebert import SqueezeBertForSequenceClassification
from pocketbert.recipes.finetune import finetune
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.runtime.engine import Engine
from pocketbert.tasks.evaluate import read_evaluation
from pocketbert.tasks.submission import FILES, submit

Options = Callable[..., FinetuneOptions]
ROOT = Path(__file__).parents[2]
WORDS = ("one", "two", "three", "four", "five", "six")
PIECES = [*SPECIAL, *WORDS]
NAMES = ("entailment", "neutral", "contradiction")


@pytest.fixture
def glue(tmp_path: Path) -> Path:
    """Files of MNLI, AX, MRPC, RTE and STS-B."""
    folder = tmp_path / "glue"
    pairs = [(a, b) for a in WORDS for b in WORDS]
    files: dict[str, list[str]] = {
        "AX/diagnostic.tsv": ["index\tsentence1\tsentence2"],
        "MRPC/test.tsv": ["\ufeffindex\t#1 ID\t#2 ID\t#1 String\t#2 String"],
        "STS-B/test.tsv": ["index\tsentence1\tsentence2"],
        "RTE/test.tsv": ["index\tsentence1\tsentence2"],
    }
    for split in ("train", "dev_matched", "dev_mismatched", "test_matched", "test_mismatched"):
        files[f"MNLI/{split}.tsv"] = ["index\tsentence1\tsentence2" + ("" if "test" in split else "\tgold_label")]
    for split in ("train", "dev"):
        files[f"MRPC/{split}.tsv"] = ["\ufeffQuality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        files[f"STS-B/{split}.tsv"] = ["index\tsentence1\tsentence2\tscore"]
        files[f"RTE/{split}.tsv"] = ["index\tsentence1\tsentence2\tlabel"]
    for name, lines in files.items():
        for i, (a, b) in enumerate(pairs):
            labelled = "test" not in name and "AX" not in name
            end = {
                "MNLI": f"\t{NAMES[i % 3]}",
                "STS-B": f"\t{i % 6}.0",
                "RTE": "\tnot_entailment" if i % 2 else "\tentailment",
            }
            if "MRPC" in name:
                lines.append(f"{i % 2 if labelled else i}\t{i}\t{i}\t{a}\t{b}")
            else:
                lines.append(f'{i}\t{a} "\t{b}{end.get(name.split("/")[0], "") if labelled else ""}')
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


def save(folder: Path, names: Sequence[str], order: Sequence[int]) -> Path:
    """The same model, its labels in another order."""
    torch.manual_seed(0)
    config = SqueezeBertConfig(
        vocab_size=len(PIECES), hidden_size=32, embedding_size=32, num_hidden_layers=1, num_attention_heads=2,
        intermediate_size=32, max_position_embeddings=32, initializer_range=0.4,
        id2label={i: names[j] for i, j in enumerate(order)},
    )  # fmt: skip
    model = SqueezeBertForSequenceClassification(config)
    with torch.no_grad():
        weight = model.head_layers[0].weight
        weight.copy_(weight[list(order)].clone())
    model.save_pretrained(folder)
    tokenizer_of(PIECES).save_pretrained(folder)
    return folder


def test_permuted_labels_score_and_submit_the_same(glue: Path, tmp_path: Path) -> None:
    found = []
    for number, order in enumerate([(0, 1, 2), (2, 0, 1)]):
        model = save(tmp_path / f"model-{number}", NAMES, order)
        evaluation = read_evaluation(model, glue, glue="mnli")
        engine = Engine.from_pretrained(model, evaluation.head)
        metrics = evaluation(engine)
        submit(evaluation, engine, glue, tmp_path / f"{number}.zip")
        found.append((metrics, (tmp_path / f"{number}.zip").read_bytes()))
    (metrics, first), (permuted, second) = found
    assert permuted == pytest.approx(metrics, abs=1e-6)
    assert first == second
    assert 0.0 < metrics["matched_accuracy"] < 1.0
    assert metrics["score"] == pytest.approx((metrics["matched_accuracy"] + metrics["mismatched_accuracy"]) / 2)
    with zipfile.ZipFile(tmp_path / "0.zip") as archive:
        assert sorted(archive.namelist()) == ["AX.tsv", "MNLI-m.tsv", "MNLI-mm.tsv"]
        for name in archive.namelist():
            header, *rows = archive.read(name).decode().splitlines()
            assert header == "index\tprediction"
            assert [row.split("\t")[0] for row in rows] == [str(i) for i in range(36)]
            assert {row.split("\t")[1] for row in rows} <= set(NAMES)


def test_numbers_and_similarities_in_one_zip(glue: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "glue.zip"
    model = save(tmp_path / "mrpc", ("not_equivalent", "equivalent"), (1, 0))
    evaluation = read_evaluation(model, glue, glue="mrpc")
    missing = submit(evaluation, Engine.from_pretrained(model, evaluation.head), glue, path)
    assert missing == [name for name in FILES if name != "MRPC.tsv"]
    assert len(FILES) == 11
    assert "has 36 rows, GLUE's test set 1,725: the benchmark will reject MRPC.tsv" in caplog.text

    model = save(tmp_path / "stsb", ("similarity",), (0,))
    evaluation = read_evaluation(model, glue, glue="sts-b")

    def wild(inputs: Sequence[Features]) -> list[dict[str, Any]]:
        return [{"logits": np.array([value])} for value in np.linspace(-1.0, 7.0, len(inputs))]

    assert "STS-B.tsv" not in submit(evaluation, wild, glue, path)
    with zipfile.ZipFile(path) as archive:
        assert sorted(archive.namelist()) == ["MRPC.tsv", "STS-B.tsv"]
        classes = {row.split("\t")[1] for row in archive.read("MRPC.tsv").decode().splitlines()[1:]}
        assert classes == {"0", "1"}
        numbers = [float(row.split("\t")[1]) for row in archive.read("STS-B.tsv").decode().splitlines()[1:]]
        assert (min(numbers), max(numbers)) == (0.0, 5.0)
    before = path.read_bytes()
    submit(evaluation, wild, glue, path)
    assert path.read_bytes() == before


def test_what_cannot_be_submitted(glue: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = save(tmp_path / "model", NAMES, (0, 1, 2))
    evaluation = read_evaluation(model, glue, glue="mnli")
    engine = Engine.from_pretrained(model, evaluation.head)
    (tmp_path / "x.zip").write_text("no zip")
    with pytest.raises(ConfigError, match=r"x\.zip exists and is not a zip file"):
        submit(evaluation, engine, glue, tmp_path / "x.zip")
    (glue / "AX" / "diagnostic.tsv").unlink()
    (glue / "AX").rmdir()
    assert "AX.tsv" in submit(evaluation, engine, glue, tmp_path / "y.zip")
    assert "has no folder AX: skipping the diagnostic set" in caplog.text
    (glue / "MNLI" / "test_matched.tsv").unlink()
    with pytest.raises(DataError, match=r"nor the file test_matched\.tsv"):
        submit(evaluation, engine, glue, tmp_path / "z.zip")
    assert not (tmp_path / "z.zip").exists()
    with pytest.raises(DataError, match="a model of MNLI predicts it: --glue mnli"):
        read_evaluation(model, glue, glue="ax")
    table = tmp_path / "a.csv"
    table.write_text("text,label\none,neutral\ntwo,entailment\n")
    with pytest.raises(ConfigError, match="name the task"):
        submit(read_evaluation(model, table), engine, glue, tmp_path / "z.zip")


@pytest.mark.parametrize("task", ["rte", "mrpc", "sts-b"])
def test_from_mnli_with_a_fresh_head(
    options: Options, glue: Path, tmp_path: Path, task: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = save(tmp_path / "mnli", NAMES, (0, 1, 2))
    with caplog.at_level("INFO", "pocketbert"):
        result = finetune(options(data=glue, glue=task, model=str(model), epochs=1))
    assert (
        "mnli: the head was initialised randomly, as its labels (entailment, neutral, contradiction) are not"
        in caplog.text
    )
    config = AutoConfig.from_pretrained(result.folder)
    assert tuple(config.id2label.values()) == (GLUE[task].names or ("LABEL_0",))
    expected = {
        "rte": ["accuracy", "loss", "brier_loss", "calibration_error", "score"],
        "mrpc": ["accuracy", "f1", "loss", "brier_loss", "calibration_error", "score"],
        "sts-b": ["pearson", "spearman", "loss", "score"],
    }
    assert list(result.metrics) == expected[task]
    two = [result.metrics[name] for name in expected[task][: expected[task].index("loss")]]
    assert result.metrics["score"] == pytest.approx(np.mean(two))


@pytest.mark.parametrize("count", [1, 33])
def test_numbers_in_batches_of_one(options: Options, glue: Path, tmp_path: Path, config: Any, count: int) -> None:
    """[batch, 1] against [batch] would broadcast, and one row alone lose its axis."""
    path = glue / "STS-B" / "dev.tsv"
    path.write_text("\n".join(path.read_text().splitlines()[: count + 1]))
    result = finetune(options(data=glue, glue="sts-b", batch_size=1 if count == 1 else 5, epochs=1, metric="loss"))
    assert np.isfinite(list(result.metrics.values())).all()
    again = metrics_of(result.folder, glue, glue="sts-b")
    assert again == pytest.approx(result.metrics, abs=1e-6)


def test_labels_in_another_order_are_suspected(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    table = tmp_path / "a.csv"
    table.write_text("text,label\n" + "".join(f"{'one' if i % 2 else 'two'},{'ab'[i % 2]}\n" for i in range(120)))
    evaluation = read_evaluation(save(tmp_path / "model", ("a", "b"), (0, 1)), table)

    def swapped(inputs: Sequence[Features]) -> list[dict[str, Any]]:
        one = PIECES.index("one")
        return [{"logits": np.array([1.0, 0.0]) if one in x.input_ids else np.array([0.0, 1.0])} for x in inputs]

    assert evaluation(swapped)["accuracy"] == 0.0
    assert "are the model's labels in another order" in caplog.text


def test_scores_and_their_average() -> None:
    assert glue_score("mrpc", {"accuracy": 0.8, "f1": 0.9, "loss": 3.0}) == pytest.approx(0.85)
    assert glue_score("mnli", {"matched_accuracy": 0.8, "mismatched_accuracy": 0.7}) == pytest.approx(0.75)
    assert glue_score("cola", {"matthews_correlation": 0.5, "loss": 1.0}) == 0.5
    scores = {name: 0.1 * i for i, name in enumerate(name for name in GLUE if name != "ax")}
    assert glue_average(scores) == pytest.approx(0.4)
    with pytest.raises(InputError, match="needs the scores of all of: cola, mnli"):
        glue_average({"cola": 1.0})


def test_the_recipe_with_bells_and_whistles(glue: Path, tmp_path: Path) -> None:
    """The script's chain, with the tasks that are there: a student of MNLI, and RTE's from it with a fresh head."""
    save(tmp_path / "teachers" / "mnli", NAMES, (2, 0, 1))
    save(tmp_path / "teachers" / "rte", ("entailment", "not_entailment"), (0, 1))
    student = save(tmp_path / "student", ("LABEL_0", "LABEL_1"), (0, 1))
    script, out = ROOT / "runs" / "squeezebert_glue.sh", tmp_path / "out"
    flags = ["--epochs", "1", "--no-tensorboard", "--device", "cpu"]
    asked, said = ask(script, glue, student, tmp_path / "teachers", out, *flags, folder=tmp_path)
    assert "no MRPC or no teacher for it: left out" in said
    ran = [CliRunner().invoke(app, command, catch_exceptions=False) for command in asked]
    assert [Path(json.loads(one.stdout)["folder"]).name for one in ran] == ["mnli", "rte"]
    log = " ".join(ran[1].stderr.split())
    assert f"{out / 'mnli'}: the head was initialised randomly, as its labels (entailment, neutral, con" in log
    run = json.loads((out / "rte" / "run.json").read_text())
    assert (run["options"]["model"], run["options"]["batch_size"]) == (str(out / "mnli"), 16)
