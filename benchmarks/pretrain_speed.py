"""Pretraining: tokens per second of this loop and of transformers' Trainer, on the same model, text and machine.

    python benchmarks/pretrain_speed.py TEXTS.jsonl --tokenizer FOLDER --rounds 3

TEXTS.jsonl has one document per line, {"text": …}, whose own lines are paragraphs. Masked words alone, AdamW, fp32, the
miniature SqueezeBERT from random weights. The Trainer takes its batches as transformers' example `run_mlm` makes them:
line by line, cut to 128 tokens and padded to the longest of a batch; or, its best, all texts end to end and cut every
128 tokens, so that nothing is padded and attention crosses documents. Tokens are those of the text and the special
ones, without padding.

All runs are processes of their own, in turns; the first two steps are not counted. Then this loop in one process of one
thread and in two such processes under `torchrun`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import time
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from common import ratio, write_results

from pocketbert.corpus.prepare import prepare
from pocketbert.corpus.prepare_options import PrepareOptions
from pocketbert.recipes.models import read_tokenizer
from pocketbert.recipes.pretrain import PretrainRun
from pocketbert.recipes.pretrain_options import PretrainOptions
from pocketbert.recipes.pretraining_recipes import MINI_RECIPES
from pocketbert.recipes.processes import distributed
from pocketbert.training.objectives import Batch

LENGTH, UNCOUNTED = 128, 2
HOW = ("line by line", "grouped", "PocketBERT")


class Clock:
    """Tokens and seconds of the steps after the first ones, until there have been enough of the latter."""

    def __init__(self, seconds: float) -> None:
        self.enough, self.steps, self.tokens, self.began = seconds, 0, 0, 0.0

    def ended(self, tokens: int) -> bool:
        """A step with so many tokens has ended; returns whether to stop."""
        self.steps += 1
        if self.steps <= UNCOUNTED:
            self.began = time.perf_counter()
            return False
        self.tokens += tokens
        return time.perf_counter() - self.began > self.enough

    def report(self) -> None:
        """Print what was found, for the process that asked."""
        seconds = time.perf_counter() - self.began
        if os.environ.get("RANK", "0") == "0":
            print(json.dumps({"steps": self.steps - UNCOUNTED, "tokens_per_second": round(self.tokens / seconds)}))


class Enough(Exception):
    """Ends a run of this loop."""


def ours(corpus: Path, out: Path, given: argparse.Namespace) -> None:
    clock = Clock(given.seconds)

    class Timed(PretrainRun):
        def batches(self) -> Any:
            batches = super().batches()

            class Listening(type(batches)):  # type: ignore[misc]
                def __call__(self, step: int) -> list[Batch]:
                    parts: list[Batch] = super().__call__(step)
                    sizes[step] = sum(len(part["input_ids"]) for part in parts)
                    return parts

            batches.__class__ = Listening
            return batches

        def rate(self, step: int) -> float:
            if step > 0:
                tokens = self.processes.sum(torch.tensor(sizes.pop(step - 1)))
                if self.processes.largest(int(clock.ended(int(tokens)))):
                    clock.report()
                    raise Enough
            return super().rate(step)

    sizes: dict[int, int] = {}
    options = PretrainOptions(
        corpus=corpus, output=out, preset="squeezebert", mini=True, pairs="none", optimizer="adamw", steps=(100_000,),
        length=(LENGTH,), batch_size=(given.batch,), learning_rate=(1e-4,), tokens=given.tokens, device="cpu",
        precision="fp32", tensorboard=False, eval_batches=1,
    )  # fmt: skip
    with contextlib.suppress(Enough), distributed() as processes:
        Timed(options, processes=processes).run()


def theirs(how: str, given: argparse.Namespace) -> None:
    import transformers

    clock = Clock(given.seconds)
    tokenizer = transformers.BertTokenizerFast.from_pretrained(given.tokenizer)
    documents = [json.loads(line)["text"] for line in Path(given.texts).read_text(encoding="utf-8").splitlines()]
    lines = [line for document in documents for line in document.splitlines() if line.strip()]
    grouped = how == "grouped"
    encoded = tokenizer(
        lines, truncation=not grouped, max_length=None if grouped else LENGTH, return_special_tokens_mask=True
    )
    if grouped:
        rows = [
            {name: values[a : a + LENGTH] for name, values in joined.items()}
            for joined in [{name: list(chain.from_iterable(values)) for name, values in encoded.items()}]
            for a in range(0, len(joined["input_ids"]) - LENGTH + 1, LENGTH)
        ]
    else:
        rows = [{name: values[i] for name, values in encoded.items()} for i in range(len(lines))]
    collate = transformers.DataCollatorForLanguageModeling(tokenizer, mlm_probability=0.15)
    sizes: list[int] = []

    def listening(examples: list[dict[str, Any]]) -> dict[str, Any]:
        batch: dict[str, Any] = collate(examples)
        sizes.append(int(batch["attention_mask"].sum()))
        return batch

    class Stop(transformers.TrainerCallback):  # type: ignore[misc]
        def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
            if clock.ended(sizes.pop(0)):
                clock.report()
                sys.stdout.flush()
                os._exit(0)  # what the Trainer does at its end is not of interest

    config = MINI_RECIPES["squeezebert"].config.replace(vocab_size=len(tokenizer))
    model = transformers.SqueezeBertForMaskedLM(transformers.SqueezeBertConfig(**config.to_dict()))
    arguments = transformers.TrainingArguments(
        output_dir=given.scratch, max_steps=100_000, per_device_train_batch_size=given.batch, learning_rate=1e-4,
        use_cpu=True, save_strategy="no", report_to=[], logging_steps=10**6, disable_tqdm=True,
    )  # fmt: skip
    transformers.Trainer(
        model=model, args=arguments, train_dataset=rows, data_collator=listening, callbacks=[Stop()]
    ).train()


def run(how: str, given: argparse.Namespace, folder: Path, *, threads: int, processes: int = 1) -> dict[str, Any]:
    """One run, by itself."""
    launcher = [sys.executable]
    if processes > 1:
        launcher += ["-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={processes}"]
    command = [
        *launcher, __file__, given.texts, "--tokenizer", given.tokenizer, "--seconds", str(given.seconds),
        "--batch", str(given.batch), "--tokens", str(given.tokens), "--how", how, "--scratch", str(folder),
    ]  # fmt: skip
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
    ran = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if ran.returncode or not ran.stdout:
        sys.exit(ran.stderr)
    found = json.loads(ran.stdout.splitlines()[-1])
    row = {"how": how, "processes": processes, "threads": threads, **found}
    print(row, file=sys.stderr)
    return row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts")
    parser.add_argument("--tokenizer", required=True)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10.0, help="of every run")
    parser.add_argument("--batch", type=int, default=64, help="examples per step")
    parser.add_argument("--tokens", type=int, default=4096, help="of a part of a batch of this loop")
    parser.add_argument("--how", help="what the script calls itself with")
    parser.add_argument("--scratch", help="the same")
    given = parser.parse_args()
    if given.how == "PocketBERT":
        out = Path(given.scratch) / os.environ.get("TORCHELASTIC_RUN_ID", str(os.getpid()))
        ours(Path(given.scratch) / "corpus", out, given)
    elif given.how:
        theirs(given.how, given)
    else:
        compare(given)


def compare(given: argparse.Namespace) -> None:
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        prepare(
            PrepareOptions(sources=(given.texts,), output=folder / "corpus", tokenizer=read_tokenizer(given.tokenizer))
        )
        for number in range(given.rounds):
            rows += [{"round": number, **run(how, given, folder, threads=2)} for how in HOW]
            for processes in (1, 2):
                rows.append({"round": number, **run("PocketBERT", given, folder, threads=1, processes=processes)})
    speeds = {
        key: [row["tokens_per_second"] for row in rows if (row["how"], row["processes"], row["threads"]) == key]
        for key in [*((how, 1, 2) for how in HOW), ("PocketBERT", 1, 1), ("PocketBERT", 2, 1)]
    }
    for how in HOW[:2]:
        print(f"{ratio(speeds['PocketBERT', 1, 2], speeds[how, 1, 2]):.2f} times {how}", file=sys.stderr)
    print(f"{ratio(speeds['PocketBERT', 2, 1], speeds['PocketBERT', 1, 1]):.2f} times with two", file=sys.stderr)
    write_results("pretrain-speed", rows)


if __name__ == "__main__":
    main()
