"""Fine-tuning: examples per second of this loop and of transformers' Trainer, on the same model, data and machine.

    python benchmarks/finetune_speed.py --data glue --model a-bert --model squeezebert-uncased

A model is a folder, or the name of a preset, which both sides begin with the same random weights. They train in turn
for an epoch on the same examples with AdamW, PocketBERT in the precision that it chooses by itself and the Trainer in
fp32 and in bf16; what is timed is the steps, batches included, without loading, saving or evaluation. The Trainer pads
batches to their longest text, or to 128 tokens, the default of its own example.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import transformers
from common import ratio, write_results

from pocketbert.configs import PRESETS
from pocketbert.data.glue import glue_task, read_glue
from pocketbert.data.tables import Table
from pocketbert.machine import bf16_units
from pocketbert.models.auto import model_class
from pocketbert.recipes.finetune import finetune
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.recipes.models import read_tokenizer
from pocketbert.training.progress import Progress

LENGTH = 128


class Timed:
    """Seconds of steps, whoever takes them."""

    seconds = 0.0


def ours(folder: Path, data: Path, task: str, batch_size: int) -> float:
    """Seconds of all steps of an epoch in this loop."""
    timed, advance = Timed(), Progress.advance

    def listen(self: Progress, step: int, examples: int, seconds: float, loss: float | None) -> None:
        timed.seconds += seconds
        advance(self, step, examples, seconds, loss)

    Progress.advance = listen  # type: ignore[method-assign, assignment]
    try:
        with tempfile.TemporaryDirectory() as out:
            finetune(
                FinetuneOptions(
                    data=data, glue=task, model=str(folder), output=Path(out) / "run", epochs=1, device="cpu",
                    batch_size=batch_size, max_length=LENGTH, tensorboard=False,
                )
            )  # fmt: skip
    finally:
        Progress.advance = advance  # type: ignore[method-assign]
    return timed.seconds


def theirs(
    folder: Path, table: Table, labels: list[int], batch_size: int, *, padding: bool | str, bf16: bool = False
) -> float:
    """Seconds of all steps of an epoch in transformers' Trainer."""
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    pairs = [one.text_pair for one in table.examples] if table.columns.text_pair else None
    encoded = tokenizer(
        [one.text for one in table.examples], pairs, truncation=True, max_length=LENGTH, padding=padding
    )
    rows = [{**{key: value[i] for key, value in encoded.items()}, "label": labels[i]} for i in range(len(labels))]
    model = transformers.AutoModelForSequenceClassification.from_pretrained(folder)
    timed = Timed()

    class Clock(transformers.TrainerCallback):  # type: ignore[misc] # transformers has no types here
        def on_step_begin(self, *_: Any, **__: Any) -> None:
            timed.seconds -= time.perf_counter() if timed.seconds == 0.0 else 0.0

        def on_train_end(self, *_: Any, **__: Any) -> None:
            timed.seconds += time.perf_counter()

    with tempfile.TemporaryDirectory() as out:
        arguments = transformers.TrainingArguments(
            output_dir=out, num_train_epochs=1, per_device_train_batch_size=batch_size, learning_rate=5e-5,
            save_strategy="no", logging_strategy="no", report_to="none", disable_tqdm=True, use_cpu=True, bf16=bf16,
        )  # fmt: skip
        transformers.Trainer(
            model=model, args=arguments, train_dataset=rows, callbacks=[Clock()],
            data_collator=transformers.DataCollatorWithPadding(tokenizer),
        ).train()  # fmt: skip
    return timed.seconds


def prepare(name: str, vocabulary: str | None, folder: Path, labels: int) -> Path:
    """A folder that both sides begin from, its head as wide as the task needs."""
    if name not in PRESETS:
        tokenizer, source = read_tokenizer(name), transformers.AutoConfig.from_pretrained(name)
        source.num_labels = labels
        torch.manual_seed(0)
        model = transformers.AutoModelForSequenceClassification.from_pretrained(name, config=source)
        model.save_pretrained(folder)
    else:
        assert vocabulary is not None, "a preset needs --vocabulary vocab.txt"
        tokenizer = read_tokenizer(vocabulary)
        config = PRESETS[name].replace(num_labels=labels, vocab_size=len(tokenizer))
        torch.manual_seed(0)
        model_class(config, "ForSequenceClassification")(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def subset(data: Path, task: str, count: int, folder: Path) -> Table:
    """The first `count` training rows as a GLUE folder of their own, with a development set of a few."""
    of = glue_task(task)
    source = data / of.folder if (data / of.folder).is_dir() else data
    for name, rows in ((str(of.train), count), (of.dev[0][1], 8)):
        lines = (source / name).read_text(encoding="utf-8-sig").split("\n")[: rows + 1]
        (folder / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return read_glue(folder, task, "train")["train"]


def compare(name: str, task: str, arguments: argparse.Namespace) -> list[dict[str, Any]]:
    """One row a loop; they take turns, after one round that does not count."""
    with tempfile.TemporaryDirectory() as place:
        data, size = Path(place) / "data", arguments.batch_size
        data.mkdir()
        table = subset(arguments.data, task, arguments.examples, data)
        labels = glue_task(task).labels.encode(table).tolist()
        model = prepare(name, arguments.vocabulary, Path(place) / "model", 2)
        loops: dict[str, Callable[[], float]] = {
            "pocketbert": lambda: ours(model, data, task, size),
            "Trainer": lambda: theirs(model, table, labels, size, padding=False),
            "Trainer, bf16": lambda: theirs(model, table, labels, size, padding=False, bf16=True),
            "Trainer, to 128 tokens": lambda: theirs(model, table, labels, size, padding="max_length"),
        }
        precision = {key: "bf16" if "bf16" in key else "fp32" for key in loops}
        precision["pocketbert"] = "bf16" if bf16_units() else "fp32"
        seconds: dict[str, list[float]] = {key: [] for key in loops}
        for number in range(arguments.rounds + 1):
            for key, run in loops.items():
                time.sleep(0.01)  # the threads of the one before fall asleep
                taken = run()
                if number:
                    seconds[key].append(taken)
    return [
        {
            "model": Path(name).name,
            "task": task,
            "loop": key,
            "examples": len(table),
            "examples_per_second": round(len(table) / statistics.median(times), 1),
            "pocketbert_is_faster_by": round(ratio(times, seconds["pocketbert"]), 2),
            "precision": precision[key],
            "threads": torch.get_num_threads(),
        }
        for key, times in seconds.items()
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the folder of GLUE")
    parser.add_argument("--model", action="append", required=True, help="a folder or a preset; may be repeated")
    parser.add_argument("--vocabulary", help="vocab.txt, for presets")
    parser.add_argument("--tasks", default="sst-2,mrpc")
    parser.add_argument("--examples", type=int, default=192)
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    transformers.utils.logging.set_verbosity_error()
    results = []
    for name in arguments.model:
        for task in arguments.tasks.split(","):
            results += compare(name, task, arguments)
            write_results("finetune-speed", results)  # as far as it has come


if __name__ == "__main__":
    main()
