"""Training on raw text: pretrain, transfer."""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pocketbert.cli import console
from pocketbert.cli.commands import click_option, command
from pocketbert.cli.options import build, options_of
from pocketbert.cli.runs import import_recipe, run_and_report
from pocketbert.recipes.pretrain_options import PretrainOptions
from pocketbert.recipes.transfer_options import TransferOptions

if TYPE_CHECKING:
    from pocketbert.recipes.estimate import Estimate

_dry_run = click_option(
    "--dry-run", panel="Run", is_flag=True, help="Estimate memory and time with a short probe, and train nothing."
)


@command(
    examples=[
        "pocketbert pretrain corpus squeezebert --preset squeezebert --mini",
        "pocketbert pretrain corpus teacher --preset ib-bert --mini --resume",
        "pocketbert pretrain corpus model --preset squeezebert --dry-run",
        "pocketbert pretrain my-texts adapted --model squeezebert --steps 500",
        "torchrun --nproc-per-node 8 -m pocketbert.cli pretrain corpus out --preset …",
    ]
)
@options_of(PretrainOptions)
@_dry_run
@console.json_option
def pretrain(dry_run: bool, json: bool | None, **values: Any) -> None:
    """Pretrain a model with a published recipe, or continue pretraining a checkpoint.

    The objectives are masked language modelling and, for pairs of segments, sentence order (SqueezeBERT) or next
    sentence (MobileBERT). A run has one or more phases, with shorter examples first. Ctrl-C saves the state: the same
    command with --resume continues the run, with the same result to the bit.
    """
    if dry_run:
        _print_estimate(build(PretrainOptions, values), json)
    else:
        run_and_report("pretrain", PretrainOptions, values, json)


@command(
    examples=[
        "pocketbert transfer corpus mobilebert --teacher ib-bert --mini",
        "pocketbert transfer corpus out --teacher ib-bert --strategy joint --mini",
        "pocketbert transfer corpus out --teacher t --preset mobilebert-tiny",
    ]
)
@options_of(TransferOptions, except_for=["model"])
@_dry_run
@console.json_option
def transfer(dry_run: bool, json: bool | None, **values: Any) -> None:
    """Train a MobileBERT by knowledge transfer from an IB-BERT.

    The student is initialised with its teacher's embeddings and heads. Its layers are trained on the teacher's feature
    maps and attention: one after the other (progressive), all at once (joint), or during distillation (auxiliary).
    Distillation follows, for the steps of pretraining.
    """
    if dry_run:
        _print_estimate(build(TransferOptions, values), json)
    else:
        run_and_report("transfer", TransferOptions, values, json)


def _print_estimate(options: PretrainOptions, json: bool | None) -> None:
    with console.busy("measuring a few steps"):
        estimate: Estimate = import_recipe("estimate").estimate(options)
    if console.use_json(json):
        console.print_json(vars(estimate))
        return
    memory = f"{estimate.fixed_bytes / 1e9:.2f} GB for weights, gradients and optimizer state"
    if estimate.peak_bytes is not None:
        memory += f"; at most {estimate.peak_bytes / 1e9:.2f} GB in the probe"
    console.print_facts(
        [
            ("parameters", f"{estimate.parameters:,}"),
            ("memory", memory),
            ("tokens per step", _per_phase(estimate.tokens_per_step)),
            ("steps", _per_phase(estimate.steps)),
            ("tokens per second", _per_phase(estimate.tokens_per_second)),
            ("time", f"about {timedelta(seconds=round(estimate.seconds))} on this device only"),
        ]
    )


def _per_phase(values: Iterable[float]) -> str:
    return ", then ".join(text for text, _ in groupby(f"{value:,.0f}" for value in values))
