"""Sentence encoders and cross encoders: embed, rank."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from pocketbert.bundles import ENCODER
from pocketbert.cli import console
from pocketbert.cli.bulk import other_bulk_options, written
from pocketbert.cli.commands import click_argument, click_option, command
from pocketbert.cli.inputs import check_text, text_source
from pocketbert.cli.predictions import load_pipeline, predictions, spare_numpy_threads, text_of
from pocketbert.cli.text_options import (
    device_option,
    file_option,
    model_option,
    text_arguments,
    text_column_option,
    top_k_option,
    windows_option,
)

# As in `decode`, which imports NumPy.
POOLINGS = ("cls", "max", "mean", "mean_sqrt_len_tokens", "weightedmean", "lasttoken")


@command(
    examples=[
        'pocketbert embed --model my-model "a small model" --normalize',
        "pocketbert embed --model my-model --file sentences.txt > vectors.jsonl",
        "pocketbert embed --model my-model --file sentences.txt --output vectors.npy",
        'pocketbert embed --model my-model --prompt-name query "a small model"',
    ]
)
@text_arguments
@model_option(ENCODER)
@file_option
@click_option(
    "--output",
    "-o",
    type=click.Path(),
    metavar="FILE.npy|FOLDER|URL",
    help="Write the vectors as a NumPy array, one row per text; or, for a --file, shards in a folder.",
)
@click_option(
    "--pooling",
    type=click.Choice(POOLINGS),
    default_text="as declared by the model, or mean",
    help="Pooling of token vectors into one vector per text, without the layers that the model declares after its "
    "own pooling.",
)
@click_option("--normalize", is_flag=True, help="Normalize every vector to length 1.")
@click_option(
    "--dimensions",
    metavar="N",
    type=click.IntRange(min=1),
    default_text="as declared by the model, or all",
    help="Truncate every vector to its first N dimensions.",
)
@click_option(
    "--prompt", metavar="TEXT", default_text="as declared by the model", help="Prompt: text to prepend to every text."
)
@click_option("--prompt-name", metavar="NAME", help="Name of one of the model's prompts, such as query.")
@text_column_option
@windows_option
@device_option
@other_bulk_options
@console.json_option
def embed(
    text: Sequence[str],
    model: str | None,
    file: str | None,
    output: str | None,
    pooling: str | None,
    normalize: bool,
    dimensions: int | None,
    prompt: str | None,
    prompt_name: str | None,
    text_column: str | None,
    windows: bool,
    device: str | None,
    json: bool | None,
    **bulk: Any,
) -> None:
    """Compute the embeddings of texts."""
    if output is not None and "://" not in output and Path(output).suffix not in ("", ".npy"):
        raise click.UsageError("--output is a file that ends in .npy, or a folder, whose name has no such ending")
    if prompt is not None and prompt_name is not None:
        raise click.UsageError("give either --prompt or --prompt-name, not both")
    options: dict[str, Any] = {
        "pooling": pooling or "declared", "normalize": normalize, "dimensions": dimensions, "prompt": prompt,
        "prompt_name": prompt_name, "windows": windows,
    }  # fmt: skip
    folder = None if output is None or Path(output).suffix == ".npy" else output
    if written(
        {**bulk, "output": folder}, texts=text, file=file, device=device, json=json, task="feature-extraction",
        model=model, text_column=text_column, options=options,
    ):  # fmt: skip
        return
    source = text_source(text, file, text_column=text_column)
    pipe = load_pipeline("feature-extraction", model, device)
    json = console.use_json(json)
    results = predictions(pipe, source, text_of, json and output is None, **options)
    if output is not None:
        from pocketbert.sentences.vectors import write_vectors

        count, width = write_vectors(output, (vector for _, vector in results))
        console.print_line(f"wrote {count:,} vectors of {width} dimensions to {output}", "note")
        return
    with console.growing_table(numbers=["Vector", "Width"]) as add_row:
        for item, vector in results:
            if json:
                console.print_json({"text": item.text, "embedding": vector})
            else:
                first = "  ".join(f"{value:+.3f}" for value in vector[:4])
                add_row(["Text", "Vector", "Width"], (item.text, f"{first}  …", str(len(vector))))


@command(
    examples=[
        'pocketbert rank "Who lives here?" -m my-scorer --file passages.txt --top-k 5',
        'pocketbert rank "rain" -m my-encoder "It is pouring." "The sun shines."',
    ]
)
@click_argument("query", help="Question, or words to search for.")
@click_argument("text", nargs=-1, help="Passages; - reads lines from standard input.")
@model_option(ENCODER)
@file_option
@top_k_option(None, "Number of passages to show, the best first.", "all")
@text_column_option
@windows_option
@console.json_option
def rank(
    query: str,
    text: Sequence[str],
    model: str | None,
    file: str | None,
    top_k: int | None,
    text_column: str | None,
    windows: bool,
    json: bool | None,
) -> None:
    """Rank passages by how well they answer a query.

    A classifier with one label is used as a cross encoder, which reads the query and a passage together; any other
    model as a sentence encoder, whose vectors of query and passages are compared.
    """
    check_text(query, "the query")
    source = text_source(text, file, text_column=text_column)
    spare_numpy_threads()
    with console.busy("loading the model"):
        from pocketbert.sentences.rank import Ranker

        ranker = Ranker(model or ENCODER)
    json = console.use_json(json)
    results = predictions(ranker, source, text_of, json, query=query, windows=windows)
    scored = [(result, index, item.text) for index, (item, result) in enumerate(results)]
    ranked = sorted(scored, key=lambda one: -one[0])[:top_k]  # of equal scores, the first in the input
    if json:
        for score, index, passage in ranked:
            console.print_json({"index": index, "score": score, "text": passage})
    else:
        rows = [(f"{score:.3f}", str(index), passage) for score, index, passage in ranked]
        console.print_table(["Score", "Index", "Passage"], rows, numbers=["Score", "Index"])
