"""Question answering: the span of a passage that answers, or that none does (SQuAD 1.1 and 2.0)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from pocketbert.checkpoints import write_text
from pocketbert.checkpoints.files import atomic_write
from pocketbert.configs import PreTrainedConfig
from pocketbert.data.examples import Examples, hold_out_groups
from pocketbert.data.squad import Question, Questions, read_squad
from pocketbert.decode import Output, Span, null_logit, softmax, spans
from pocketbert.errors import DataError
from pocketbert.features import Features, Window, encode_questions, fit, usual_windows
from pocketbert.metrics import squad, squad_best_threshold
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.recipes.task import Evaluation, Scores, Task
from pocketbert.tokenization import BertTokenizer

logger = logging.getLogger("pocketbert")

_BEST = 20


class AnswerPrediction(NamedTuple):
    """The best spans of one question, best first, and how well "no answer" fits.

    `best` is [spans, 4]: first and last character, start and end logit.
    """

    best: npt.NDArray[np.float64]
    null: float

    def text(self, context: str) -> str:
        """The best answer."""
        return context[int(self.best[0, 0]) : int(self.best[0, 1])] if len(self.best) else ""

    @property
    def difference(self) -> float:
        """The score of "no answer" minus that of the best answer."""
        return self.null - float(self.best[0, 2:].sum()) if len(self.best) else 1e6


class AnswerEvaluation(Evaluation[Question, AnswerPrediction]):
    """Questions on passages, and what a model scores on them.

    If some question is unanswerable, the empty answer is given where it scores more than the best span; what the best
    threshold would give stands beside it (`best_f1`, and the threshold itself), chosen on the data it is measured on.
    """

    head = "ForQuestionAnswering"
    chunk = 64

    def __init__(self, sets: Mapping[str, Questions], tokenizer: BertTokenizer, max_length: int) -> None:
        super().__init__(sets, tokenizer, max_length)
        self.files = list(sets.values())  # where a question may come from, to name its file
        self.unanswerable = any(rows.unanswerable for rows in self.files)
        self.warned = False

    def encode(self, examples: Sequence[Question]) -> list[list[Window]]:  # type: ignore[override]
        """The windows of each question."""
        length = fit(self.tokenizer, self.max_length)
        _, limit = usual_windows(length)
        asked = self.tokenizer(
            [one.question for one in examples], add_special_tokens=False, return_attention_mask=False, verbose=False
        )["input_ids"]
        for one, ids in zip(examples, asked, strict=True):
            if len(ids) > length - 4:
                raise DataError(
                    f"{self._path(one)}, question {one.id}: has {len(ids)} tokens, which leaves its passage no room in "
                    f"a window of {length}: is it a question? Shorten it, or raise --max-length"
                )
            if len(ids) > limit and not self.warned:
                self.warned = True
                logger.warning("only the first %d tokens of a question are read: of %s, for one", limit, one.id)
        questions, contexts = [one.question for one in examples], [one.context for one in examples]
        return encode_questions(self.tokenizer, questions, contexts, max_length=length)

    def _path(self, one: Question) -> str:
        return next((str(rows.path) for rows in self.files if one in rows.examples), "the data")

    def read(self, example: Question, inputs: Sequence[Window], outputs: Sequence[Output]) -> AnswerPrediction:
        """The best spans."""
        found = spans(inputs, outputs, n_best=_BEST)
        best = np.array([(one.start, one.end, one.start_logit, one.end_logit) for one in found], dtype=np.float64)
        return AnswerPrediction(best.reshape(-1, 4), null_logit(outputs))

    def score(self, rows: Examples[Question], predictions: Sequence[AnswerPrediction]) -> Scores:
        """F1 and exact match, as the official scripts count them."""
        assert isinstance(rows, Questions)
        scores = squad(self.answers(rows, predictions), rows.references())
        metrics = {name: scores[name] for name in ("f1", "exact_match")}
        if self.unanswerable:
            texts = self.answers(rows, predictions, threshold=np.inf)
            differences = {one.id: found.difference for one, found in zip(rows.examples, predictions, strict=True)}
            metrics |= {name: scores.get(name, np.nan) for name in ("has_answer_f1", "no_answer_f1")}
            metrics |= squad_best_threshold(texts, differences, rows.references())
        return metrics

    def metrics_of_a_set(self) -> list[str]:
        """Their names."""
        names = ["f1", "exact_match"]
        if self.unanswerable:
            names += ["has_answer_f1", "no_answer_f1", "best_exact_match", "best_exact_match_threshold", "best_f1"]
            names += ["best_f1_threshold"]
        return names

    def answers(
        self, rows: Examples[Question], predictions: Sequence[AnswerPrediction], threshold: float = 0.0
    ) -> dict[str, str]:
        """Question id → answer, empty where "no answer" scores more by over `threshold`."""
        empty = self.unanswerable
        return {
            one.id: "" if empty and found.difference > threshold else found.text(one.context)
            for one, found in zip(rows.examples, predictions, strict=True)
        }

    def write_set(self, folder: Path, rows: Examples[Question], predictions: Sequence[AnswerPrediction]) -> None:
        """`predictions.json`, `nbest_predictions.json`, and `null_odds.json` where questions are unanswerable."""
        write_text(folder / "predictions.json", dumped(self.answers(rows, predictions)))
        with atomic_write(folder / "nbest_predictions.json", "w") as file:
            for number, (one, found) in enumerate(zip(rows.examples, predictions, strict=True)):
                entry = json.dumps(self._nbest(one, found), ensure_ascii=False)
                file.write(f"{',' if number else '{'}\n{json.dumps(one.id)}: {entry}")
            file.write("\n}\n")
        if self.unanswerable:
            odds = {one.id: found.difference for one, found in zip(rows.examples, predictions, strict=True)}
            write_text(folder / "null_odds.json", dumped(odds))

    def _nbest(self, one: Question, found: AnswerPrediction) -> list[dict[str, Any]]:
        """As the original script writes them: texts, their share of the probability, and their logits."""
        best = [Span(int(start), int(end), a, b) for start, end, a, b in found.best.tolist()]
        if self.unanswerable or not best:
            best = sorted([*best, Span(0, 0, found.null, 0.0)], key=lambda span: -span.logit)
        shares = softmax(np.array([span.logit for span in best])).tolist()
        return [
            {
                "text": one.context[span.start : span.end],
                "probability": share,
                "start_logit": span.start_logit,
                "end_logit": span.end_logit,
            }
            for span, share in zip(best, shares, strict=True)
        ]


class QuestionAnswering(Task[Question]):
    """Questions on passages. A window that does not hold the answer teaches to point at [CLS], as in the original."""

    name = "question-answering"
    head = AnswerEvaluation.head
    usual_length = 384

    train: Questions
    sets: Mapping[str, Questions]

    def __init__(self, options: FinetuneOptions) -> None:
        super().__init__(options)
        self.train = read_squad(options.data)
        self.train.check_offsets()
        if self.train.unanswerable == len(self.train):
            raise DataError(f"{self.train.path}: no question has an answer, so that there is nothing to learn")
        if options.eval_data is not None:
            self.sets = {"dev": read_squad(options.eval_data)}
        else:
            contexts = [one.context for one in self.train.examples]  # all questions on a passage stay together
            self.train, held = hold_out_groups(self.train, lambda i: contexts[i], options.eval_fraction, options.seed)
            self.sets = {"dev": held}

    def about(self, rows: Examples[Question]) -> dict[str, Any]:
        """How many questions have no answer."""
        assert isinstance(rows, Questions)
        return {"unanswerable": rows.unanswerable}

    def describe(self) -> str:
        """One line for people."""
        without = f", {self.train.unanswerable:,} of them without an answer" if self.train.unanswerable else ""
        return f"{self.counts()} (questions){without}"

    def texts(self) -> Iterator[str]:
        """All questions, and every passage once."""
        yield from dict.fromkeys(one.context for one in self.train.examples)
        for one in self.train.examples:
            yield one.question

    def adapt(self, config: PreTrainedConfig) -> tuple[PreTrainedConfig, bool]:
        """`config` with the two scores that a span needs."""
        return config.replace(num_labels=2, problem_type=None), True

    def evaluate_with(self, tokenizer: BertTokenizer, max_length: int) -> AnswerEvaluation:
        """The evaluation on `sets`."""
        evaluation = AnswerEvaluation(self.sets, tokenizer, max_length)
        evaluation.files.append(self.train)
        return evaluation

    def learned(self, groups: list[list[Any]]) -> tuple[list[Features], Mapping[str, Any]]:
        """Every window, and first and last token of the first answer."""
        features: list[Features] = []
        places: list[tuple[int, int]] = []
        for one, windows in zip(self.train.examples, groups, strict=True):
            for window in windows:
                start, text = one.answers[0] if one.answers else (0, "")
                places.append(window.locate(start, start + len(text)) if text else (0, 0))
                features.append(Features(window.input_ids, window.token_type_ids))  # the rest is not needed again
        starts, ends = np.array(places, dtype=np.int64).T
        return features, {"start_positions": starts, "end_positions": ends}


def dumped(content: Any) -> str:
    """JSON with a key a line."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
