import subprocess
import sys

import pytest

from pocketbert.corpus.vocabulary import SPECIAL, train_vocabulary
from pocketbert.errors import DataError

TEXTS = [
    f"The {a} {b} runs, walked; Été {a}{b} {i}" for i in range(20) for a in ("quick", "lazy") for b in ("fox", "dog")
]


def test_every_process_learns_the_same_vocabulary() -> None:
    # The trainer's hash maps have another order in every process.
    script = (
        f"from pocketbert.corpus.vocabulary import train_vocabulary\nprint('|'.join(train_vocabulary({TEXTS!r}, 120)))"
    )
    learned = [
        subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True) for _ in range(2)
    ]
    here = train_vocabulary(TEXTS, 120)
    assert [run.stdout.strip().split("|") for run in learned] == [list(here)] * 2
    assert list(here.values()) == list(range(len(here)))
    assert tuple(here)[:5] == SPECIAL
    assert "quick" in here
    assert "ete" in here or "et" in here  # lower case, without accents


def test_rare_letters_do_not_fill_a_small_vocabulary() -> None:
    texts = [f"common words here {i}{j}" for i in range(10) for j in range(10)] + [
        "".join(map(chr, range(0x4E00, 0x4F00)))
    ]
    vocabulary = train_vocabulary(texts, 100)
    assert len(vocabulary) == 100
    assert {"common", "words", "here"} <= vocabulary.keys()


def test_too_small() -> None:
    with pytest.raises(DataError, match="at least 100"):
        train_vocabulary(TEXTS, 99)
