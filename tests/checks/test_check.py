"""The check of a table: each kind of finding on rows that were made for it, and clean rows without any."""

import csv
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from pocketbert import CheckOptions, check
from pocketbert.checks.check import KINDS, CheckResult
from pocketbert.checks.labels import suspects, suspects_of_several
from pocketbert.checks.texts import language_of, near_duplicates, normal, script_of
from pocketbert.errors import ConfigError, DataError

NAMES = ("ann", "bob", "eve", "max", "zoe", "tom", "kim", "lee", "sue", "ray")
THINGS = {
    "money": ("the invoice", "my refund", "a second charge", "the price", "this payment", "the bill"),
    "login": ("my password", "the login page", "two factor codes", "an account", "the captcha", "a reset link"),
}


def tickets(count: int, seed: int = 0) -> list[tuple[str, str]]:
    """Texts of two classes, each another one."""
    chance, rows, seen = random.Random(seed), list[tuple[str, str]](), set[str]()
    while len(rows) < count:
        label = list(THINGS)[len(rows) % 2]
        first, second = chance.sample(THINGS[label], 2)
        names = " and ".join(chance.sample(NAMES, 2))
        text = f"{names} wrote about {first} {chance.randint(1, 99)} times and then of {second}"
        if text not in seen:
            seen.add(text)
            rows.append((text, label))
    return rows


@pytest.fixture
def checked(tmp_path: Path) -> Callable[..., CheckResult]:
    """Check rows with the bundled encoder."""

    def run(rows: list[Any], evaluation: list[Any] | None = None, **options: Any) -> CheckResult:
        paths: dict[str, Any] = {}
        for name, some in (("data", rows), ("eval_data", evaluation)):
            if some is not None:
                paths[name] = tmp_path / f"{name}.csv"
                with paths[name].open("w", newline="", encoding="utf-8") as file:
                    csv.writer(file).writerows([("text", "label"), *some])
        before = {path: path.read_bytes() for path in paths.values()}
        result = check(CheckOptions(**paths, **options))
        assert before == {path: path.read_bytes() for path in paths.values()}
        return result

    return run


def lines(result: CheckResult, kind: str) -> list[int]:
    return [one.line for one in result.findings if one.kind == kind]


def test_every_kind(checked: Callable[..., CheckResult], tmp_path: Path) -> None:
    rows: list[Any] = tickets(200)
    flipped = [7, 40, 101, 150]
    for row in flipped:
        rows[row] = (rows[row][0], "money" if rows[row][1] == "login" else "login")
    rows += [
        rows[0],                                                # line 202
        (f"{rows[2][0].upper()}!", "login"),                    # 203, and 4
        (rows[4][0].replace("wrote", "writes"), rows[4][1]),    # 204
        ("", "money"),                                          # 205
        ("word " * 700, "login"),                               # 206
        ("Это совсем другой язык и другое письмо", "money"),    # 207
        ("ich und der andere haben das nicht für sich und wird es auch", "money"),  # 208
        ("a single row", "other"),                              # 209
    ]  # fmt: skip
    fresh = tickets(20, seed=1)
    evaluation = [*fresh, rows[9], (rows[11][0].replace("wrote", "writes"), "login")]
    output = tmp_path / "issues.csv"
    result = checked(rows, evaluation, output=output)
    named = set(lines(result, "label")[: len(flipped)])
    assert len(named) == len(flipped)
    assert named <= {row + 2 for row in flipped} | {203}  # 203 has a wrong label, too
    [first, *_] = [one for one in result.findings if one.kind == "label"]
    assert first.suggestion != first.label
    assert first.line in named
    assert lines(result, "duplicate") == [202]
    assert lines(result, "two labels") == [4, 203]
    assert 204 in lines(result, "near duplicate")
    assert lines(result, "unusable") == [205]
    assert lines(result, "too long") == [206]
    assert lines(result, "script") == [207]
    assert 208 in lines(result, "language")
    assert lines(result, "leak") == [22]
    assert 23 in lines(result, "near leak")
    assert [one.label for one in result.findings if one.kind == "class"] == ["other"]
    assert result.classes == {"login": 103, "money": 103, "other": 1} or sum(result.classes.values()) == 207
    assert "fewer than 5 rows are not checked: other" in result.notes[0]
    kinds = [list(KINDS).index(one.kind) for one in result.findings]
    assert kinds == sorted(kinds)
    with output.open(encoding="utf-8", newline="") as file:
        written = list(csv.DictReader(file))
    assert [(one["kind"], int(one["line"]), one["reason"]) for one in written] == [
        (one.kind, one.line, one.reason) for one in result.findings
    ]
    assert all(one.reason for one in result.findings)


def test_clean_rows_and_the_same_answer_twice(checked: Callable[..., CheckResult]) -> None:
    rows = tickets(120, seed=4)
    result = checked(rows)
    assert set(result.counts()) <= {"near duplicate", "out of place"}
    assert checked(rows).findings == result.findings
    assert checked(rows, [*tickets(5, seed=77)]).counts().keys() <= {"near duplicate", "out of place", "near leak"}


def test_what_is_odd_about_labels(checked: Callable[..., CheckResult], tmp_path: Path) -> None:
    one = checked([(text, "money") for text, _ in tickets(20)])
    assert "all 20 rows have the label 'money'" in one.notes[0]
    single = checked([(text, f"label {i}") for i, (text, _) in enumerate(tickets(12))])
    assert "too few have 5 rows" in single.notes[0]
    numbers = checked([(text, f"{i / 7:.3f}") for i, (text, _) in enumerate(tickets(20))])
    assert numbers.notes == ("labels are not checked: they are numbers (regression)",)
    chance = random.Random(3)
    wrong = checked([(text, chance.choice(("login", "money"))) for text, _ in tickets(60)])
    assert wrong.rows == 60  # labels that tell nothing end in no error
    several = tmp_path / "several.jsonl"
    rows = [
        {"text": text, "label": [label, *(["odd"] if i % 3 else [])]} for i, (text, label) in enumerate(tickets(120))
    ]
    flipped = range(9, 120, 20)
    for row in flipped:
        rows[row]["label"] = ["login" if "money" in rows[row]["label"] else "money"]
    several.write_text("\n".join(map(json.dumps, rows)))
    found = [one for one in check(CheckOptions(data=several)).findings if one.kind == "label"]
    sure = [one for one in found if one.suggestion.split()[1] in ("login", "money")]
    assert {one.line for one in sure[:5]} <= {row + 1 for row in flipped}
    assert {one.suggestion.split()[0] for one in sure} == {"with", "without"}
    in_memory = check(CheckOptions(data=([text for text, _ in tickets(30)], [label for _, label in tickets(30)])))
    assert in_memory.rows == 30


def test_bad_input(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no\.csv"):
        check(CheckOptions(data=tmp_path / "no.csv"))
    (tmp_path / "there.csv").write_text("")
    with pytest.raises(ConfigError, match="exists: choose another name"):
        CheckOptions(data="x.csv", output=tmp_path / "there.csv")
    (tmp_path / "bad.csv").write_text("text,label\n,a\n,b\nfine,a\n")
    with pytest.raises(DataError, match="2 of 3 rows are bad"):
        check(CheckOptions(data=tmp_path / "bad.csv"))


def test_suspects() -> None:
    sure = np.array([[0.9, 0.1], [0.8, 0.2], [0.1, 0.9], [0.2, 0.8], [0.05, 0.95], [0.45, 0.55]])
    gold = np.array([0, 0, 1, 1, 0, 0])
    assert [(one.row, one.given, one.other) for one in suspects(sure, gold)] == [(4, 0, 1)]
    assert suspects(sure, gold)[0].margin == pytest.approx(0.9)
    both = suspects_of_several(sure[:, 1:], gold[:, None])
    assert [(one.row, one.other) for one in both] == [(4, 0)]
    assert suspects(np.full((4, 2), 0.5), np.array([0, 0, 0, 0])) == []


def test_texts() -> None:
    assert normal("The  “Plot”,\tis FLAT!") == normal("the plot is flat") == "the plot is flat"  # codespell:ignore
    assert normal("ﬁne") == "fine"
    assert normal("!?") == "!?"
    assert script_of("Всё это 123") == "CYRILLIC"
    assert script_of("123 …") is None
    assert language_of("the cat and the dog that were with you") == "English"
    assert language_of("der Hund und die Katze sind nicht auf dem Dach") == "German"
    assert language_of("pizza") is None
    assert language_of("to do, too little time to do it in, to learn, to grow") is None  # "to" is Polish, too
    assert normal("الكتـــابُ، هُنا!") == normal("الكتاب هنا") == "الكتاب هنا"
    assert script_of("东京で買った本") == script_of("这本书") == "CJK"
    assert script_of("ＡＢＣ 1") == "LATIN"
    assert script_of("BERT模型很好") == "CJK"  # a name has more letters, and is one word
    assert language_of("这本书我很喜欢，真的不在图书馆") == "Chinese"
    assert language_of("この本はとても好きです") == "Japanese"
    assert language_of("هذا الكتاب في المكتبة التي على الشارع") == "Arabic"
    assert language_of("این کتاب را از کتابخانه گرفتم که در شهر است") == "Persian"
    rng = np.random.default_rng(0)
    pair = [normal("这部电影的故事非常感人，演员的表演也很精彩"), normal("这部电影的故事非常感人！演员的表演也精彩。")]
    same = np.ones((2, 1), np.float32)
    assert [(i, j) for i, j, _ in near_duplicates(pair, same, pair, same)] == [(1, 0)]
    texts = ["a b c d e f g h i j k l m n", "a b c d e f g h i j k l m o", "x y z", "a b c d e f g h i j k l m n"]
    vectors = rng.normal(size=(4, 8)).astype(np.float32)
    vectors[1] = vectors[3] = vectors[0]
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    assert [(i, j) for i, j, _ in near_duplicates(texts, vectors, texts, vectors)] == [(1, 0), (3, 1)]
    assert [(i, j) for i, j, _ in near_duplicates(texts[2:], vectors[2:], texts[:2], vectors[:2])] == [(1, 1)]


def test_the_command(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    from pocketbert import cli

    path = tmp_path / "tickets.csv"
    rows = tickets(60)
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows([("text", "label"), *rows, rows[3]])

    def run(*flags: str) -> str:
        with pytest.raises(SystemExit) as stopped:
            cli.app(["check", str(path), *flags])
        assert not stopped.value.code
        return capsysbinary.readouterr().out.decode()

    found = [json.loads(line) for line in run("--json").splitlines()]
    assert [(one["kind"], one["line"]) for one in found if one["kind"] == "duplicate"] == [("duplicate", 62)]
    table = run("--table")
    assert "duplicates" in table
    assert "rows     61" in table
