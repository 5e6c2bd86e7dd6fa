"""Teach a small model what larger ones know: distill."""

from __future__ import annotations

from typing import Any

from pocketbert.cli import console
from pocketbert.cli import finetune as finetuning
from pocketbert.cli.commands import PATH, Function, command, option
from pocketbert.cli.finetune import DATA, START
from pocketbert.cli.runs import as_published, carry_out

TEACHING = "Teaching"
# A teacher's pieces of words are the student's, `--student` is the word here for `--model`, and there is a task more.
_NOT_OF_FINETUNE = ("vocab_size", "model", "task")


def _all_of_finetune(function: Function) -> Function:
    """Declare what both commands have in common; the function's own options come first on the page."""
    declared = [one for one in finetuning.finetune.params if one.name not in (*_NOT_OF_FINETUNE, "json")]
    so_far = getattr(function, "__click_params__", [])  # where click's decorators add, the last one first
    function.__click_params__ = [*so_far, *reversed(declared)]  # type: ignore[attr-defined]
    return function


# Names and defaults are those of `recipes.distill_options.DistillOptions`, which a test sees to.
@command(
    examples=[
        "pocketbert distill reviews.csv --teacher my-bert --student s -o a",
        "pocketbert distill glue --glue sst-2 --teacher t1 --teacher t2 -m s -o a",
        "pocketbert distill a.csv --teacher t --from-scratch s --from-teacher -o a",
        "pocketbert distill a.csv --teacher t --student s --augment 4 -o a",
        "pocketbert distill a.txt --task token-classification --teacher t -m s -o b",
        "pocketbert distill corpus --task feature-extraction --teacher t -m s …",
    ]
)
@option(
    "--teacher",
    panel=TEACHING,
    metavar="FOLDER|NAME",
    multiple=True,
    required=True,
    help="A model of the same task and labels; several may be given.",
)
@option(
    "--teacher-labels",
    panel=TEACHING,
    metavar="A,B,C",
    help="What the teachers' labels mean, in their order, where they do not say.",
)
@option("--alpha", panel=TEACHING, metavar="X", default=0.5, help="Weight of the teachers' answers; labels: the rest.")
@option("--temperature", panel=TEACHING, metavar="X", default=1.0, help="Softens the answers of all.")
@option("--hidden-weight", panel=TEACHING, metavar="X", default=0.0, help="Weight of the hidden states.")
@option("--attention-weight", panel=TEACHING, metavar="X", default=0.0, help="Weight of the attention maps.")
@option(
    "--layers",
    panel=TEACHING,
    metavar="1:3,2:6",
    help="Layers to compare, student's and teacher's; else evenly spread.",
)
@option("--augment", panel=TEACHING, metavar="N", default=0, help="Altered copies of each text to ask about.")
@option("--unlabelled", panel=TEACHING, metavar="FILE", type=PATH, help="Further texts to ask about.")
@option("--cache", panel=TEACHING, metavar="FOLDER", type=PATH, help="For what teachers say; else in the output.")
@option(
    "--cache-gigabytes", panel=TEACHING, metavar="X", default=1.0, help="The most that hidden states may take there."
)
@option("--student", "-m", "model", panel=START, metavar="FOLDER|NAME", help="A checkpoint: a folder, or a hub name.")
@option("--from-teacher", panel=START, is_flag=True, help="From scratch, but with those of its weights that fit.")
@option("--keep-vocabulary", panel=START, metavar="N", type=int, help="From scratch: only the N most used pieces.")
@option(
    "--task",
    panel=DATA,
    metavar="NAME",
    default="text-classification",
    help="Or token-classification, question-answering, multiple-choice; feature-extraction: prepared raw text.",
)
@_all_of_finetune
@console.json_option
def distill(
    json: bool | None,
    labels: str | None,
    teacher: tuple[str, ...],
    teacher_labels: str | None,
    layers: str | None,
    preset: str | None,
    seeds: int | None,
    search: int | None,
    **given: Any,
) -> None:
    """Distil one or more teachers into a smaller model.

    The student learns from the labels of the data, from what its teachers make of the same inputs, and if asked to from
    their hidden states and attention; of raw text, from these alone. All else is as with finetune: the best model lies
    in the output folder, and --resume goes on after Ctrl-C.
    """
    recipe = finetuning.import_recipe("distill")
    options = finetuning.import_recipe("distill_options").DistillOptions(
        labels=finetuning.names(labels),
        teacher=teacher,
        teacher_labels=finetuning.names(teacher_labels),
        layers=_pairs(layers),
        **as_published(preset, given),
    )
    space = "FINETUNING" if options.task == "feature-extraction" else "DISTILLING"  # there are no answers to weigh
    carry_out(recipe.distill, options, space, seeds, search, json)


def _pairs(written: str | None) -> tuple[tuple[int, int], ...] | None:
    """Read pairs such as 1:3,2:6."""
    if written is None:
        return None
    from pocketbert.errors import ConfigError

    try:
        pairs = [[int(number) for number in pair.split(":")] for pair in written.split(",")]
        return tuple((here, there) for here, there in pairs)
    except ValueError:
        raise ConfigError(f"--layers {written} must be pairs such as 1:3,2:6, the student's layer first") from None
