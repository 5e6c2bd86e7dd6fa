"""Ask a model: classify, tag, answer, fill-mask, choose, embed."""

from __future__ import annotations

import os
import sys
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import click

from pocketbert.cli import show, texts
from pocketbert.cli.commands import Declaration, argument, command, option
from pocketbert.cli.texts import Item, Texts
from pocketbert.errors import InputError

if TYPE_CHECKING:
    from rich.text import Text

    from pocketbert.pipelines import Pipeline

_text_arguments = argument("text", nargs=-1, help="The texts; - reads lines from standard input.")
_file = option(
    "--file", "-f", type=click.Path(), metavar="FILE",
    help="A file with one text a line, or a CSV, TSV, JSON-lines or Parquet file with a column of texts.",
)  # fmt: skip
_text_column = option("--text-column", metavar="NAME", help="The column of the text, where its name does not tell.")
_model = option(
    "--model", "-m", type=click.Path(), metavar="FOLDER|NAME", required=True, help="A model folder, or a hub name."
)
_device = option("--device", metavar="NAME", help="Where to compute: cpu (when not given), cuda, cuda:1, …")


def _top_k(default: int | None, help: str) -> Declaration:
    return option("--top-k", "-k", metavar="N", type=click.IntRange(min=1), default=default, help=help)


@command(
    examples=[
        'pocketbert classify "a gorgeous, witty, seductive movie"',
        "pocketbert classify --file reviews.txt > answers.jsonl",
        "cat reviews.txt | pocketbert classify | jq -r .label",
        'pocketbert classify -m my-pairs "Is it raining?" --pair "Take an umbrella."',
        'pocketbert classify -m my-nli "A thrilling match" --labels sports,politics',
    ]
)
@_text_arguments
@_file
@option(
    "--model",
    "-m",
    type=click.Path(),
    metavar="FOLDER|NAME",
    help="A model folder, or a hub name; when not given, the one of this package: positive or negative?",
)
@option("--pair", metavar="TEXT", help="The second text, for a model of pairs.")
@_top_k(None, "Show so many labels of each text.")
@option("--labels", metavar="A,B,C", help="Labels of your own; needs a model of language inference (zero-shot).")
@option(
    "--template",
    metavar="TEXT",
    default="This example is {}.",
    help="With --labels: the sentence that is to follow from a text.",
)
@option("--entailment", metavar="LABEL", help="With --labels: which label of the model means that it follows.")
@_text_column
@option("--text-pair-column", metavar="NAME", help="The column of the second text.")
@_device
@show.as_json
def classify(
    text: Sequence[str],
    file: str | None,
    model: str | None,
    pair: str | None,
    top_k: int | None,
    labels: str | None,
    template: str,
    entailment: str | None,
    text_column: str | None,
    text_pair_column: str | None,
    device: str | None,
    json: bool | None,
) -> None:
    """Label texts, or pairs of texts, or predict a number for each."""
    source = texts.source(
        text, file, pair=pair, text_column=text_column, pair_column=text_pair_column, pairs=labels is None
    )
    options: dict[str, Any] = {"top_k": top_k or 1}
    if labels is not None:
        if model is None or pair is not None:
            raise click.UsageError("--labels needs a --model of language inference, and no --pair")
        if "{}" not in template or set("{}") & set(template.replace("{}", "")):
            raise click.UsageError("--template must hold {} where the label goes, and no other braces")
        options = {"candidate_labels": labels, "hypothesis_template": template, "entailment": entailment}
    pipe = _load("text-classification" if labels is None else "zero-shot-classification", model, device)
    lines = show.as_lines(json)
    with show.growing_table(numbers=["Score"]) as add:
        for item, result in _answers(pipe, source, _one_or_pair, lines, **options):
            best = result if labels is None else _ranked(result)[: top_k or 1]
            both = {"text": item.text} if item.pair is None else {"text": item.text, "text_pair": item.pair}
            if lines:
                show.line({**both, **(best[0] if top_k is None else {"labels": best})})
                continue
            columns = [*("Text", "Second text")[: len(both)], "Label", "Score"]
            for rank, one in enumerate(best):
                shown = [value if rank == 0 else "" for value in both.values()]
                add(columns, (*shown, one["label"], f"{one['score']:.3f}"))


def _one_or_pair(item: Item) -> Any:
    return item.text if item.pair is None else {"text": item.text, "text_pair": item.pair}


def _ranked(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"label": label, "score": score} for label, score in zip(result["labels"], result["scores"], strict=True)]


@command(
    examples=[
        'pocketbert tag --model my-tagger "Marie Curie was born in Warsaw."',
        "pocketbert tag -m my-tagger -f sentences.txt | jq -r '.entities[].text'",
    ]
)
@_text_arguments
@_model
@_file
@_text_column
@_device
@show.as_json
def tag(
    text: Sequence[str],
    model: str,
    file: str | None,
    text_column: str | None,
    device: str | None,
    json: bool | None,
) -> None:
    """Find the names of people, places and the like in texts."""
    source = texts.source(text, file, text_column=text_column)
    pipe = _load("token-classification", model, device)
    lines = show.as_lines(json)
    # A word is tagged by its first token, as taggers are trained.
    for item, found in _answers(pipe, source, _text, lines, aggregation_strategy="first"):
        entities = [
            {
                "label": one["entity_group"],
                "text": item.text[one["start"] : one["end"]],
                **{key: one[key] for key in ("score", "start", "end")},
            }
            for one in found
        ]
        if lines:
            show.line({"text": item.text, "entities": entities})
        else:
            show.console().print(_marked(item.text, entities))


def _text(item: Item) -> str:
    return item.text


_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")


def _marked(text: str, entities: Sequence[dict[str, Any]]) -> Text:
    """A text with its entities in brackets and colours, one colour a label."""
    from rich.text import Text

    marked, end = Text(), 0
    for one in entities:
        marked.append(show.plain(text[end : one["start"]]))
        colour = _COLOURS[sum(one["label"].encode()) % len(_COLOURS)]
        marked.append(f"[{one['label']} ", f"{colour}").append(show.plain(one["text"]), f"bold {colour}")
        marked.append("]", colour)
        end = one["end"]
    return marked.append(show.plain(text[end:]))


@command(
    examples=[
        'pocketbert answer "Where?" -m my-reader -c "Marie Curie was born in Warsaw."',
        'pocketbert answer "Who wrote it?" "When?" -m my-reader --file article.txt',
        'man ls | pocketbert answer "What does -a do?" --model my-reader',
    ]
)
@argument("question", nargs=-1, required=True, help="What to look for.")
@_model
@option("--context", "-c", metavar="TEXT", help="The passage.")
@option("--file", "-f", type=click.Path(), metavar="FILE", help="The file of the passage, of any length.")
@_top_k(1, "Show so many answers.")
@option("--allow-empty", is_flag=True, help="Let the model say that there is no answer (SQuAD 2 models can).")
@_device
@show.as_json
def answer(
    question: Sequence[str],
    model: str,
    context: str | None,
    file: str | None,
    top_k: int,
    allow_empty: bool,
    device: str | None,
    json: bool | None,
) -> None:
    """Find the answers to questions in a passage.

    The passage is that of --context, a --file, or all of standard input.
    """
    from pocketbert.features import usual_windows

    for number, one in enumerate(question, start=1):
        texts.check(one, f"question {number}")
    passage = texts.passage(context, file)
    pipe = _load("question-answering", model, device)
    lines = show.as_lines(json)
    _, limit = usual_windows(pipe.max_length)
    over = [one for one in question if len(pipe.tokenizer.tokenize(one)) > limit]
    for asked in question:
        with show.busy("reading the passage"):
            found = pipe({"question": asked, "context": passage}, top_k=top_k, handle_impossible_answer=allow_empty)
        answers = found if isinstance(found, list) else [found]
        if lines:
            show.line({"question": asked, **(answers[0] if top_k == 1 else {"answers": answers})})
        else:
            best = answers[0]
            show.facts(
                [
                    ("question", asked),
                    *(("answer", f"{one['answer'] or '(none)'}  {one['score']:.3f}") for one in answers),
                    ("passage", _excerpt(passage, best["start"], best["end"])),
                ]
            )
    if over:
        show.say(f"only the first {limit} tokens of a question are read: {over[0]:.60}…", "note")


def _excerpt(passage: str, start: int, end: int, around: int = 200) -> Text:
    """The answer, marked, with some of what stands before and after it."""
    from rich.text import Text

    before, after = passage[max(0, start - around) : start], passage[end : end + around]
    if start > around:
        before = f"…{before[before.find(' ') + 1 :]}"
    if end + around < len(passage):
        after = f"{after[: after.rfind(' ')]}…"
    return Text(show.plain(before)).append(show.plain(passage[start:end]), "bold reverse").append(show.plain(after))


@command(
    examples=[
        'pocketbert fill-mask -m squeezebert/squeezebert-uncased "A [MASK] film."',
        'pocketbert fill-mask -m my-model "The film was [MASK]." --targets good,bad',
    ]
)
@argument("text", nargs=-1, help="Texts with [MASK] in them; - reads lines from standard input.")
@_model
@_file
@_top_k(5, "Show so many words for a gap.")
@option("--targets", metavar="A,B,C", help="Choose among these words only.")
@_text_column
@_device
@show.as_json
def fill_mask(
    text: Sequence[str],
    model: str,
    file: str | None,
    top_k: int,
    targets: str | None,
    text_column: str | None,
    device: str | None,
    json: bool | None,
) -> None:
    """Fill the gaps in texts."""
    source = texts.source(text, file, text_column=text_column)
    words = None if targets is None else [word.strip() for word in targets.split(",") if word.strip()]
    pipe = _load("fill-mask", model, device)
    lines = show.as_lines(json)
    for item, found in _answers(pipe, source, _text, lines, top_k=top_k, targets=words):
        gaps = [
            [
                {"token": one["token_str"], "id": one["token"], "score": one["score"], "sequence": one["sequence"]}
                for one in gap
            ]
            for gap in (found if found and isinstance(found[0], list) else [found])
        ]
        if lines:
            show.line({"text": item.text, "gaps": gaps})
            continue
        mask = str(pipe.tokenizer.mask_token)
        for number, gap in enumerate(gaps, start=1):
            rows = [
                (one["token"], f"{one['score']:.3f}", _filled(item.text, mask, number, one["token"])) for one in gap
            ]
            show.table(["Word", "Score", f"Gap {number}" if len(gaps) > 1 else "Text"], rows, numbers=["Score"])


def _filled(text: str, mask: str, gap: int, word: str) -> Text:
    """A text with `word` in one of its gaps."""
    from rich.text import Text

    parts = text.split(mask)
    before, after = mask.join(parts[:gap]), mask.join(parts[gap:])
    return Text(show.plain(before)).append(show.plain(word), "bold").append(show.plain(after))


@command(examples=['pocketbert choose -m my-model "She poured the tea into" "a cup" "the moon"'])
@argument("prompt", help="A beginning, or a question.")
@argument("choice", nargs=-1, required=True, help="How it may go on, or the answers.")
@_model
@_device
@show.as_json
def choose(prompt: str, choice: Sequence[str], model: str, device: str | None, json: bool | None) -> None:
    """Choose how a text goes on, or which answer fits a question."""
    if len(choice) < 2:
        raise click.UsageError("there is nothing to choose: give two or more")
    texts.check(prompt, "the prompt")
    for number, one in enumerate(choice, start=1):
        texts.check(one, f"choice {number}")
    pipe = _load("multiple-choice", model, device)
    [found] = pipe.stream([{"prompt": prompt, "choices": list(choice)}])
    ranked, cut = found.value, [i for i, one in enumerate(found.features, start=1) if one.cut]
    if show.as_lines(json):
        show.line({"prompt": prompt, "choices": ranked})
    else:
        rows = [(one["choice"], f"{one['score']:.3f}") for one in ranked]
        show.table([prompt, "Score"], rows, numbers=["Score"])
    _state_cut(pipe, len(cut), len(choice), f"choice {cut[0]}" if cut else "")


@command(
    examples=[
        'pocketbert embed --model my-model "a small model" --normalize',
        "pocketbert embed --model my-model --file sentences.txt > vectors.jsonl",
    ]
)
@_text_arguments
@_model
@_file
@option(
    "--pooling", metavar="mean|cls", default="mean", help="The mean of all tokens' vectors, or that of the first token."
)
@option("--normalize", is_flag=True, help="Give every vector the length 1.")
@_text_column
@_device
@show.as_json
def embed(
    text: Sequence[str],
    model: str,
    file: str | None,
    pooling: str,
    normalize: bool,
    text_column: str | None,
    device: str | None,
    json: bool | None,
) -> None:
    """Turn texts into vectors."""
    if pooling not in ("mean", "cls"):
        raise click.UsageError(f"--pooling is mean or cls, not {pooling}")
    source = texts.source(text, file, text_column=text_column)
    pipe = _load("feature-extraction", model, device)
    lines = show.as_lines(json)
    with show.growing_table(numbers=["Vector", "Width"]) as add:
        for item, vector in _answers(pipe, source, _text, lines, pooling=pooling, normalize=normalize):
            if lines:
                show.line({"text": item.text, "embedding": vector})
            else:
                first = "  ".join(f"{value:+.3f}" for value in vector[:4])
                add(["Text", "Vector", "Width"], (item.text, f"{first}  …", str(len(vector))))


# ── what all of them do ──


def _load(task: str, model: str | None, device: str | None) -> Pipeline:
    if device is None and find_spec("pocketbert._core") is not None:
        # The core computes: the threads that NumPy would start take a quarter of its time to be imported.
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    with show.busy("reading the model"):
        from pocketbert.pipelines import pipeline

        return pipeline(task, model, device=device)


def _answers(
    pipe: Pipeline, source: Texts, shape: Callable[[Item], Any], lines: bool, **options: Any
) -> Iterator[tuple[Item, Any]]:
    """Every text with its result, as they come; then remarks about what was not read.

    `shape` makes an input of the pipeline from an item.
    """
    from pocketbert.runtime.stream import PAUSE

    waiting: deque[tuple[Item, float | None]] = deque()  # read, and not yet answered

    def inputs() -> Iterator[Any]:
        for item in source.items():
            if item is None:
                yield PAUSE
            else:
                waiting.append((item, source.fraction))
                yield shape(item)

    count, cut, first = 0, 0, ""
    with show.progress("texts", hidden=lines and sys.stdout.isatty()) as advance:
        try:
            for result in pipe.stream(inputs(), **options):
                item, fraction = waiting.popleft()
                count += 1
                if any(one.cut for one in result.features):
                    cut, first = cut + 1, first or item.place
                yield item, result.value
                advance(count, fraction)
        except InputError as error:
            if error.position is None or not waiting:
                raise
            place = waiting[0][0].place
            raise InputError(f"{source.name}, {place}: {error.message}" if place else error.message) from None
    if source.skipped:
        show.say(f"lines without text: {source.skipped:,}; they were skipped", "note")
    _state_cut(pipe, cut, count, first)


def _state_cut(pipe: Pipeline, cut: int, count: int, first: str) -> None:
    """Say that `cut` of `count` texts were not read to their end; `first` is where the first of them stands."""
    if not cut:
        return
    limit = f"longer than the {pipe.max_length} tokens that the model reads"
    if count == 1:
        show.say(f"the text is {limit}: its end was ignored", "note")
    else:
        where = f" (the first is {first})" if first else ""
        show.say(f"{cut:,} of {count:,} texts are {limit}: their ends were ignored{where}", "note")
