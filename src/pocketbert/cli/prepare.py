"""Make a corpus for pretraining of raw text: prepare."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from pocketbert.cli import console
from pocketbert.cli.commands import PATH, argument, command, option

VOCABULARY, WORK = "Vocabulary", "Work"


# Names and defaults are those of `corpus.prepare_options.PrepareOptions`, which a test sees to.
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
    from pocketbert.corpus.prepare import prepare as run
    from pocketbert.corpus.prepare_options import PrepareOptions

    options = PrepareOptions(
        sources=sources, output=out, tokenizer=tokenizer, vocab_size=vocab_size, cased=cased, engine=engine,
        workers=workers, address=address, **given,
    )  # fmt: skip
    with console.progress("MB") as advance:
        result = run(options, advance=advance)
    if console.use_json(json):
        counts = {name: getattr(result, name) for name in ("documents", "sentences", "tokens")}
        left_out = {"short": result.short, "near_duplicates": result.near_duplicates}
        more = {"held_out": result.held_out, "vocabulary": result.vocabulary}
        console.print_json({"folder": str(out), **counts, "left_out": left_out, **more})
        return
    console.print_facts(
        [
            ("documents", f"{result.documents:,}, of which {result.held_out:,} are kept back"),
            (
                "left out",
                f"{result.near_duplicates:,} near-duplicates, {result.short:,} with too little text",
            ),
            ("sentences", f"{result.sentences:,}"),
            ("tokens", f"{result.tokens:,} of a vocabulary of {result.vocabulary:,}"),
            ("shards", f"{result.shards:,}"),
            ("corpus", f"{out}"),
        ]
    )
