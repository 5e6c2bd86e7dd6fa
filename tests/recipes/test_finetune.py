import io
import json
import logging
import resource
import shutil
import signal
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rich.console import Console

import pocketbert
from helpers.evaluation import metrics_of
from helpers.labelled import CLASS_METRICS, reviews, write_csv
from helpers.processes import kill_when, newest
from helpers.runs import contents, options_in
from helpers.tokenizers import SPECIAL
from pocketbert.checkpoints import read_tensors
from pocketbert.configs import AutoConfig
from pocketbert.data.batches import LabelledBatches
from pocketbert.errors import CheckpointError, ConfigError, DataError, PocketBertError, TrainingInterrupted
from pocketbert.models.auto import AutoModel, AutoModelForSequenceClassification
from pocketbert.recipes.epoch_run import FinetuneResult
from pocketbert.recipes.finetune import finetune
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.tokenization import AutoTokenizer
from pocketbert.training.state import latest_state

Options = Callable[..., FinetuneOptions]


@pytest.mark.learning
@pytest.mark.usefixtures("pictures")
def test_from_a_table_to_a_model_that_answers(options: Options, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "many.csv", reviews(200))
    result = finetune(options(data=data, epochs=10, learning_rate=5e-3), argv=["pocketbert", "finetune"])
    assert result.metrics["accuracy"] == 1.0
    assert list(result.metrics) == CLASS_METRICS
    assert result.steps == 10 * 23  # 200 rows, 20 of them held out, in batches of 8
    assert [entry["step"] for entry in result.history] == list(range(23, 231, 23))
    assert sorted(path.name for path in result.folder.iterdir()) == [
        "README.md", "checkpoints", "config.json", "curves.png", "evaluation", "last", "model.safetensors",
        "reliability.png", "report.html", "run.json", "tokenizer.json", "tokenizer_config.json", "vocab.txt",
    ]  # fmt: skip
    assert AutoConfig.from_pretrained(result.folder).id2label == {0: "bad", 1: "good"}
    fresh = write_csv(tmp_path / "fresh.csv", reviews(40, seed=9))
    assert metrics_of(result.folder, fresh)["accuracy"] >= 0.9

    for folder in (result.folder, result.folder / "last"):
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        tokens = AutoTokenizer.from_pretrained(folder)(
            ["a lovely story", "an awful film"], padding=True, return_tensors="pt"
        )
        with torch.inference_mode():
            assert model(**tokens).logits.argmax(-1).tolist() == [1, 0]

    run = json.loads((result.folder / "run.json").read_text())
    assert run["finished"] is True
    assert run["argv"] == ["pocketbert", "finetune"]
    assert run["options"]["epochs"] == 10
    assert run["pocketbert"] == pocketbert.__version__
    assert {"python", "torch", "numpy"} <= run["versions"].keys()
    assert run["data"]["train"]["labels"] == {"bad": 90, "good": 90}
    assert run["data"]["dev"]["examples"] == 20
    assert len(run["data"]["train"]["sha256"]) == 64
    assert (run["metric"], run["steps"], run["history"]) == ("accuracy", 230, result.history)
    assert run["best"]["step"] == result.best_step
    assert run["seconds"] > 0


@pytest.mark.learning
def test_the_folder_holds_the_best_model_not_the_last(options: Options, tmp_path: Path) -> None:
    wrong = [(text, {"good": "bad", "bad": "good"}[label]) for text, label in reviews(40)]
    data = write_csv(tmp_path / "wrong.csv", wrong)  # the more is learned, the worse it fares here
    result = finetune(options(eval_data=data, epochs=12, learning_rate=5e-3, metric="loss"))
    losses = [entry["loss"] for entry in result.history]
    assert result.best_step == result.history[int(np.argmin(losses))]["step"] < result.steps
    for folder, loss in ((result.folder, min(losses)), (result.folder / "last", losses[-1])):
        assert metrics_of(folder, data)["loss"] == pytest.approx(loss, abs=1e-6)
    assert losses[-1] > min(losses) + 0.1


@pytest.mark.slow
def test_the_same_options_give_the_same_bytes(options: Options, tmp_path: Path) -> None:
    a, b = (finetune(options(output=tmp_path / name)) for name in "ab")
    assert contents(a.folder) == contents(b.folder)
    other = finetune(options(output=tmp_path / "c", seed=1))
    assert contents(other.folder) != contents(a.folder)


def test_killed_without_warning_and_resumed(options: Options, tmp_path: Path) -> None:
    whole = finetune(options(output=tmp_path / "whole", epochs=6, eval_every=2))
    broken = options(output=tmp_path / "broken", epochs=6, eval_every=2, resume=True)
    states = tmp_path / "broken" / "checkpoints"
    for least in (6, 30):
        kill_when(lambda least=least: newest(states) >= least, finetune, broken)  # type: ignore[misc]
    result = finetune(broken)
    assert contents(result.folder) == contents(whole.folder)
    assert (result.history, result.metrics, result.best_step) == (whole.history, whole.metrics, whole.best_step)


@pytest.mark.parametrize("family", ["squeezebert", pytest.param("mobilebert", marks=pytest.mark.slow)])
def test_interrupted_and_resumed(
    options: Options, config: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, family: str
) -> None:
    scratch = config(family, attention_probs_dropout_prob=0.1, hidden_dropout_prob=0.1)
    whole = finetune(options(output=tmp_path / "whole", from_scratch=scratch))
    broken = options(output=tmp_path / "broken", from_scratch=scratch, resume=True)
    encode = LabelledBatches.__call__

    def interrupting(self: Any, step: int) -> Any:
        if step == 6:
            signal.raise_signal(signal.SIGTERM)
        return encode(self, step)

    with monkeypatch.context() as patch:
        patch.setattr(LabelledBatches, "__call__", interrupting)
        with pytest.raises(TrainingInterrupted, match="SIGTERM after step 7 of 18"):
            finetune(broken)
    assert not (tmp_path / "broken" / "model.safetensors").exists()
    result = finetune(broken)
    assert contents(result.folder) == contents(whole.folder)
    assert finetune(broken).history == whole.history  # once more, when there is nothing left to do


def test_accumulation_gives_the_same_model(options: Options, tmp_path: Path, config: Callable[..., str]) -> None:
    scratch = config(hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    folders = [
        finetune(options(output=tmp_path / str(parts), from_scratch=scratch, batch_size=32, accumulation=parts)).folder
        for parts in (1, 4)
    ]
    one, four = (read_tensors(folder / "last") for folder in folders)
    for name, tensor in one.items():
        if not name.endswith("key.bias"):  # its gradient is zero but for rounding, of which Adam makes steps
            np.testing.assert_allclose(four[name], tensor, atol=1e-5, err_msg=name)


# ── folders ──


def test_a_folder_in_use_is_not_overwritten(options: Options, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.doc").write_text("years of work")
    for resume in (False, True):
        with pytest.raises(CheckpointError, match=r"holds no run \(thesis\.doc\)"):
            finetune(options(resume=resume))
    finetune(options(output=tmp_path / "run"))
    left = contents(tmp_path / "run")
    finetune(options(output=tmp_path / "run", resume=True))  # it is finished
    assert contents(tmp_path / "run") == left
    for checkpoints in ("at step-00000018", "without checkpoints"):
        with pytest.raises(CheckpointError, match=rf"holds a run {checkpoints}: resume it with --resume"):
            finetune(options(output=tmp_path / "run"))
        shutil.rmtree(tmp_path / "run" / "checkpoints", ignore_errors=True)
    with pytest.raises(CheckpointError, match="is finished, and its checkpoints were removed"):
        finetune(options(output=tmp_path / "run", resume=True))


def test_two_runs_at_once_are_refused(options: Options) -> None:
    lines = []

    class Second(Console):
        """Begins another run whenever the first one says something."""

        def print(self, *texts: Any, **rest: Any) -> None:
            lines.append(str(texts[0]))
            with pytest.raises(CheckpointError, match="another run is using it"):
                finetune(options(resume=True))

    finetune(options(), console=Second())
    assert lines[0].startswith("72 training examples")
    assert any(line.startswith("step 18 of 18") for line in lines)
    assert any(line.startswith("calibration: the temperature stays 1") for line in lines)
    finetune(options(resume=True))  # the folder is free again


def test_other_options_and_other_data_are_not_resumed(options: Options, tmp_path: Path) -> None:
    finetune(options())
    with pytest.raises(ConfigError) as error:
        finetune(options(resume=True, epochs=3, seed=1))
    assert "options.epochs: was 2, now 3" in str(error.value)
    assert "options.seed: was 42, now 1" in str(error.value)
    assert "batch_size" not in str(error.value)
    write_csv(tmp_path / "reviews.csv", reviews(80, seed=5))
    with pytest.raises(ConfigError, match=r"data\.dev: was .*sha256.*, now "):
        finetune(options(resume=True))


def test_no_folder_below_a_file(options: Options, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for output in (tmp_path / "file", tmp_path / "file" / "out"):
        with pytest.raises(CheckpointError, match="file"):
            finetune(options(output=output))


def test_a_disk_that_fills_up(options: Options, tmp_path: Path) -> None:
    """No file may grow over 8 kB from the second evaluation on, as on a full disk; then there is room again."""
    whole = finetune(options(output=tmp_path / "whole"))
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    folder = tmp_path / "out"

    class Filling(Console):
        def print(self, *texts: Any, **rest: Any) -> None:
            if str(texts[0]).startswith("step 18"):
                resource.setrlimit(resource.RLIMIT_FSIZE, (8_000, limits[1]))

    try:
        with pytest.raises(CheckpointError, match=r"cannot write .*raise the limit"):
            finetune(options(resume=True), console=Filling())
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert latest_state(folder / "checkpoints") == folder / "checkpoints" / "step-00000009"
    assert not list(folder.rglob("*.tmp"))
    AutoModelForSequenceClassification.from_pretrained(folder)
    assert contents(finetune(options(resume=True)).folder) == contents(whole.folder)


# ── labels and heads ──


def log_of(caplog: pytest.LogCaptureFixture) -> str:
    return "\n".join(record.message for record in caplog.records)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> FinetuneResult:
    return finetune(options_in(tmp_path_factory.mktemp("base"), epochs=20, learning_rate=5e-3))


@pytest.fixture
def base(trained: FinetuneResult, tmp_path: Path) -> FinetuneResult:
    """A model that knows the reviews, in a folder of the test's own."""
    return replace(trained, folder=shutil.copytree(trained.folder, tmp_path / "base"))


@pytest.mark.learning
def test_labels_are_matched_by_name(
    options: Options, base: FinetuneResult, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A checkpoint with the same labels in another order keeps its head, and answers rightly from the start."""
    stored = json.loads((base.folder / "config.json").read_text())
    stored |= {"id2label": {"0": "GOOD", "1": "BAD"}, "label2id": {"GOOD": 0, "BAD": 1}}
    (base.folder / "config.json").write_text(json.dumps(stored))
    tensors = {name: torch.from_numpy(array) for name, array in read_tensors(base.folder).items()}
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name].flip(0).contiguous()
    from safetensors.torch import save_file

    save_file(tensors, base.folder / "model.safetensors")
    with caplog.at_level(logging.INFO, "pocketbert"):
        result = finetune(options(output=tmp_path / "next", model=str(base.folder), learning_rate=1e-9, epochs=0.1))
    assert "initialised" not in log_of(caplog)
    assert result.metrics["accuracy"] == 1.0
    assert AutoConfig.from_pretrained(result.folder).id2label == {0: "good", 1: "bad"}
    assert metrics_of(base.folder, options().data, labels=("good", "bad"))["accuracy"] >= 0.9


def test_a_missing_head_is_said_once(
    options: Options, base: FinetuneResult, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    AutoModel.from_pretrained(base.folder).save_pretrained(tmp_path / "headless")
    AutoTokenizer.from_pretrained(base.folder).save_pretrained(tmp_path / "headless")
    caplog.clear()
    with caplog.at_level(logging.INFO, "pocketbert"):
        finetune(options(frozen_start=False, output=tmp_path / "next", model=str(tmp_path / "headless"), epochs=0.1))
    [said] = [line for line in log_of(caplog).splitlines() if "initialised" in line]
    assert said.endswith("classifier.bias, classifier.weight are missing and were initialised randomly")
    with caplog.at_level(logging.INFO, "pocketbert"), pytest.raises(CheckpointError, match="outputs would be random"):
        metrics_of(tmp_path / "headless", options().data)
    assert log_of(caplog).count("initialised") == 1


def test_frozen_embeddings_keep_their_bits(options: Options, base: FinetuneResult, tmp_path: Path) -> None:
    tuned = finetune(
        options(output=tmp_path / "frozen", from_scratch=None, model=str(base.folder), freeze="embeddings", max_steps=3)
    )
    before, after = (AutoModel.from_pretrained(folder).state_dict() for folder in (base.folder, tuned.folder))
    frozen = [name for name in before if name.startswith("embeddings.")]
    assert len(frozen) > 3
    assert all(torch.equal(before[name], after[name]) for name in frozen)
    assert not any(torch.equal(before[name], after[name]) for name in before if ".query.weight" in name)


def test_other_labels_start_a_fresh_head(
    options: Options, base: FinetuneResult, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for labels in (("no", "yes"), ("a", "b", "c")):
        rows = [(text, labels[i % len(labels)]) for i, (text, _) in enumerate(reviews(60))]
        data = write_csv(tmp_path / "other.csv", rows)
        caplog.clear()
        with caplog.at_level(logging.INFO, "pocketbert"):
            result = finetune(
                options(
                    data=data,
                    output=tmp_path / labels[0],
                    model=str(base.folder),
                    epochs=0.1,
                    learning_rate=1e-12,
                    frozen_start=False,
                )
            )
        assert (
            f"{base.folder}: the head was initialised randomly, as its labels (bad, good) are not those of the data"
            in log_of(caplog)
        )
        before, after = read_tensors(base.folder), read_tensors(result.folder)
        assert not np.allclose(before["classifier.weight"][:2], after["classifier.weight"][:2], atol=1e-3)
        for name in before.keys() - {"classifier.weight", "classifier.bias"}:
            np.testing.assert_allclose(before[name], after[name], atol=1e-6)


def test_regression_of_pairs(options: Options, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    rows = [(text, text if i % 2 else "dull", f"{i % 2 * 4 + 0.5}") for i, (text, _) in enumerate(reviews(62))]
    data = write_csv(tmp_path / "pairs.csv", rows, "sentence1,sentence2,score")
    with caplog.at_level(logging.INFO, "pocketbert"):
        # Batches of one or two: where shapes broadcast, they would here.
        result = finetune(options(data=data, batch_size=2, epochs=4, learning_rate=3e-3))
    assert "numbers to predict (regression)" in log_of(caplog)
    assert list(result.metrics) == ["pearson", "spearman", "loss"]
    assert result.metrics["pearson"] > 0.9
    config = AutoConfig.from_pretrained(result.folder)
    assert (config.num_labels, config.problem_type) == (1, "regression")
    assert metrics_of(result.folder, data)["pearson"] > 0.9


def test_a_label_that_only_the_evaluation_file_has(options: Options, tmp_path: Path) -> None:
    data = write_csv(tmp_path / "eval.csv", [("fine", "good"), ("so so", "mixed")])
    with pytest.raises(DataError, match=r"eval\.csv, line 3: the label 'mixed' is not one of bad, good"):
        finetune(options(eval_data=data))
    assert not (tmp_path / "out").exists()


# ── GLUE ──


def glue(folder: Path, task: str) -> Path:
    texts = reviews(64)
    number = {"good": "1", "bad": "0"}
    if task == "MRPC":
        lines = ["Quality\t#1 ID\t#2 ID\t#1 String\t#2 String"]
        lines += [f'{number[y]}\t{i}\t{i}\t" {text}\tfilm' for i, (text, y) in enumerate(texts)]
        files = {"train.tsv": lines, "dev.tsv": lines[:21]}
    else:
        names = {"good": "entailment", "bad": ("neutral", "contradiction")}
        lines = ["index\tsentence1\tsentence2\tgold_label"]
        lines += [
            f"{i}\t{t}\tfilm\t{names[y] if y == 'good' else names[y][i % 4 // 2]}" for i, (t, y) in enumerate(texts)
        ]
        files = {"train.tsv": lines, "dev_matched.tsv": lines[:21], "dev_mismatched.tsv": [lines[0], *lines[21:]]}
    (folder / task).mkdir(parents=True)
    for name, content in files.items():
        (folder / task / name).write_text("\n".join(content) + "\n", encoding="utf-8")
    return folder


def test_glue_names_metrics_and_any_order_of_labels(options: Options, tmp_path: Path) -> None:
    data = glue(tmp_path / "glue", "MRPC")
    result = finetune(options(data=data, glue="mrpc", epochs=3, learning_rate=3e-3, metric="f1"))
    assert list(result.metrics) == ["accuracy", "f1", "loss", "brier_loss", "calibration_error", "score"]
    assert AutoConfig.from_pretrained(result.folder).id2label == {0: "not_equivalent", 1: "equivalent"}
    _, *lines = (result.folder / "evaluation" / "predictions.tsv").read_text().splitlines()
    assert {line.split("\t")[1] for line in lines} == {"equivalent", "not_equivalent"}  # the file has 1 and 0
    expected = {name: pytest.approx(value, abs=1e-6) for name, value in result.metrics.items()}
    assert metrics_of(result.folder, data, glue="mrpc") == expected

    # The same model with its labels the other way round: the same score, F1 of the same class.
    stored = json.loads((result.folder / "config.json").read_text())
    tensors = {name: torch.from_numpy(array) for name, array in read_tensors(result.folder).items()}
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name].flip(0).contiguous()
    stored |= {"id2label": {"0": "equivalent", "1": "not_equivalent"}}
    del stored["label2id"]
    (result.folder / "config.json").write_text(json.dumps(stored))
    from safetensors.torch import save_file

    save_file(tensors, result.folder / "model.safetensors")
    assert metrics_of(result.folder, data, glue="mrpc") == expected

    # Without names, only the user can say what the labels mean.
    stored |= {"id2label": {"0": "LABEL_0", "1": "LABEL_1"}}
    (result.folder / "config.json").write_text(json.dumps(stored))
    with pytest.raises(ConfigError, match=r"\(LABEL_0, LABEL_1\) are not those of mrpc .* --labels"):
        metrics_of(result.folder, data, glue="mrpc")
    assert metrics_of(result.folder, data, glue="mrpc", labels=("equivalent", "not_equivalent")) == expected


@pytest.mark.slow
def test_both_development_sets_of_mnli(options: Options, tmp_path: Path) -> None:
    result = finetune(options(data=glue(tmp_path / "glue", "MNLI"), glue="mnli", epochs=1))
    each = ("accuracy", "loss", "brier_loss", "calibration_error")
    assert list(result.metrics) == [*(f"{dev}_{name}" for dev in ("matched", "mismatched") for name in each), "score"]


# ── what else can be wrong ──


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"task": "translation"}, "--task translation must be one of text-classification"),
        ({"model": "x", "from_scratch": "y"}, "exclude each other"),
        ({"vocab_size": None}, "--from-scratch needs a vocabulary"),
        ({"from_scratch": "bert-huge"}, r"nor a preset \(bert-base-uncased"),
        ({"model": "x", "vocab_size": 100}, "needs --from-scratch"),
        ({"glue": "rte", "label_column": "x"}, "--label-column x follows from --glue rte"),
        ({"labels": ("a", "a")}, "--labels a,a must be two names or more, all different"),
        ({"metric": "bleu"}, "--metric bleu must be one of accuracy, macro_f1, loss, brier_loss"),
        ({"batch_size": 0}, "--batch-size 0 must be at least 1"),
        ({"accumulation": 9}, "--accumulation 9 exceeds --batch-size 8"),
        ({"epochs": 0}, "--epochs 0 must be positive"),
        ({"epochs": float("inf")}, "--epochs inf must be positive and finite"),
        ({"warmup": 1.5}, r"--warmup 1.5 must lie in \[0, 1\]"),
        ({"precision": "fp8"}, "--precision fp8 must be one of auto, fp32, bf16"),
        ({"device": "toaster"}, "--device toaster cannot be used"),
        ({"vocab_size": 5}, "at least 100"),
        ({"data": "nowhere.csv"}, "there is no such file"),
        ({"model": "./nowhere"}, "nowhere"),
    ],
)
def test_wrong_options(options: Options, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(PocketBertError, match=message):
        finetune(options(**changes))


def test_a_tokenizer_of_another_model(options: Options, base: FinetuneResult, tmp_path: Path) -> None:
    vocabulary = [*SPECIAL, *(f"word{i}" for i in range(500))]
    (tmp_path / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    with pytest.raises(ConfigError, match="the tokenizer has 505 tokens and the model 120"):
        finetune(options(model=str(base.folder), tokenizer=str(tmp_path / "vocab.txt")))
    # That run had not begun, so its folder may be used.
    result = finetune(options(tokenizer=str(tmp_path / "vocab.txt"), epochs=0.1))
    assert AutoConfig.from_pretrained(result.folder).vocab_size == 505


def test_texts_longer_than_the_model_reads_are_cut(
    options: Options, config: Callable[..., str], base: FinetuneResult, tmp_path: Path
) -> None:
    """What comes after the 32 tokens that it reads changes no bit."""
    scratch, weights = config(max_position_embeddings=32), []
    for end in ("the end", "a weak film"):
        data = write_csv(tmp_path / "long.csv", [(f"{text} " * 20 + end, label) for text, label in reviews(40)])
        result = finetune(
            options(
                data=data, from_scratch=scratch, tokenizer=str(base.folder), epochs=0.2, output=tmp_path / end
            )
        )  # fmt: skip
        weights.append((result.folder / "model.safetensors").read_bytes())
    assert weights[0] == weights[1]


def test_learning_curves(options: Options, tmp_path: Path) -> None:
    finetune(options(tensorboard=True))
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(tmp_path / "out" / "tensorboard"))
    events.Reload()
    assert len(events.Scalars("train/loss")) == 18
    assert [event.step for event in events.Scalars("eval/accuracy")] == [9, 18]
    assert events.Scalars("train/learning_rate")[-1].value > 0


def test_a_bar_on_a_terminal(options: Options) -> None:
    console = Console(force_terminal=True, width=120, record=True, file=io.StringIO())
    finetune(options(), console=console)
    text = console.export_text()
    assert "72 training examples, 8 dev examples (columns text, label); 2 labels: bad, good" in text
    assert "18/18" in text
    assert "step 18 of 18: accuracy" in text


@pytest.mark.parametrize("family", ["squeezebert", "mobilebert"])
def test_bf16(options: Options, config: Callable[..., str], family: str) -> None:
    result = finetune(options(from_scratch=config(family), precision="bf16", epochs=1))
    assert np.isfinite(result.metrics["loss"])
    assert json.loads((result.folder / "run.json").read_text())["precision"] == "bf16"
    assert {array.dtype for array in read_tensors(result.folder).values()} == {np.dtype(np.float32)}


def test_automatic_precision(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """It follows the processor, and a resumed run keeps what it had: another machine may have other units."""
    monkeypatch.setattr("pocketbert.machine.bf16_units", lambda: "units")
    if "AVX512" not in torch.backends.cpu.get_cpu_capability():
        pytest.skip("PyTorch would not use the units")
    console = Console(record=True, width=200)
    run = finetune(options(epochs=1), console=console)
    assert "in bf16 (the processor has units; --precision fp32 disables it)" in console.export_text()
    monkeypatch.setattr("pocketbert.machine.bf16_units", lambda: None)
    console = Console(record=True, width=200)
    again = finetune(options(epochs=1, resume=True), console=console)
    assert "in bf16 (as before)" in console.export_text()
    assert again.metrics == run.metrics
    assert json.loads((run.folder / "run.json").read_text())["precision"] == "bf16"


@pytest.mark.slow
@pytest.mark.learning
def test_quantization_aware(options: Options, config: Callable[..., str], tmp_path: Path) -> None:
    """What is measured is the rounded model, and what is written is an ordinary one, with an activation that ends."""
    result = finetune(
        options(
            from_scratch=config("mobilebert"), quantization_aware=True, epochs=20, learning_rate=5e-3, metric="loss"
        )
    )
    assert result.metrics["loss"] < 0.1
    assert AutoConfig.from_pretrained(result.folder).hidden_act == "relu6"
    fresh = write_csv(tmp_path / "fresh.csv", reviews(40, seed=9))
    assert metrics_of(result.folder, fresh)["accuracy"] >= 0.9
    state = latest_state(result.folder / "checkpoints")
    assert state is not None
    assert any("ranges." in name for name in read_tensors(state / "weights.safetensors"))
    with pytest.raises(ConfigError, match="is only for MobileBERT"):
        finetune(options(output=tmp_path / "other", quantization_aware=True))
