"""Logits of a teacher that was run elsewhere: JSON lines, from which they are read by text.

    {"text": "A film that …", "logits": {"negative": -1.3, "positive": 2.1}}

A pair also has a "text_pair"; the logits of a regression are one number under any name. A text may appear several
times, with the same logits.
"""

import hashlib
import json
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from pocketbert.checkpoints import write_text
from pocketbert.data.files import check_file, json_lines
from pocketbert.errors import DataError

Text = tuple[str, str | None]


class LogitTable:
    """The logits in a file.

    Raises:
        DataError: the file cannot be read, or a line has no text or no logits; the message names the line.
    """

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        check_file(self.path, (".jsonl", ".ndjson", ".json"))
        self.logits: dict[Text, dict[str, float]] = {}
        try:
            for number, row in json_lines(self.path):
                self._add(number, row)
        except (OSError, UnicodeDecodeError) as error:
            raise DataError(f"{self.path}: cannot be read: {error}") from None

    def _add(self, number: int, row: dict[str, object]) -> None:
        where = f"{self.path}, line {number}"
        text, pair, logits = row.get("text"), row.get("text_pair"), row.get("logits")
        if not isinstance(text, str) or not isinstance(pair, str | None):
            raise DataError(f'{where}: needs a "text", and may have a "text_pair"')
        if not isinstance(logits, dict) or not logits or not all(map(_is_number, logits.values())):
            raise DataError(f'{where}: needs "logits", a number for each label: {{"negative": -1.3, "positive": 2.1}}')
        folded = {name.casefold(): float(value) for name, value in logits.items()}
        if self.logits.setdefault((text, pair), folded) != folded:
            raise DataError(f"{where}: the same text has other logits in an earlier line")

    def sha256(self) -> str:
        """Return the hash of the file."""
        return hashlib.sha256(self.path.read_bytes()).hexdigest()

    def lookup(self, texts: Sequence[Text], labels: Sequence[str], missing: Path) -> npt.NDArray[np.float32]:
        """Return [texts, labels] the logits of texts.

        Args:
            texts: texts, or pairs.
            labels: the labels in the order of the student's outputs; () for a regression.
            missing: where to write the texts without logits, if there are any.

        Raises:
            DataError: there are no logits for a text, or for a label.
        """
        if absent := [text for text in dict.fromkeys(texts) if text not in self.logits]:
            rows = [{"text": text} | ({} if pair is None else {"text_pair": pair}) for text, pair in absent]
            write_text(missing, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))
            raise DataError(
                f"{self.path}: has no logits for {len(absent):,} texts of the training data, the first is "
                f"{absent[0][0]!r:.80}; all of them are in {missing}"
            )
        names = [label.casefold() for label in labels]
        for known in self.logits.values():
            if len(known) != max(1, len(names)) or not known.keys() >= set(names):
                wanted = ", ".join(labels) or "a number"
                raise DataError(f"{self.path}: has logits of {', '.join(known)}, and the labels are {wanted}")
        return np.array(
            [[self.logits[text][name] for name in names or self.logits[text]] for text in texts], np.float32
        )


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
