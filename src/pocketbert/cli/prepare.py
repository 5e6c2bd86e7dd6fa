"""Make a corpus for pretraining of raw text: prepare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pocketbert.cli import console
from pocketbert.cli.commands import PATH, argument, command, option

VOCABULARY, WORK = "Vocabulary", "Work"


# Names and defaults are those of `data.prepare`, which a test sees to.
@command(
    examples=[
        "pocketbert prepare wiki.parquet books/ corpus --tokenizer my-bert",
        "pocketbert prepare texts.jsonl corpus --vocab-size 30522",
        "pocketbert prepare hub:wikimedia/wikipedia:20231101.en corpus -t vocab.txt",
        "pocketbert prepare texts/ corpus -t my-bert --engine ray --address auto",
    ]
)
@argument(
    "sources",
    nargs=-1,
    required=True,
    help="Text, JSON lines, Parquet or WikiExtractor's output: files, folders of them, or hub:NAME.",
)
@argument("out", type=PATH, help="The folder for the corpus: new, or left by a run that was stopped.")
@option("--tokenizer", "-t", panel=VOCABULARY, metavar="FOLDER|NAME", help="A model folder, a hub name or a vocab.txt.")
@option("--vocab-size", panel=VOCABULARY, metavar="N", type=int, help="Or learn a vocabulary of N pieces from it all.")
@option("--cased", panel=VOCABULARY, is_flag=True, help="Keep capital letters and accents, also with a vocab.txt.")
@option("--held-out", metavar="X", default=0.03, help="Which part of the documents to keep back.")
@option("--similarity", metavar="X", default=0.8, help="Leave out what is so like an earlier document; 0: nothing.")
@option("--language", metavar="CODE", default="en", help="The language, for where sentences end.")
@option("--seed", metavar="N", default=42, help="Decides what is kept back.")
@option("--workers", panel=WORK, metavar="N", type=int, help="Processes. Default: one a processor.")
@option(
    "--engine", panel=WORK, type=click.Choice(["local", "ray"]), default="local", help="Where to work; the same result."
)
@option("--address", panel=WORK, metavar="HOST:PORT", help="Ray's cluster, or auto. Default: this machine alone.")
@console.json_option
def prepare(
    sources: tuple[str, ...],
    out: Path,
    tokenizer: str | None,
    vocab_size: int | None,
    cased: bool,
    workers: int | None,
    engine: Any,
    address: str | None,
    json: bool | None,
    **given: Any,
) -> None:
    """Prepare a pretraining corpus from raw text.

    Near-duplicates are left out; the sentences of all else lie in OUT as token ids, in shards. After Ctrl-C, the same
    command goes on where it was, and the shards are the same.
    """
    if (tokenizer is None) == (vocab_size is None):
        raise click.UsageError("say where the vocabulary comes from: either --tokenizer or --vocab-size")
    if address is not None and engine != "ray":
        raise click.UsageError("--address is Ray's: add --engine ray")
    from pocketbert.data.prepare import Preparation
    from pocketbert.data.prepare import prepare as run

    with console.progress("MB") as advance:
        manifest = run(
            sources, out, tokenizer=tokenizer, vocab_size=vocab_size, lower_case=not cased,
            options=Preparation(**given), engine=engine, workers=workers, address=address, advance=advance,
        )  # fmt: skip
    counts, held = manifest["counts"], sum(shard["documents"] for shard in manifest["held-out"])
    left_out = counts["left_out"]
    if console.use_json(json):
        console.print_json(
            {"folder": str(out), **counts, "held_out": held, "vocabulary": manifest["vocabulary"]["size"]}
        )
        return
    console.print_facts(
        [
            ("documents", f"{counts['documents']:,}, of which {held:,} are kept back"),
            (
                "left out",
                f"{left_out['near_duplicates']:,} near-duplicates, {left_out['short']:,} with too little text",
            ),
            ("sentences", f"{counts['sentences']:,}"),
            ("tokens", f"{counts['tokens']:,} of a vocabulary of {manifest['vocabulary']['size']:,}"),
            ("shards", f"{len(manifest['train']) + len(manifest['held-out']):,}"),
            ("corpus", f"{out}"),
        ]
    )
