"""Training on labelled data: finetune, distill."""

from __future__ import annotations

from typing import Any

from pocketbert.cli import console
from pocketbert.cli.commands import command
from pocketbert.cli.dry_run import dry_run_option, print_dry_run, refuse_several_runs
from pocketbert.cli.options import build, options_of
from pocketbert.cli.runs import multi_run_options, run_and_report, run_few_shot
from pocketbert.recipes.distill_options import DistillOptions
from pocketbert.recipes.finetune_options import FinetuneOptions


@command(
    examples=[
        "pocketbert finetune reviews.csv -m my-squeezebert -o my-model",
        "pocketbert finetune reviews.csv --few-shot -o my-model",
        "pocketbert finetune a.tsv --from-scratch small.json --vocab-size 8000 -o new",
        "pocketbert finetune train.json --task question-answering -m my-bert -o qa",
        "pocketbert finetune train.txt --task token-classification -m my-bert -o ner",
        "pocketbert finetune glue --glue sst-2 -m google/mobilebert-uncased -o sst2",
        "pocketbert finetune reviews.csv -m my-squeezebert -o my-model --resume",
        "pocketbert finetune reviews.csv -m my-squeezebert -o my-model --dry-run",
    ]
)
@options_of(FinetuneOptions)
@multi_run_options
@dry_run_option
@console.json_option
def finetune(
    preset: str | None, seeds: int | None, search: int | None, dry_run: bool, json: bool | None, **values: Any
) -> None:
    """Fine-tune a model for a task on labelled data.

    Training starts from a checkpoint, or from scratch. The output folder contains the best model, ready to use. Ctrl-C
    saves the state: the same command with --resume continues the run.
    """
    if dry_run:
        refuse_several_runs(seeds, search)
        print_dry_run(FinetuneOptions, values, json, preset)
        return
    if values["few_shot"]:
        run_few_shot(build(FinetuneOptions, values), json, preset=preset, seeds=seeds, search=search)
        return
    run_and_report("finetune", FinetuneOptions, values, json, preset=preset, seeds=seeds, search=search)


@command(
    examples=[
        "pocketbert distill reviews.csv --teacher my-bert --student s -o a",
        "pocketbert distill glue --glue sst-2 --teacher t1 --teacher t2 -m s -o a",
        "pocketbert distill a.csv --teacher t --from-scratch s --init copy -o a",
        "pocketbert distill a.csv --teacher t --student s --augment 4 -o a",
        "pocketbert distill a.txt --task token-classification --teacher t -m s -o b",
        "pocketbert distill corpus --task feature-extraction --teacher t -m s …",
    ]
)
@options_of(DistillOptions, except_for=["vocab_size", "class_weights", "label_smoothing"])
@multi_run_options
@dry_run_option
@console.json_option
def distill(
    preset: str | None, seeds: int | None, search: int | None, dry_run: bool, json: bool | None, **values: Any
) -> None:
    """Distil one or more teachers into a smaller model.

    The student is trained on the labels and on the teachers' outputs for the same inputs; with --hidden-weight and
    --attention-weight, on their hidden states and attention as well; on raw text, on these alone. As with finetune, the
    output folder contains the best model, and --resume continues a run after Ctrl-C.
    """
    if dry_run:
        refuse_several_runs(seeds, search)
        print_dry_run(DistillOptions, values, json, preset)
        return
    run_and_report("distill", DistillOptions, values, json, preset=preset, seeds=seeds, search=search)
