"""Make a model from raw text: pretrain, transfer."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterable
from itertools import groupby
from typing import TYPE_CHECKING, Any

from pocketbert.cli import console
from pocketbert.cli.commands import PATH, Function, argument, command, option
from pocketbert.cli.finetune import import_recipe

if TYPE_CHECKING:
    from pocketbert.recipes.pretrain import Estimate, PretrainResult

MODEL, TEXT, TRAINING, TEACHING, RUN = "Model", "Text", "Training", "Teaching", "The run"

_arguments = [
    argument("corpus", type=PATH, help="A folder that `pocketbert prepare` wrote."),
    argument("output", type=PATH, help="The folder for the model: new, or to --resume."),
]
_options = [
    option("--mini", panel=MODEL, is_flag=True, help="Model and recipe in miniature, for two processor cores."),
    option("--config", panel=MODEL, metavar="FILE", type=PATH, help="Another architecture: a config.json."),
    option("--pairs", panel=TEXT, metavar="sop|nsp|none", help="Sentence order, next sentence, or masked words alone."),
    option("--whole-words", panel=TEXT, is_flag=True, help="Mask the pieces of a word together."),
    option("--masked", panel=TEXT, metavar="X", type=float, help="The part of the tokens to predict; else 0.15."),
    option("--length", panel=TEXT, metavar="N,N", help="Tokens of an example, one or one a phase."),
    option("--steps", panel=TRAINING, metavar="N,N", help="How many of each phase."),
    option("--batch-size", panel=TRAINING, metavar="N,N", help="Examples a step, over all processes."),
    option("--learning-rate", panel=TRAINING, metavar="X,X", help="The peak; one or one a phase."),
    option("--warmup", panel=TRAINING, metavar="X,X", help="The part of a phase's steps in which the rate rises."),
    option("--optimizer", panel=TRAINING, metavar="NAME", help="lamb, lamb-nvidia or adamw; else lamb."),
    option("--weight-decay", panel=TRAINING, metavar="X", type=float, help="For all but biases and norms; else 0.01."),
    option("--clip", panel=TRAINING, metavar="X", default=1.0, help="The largest norm of the gradient."),
    option("--seed", panel=TRAINING, metavar="N", default=42, help="Decides fresh weights, examples, masks, dropout."),
    option("--tokens", panel=RUN, metavar="N", default=16_384, help="About how many to compute at once."),
    option("--precision", panel=RUN, metavar="auto|fp32|bf16", default="auto", help="auto: bf16 where a GPU has it."),
    option("--compile", panel=RUN, is_flag=True, help="Compile the layers (torch.compile)."),
    option("--sharded", panel=RUN, is_flag=True, help="Divide weights and moments among the processes (FSDP2)."),
    option("--device", panel=RUN, metavar="NAME", help="cpu, cuda or cuda:1; a GPU when there is one, if not given."),
    option("--eval-every", panel=RUN, metavar="N", type=int, help="Steps in between; else a fiftieth of the run."),
    option("--eval-batches", panel=RUN, metavar="N", default=8, help="Batches of 64 held-out examples to evaluate on."),
    option("--save-minutes", panel=RUN, metavar="X", default=10.0, help="Save the state at least so often."),
    option("--resume", panel=RUN, is_flag=True, help="Continue the run in OUTPUT, or begin it."),
    option("--tensorboard/--no-tensorboard", panel=RUN, default=True, help="Whether to write curves."),
    option("--dry-run", panel=RUN, is_flag=True, help="Only say what it would take, from a short probe."),
    console.json_option,
]


def _of_both(function: Function) -> Function:
    for one in reversed([*_arguments, *_options]):
        function = one(function)
    return function


# Names and defaults are those of `recipes.pretrain_options.PretrainOptions`, which a test sees to.
@command(
    examples=[
        "pocketbert pretrain corpus squeezebert --preset squeezebert --mini",
        "pocketbert pretrain corpus teacher --preset ib-bert --mini --resume",
        "pocketbert pretrain corpus model --preset squeezebert --dry-run",
        "torchrun --nproc-per-node 8 -m pocketbert.cli pretrain corpus out --preset …",
    ]
)
@option(
    "--preset",
    panel=MODEL,
    metavar="NAME",
    required=True,
    help="squeezebert, ib-bert, mobilebert or mobilebert-tiny: architecture and recipe.",
)
@_of_both
def pretrain(dry_run: bool, json: bool | None, **given: Any) -> None:
    """Pretrain a model from scratch with a published recipe.

    It learns to fill masked words, and in which order two segments come (SqueezeBERT) or whether one follows the other
    (MobileBERT). Phases follow each other, short examples first. The
    state is kept: the same command with --resume goes on where it stopped, bit for bit.
    """
    recipe = import_recipe("pretrain")
    options = import_recipe("pretrain_options").PretrainOptions(**_lists(given))
    _carry_out(recipe.pretrain, options, recipe.Course, dry_run, json)


# Names and defaults are those of `recipes.transfer_options.TransferOptions`, which a test sees to.
@command(
    examples=[
        "pocketbert transfer corpus mobilebert --teacher ib-bert --mini",
        "pocketbert transfer corpus out --teacher ib-bert --strategy joint --mini",
        "pocketbert transfer corpus out --teacher t --preset mobilebert-tiny",
    ]
)
@option("--teacher", panel=TEACHING, metavar="FOLDER|NAME", required=True, help="A pretrained IB-BERT.")
@option("--strategy", panel=TEACHING, metavar="NAME", default="progressive", help="Or auxiliary, or joint.")
@option("--preset", panel=MODEL, metavar="NAME", default="mobilebert", help="Or mobilebert-tiny.")
@option("--layer-steps", panel=TEACHING, metavar="N", type=int, help="Steps for each layer; else as published.")
@option("--layer-batch-size", panel=TEACHING, metavar="N", type=int, help="Examples a step meanwhile.")
@option("--layer-rate", panel=TEACHING, metavar="X", type=float, help="The rate meanwhile; else the first phase's.")
@option("--lower-rate", panel=TEACHING, metavar="X", default=0.3, help="Its factor for layers below; 0 freezes them.")
@option("--feature-weight", panel=TEACHING, metavar="X", default=100.0, help="Weight of the feature maps.")
@option("--mean-weight", panel=TEACHING, metavar="X", default=5000.0, help="Weight of their means.")
@option("--variance-weight", panel=TEACHING, metavar="X", default=5.0, help="Weight of their variances.")
@option("--attention-weight", panel=TEACHING, metavar="X", default=1.0, help="Weight of the attention.")
@option("--alpha", panel=TEACHING, metavar="X", default=0.5, help="Weight of the teacher's words; labels: the rest.")
@option("--temperature", panel=TEACHING, metavar="X", default=1.0, help="Softens the words of both.")
@_of_both
def transfer(dry_run: bool, json: bool | None, **given: Any) -> None:
    """Train a thin MobileBERT from an IB-BERT, layer by layer.

    The student begins with its teacher's embeddings and heads. Its layers learn the teacher's feature maps and
    attention, one after the other (progressive), all at once (joint), or while it learns what the teacher says
    (auxiliary). Then it learns that alone, as long as pretrain would take.
    """
    recipe = import_recipe("transfer")
    options = import_recipe("transfer_options").TransferOptions(**_lists(given))
    _carry_out(recipe.transfer, options, recipe.TransferCourse, dry_run, json)


def _lists(given: dict[str, Any]) -> dict[str, Any]:
    """Read lists such as 128,512."""
    from pocketbert.errors import ConfigError

    kinds: dict[str, Callable[[str], Any]] = {
        "length": int, "steps": int, "batch_size": int, "learning_rate": float, "warmup": float,
    }  # fmt: skip
    read = dict(given)
    for name, kind in kinds.items():
        if given[name] is not None:
            try:
                read[name] = tuple(kind(one) for one in given[name].split(","))
            except ValueError:
                flag = name.replace("_", "-")
                raise ConfigError(f"--{flag} {given[name]} must be a number, or one a phase such as 2,1") from None
    return read


def _carry_out(run: Any, options: Any, course: Any, dry_run: bool, json: bool | None) -> None:
    import sys

    if dry_run:
        with console.busy("measuring a few steps"):
            found = import_recipe("pretrain").estimate(options, course_class=course)
        _show_estimate(found, json)
        return
    result = run(options, console=console.rich_console(stderr=True), argv=["pocketbert", *sys.argv[1:]])
    _show_result(result, json)


def _show_estimate(found: Estimate, json: bool | None) -> None:
    from datetime import timedelta

    if console.use_json(json):
        console.print_json(vars(found))
        return
    gigabytes = f"{found.fixed_bytes / 1e9:.2f} GB for weights, gradients and moments"
    if found.peak_bytes is not None:
        gigabytes += f"; {found.peak_bytes / 1e9:.2f} GB at most in the probe"

    def each(values: Iterable[float]) -> str:
        return ", then ".join(text for text, _ in groupby(f"{value:,.0f}" for value in values))

    console.print_facts(
        [
            ("parameters", f"{found.parameters:,}"),
            ("memory", gigabytes),
            ("tokens a step", each(found.tokens_a_step)),
            ("steps", each(found.steps)),
            ("tokens a second", each(found.tokens_a_second)),
            ("time", f"about {timedelta(seconds=round(found.seconds))} on this device alone"),
        ]
    )


def _show_result(result: PretrainResult, json: bool | None) -> None:
    import os
    from datetime import timedelta

    if os.environ.get("RANK", "0") != "0":  # one of several processes, which all know the same
        return
    if console.use_json(json):
        console.print_json({"folder": str(result.folder), "metrics": result.metrics, "steps": result.steps})
        return
    rows = [(name, f"{value:.4f}") for name, value in result.metrics.items()]
    console.print_table(["Metric", "Held out"], rows, numbers=["Held out"])
    console.print_facts(
        [
            ("steps", f"{result.steps:,} in {timedelta(seconds=round(result.seconds))}"),
            ("model", f"{result.folder}"),
            ("next", f"pocketbert finetune reviews.csv --model {shlex.quote(str(result.folder))} --output my-model"),
        ]
    )
