"""Inference: classify, tag, answer, fill-mask, choose."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import click

from pocketbert.bundles import ANSWERS, ENCODER, ENTITIES, SENTIMENT
from pocketbert.cli import console
from pocketbert.cli.bulk import bulk_options, written
from pocketbert.cli.cells import Text, joined
from pocketbert.cli.commands import click_argument, click_option, command
from pocketbert.cli.explained import coloured, strongest
from pocketbert.cli.inputs import Item, check_text, read_passage, text_source
from pocketbert.cli.predictions import load_pipeline, note_truncated, predictions, text_of
from pocketbert.cli.text_options import (
    device_option,
    file_option,
    model_option,
    text_arguments,
    text_column_option,
    top_k_option,
    windows_option,
)

_explain_option = click_option(
    "--explain", is_flag=True, help="Show what each word contributes to the score (Shapley values)."
)


@command(
    examples=[
        'pocketbert classify "a gorgeous, witty, seductive movie"',
        "pocketbert classify --file reviews.txt > answers.jsonl",
        "cat reviews.txt | pocketbert classify | jq -r .label",
        "pocketbert classify -f 'in/*.parquet' -o out --format parquet --workers 4",
        "pocketbert classify -m my-model --file tickets.csv --answer-share 0.9",
        'pocketbert classify --explain "The plot is clever, and the end is flat."',
        'pocketbert classify -m my-pairs "Is it raining?" --pair "Take an umbrella."',
        'pocketbert classify -m my-nli "A thrilling match" --labels sports,politics',
    ]
)
@text_arguments
@file_option
@model_option(SENTIMENT)
@click_option("--pair", metavar="TEXT", help="Second text, for models of text pairs.")
@top_k_option(None, "Number of labels per text.", "the best label")
@click_option(
    "--min-confidence",
    metavar="X",
    type=float,
    help="Minimum probability of the best label; below it, the answer is null.",
)
@click_option(
    "--answer-share",
    metavar="X",
    type=float,
    help="Fraction of texts to answer, as measured on held-out examples; the answer to less confident texts is null.",
)
@click_option(
    "--conformal",
    metavar="X",
    type=float,
    help="Answer with a set of labels that contains the correct one with this probability (conformal prediction).",
)
@_explain_option
@click_option("--labels", metavar="A,B,C", help="Labels for zero-shot classification; needs an NLI model.")
@click_option(
    "--template", metavar="TEXT", default="This example is {}.", help="Hypothesis for --labels; {} is the label."
)
@click_option("--entailment", metavar="LABEL", default_text="detected", help="The NLI model's label for entailment.")
@text_column_option
@click_option(
    "--text-pair-column",
    metavar="NAME",
    default_text="detected",
    help="Column of the second text in a table.",
)
@windows_option
@device_option
@bulk_options
@console.json_option
def classify(
    text: Sequence[str],
    file: str | None,
    model: str | None,
    pair: str | None,
    top_k: int | None,
    min_confidence: float | None,
    answer_share: float | None,
    conformal: float | None,
    explain: bool,
    labels: str | None,
    template: str,
    entailment: str | None,
    text_column: str | None,
    text_pair_column: str | None,
    windows: bool,
    device: str | None,
    json: bool | None,
    **bulk: Any,
) -> None:
    """Classify texts or text pairs, or predict a number for each."""
    asked = {"min_confidence": min_confidence, "answer_share": answer_share, "conformal": conformal}
    decisions: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    decisions |= {"explain": True} if explain else {}
    options: dict[str, Any] = {"windows": windows, **decisions, **({} if top_k is None else {"top_k": top_k})}
    if labels is not None:
        if model is None or pair is not None:
            raise click.UsageError("--labels needs an NLI model (--model), and no --pair")
        if decisions:
            raise click.UsageError(f"--{next(iter(decisions)).replace('_', '-')} is not for --labels")
        if "{}" not in template or set("{}") & set(template.replace("{}", "")):
            raise click.UsageError("--template must contain {} for the label, and no other braces")
        options = {
            "candidate_labels": labels, "hypothesis_template": template, "entailment": entailment, "windows": windows
        }  # fmt: skip
    task = "text-classification" if labels is None else "zero-shot-classification"
    several = {} if top_k is None else {"top_k": top_k}
    if written(
        bulk, texts=text, file=file, device=device, json=json, task=task, model=model, text_column=text_column,
        text_pair_column=text_pair_column, text_pair=pair,
        options=options | several,
    ):  # fmt: skip
        return
    source = text_source(
        text, file, pair=pair, text_column=text_column, pair_column=text_pair_column, pairs=labels is None
    )
    pipe = load_pipeline(task, model, device)
    json = console.use_json(json)
    with console.growing_table(numbers=["Score"]) as add_row:
        for item, result in predictions(pipe, source, _text_or_pair, json, **options):
            found = result if labels is None else _ranked(result)[: top_k or 1]
            if labels is not None and top_k is None:
                found = found[0]
            texts = {"text": item.text} if item.pair is None else {"text": item.text, "text_pair": item.pair}
            if json:
                console.print_json({**texts, **({"labels": found} if isinstance(found, list) else found)})
                continue
            columns = [*("Text", "Second text")[: len(texts)], "Label", "Score"]
            rows = [
                (_NOTHING if one["label"] is None else one["label"], f"{one['score']:.3f}", one.get("words"))
                for one in (found if isinstance(found, list) else [found])
            ]
            for rank, (*row, words) in enumerate(rows or [(_NOTHING, "", None)]):
                shown = [
                    coloured(value, words, other=number == 1) if words else value if rank == 0 else ""
                    for number, value in enumerate(texts.values())
                ]
                add_row([*columns, *(["Contributions"] if explain else [])], (*shown, *row, *_reasons(explain, words)))


_NOTHING = "(no answer)"  # in a table


def _reasons(explain: bool, words: list[dict[str, Any]] | None) -> list[str]:
    """The cell with the words that contribute most, if there is one."""
    return [strongest(words or [])] if explain else []


def _text_or_pair(item: Item) -> Any:
    return item.text if item.pair is None else {"text": item.text, "text_pair": item.pair}


def _ranked(result: dict[str, Any]) -> list[dict[str, Any]]:
    return [{"label": label, "score": score} for label, score in zip(result["labels"], result["scores"], strict=True)]


@command(
    examples=[
        'pocketbert tag "Marie Curie was born in Warsaw."',
        "pocketbert tag -m my-tagger -f sentences.txt | jq -r '.entities[].text'",
        'pocketbert tag --explain "Marie Curie was born in Warsaw."',
    ]
)
@text_arguments
@model_option(ENTITIES)
@file_option
@_explain_option
@text_column_option
@device_option
@bulk_options
@console.json_option
def tag(
    text: Sequence[str],
    model: str | None,
    file: str | None,
    explain: bool,
    text_column: str | None,
    device: str | None,
    json: bool | None,
    **bulk: Any,
) -> None:
    """Find named entities, such as people and places, in texts of any length."""
    why = {"explain": True} if explain else {}
    if written(
        bulk, texts=text, file=file, device=device, json=json, task="token-classification", model=model,
        text_column=text_column, options=why,
    ):  # fmt: skip
        return
    source = text_source(text, file, text_column=text_column)
    pipe = load_pipeline("token-classification", model, device)
    json = console.use_json(json)
    from pocketbert.bulk.columns import entities

    with console.growing_table(numbers=["Score"]) as add_row:
        # A word has the label of its first token, as in training.
        for item, groups in predictions(pipe, source, text_of, json, aggregation_strategy="first", **why):
            found = entities(item.text, groups)
            if json:
                console.print_json({"text": item.text, "entities": found})
            elif not explain:
                console.print_wrapped(_with_entities(item.text, found))
            else:
                for row in [_explained_entity(item.text, one) for one in found] or [(item.text, "(none)", "", "", "")]:
                    add_row(["Text", "Entity", "Label", "Score", "Contributions"], row)


def _explained_entity(text: str, entity: dict[str, Any]) -> tuple[Text | str, ...]:
    words = entity["words"]
    return coloured(text, words), entity["text"], entity["label"], f"{entity['score']:.3f}", strongest(words)


_COLOURS = ("cyan", "magenta", "green", "yellow", "blue", "red")


def _with_entities(text: str, entities: Sequence[dict[str, Any]]) -> Text:
    """A text with its entities in brackets and colours, one colour per label."""
    marked, end = Text(), 0
    for entity in entities:
        marked.append(console.plain(text[end : entity["start"]]))
        colour = _COLOURS[sum(entity["label"].encode()) % len(_COLOURS)]
        marked.append(f"[{entity['label']} ", colour).append(console.plain(entity["text"]), f"bold {colour}")
        marked.append("]", colour)
        end = entity["end"]
    return marked.append(console.plain(text[end:]))


@command(
    examples=[
        'pocketbert answer "Where was she born?" -c "Marie Curie was born in Warsaw."',
        'pocketbert answer "Who wrote it?" "When?" -m my-reader --file article.txt',
        'man ls | pocketbert answer "What does -a do?"',
        'pocketbert answer "Where does she live?" --explain -c "She lives in Paris."',
    ]
)
@click_argument("question", nargs=-1, required=True, help="One or more questions.")
@model_option(ANSWERS)
@click_option("--context", "-c", metavar="TEXT", help="The passage.")
@click_option("--file", "-f", type=click.Path(), metavar="FILE", help="File that contains the passage, of any length.")
@text_column_option
@top_k_option(1, "Number of answers per question.")
@click_option("--allow-empty", is_flag=True, help='Allow "no answer" as the result (SQuAD 2.0 models).')
@_explain_option
@device_option
@bulk_options
@console.json_option
def answer(
    question: Sequence[str],
    model: str | None,
    context: str | None,
    file: str | None,
    text_column: str | None,
    top_k: int,
    allow_empty: bool,
    explain: bool,
    device: str | None,
    json: bool | None,
    **bulk: Any,
) -> None:
    """Find the answers to questions in a passage.

    The passage is --context, the contents of --file, or all of standard input; with --output, each line or row of
    --file is one.
    """
    from pocketbert.features import usual_windows

    for number, text in enumerate(question, start=1):
        check_text(text, f"question {number}")
    several = {} if top_k == 1 else {"top_k": top_k}
    why = {"explain": True} if explain else {}
    if bulk["output"] is not None and context is not None:
        raise click.UsageError("--output writes the answers in a --file of passages: leave out --context")
    if written(
        bulk, texts=(), file=file, device=device, json=json, task="question-answering", model=model,
        questions=tuple(question), text_column=text_column,
        options={"handle_impossible_answer": allow_empty, **several, **why},
    ):  # fmt: skip
        return
    passage = read_passage(context, file)
    pipe = load_pipeline("question-answering", model, device)
    json = console.use_json(json)
    _, limit = usual_windows(pipe.max_length)
    too_long = [text for text in question if len(pipe.tokenizer.tokenize(text)) > limit]
    for text in question:
        with console.busy("reading the passage"):
            one = {"question": text, "context": passage}
            result = pipe(one, top_k=top_k, handle_impossible_answer=allow_empty, **why)
        answers = result if isinstance(result, list) else [result]
        if json:
            console.print_json({"question": text, **(answers[0] if top_k == 1 else {"answers": answers})})
        else:
            best = answers[0]
            words = best.get("words", [])
            console.print_facts(
                [
                    ("question", coloured(text, words, other=True)),
                    *(
                        ("answer", f"{console.directed(span['answer']) or '(none)'}  {span['score']:.3f}")
                        for span in answers
                    ),
                    ("passage", _excerpt(passage, best["start"], best["end"], words)),
                    *([("contributions", strongest(words, 5))] if explain else []),
                ]
            )
    if too_long:
        console.print_line(f"only the first {limit} tokens of a question are read: {too_long[0]:.60}…", "note")


def _excerpt(passage: str, start: int, end: int, words: Sequence[dict[str, Any]], around: int = 200) -> Text:
    """The answer, highlighted, with `around` characters before and after it; what `words` explain has colours."""
    first, last = max(0, start - around), min(len(passage), end + around)
    if first > 0:
        first += passage[first:start].find(" ") + 1
    if last < len(passage) and (space := passage.rfind(" ", end, last)) >= 0:
        last = space
    answer = coloured(passage, words, start=start, end=end)
    answer.stylize("bold reverse")
    before, after = coloured(passage, words, start=first, end=start), coloured(passage, words, start=end, end=last)
    return joined(("…" if first > 0 else "", before, answer, after, "…" if last < len(passage) else ""))


@command(
    examples=[
        'pocketbert fill-mask "She opened the [MASK] and went in."',
        'pocketbert fill-mask -m my-model "The film was [MASK]." --targets good,bad',
    ]
)
@click_argument("text", nargs=-1, help="Texts that contain [MASK]; - reads lines from standard input.")
@model_option(ENCODER)
@file_option
@top_k_option(5, "Number of words per mask.")
@click_option("--targets", metavar="A,B,C", default_text="the whole vocabulary", help="Words to choose from.")
@text_column_option
@device_option
@bulk_options
@console.json_option
def fill_mask(
    text: Sequence[str],
    model: str | None,
    file: str | None,
    top_k: int,
    targets: str | None,
    text_column: str | None,
    device: str | None,
    json: bool | None,
    **bulk: Any,
) -> None:
    """Predict the masked words of texts."""
    words = None if targets is None else [word.strip() for word in targets.split(",") if word.strip()]
    if written(
        bulk, texts=text, file=file, device=device, json=json, task="fill-mask", model=model, text_column=text_column,
        options={"top_k": top_k, "targets": words},
    ):  # fmt: skip
        return
    source = text_source(text, file, text_column=text_column)
    pipe = load_pipeline("fill-mask", model, device)
    json = console.use_json(json)
    from pocketbert.bulk.columns import gaps

    for item, result in predictions(pipe, source, text_of, json, top_k=top_k, targets=words):
        found = gaps(result)
        if json:
            console.print_json({"text": item.text, "gaps": found})
            continue
        mask = str(pipe.tokenizer.mask_token)
        for number, gap in enumerate(found, start=1):
            heading = f"Mask {number}" if len(found) > 1 else "Text"
            rows = [
                (word["token"], f"{word['score']:.3f}", _filled(item.text, mask, number, word["token"])) for word in gap
            ]
            console.print_table(["Word", "Score", heading], rows, numbers=["Score"])


def _filled(text: str, mask: str, number: int, word: str) -> Text:
    """The text with `word` instead of its mask `number`, counted from 1."""
    parts = text.split(mask)
    before, after = mask.join(parts[:number]), mask.join(parts[number:])
    return Text(console.plain(before)).append(console.plain(word), "bold").append(console.plain(after))


@command(examples=['pocketbert choose -m my-model "She poured the tea into" "a cup" "the moon"'])
@click_argument("prompt", help="Beginning of a text, or a question.")
@click_argument("choice", nargs=-1, required=True, help="Two or more continuations or answers.")
@model_option()
@device_option
@console.json_option
def choose(prompt: str, choice: Sequence[str], model: str, device: str | None, json: bool | None) -> None:
    """Choose the best continuation of a text, or answer to a question."""
    if len(choice) < 2:
        raise click.UsageError("give two or more choices")
    check_text(prompt, "the prompt")
    for number, text in enumerate(choice, start=1):
        check_text(text, f"choice {number}")
    pipe = load_pipeline("multiple-choice", model, device)
    [result] = pipe.stream([{"prompt": prompt, "choices": list(choice)}])
    ranked = result.value
    truncated = [number for number, features in enumerate(result.features, start=1) if features.cut]
    if console.use_json(json):
        console.print_json({"prompt": prompt, "choices": ranked})
    else:
        rows = [(scored["choice"], f"{scored['score']:.3f}") for scored in ranked]
        console.print_table([prompt, "Score"], rows, numbers=["Score"])
    note_truncated(pipe, len(truncated), len(choice), f"choice {truncated[0]}" if truncated else "")
