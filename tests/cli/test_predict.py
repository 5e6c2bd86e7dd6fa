"""Every way to ask: arguments, lines, tables; what people and what pipes get."""

import json
import re
import time
import tracemalloc
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any, cast

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from helpers.shell import Outcome
from helpers.tokenizers import tokenizer_of
from pocketbert.cli import console, predictions
from pocketbert.cli.inputs import text_source
from pocketbert.features import Features
from pocketbert.pipelines import pipeline
from pocketbert.runtime.stream import Answer, Job, answers

Run = Callable[..., Outcome]
Models = dict[str, Path]


def squeezed(text: str) -> str:
    return " ".join(text.split())


def test_classify_as_the_pipeline_does(run: Run, models: Models) -> None:
    texts = ["The film is great.", "dull"]
    lines = run("classify", "--model", models["classify"], *texts).lines
    expected = pipeline("text-classification", models["classify"])(texts)
    assert lines == [{"text": text, **one} for text, one in zip(texts, expected, strict=True)]


def test_classify_for_people(run: Run, models: Models) -> None:
    text = run("classify", "--model", models["classify"], "--table", "The film is great.", "dull", "-k", "2").text
    rows = [squeezed(line) for line in text.splitlines() if line.strip()]
    assert rows[0] == "Text Label Score"
    assert rows[2].startswith("The film is great. ")
    assert len(rows) == 2 + 4
    assert sorted(row.split()[0] for row in (rows[3], rows[5])) <= ["negative", "positive"]


def test_top_k_gives_lists(run: Run, models: Models) -> None:
    [line] = run("classify", "--model", models["classify"], "dull", "--top-k", "5").lines
    assert line.keys() == {"text", "labels"}
    assert sorted(one["label"] for one in line["labels"]) == ["negative", "positive"]
    assert sum(one["score"] for one in line["labels"]) == pytest.approx(1)


def test_the_bundled_model_is_the_default(run: Run, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pocketbert.pipelines.BUNDLED", models["classify"].parent)
    monkeypatch.setattr("pocketbert.pipelines.TextClassification.bundled", models["classify"].name)
    assert run("classify", "dull").lines == run("classify", "--model", models["classify"], "dull").lines


def test_pairs(run: Run, models: Models, tmp_path: Path) -> None:
    base = ["classify", "--model", models["nli"]]
    lines = run(*base, "the film is great", "dull", "--pair", "is it?").lines
    pairs = [{"text": text, "text_pair": "is it?"} for text in ("the film is great", "dull")]
    expected = pipeline("text-classification", models["nli"])(pairs)
    assert lines == [{**pair, **one} for pair, one in zip(pairs, expected, strict=True)]
    table = tmp_path / "pairs.tsv"
    table.write_text("premise\thypothesis\nthe film is great\tis it?\ndull\tis it?\n")
    assert run(*base, "--file", table).lines == lines
    assert squeezed(run(*base, "--file", table, "--table").text).startswith("Text Second text Label Score")


def test_labels_of_ones_own(run: Run, models: Models) -> None:
    base = ["classify", "--model", models["nli"], "the film is great", "--labels", "film, poland,great"]
    whole = pipeline("zero-shot-classification", models["nli"])("the film is great", ["film", "poland", "great"])
    assert run(*base).lines == [{"text": "the film is great", "label": whole["labels"][0], "score": whole["scores"][0]}]
    [line] = run(*base, "-k", "2", "--template", "Is it {}?", "--entailment", "neutral").lines
    assert len(line["labels"]) == 2


def test_tag(run: Run, models: Models) -> None:
    text = "Marie Curie was born in Warsaw, Poland."
    [line] = run("tag", "--model", models["tag"], text).lines
    assert line["text"] == text
    assert line["entities"]
    for one in line["entities"]:
        assert one.keys() == {"label", "text", "score", "start", "end"}
        assert one["text"] == text[one["start"] : one["end"]]
    marked = squeezed(run("tag", "--model", models["tag"], "--table", text).text)
    for one in line["entities"]:
        assert f"[{one['label']} {one['text']}]" in marked
        marked = marked.replace(f"[{one['label']} {one['text']}]", one["text"], 1)
    assert marked == text


def test_answer(run: Run, models: Models, tmp_path: Path) -> None:
    passage = "Marie Curie was born in Warsaw, Poland."
    file = tmp_path / "passage.txt"
    file.write_text(passage)
    base = ["answer", "--model", models["answer"], "Where was she born?"]
    [line] = run(*base, "--context", passage).lines
    assert line.keys() == {"question", "score", "start", "end", "answer"}
    assert passage[line["start"] : line["end"]] == line["answer"]
    assert run(*base, "--file", file).lines == run(*base, stdin=passage).lines == [line]
    [several] = run(*base, "--context", passage, "-k", "3").lines
    assert len(several["answers"]) == 3
    text = squeezed(run(*base, "Who?", "--context", passage, "--table").text)
    assert text.startswith(f"question Where was she born? answer {line['answer']} ")
    assert "question Who?" in text
    [maybe] = run(*base, "--context", passage, "--allow-empty").lines
    assert isinstance(maybe["answer"], str)


def test_an_answer_is_shown_in_its_surroundings(run: Run, models: Models) -> None:
    passage = f"{'the film is dull. ' * 30}marie curie was born in warsaw. {'the film is dull. ' * 30}".strip()
    text = run("answer", "--model", models["answer"], "who?", "--context", passage, "--table").text
    shown = squeezed(text[text.index("passage") :]).removeprefix("passage ")
    assert shown.strip("…") in passage
    assert len(shown) < 600


def test_fill_mask(run: Run, models: Models) -> None:
    base = ["fill-mask", "--model", models["fill-mask"]]
    [line] = run(*base, "Warsaw is in [MASK].").lines
    [gap] = line["gaps"]
    assert len(gap) == 5
    assert gap[0].keys() == {"token", "id", "score", "sequence"}
    [line] = run(*base, "[MASK] is in [MASK].", "--targets", "warsaw, poland").lines
    assert [[one["token"] in ("warsaw", "poland") for one in gap] for gap in line["gaps"]] == [[True] * 2] * 2
    text = squeezed(run(*base, "[MASK] is in [MASK].", "--targets", "warsaw", "--table").text)
    assert "Mask 1" in text
    assert "warsaw is in [MASK]." in text
    assert "[MASK] is in warsaw." in text


def test_choose(run: Run, models: Models) -> None:
    base = ["choose", "--model", models["choose"], "She was born in", "warsaw", "poland", "the film"]
    [line] = run(*base).lines
    expected = pipeline("multiple-choice", models["choose"])(prompt=base[3], choices=base[4:])
    assert line == {"prompt": "She was born in", "choices": expected}
    assert squeezed(run(*base, "--table").text).startswith("She was born in Score")


def test_embed(run: Run, models: Models) -> None:
    base = ["embed", "--model", models["embed"], "the film", "--pooling", "cls", "--normalize"]
    [line] = run(*base).lines
    expected = pipeline("feature-extraction", models["embed"])("the film", pooling="cls", normalize=True)
    assert line == {"text": "the film", "embedding": expected}
    assert squeezed(run(*base, "--table").text).startswith("Text Vector Width")


# ── where texts come from ──

ROWS = {
    "reviews.csv": "id,review\n1,the film\n2,dull\n",
    "reviews.tsv": "review\tid\nthe film\t1\ndull\t2\n",
    "reviews.jsonl": '{"review": "the film"}\n{"review": "dull"}\n',
    "reviews.txt": "the film\ndull",
    "with-bom.txt": "\ufeffthe film\r\ndull\r\n",
    "no-ending": "the film\ndull\n",
}


@pytest.mark.parametrize("name", ROWS)
def test_files(run: Run, models: Models, tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(ROWS[name].encode())
    base = ["embed", "--model", models["embed"]]
    found, expected = run(*base, "--file", tmp_path / name).lines, run(*base, "the film", "dull").lines
    assert [line["text"] for line in found] == ["the film", "dull"]
    for line, other in zip(found, expected, strict=True):  # an unfinished last line makes a batch of its own
        assert line["embedding"] == pytest.approx(other["embedding"], abs=1e-5)


def test_standard_input(run: Run, models: Models) -> None:
    base = ["embed", "--model", models["embed"]]
    expected = run(*base, "the film", "dull").lines
    for arguments in (base, [*base, "-"], [*base, "--file", "-"]):
        assert run(*arguments, stdin="the film\ndull\n").lines == expected


def test_a_column_can_be_named(run: Run, models: Models, tmp_path: Path) -> None:
    table = tmp_path / "table.csv"
    table.write_text("premise,hypothesis\nthe film,dull\n")
    base = ["embed", "--model", models["embed"], "--file", table]
    [line] = run(*base, "--text-column", "hypothesis").lines
    assert line["text"] == "dull"
    assert "two texts per row (premise, hypothesis): select one with --text-column" in run(*base).error
    assert "no column 'other'" in run(*base, "--text-column", "other").error


def test_lines_without_text_are_skipped_and_counted(run: Run, models: Models) -> None:
    outcome = run("embed", "--model", models["embed"], stdin="\nthe film\n  \n\ndull\n\n")
    assert [line["text"] for line in outcome.lines] == ["the film", "dull"]
    assert outcome.err == "note: skipped lines without text: 4\n"


def test_large_files_come_in_pieces(run: Run, models: Models, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pocketbert.cli.inputs._BLOCK", 64)
    texts = [f"{'film ' * (i % 40)}{i}" for i in range(300)]
    (tmp_path / "many.txt").write_text("\n".join(texts))
    lines = run("embed", "--model", models["embed"], "--file", tmp_path / "many.txt").lines
    assert [line["text"] for line in lines] == texts


def test_cut_texts_are_stated(run: Run, models: Models) -> None:
    long = "film " * 63
    outcome = run("classify", "--model", models["classify"], long)
    assert len(outcome.lines) == 1
    note = "longer than the model's limit of 64 tokens"
    assert outcome.err == f"note: the text is {note}: its end was ignored; --windows reads whole texts\n"
    outcome = run("embed", "--model", models["embed"], stdin=f"film\n{long}\n{long}\n{'film ' * 62}\n")
    assert len(outcome.lines) == 4
    assert outcome.err == (
        f"note: 2 of 4 texts are {note}: their ends were ignored; --windows reads whole texts (the first at line 2)\n"
    )
    outcome = run("rank", "film", "--model", models["rank"], long, "film")
    assert outcome.err == f"note: 1 of 2 texts are {note}: their ends were ignored; --windows reads whole texts\n"
    outcome = run("classify", "--model", models["nli"], "film " * 30, "--pair", "dull " * 40)
    assert "longer than" in outcome.err
    outcome = run("classify", "--model", models["nli"], "film " * 60, "--labels", "great,warsaw")
    assert "longer than" in outcome.err  # with the sentence about the label beside it
    outcome = run("choose", "--model", models["choose"], "film " * 30, "dull " * 40, "great")
    assert outcome.err.startswith("note: 1 of 2 texts")
    outcome = run("answer", "--model", models["answer"], "who? " * 30, "--context", "marie curie")
    assert outcome.err.startswith("note: only the first 10 tokens of a question are read: who?")


def test_unknown_words_are_noted(run: Run, models: Models) -> None:
    outcome = run("classify", "--model", models["classify"], "film", "\u2603")
    assert outcome.err.startswith("note: 1 of 2 texts have no word of the model's vocabulary")
    assert len(outcome.lines) == 2
    assert run("classify", "--model", models["classify"], "film \u2603").err == ""


def test_long_texts_are_read_whole(run: Run, models: Models) -> None:
    long = "film " * 63 + "is dull"
    for command, options in (
        ("classify", ["--model", models["nli"], "--top-k", "3"]),
        ("classify", ["--model", models["nli"], "--labels", "great,warsaw"]),
        ("embed", ["--model", models["embed"]]),
        ("rank", ["--model", models["rank"], "film"]),
        ("rank", ["--model", models["embed"], "film"]),
    ):
        first = [options.pop(), long] if command == "rank" else [long]
        cut, whole = run(command, *first, *options), run(command, *first, *options, "--windows")
        assert (whole.err, "longer than" in cut.err) == ("", True)
        assert cut.lines != whole.lines
    outcome = run("tag", "--model", models["tag"], f"{'is ' * 80} marie curie {'is ' * 80} warsaw {'is ' * 80}")
    expected = pipeline("ner", models["tag"], aggregation_strategy="first")(outcome.lines[0]["text"])
    assert (outcome.err, len(outcome.lines[0]["entities"])) == ("", len(expected))


def test_long_texts_are_not_kept(tmp_path: Path) -> None:
    class Short:
        """Answers with lengths, and reads nothing."""

        tokenizer = tokenizer_of(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "x"])

        def stream(self, inputs: Iterator[str]) -> Iterator[Answer]:
            job = Job(lambda texts: [[nothing] for _ in texts], lambda text, *_: len(text))
            return answers(inputs, job, lambda run: [{"none": np.zeros(0)} for _ in run])

    nothing = Features(np.zeros(2, np.int32), np.zeros(2, np.int32))
    (tmp_path / "long.txt").write_text(f"{'x' * 20_000}\n" * 500)
    tracemalloc.start()
    try:
        found = predictions.predictions(
            cast(Any, Short()), text_source((), str(tmp_path / "long.txt")), lambda item: item.text, True
        )
        assert sum(length for _, length in found) == 10_000_000
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 2e6


def test_a_line_that_is_no_text(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pocketbert.data.files.LONGEST_LINE", 100_000)
    (tmp_path / "a.txt").write_text("great\n" + "x " * 60_000)
    outcome = run("classify", "--file", tmp_path / "a.txt")
    assert outcome.err == (
        f"error: {tmp_path / 'a.txt'}, line 2: has more than 100,000 characters: "
        "does the file have one text per line?\n"
    )
    assert outcome.out.startswith('{"text": "great", ')


@pytest.mark.parametrize("name", ["a.csv", "a.tsv", "a.jsonl", "a.parquet", "a.txt", "-"])
def test_answers_come_in_the_order_of_the_texts(run: Run, models: Models, tmp_path: Path, name: str) -> None:
    for count in (0, 1, 64, 65, 700):
        in_their_order(run, models["classify"], tmp_path, name, [f"{'film ' * (n * 7 % 23)}{n}" for n in range(count)])


def in_their_order(run: Run, model: Path, tmp_path: Path, name: str, texts: list[str]) -> None:
    path: Path | str = "-" if name == "-" else tmp_path / name
    if name == "a.parquet":
        pyarrow.parquet.write_table(pyarrow.table({"text": pyarrow.array(texts, pyarrow.string())}), path)
    elif name == "a.jsonl":
        Path(path).write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    elif name != "-":
        Path(path).write_text("\n".join(texts if name == "a.txt" else ["text", *texts]))
    outcome = run(
        "classify", "--model", model, "--file", path, stdin="\n".join(texts) if name == "-" else None,
    )  # fmt: skip
    if not texts:
        assert re.search(r": (has no rows|contains no text|is empty)", outcome.error)
    else:
        assert [line["text"] for line in outcome.lines] == texts
        expected = pipeline("text-classification", model)(texts)
        assert [line["score"] for line in outcome.lines] == [one["score"] for one in expected]


def test_a_table_of_many_rows_comes_in_pages(run: Run, models: Models, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pocketbert.cli.console._PAGE", 10)
    text = run("classify", "--table", stdin="".join(f"{n} films\n" for n in range(25))).text
    rows = [line.split() for line in text.splitlines() if line.strip()]
    assert sum(row[0] == "Text" for row in rows) == 3
    assert [int(row[0]) for row in rows if row[-1][0].isdigit()] == list(range(25))


def test_texts_are_shown_as_they_are_but_cannot_steer_a_terminal(run: Run, models: Models) -> None:
    text = "[bold]x[/bold] :smile: \x1b[31mred\x07"
    shown = run("classify", "--model", models["classify"], "--table", text).text
    assert "[bold]x[/bold] :smile: \N{REPLACEMENT CHARACTER}[31mred\N{REPLACEMENT CHARACTER}" in shown
    [line] = run("classify", "--model", models["classify"], text).lines
    assert line["text"] == text


def test_json_is_utf_8_and_readable(run: Run, models: Models) -> None:
    out = run("embed", "--model", models["embed"], "Zoë 😀").out
    assert "Zoë 😀" in out
    assert json.loads(out)["text"] == "Zoë 😀"


def test_progress_is_for_people_who_wait(monkeypatch: pytest.MonkeyPatch) -> None:
    def shown(terminal: bool, seconds: float, fraction: float | None = 0.25, **options: Any) -> str:
        out = StringIO()
        monkeypatch.setattr(out, "isatty", lambda: terminal)
        monkeypatch.setattr("sys.stderr", out)
        clock = iter([0.0, seconds])
        monkeypatch.setattr(time, "monotonic", lambda: next(clock, seconds))
        with console.progress("texts", **options) as advance:
            advance(1200, fraction)
        return re.sub(r"\x1b\[[\d;]*m", "", out.getvalue())

    monkeypatch.setenv("COLUMNS", "80")
    assert "1,200 texts · 120/s" in shown(True, 10.0)
    assert "0:00:30 left" in shown(True, 10.0)
    assert "left" not in shown(True, 10.0, None)
    assert shown(True, 1.0) == shown(False, 10.0) == shown(True, 10.0, hidden=True) == ""
