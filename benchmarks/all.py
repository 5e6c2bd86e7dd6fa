"""Every benchmark, one after the other, on this machine; an interrupted run is resumed by the same command.

    python benchmarks/all.py WORK --data DATA --models MODELS     # hours; an idle machine
    python benchmarks/all.py WORK --quick                         # whether everything runs: minutes, worthless figures
    python benchmarks/all.py WORK --only engines startup

WORK keeps exports, logs, and all.json with the benchmarks that are done; when all are, the next run begins again. DATA
(or POCKETBERT_DATA) has glue/, vocab/ and corpus/; MODELS (or POCKETBERT_MODELS) has minilm/, all-MiniLM-L6-v2, and
tagger/, reader/ and classifier/, models fine-tuned on DATA's ner/, squad/ and SST-2. A benchmark that lacks data,
models or packages is named and left out. Results go to benchmarks/results, then processors.py compares processors;
those of --quick go to WORK/quick.
"""

from __future__ import annotations

import argparse
import csv
import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import islice
from pathlib import Path

from pocketbert import BertTokenizer
from pocketbert.bundles import BUNDLED, SENTIMENT

HERE = Path(__file__).parent


@dataclass(frozen=True)
class Step:
    """A benchmark and its arguments.

    Attributes:
        script: its file, without .py.
        arguments: of every run.
        quick: those of a quick run in addition.
        paths: that must exist.
        packages: that must be installed.
        judges: whether status 1 means that a condition failed, and the results are complete.
    """

    script: str
    arguments: Sequence[str | Path] = ()
    quick: Sequence[str] = ()
    paths: Sequence[Path] = ()
    packages: Sequence[str] = ()
    judges: bool = False

    @property
    def missing(self) -> list[str]:
        """What it lacks to run."""
        packages = [f"the package {name}" for name in self.packages if find_spec(name) is None]
        return [str(path) for path in self.paths if not path.exists()] + packages


def steps(work: Path, data: Path, models: Path) -> Iterator[Step]:
    """All benchmarks, the most important first."""
    exports, sst2, minilm = work / "exports", data / "glue" / "SST-2" / "dev.tsv", models / "minilm"
    torch, peers = ("torch", "transformers"), ("torch", "transformers", "onnx", "onnxruntime")
    with_data: tuple[str | Path, ...] = ("--data", data) if sst2.exists() else ()
    yield Step("engines", [exports, *with_data], ["--quick"])
    yield Step("bundled", [work / "sentences.txt"], paths=[work / "sentences.txt"])
    yield Step("time_shares")
    yield Step("startup", [exports], ["--rounds", "2", "--no-install"])
    web = [work / "peers", Path(__file__).parents[1] / "npm" / "dist" / "pocketbert.wasm"]
    yield Step("web", web[:1], ["--rounds", "2"], web)
    yield Step("neighbour", [exports], ["--rounds", "1", "--seconds", "0.5"], packages=peers)
    yield Step("exports", [exports], ["--seconds", "0.5", "--models", "SqueezeBERT"], packages=peers)
    yield Step("litert", ["--files", exports], ["--seconds", "0.5"], packages=("tensorflow", "ai_edge_litert"))
    yield Step("squeezebert_torch", [], ["--rounds", "2"], packages=torch)
    yield Step("serving", [work / "serving"], ["--seconds", "1", "--no-peers"], [sst2], ("fastapi", "matplotlib"))
    yield Step("soak", [work / "soak"], ["--requests", "1000", "--reloads", "1"], [], ("fastapi", "torch"), judges=True)
    yield Step("overload", [], ["--seconds", "2", "--workers", "1"], [], ("fastapi",), judges=True)
    yield Step("stream", [], ["1000"])
    named: list[str | Path] = ["--model", minilm] if minilm.exists() else []
    quick, tokenizer = ["--examples", "32", "--rounds", "1", "--tasks", "sst-2"], work / "tokenizer"
    arguments = [
        "--data",
        data / "glue",
        "--vocabulary",
        tokenizer / "vocab.txt",
        "--model",
        "squeezebert-uncased",
        *named,
    ]
    yield Step("finetune_speed", arguments, quick, [sst2, tokenizer], torch)
    sst2_train, glue = data / "glue" / "SST-2" / "train.tsv", data / "glue"
    yield Step("calibration", [glue], ["--rows", "600"], [sst2_train])
    yield Step("label_errors", [sst2_train], ["--rows", "500"], [sst2_train])
    quick = ["--draws", "1", "--tables", "sst-2", "--sizes", "8"]
    yield Step("small_tables", [data, *named], quick, [sst2_train], ("sklearn",))
    classifier = models / "classifier"
    yield Step("explanations", [classifier, sst2], ["--count", "5"], [classifier, sst2], ("torch", "captum"))
    yield Step("training_step", [], ["--only", "MobileBERT"], [], torch)
    texts = work / "texts.jsonl"
    quick = ["--rounds", "1", "--seconds", "1"]
    yield Step("pretrain_speed", [texts, "--tokenizer", tokenizer], quick, [texts, tokenizer], torch)
    yield Step("prepare", [texts, "--tokenizer", tokenizer], ["--rounds", "1"], [texts, tokenizer], ("ray",))
    quick = ["--lines", "16000", "--rounds", "1", "--kill-lines", "9000"]
    yield Step("workers", ["--kills", "10"], quick, [], ("ray",))
    sentences, quick = work / "sentences.txt", ["--texts", "100", "--rounds", "1"]
    yield Step("sentences", [minilm, sentences], quick, [minilm, sentences])
    yield Step("sts_b", [minilm, data / "glue" / "STS-B"], paths=[minilm, data / "glue" / "STS-B"], packages=torch)
    tagger, reader = models / "tagger", models / "reader"
    accuracy: list[str | Path] = [f"sst-2:{BUNDLED / SENTIMENT}:{data / 'glue'}"]
    accuracy += [f"tagger:{tagger}:{data / 'ner' / 'conll2003' / 'eng.testb'}"] if tagger.exists() else []
    accuracy += [f"reader:{reader}:{data / 'squad' / 'dev-v1.1.json'}"] if reader.exists() else []
    yield Step("export_accuracy", accuracy, ["--most", "20"], [sst2], ("onnxruntime", "ai_edge_litert"))


def write_inputs(work: Path, data: Path) -> None:
    """Write the inputs of benchmarks that take them in files of another form than DATA has, as far as that exists."""
    sst2, corpus = data / "glue" / "SST-2" / "dev.tsv", data / "corpus"
    if sst2.exists():
        with sst2.open(encoding="utf-8") as file:
            texts = [row[0] for row in csv.reader(file, delimiter="\t", quoting=csv.QUOTE_NONE)][1:]
        (work / "sentences.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    for vocabulary in islice((data / "vocab").glob("*uncased*.txt"), 1):
        BertTokenizer(vocab_file=str(vocabulary), do_lower_case=True).save_pretrained(work / "tokenizer")
    if any(corpus.glob("wiki*.parquet")) and find_spec("pyarrow") and not (work / "texts.jsonl").exists():
        from pyarrow.parquet import read_table

        texts = read_table(min(corpus.glob("wiki*.parquet")), columns=["text"])["text"].to_pylist()
        lines = (json.dumps({"text": text}, ensure_ascii=False) for text in texts)
        (work / "texts.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


def run(step: Step, work: Path, *, quick: bool) -> int:
    """Run a benchmark with its output in a log; its exit status."""
    environment = {**os.environ, "POCKETBERT_RESULTS": str(work / "quick")} if quick else dict(os.environ)
    command = [
        sys.executable,
        str(HERE / f"{step.script}.py"),
        *map(str, step.arguments),
        *(step.quick if quick else ()),
    ]
    log = work / "logs" / f"{step.script}.log"
    log.parent.mkdir(exist_ok=True)
    with log.open("w", encoding="utf-8") as file:
        return subprocess.run(command, stdout=file, stderr=file, env=environment, check=False).returncode


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("work", type=Path)
    parser.add_argument("--data", type=Path, default=Path(os.environ.get("POCKETBERT_DATA", "data")))
    parser.add_argument("--models", type=Path, default=Path(os.environ.get("POCKETBERT_MODELS", "models")))
    parser.add_argument("--quick", action="store_true", help="try everything, briefly")
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these benchmarks alone")
    given = parser.parse_args()
    work, data, models = given.work.resolve(), given.data.resolve(), given.models.resolve()
    work.mkdir(parents=True, exist_ok=True)
    os.environ["POCKETBERT_DATA"] = str(data)
    write_inputs(work, data)
    chosen = list(steps(work, data, models))
    if unknown := set(given.only or ()) - {step.script for step in chosen}:
        parser.error(f"no such benchmark: {', '.join(sorted(unknown))}")
    chosen = [step for step in chosen if given.only is None or step.script in given.only]
    state = work / ("quick.json" if given.quick else "all.json")
    done: list[str] = json.loads(state.read_text()) if state.exists() else []
    failed = False
    for number, step in enumerate(chosen, 1):
        print(f"{number:2} of {len(chosen)}  {step.script}", end=" ", flush=True)
        if step.script in done:
            print("done before")
        elif missing := step.missing:
            print(f"left out, without {', '.join(missing)}")
        else:
            begun = time.monotonic()
            status = run(step, work, quick=given.quick)
            took = f"{time.monotonic() - begun:.0f} s"
            if status == 0 or (status == 1 and step.judges):
                print(f"{took}{', a condition failed' if status else ''}")
                done.append(step.script)
                state.write_text(json.dumps(done))
            else:
                print(f"FAILED with status {status} after {took}: {work}/logs/{step.script}.log")
                failed = True
    if not given.quick:
        subprocess.run([sys.executable, str(HERE / "processors.py")], check=True)
    if failed:
        sys.exit("the next run resumes with the benchmarks that failed")
    if given.only is None:
        state.unlink(missing_ok=True)


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        print("\ninterrupted: the same command resumes")
        sys.exit(130)
