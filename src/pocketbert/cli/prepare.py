"""Corpus preparation: prepare."""

from __future__ import annotations

from typing import Any

from pocketbert.cli import console
from pocketbert.cli.commands import command
from pocketbert.cli.options import build, options_of
from pocketbert.corpus.prepare_options import PrepareOptions


@command(
    examples=[
        "pocketbert prepare wiki.parquet books/ corpus --tokenizer my-bert",
        "pocketbert prepare texts.jsonl corpus --vocab-size 30522",
        "pocketbert prepare hub:wikimedia/wikipedia:20231101.en corpus -t vocab.txt",
        "pocketbert prepare texts/ corpus -t my-bert --engine ray --address auto",
    ]
)
@options_of(PrepareOptions)
@console.json_option
def prepare(json: bool | None, **values: Any) -> None:
    """Prepare a pretraining corpus from raw text.

    Near-duplicates are left out; all other sentences are written to OUTPUT as token ids, in shards. After Ctrl-C, the
    same command continues, and writes the same shards.
    """
    options = build(PrepareOptions, values)
    from pocketbert.corpus.prepare import prepare as run

    with console.progress("MB") as advance:
        result = run(options, advance=advance)
    if console.use_json(json):
        counts = {name: getattr(result, name) for name in ("documents", "sentences", "tokens")}
        left_out = {"short": result.short, "near_duplicates": result.near_duplicates}
        more = {"held_out": result.held_out, "vocabulary": result.vocabulary}
        console.print_json({"folder": str(options.output), **counts, "left_out": left_out, **more})
        return
    console.print_facts(
        [
            ("documents", f"{result.documents:,}, of which {result.held_out:,} are held out"),
            ("left out", f"{result.near_duplicates:,} near-duplicates, {result.short:,} with too little text"),
            ("sentences", f"{result.sentences:,}"),
            ("tokens", f"{result.tokens:,} of a vocabulary of {result.vocabulary:,}"),
            ("shards", f"{result.shards:,}"),
            ("corpus", f"{options.output}"),
        ]
    )
