"""Training: the time of a step over the time of its own products alone, for the three families, on one thread.

    python benchmarks/training_step.py                                  # fine-tuning, 8 × 128 tokens
    python benchmarks/training_step.py --corpus FOLDER --teacher FOLDER  # distillation on raw text, 64 × 128

Every product that PyTorch computes in a step without the core's passes (`pocketbert.models.bf16`) is recorded with the
shapes, strides and types of its operands, and repeated by itself on random numbers; attention in a fused kernel counts
as its products. What remains of a step is conversions, norms, activations, softmax, losses and the optimizer. A teacher
that runs on the engine is timed by itself and left out of the ratio. The peak is that of multiply-adds in registers.
The least of several rounds.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from common import write_results
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from pocketbert.bench.roofline import peak, roofline
from pocketbert.configs import PRESETS
from pocketbert.models import bf16 as passes
from pocketbert.models.auto import model_class
from pocketbert.models.cpu import keep_freed_memory
from pocketbert.recipes.distill import EncoderDistillationRun
from pocketbert.recipes.distill_options import DistillOptions
from pocketbert.training.objectives import ExampleLoss, Objective
from pocketbert.training.optim import adamw, clip_and_step

aten = torch.ops.aten
PRODUCTS = (
    aten.mm.default, aten.addmm.default, aten.bmm.default, aten.baddbmm.default, aten.convolution.default,
    aten.convolution_backward.default,
)  # fmt: skip
EXAMPLES, LENGTH, ROUNDS = 8, 128, 5
MODELS = {"BERT": "bert-base-uncased", "SqueezeBERT": "squeezebert-uncased", "MobileBERT": "mobilebert-uncased"}
STUDENTS = {"SqueezeBERT": "squeezebert_small.json", "MobileBERT": "mobilebert_small.json"}

Key = tuple[Any, tuple[Any, ...]]  # an operator, and its arguments with descriptions in place of tensors


class Products(TorchDispatchMode):
    """Counts the products of a block, by operator and operands."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.found: Counter[Key] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in PRODUCTS or (func.namespace == "mkldnn" and "linear" in func._schema.name):
            self._add(func, args, kwargs)
        elif "scaled_dot_product" in func._schema.name:
            backward = "backward" in func._schema.name
            query, key, value = (x.flatten(0, 1) for x in args[1 if backward else 0 :][:3])
            weights = query.new_empty(query.size(0), query.size(1), key.size(1))
            for _ in range(2 if backward else 1):
                self._add(aten.bmm.default, (query, key.transpose(1, 2)), {})
            for _ in range(3 if backward else 1):
                self._add(aten.bmm.default, (weights, value), {})
        return func(*args, **(kwargs or {}))

    def _add(self, func: Any, args: Any, kwargs: Any) -> None:
        described = tree_map(_described, (tuple(args), tuple(sorted((kwargs or {}).items()))))
        self.found[func, _hashable(described)] += 1

    def seconds(self) -> float:
        """The time of all products, each repeated by itself."""
        return sum(count * _least(_repeated(func, given)) for (func, given), count in self.found.items())

    def operations(self) -> float:
        """Multiplications and additions."""
        from torch.utils.flop_counter import FlopCounterMode

        total = 0.0
        for (func, given), count in self.found.items():
            if func.namespace == "mkldnn":
                (rows, width), (outputs, _) = given[0][0][1], given[0][1][1]
                total += 2 * count * rows * width * outputs
                continue
            with FlopCounterMode(display=False) as counter:
                _repeated(func, given)()
            total += count * counter.get_total_flops()
        return total


def _described(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return ("tensor", tuple(value.shape), tuple(value.stride()), value.dtype)
    return value


def _hashable(value: Any) -> Any:
    return tuple(map(_hashable, value)) if isinstance(value, list | tuple) else value


def _made(value: Any) -> Any:
    if isinstance(value, tuple) and value[:1] == ("tensor",):
        _, shape, strides, dtype = value
        return torch.empty_strided(shape, strides, dtype=dtype).uniform_(-1, 1)
    return [_made(each) for each in value] if isinstance(value, tuple) else value


def _repeated(func: Any, given: Any) -> Callable[[], Any]:
    args, kwargs = _made(given[0]), dict(_made(given[1]))
    return lambda: func(*args, **kwargs)


def _least(call: Callable[[], Any], rounds: int = ROUNDS) -> float:
    """The least seconds of some calls after a first one."""
    call()
    seconds = []
    for _ in range(rounds):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return min(seconds)


def step_of(objective: Objective, batch: list[dict[str, torch.Tensor]]) -> Callable[[bool], None]:
    """A function that carries out one step as the loop does, in bf16 or not."""
    objective.train()
    optimizer = adamw(objective, learning_rate=1e-5)
    totals: Counter[str] = Counter()
    for part in batch:
        totals.update(objective.units({name: tensor.numpy() for name, tensor in part.items()}))

    def step(bf16: bool) -> None:
        optimizer.zero_grad(set_to_none=True)
        for part in batch:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                loss = objective(part, totals)["loss"]
            loss.backward()
        clip_and_step(optimizer, objective.parameters(), 1.0, narrow=bf16)

    return step


def fine_tuning(preset: str) -> tuple[Objective, list[dict[str, torch.Tensor]]]:
    """A classifier and a batch of full-length texts."""
    config = PRESETS[preset]
    ids = torch.randint(1000, config.vocab_size, (EXAMPLES, LENGTH))
    batch = {
        "input_ids": ids, "attention_mask": torch.ones_like(ids), "token_type_ids": torch.zeros_like(ids),
        "labels": torch.randint(2, (EXAMPLES,)),
    }  # fmt: skip
    return ExampleLoss(model_class(config, "ForSequenceClassification")(config)), [batch]


def distillation(config: Path, corpus: str, teacher: str, out: Path, *, bf16: bool) -> tuple[Objective, Any]:
    """The run of `runs/…_small.sh`, and its first batch: 64 × 128 tokens, with masked copies and short sentences."""
    options = DistillOptions(
        data=corpus, output=out, teacher=(teacher,), task="feature-extraction", from_scratch=str(config), init="copy",
        precision="bf16" if bf16 else "fp32", max_length=LENGTH, batch_size=64, hidden_weight=1.0, sentence_weight=0.5,
        word_weight=0.25, short_share=0.1, device="cpu", max_steps=1, tensorboard=False,
    )  # fmt: skip
    run = EncoderDistillationRun(options)
    run.read()
    with run.seeded():
        tokenizer, model = run.prepare()
        run.encoded = run.encode(tokenizer, model.config)
        objective = run.objective(model)
    parts = run.batches()(0)
    return objective, [{name: torch.from_numpy(array) for name, array in part.items()} for part in parts]


def rows_of(
    kind: str, family: str, made: Callable[[bool], Any], tops: dict[str, float], precisions: list[str]
) -> list[dict[str, Any]]:
    """One row per precision."""
    rows = []
    for name in precisions:
        bf16 = name == "bf16"
        objective, batch = made(bf16)
        step, products = step_of(objective, batch), Products()
        step(bf16)
        with mock.patch.object(passes, "is_there", return_value=False), products:
            step(bf16)
        step(bf16)
        whole = _least(lambda step=step, bf16=bf16: step(bf16))  # type: ignore[misc]
        engines = getattr(objective, "engines", [])
        teacher = _least(lambda e=engines, b=batch: [one.states(part) for one in e for part in b])  # type: ignore[misc]
        alone, operations = products.seconds(), products.operations()
        tokens = sum(part["input_ids"].numel() for part in batch)
        row = {
            "what": kind, "family": family, "precision": name, "tokens": tokens, "step_ms": round(1e3 * whole, 1),
            "teacher_ms": round(1e3 * teacher, 1) if engines else "", "products_ms": round(1e3 * alone, 1),
            "step_over_products": round((whole - (teacher if engines else 0)) / alone, 2),
            "share_of_peak": round(operations / (whole - (teacher if engines else 0)) / tops[name], 3),
            "products_share_of_peak": round(operations / alone / tops[name], 3),
            "tokens_per_second": round(tokens / whole),
        }  # fmt: skip
        print(row, file=sys.stderr, flush=True)
        rows.append(row)
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", help="folder that `pocketbert prepare` wrote")
    parser.add_argument("--teacher", help="all-MiniLM-L6-v2 or its folder")
    parser.add_argument("--only", choices=MODELS, help="one family")
    parser.add_argument("--precisions", default="fp32,bf16")
    given = parser.parse_args()
    torch.set_num_threads(1)
    torch.manual_seed(0)
    keep_freed_memory()
    tops, precisions, rows = one_thread(), given.precisions.split(","), []
    kind = "distillation" if given.corpus and given.teacher else "fine-tuning"
    for family in STUDENTS if kind == "distillation" else MODELS:
        if given.only in (None, family):
            with tempfile.TemporaryDirectory() as folder:

                def made(bf16: bool, family: str = family, folder: str = folder) -> tuple[Objective, Any]:
                    if kind == "fine-tuning":
                        return fine_tuning(MODELS[family])
                    config = Path(__file__).parent.parent / "runs" / STUDENTS[family]
                    return distillation(config, given.corpus, given.teacher, Path(folder) / str(bf16), bf16=bf16)

                rows += rows_of(kind, family, made, tops, precisions)
    write_results(f"{kind}-step", rows)


def one_thread() -> dict[str, float]:
    """The peak of one thread by arithmetic."""
    from pocketbert.runtime.core import available_kernels

    rates = {kernels: {name: peak(kernels, name, 1) for name in ("fp32", "bf16")} for kernels in available_kernels()}
    return roofline({kernels: {n: r for n, r in of.items() if r is not None} for kernels, of in rates.items()})


if __name__ == "__main__":
    main()
