"""Fine-tune on a GLUE task with the flags that SqueezeBERT's model card publishes. Thin: `pocketbert finetune` does it.

    python examples/text-classification/run_glue.py --model_name_or_path squeezebert/squeezebert-mnli-headless \
        --task_name mrpc --data_dir ./glue_data/MRPC --output_dir ./model --overwrite_output_dir --do_train --do_eval \
        --num_train_epochs 10 --learning_rate 3e-05 --per_device_train_batch_size 16 --save_steps 20000

utils/download_glue_data.py makes the folder of the data.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from rich.console import Console

from pocketbert.checkpoints import write_text
from pocketbert.data.glue import glue_task
from pocketbert.errors import ConfigError, PocketBertError
from pocketbert.models.auto import load_trained
from pocketbert.models.predict import TorchPredictor
from pocketbert.recipes.finetune import finetune
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.tasks.evaluate import read_evaluation
from pocketbert.tasks.submission import submit


def main(arguments: list[str] | None = None) -> int:
    """Run the script: 0 if all went well."""
    options = read_flags(arguments)
    try:
        run(options)
    except PocketBertError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def read_flags(arguments: list[str] | None) -> argparse.Namespace:
    """The published flags."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model_name_or_path", required=True, help="a folder, or a name on the hub")
    parser.add_argument("--task_name", required=True, help="mrpc, sst-2, …")
    parser.add_argument(
        "--data_dir", required=True, help="the folder of the task, or of all tasks; or a name on the hub"
    )
    parser.add_argument("--output_dir", type=Path, required=True, help="the folder for the model and its results")
    parser.add_argument("--overwrite_output_dir", action="store_true", help="replace a run that is there")
    parser.add_argument("--do_train", action="store_true", help="fine-tune")
    parser.add_argument(
        "--do_eval", action="store_true", help="measure on the development set: eval_results_<task>.txt"
    )
    parser.add_argument("--do_predict", action="store_true", help="predict the test set: submission.zip")
    parser.add_argument("--num_train_epochs", type=float, default=3.0, help="how often to go through the data")
    parser.add_argument("--learning_rate", type=float, default=5e-5, help="the peak of the rate")
    parser.add_argument("--per_device_train_batch_size", type=int, default=8, help="examples a step")
    parser.add_argument("--max_seq_length", type=int, default=128, help="how many tokens of a text are read")
    parser.add_argument("--weight_decay", type=float, default=0.0, help="for weights other than biases and norms")
    parser.add_argument("--warmup_ratio", type=float, default=0.0, help="the part of all steps in which the rate rises")
    parser.add_argument("--max_grad_norm", type=float, default=1.0, help="the largest norm of the gradient")
    parser.add_argument("--seed", type=int, default=42, help="decides fresh weights, order and dropout")
    parser.add_argument("--save_steps", type=int, help="accepted; states are saved every five minutes all the same")
    return parser.parse_args(arguments)


def run(options: argparse.Namespace) -> None:
    """Do what the flags say."""
    glue, folder = options.task_name, options.output_dir
    glue_task(glue)
    if options.do_train:
        if options.overwrite_output_dir and folder.exists():
            if any(folder.iterdir()) and not (folder / "run.json").exists():
                raise ConfigError(f"{folder} is not empty and holds no run: it is not overwritten; choose another")
            shutil.rmtree(folder)
        finetune(
            FinetuneOptions(
                data=options.data_dir,
                glue=glue,
                model=options.model_name_or_path,
                output=folder,
                epochs=options.num_train_epochs,
                learning_rate=options.learning_rate,
                batch_size=options.per_device_train_batch_size,
                max_length=options.max_seq_length,
                weight_decay=options.weight_decay,
                warmup=options.warmup_ratio,
                clip=options.max_grad_norm,
                seed=options.seed,
            ),
            console=Console(stderr=True),
            argv=sys.argv,
        )
    if not (options.do_eval or options.do_predict):
        return
    model = folder if options.do_train else options.model_name_or_path
    evaluation = read_evaluation(model, options.data_dir, glue=glue, max_length=options.max_seq_length)
    predictor = TorchPredictor(load_trained(model, evaluation.head))
    if options.do_eval:
        lines = [f"eval_{name} = {value}\n" for name, value in evaluation(predictor).items()]
        write_text(folder / f"eval_results_{glue}.txt", "".join(lines))
        print("".join(lines), end="")
    if options.do_predict:
        missing = submit(evaluation, predictor, options.data_dir, folder / "submission.zip")
        print(f"{folder / 'submission.zip'}" + (f" (still without {', '.join(missing)})" if missing else ""))


if __name__ == "__main__":
    sys.exit(main())
