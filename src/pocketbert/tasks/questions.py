"""Question answering: the span of a passage that answers a question, or none (SQuAD 1.1 and 2.0)."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
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
from pocketbert.metrics import squad, squad_best_threshold, squad_scores
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.tasks.base import Targets, Task
from pocketbert.tasks.evaluation import Evaluation, Scores
from pocketbert.tasks.outcomes import Outcomes, Shown, digest, rounded, worst
from pocketbert.tokenization import BertTokenizer

logger = logging.getLogger("pocketbert")

_BEST = 20  # spans per question in the files of predictions


class AnswerPrediction(NamedTuple):
    """Prediction for a question."""

    best: npt.NDArray[np.float64]
    """[spans, 4] first and last character, start and end logit, best first."""
    null: float
    """Score of "no answer"."""

    def text(self, context: str) -> str:
        """Return the best answer."""
        return context[int(self.best[0, 0]) : int(self.best[0, 1])] if len(self.best) else ""

    @property
    def difference(self) -> float:
        """Score of "no answer" minus the score of the best answer."""
        return self.null - float(self.best[0, 2:].sum()) if len(self.best) else 1e6


class AnswerEvaluation(Evaluation[Question, AnswerPrediction]):
    """Evaluation on questions about passages.

    If some question is unanswerable, the prediction is the empty answer where it scores more than the best span. The
    metrics at the best threshold (`best_f1`, and the threshold itself) are chosen on the evaluation data itself.
    """

    head = "ForQuestionAnswering"
    chunk = 64

    def __init__(self, sets: Mapping[str, Questions], tokenizer: BertTokenizer, max_length: int) -> None:
        super().__init__(sets, tokenizer, max_length)
        self.files = list(sets.values())  # files that a question may come from, for error messages
        self.unanswerable = any(rows.unanswerable for rows in self.files)
        self.warned = False

    def encode(self, examples: Sequence[Question]) -> list[list[Window]]:  # type: ignore[override]
        """Return the windows of each question."""
        length = fit(self.tokenizer, self.max_length)
        _, limit = usual_windows(length)
        questions, contexts = [example.question for example in examples], [example.context for example in examples]
        encoded = self.tokenizer(questions, add_special_tokens=False, return_attention_mask=False, verbose=False)
        for example, ids in zip(examples, encoded["input_ids"], strict=True):
            if len(ids) > length - 4:
                raise DataError(
                    f"{self._path(example)}, question {example.id}: has {len(ids)} tokens, which leaves no room for "
                    f"its passage in a window of {length}: is it a question? Shorten it, or raise --max-length"
                )
            if len(ids) > limit and not self.warned:
                self.warned = True
                logger.warning("only the first %d tokens of a question are read, for example of %s", limit, example.id)
        return encode_questions(self.tokenizer, questions, contexts, max_length=length)

    def _path(self, question: Question) -> str:
        return next((str(rows.path) for rows in self.files if question in rows.examples), "the data")

    def decode(self, example: Question, inputs: Sequence[Window], outputs: Sequence[Output]) -> AnswerPrediction:
        """Return the best spans."""
        rows = [
            (span.start, span.end, span.start_logit, span.end_logit) for span in spans(inputs, outputs, n_best=_BEST)
        ]
        best = np.array(rows, dtype=np.float64)
        return AnswerPrediction(best.reshape(-1, 4), null_logit(outputs))

    def score(self, rows: Examples[Question], predictions: Sequence[AnswerPrediction]) -> Scores:
        """Return F1 and exact match, as the official scripts compute them."""
        assert isinstance(rows, Questions)
        scores = squad(self.answers(rows, predictions), rows.references())
        metrics = {name: scores[name] for name in ("f1", "exact_match")}
        if self.unanswerable:
            texts = self.answers(rows, predictions, threshold=np.inf)
            differences = self._differences(rows, predictions)
            metrics |= {name: scores.get(name, np.nan) for name in ("has_answer_f1", "no_answer_f1")}
            metrics |= squad_best_threshold(texts, differences, rows.references())
        return metrics

    def set_metrics(self) -> list[str]:
        """Return the names of the metrics of a set."""
        names = ["f1", "exact_match"]
        if self.unanswerable:
            names += ["has_answer_f1", "no_answer_f1", "best_exact_match", "best_exact_match_threshold", "best_f1"]
            names += ["best_f1_threshold"]
        return names

    def answers(
        self, rows: Examples[Question], predictions: Sequence[AnswerPrediction], threshold: float = 0.0
    ) -> dict[str, str]:
        """Return question id → answer, empty where the score of "no answer" is higher by more than `threshold`."""
        return {
            question.id: (
                "" if self.unanswerable and prediction.difference > threshold else prediction.text(question.context)
            )
            for question, prediction in zip(rows.examples, predictions, strict=True)
        }

    def _differences(self, rows: Examples[Question], predictions: Sequence[AnswerPrediction]) -> dict[str, float]:
        pairs = zip(rows.examples, predictions, strict=True)
        return {question.id: prediction.difference for question, prediction in pairs}

    def write_set(self, folder: Path, rows: Examples[Question], predictions: Sequence[AnswerPrediction]) -> None:
        """Write `predictions.json`, `nbest_predictions.json` and, with unanswerable questions, `null_odds.json`."""
        write_text(folder / "predictions.json", to_json(self.answers(rows, predictions)))
        with atomic_write(folder / "nbest_predictions.json", "w") as file:
            for number, (question, prediction) in enumerate(zip(rows.examples, predictions, strict=True)):
                entry = json.dumps(self._nbest(question, prediction), ensure_ascii=False)
                file.write(f"{',' if number else '{'}\n{json.dumps(question.id)}: {entry}")
            file.write("\n}\n")
        if self.unanswerable:
            write_text(folder / "null_odds.json", to_json(self._differences(rows, predictions)))

    def outcomes(self, name: str) -> Outcomes:
        """Return exact match and F1 of every question, and questions with the worst answers."""
        rows, predictions = self.sets[name], self.predicted[name]
        assert isinstance(rows, Questions)
        given, references = self.answers(rows, predictions), rows.references()
        exact, f1 = [], []
        for question in rows.examples:
            scores = squad_scores(given[question.id], references[question.id], empty=bool(rows.unanswerable))
            exact.append(int(scores[0]))
            f1.append(scores[1])
        return Outcomes(
            kind="answers",
            file=rows.path.name,
            examples=digest((one.question, one.context) for one in rows.examples),
            answers=digest(references[one.id] for one in rows.examples),
            metrics=self.scored.get(name) or self.score(rows, predictions),
            columns={
                "right": exact,
                "f1": rounded(f1),
                "answerable": [int(bool(one.answers)) for one in rows.examples],
            },
            errors=[
                Shown(0, " / ".join(dict.fromkeys(references[one.id])), given[one.id], one.question, one.context)
                for one in (rows.examples[i] for i in worst([1 - value for value in f1]))
            ],
        )

    def _nbest(self, question: Question, prediction: AnswerPrediction) -> list[dict[str, Any]]:
        """Return texts, probabilities and logits of the best spans, as the original script writes them."""
        best = [Span(int(start), int(end), *logits) for start, end, *logits in prediction.best.tolist()]
        if self.unanswerable or not best:
            best = sorted([*best, Span(0, 0, prediction.null, 0.0)], key=lambda span: -span.logit)
        probabilities = softmax(np.array([span.logit for span in best])).tolist()
        return [
            {
                "text": question.context[span.start : span.end],
                "probability": probability,
                "start_logit": span.start_logit,
                "end_logit": span.end_logit,
            }
            for span, probability in zip(best, probabilities, strict=True)
        ]


class QuestionAnswering(Task[Question]):
    """Questions about passages. The target of a window without the answer is [CLS], as in the original."""

    name = "question-answering"
    head = AnswerEvaluation.head
    usual_length = 384

    train: Questions
    sets: Mapping[str, Questions]

    def __init__(self, options: FinetuneOptions) -> None:
        super().__init__(options)
        self.train = read_squad(options.data, skip_bad=options.skip_bad).check_offsets(skip_bad=options.skip_bad)
        if self.train.unanswerable == len(self.train):
            raise DataError(f"{self.train.path}: no question has an answer; training needs answers")
        if options.eval_data is not None:
            self.sets = {"dev": read_squad(options.eval_data, skip_bad=options.skip_bad)}
        else:
            # All questions about a passage stay together.
            contexts = [question.context for question in self.train.examples]
            self.train, held = hold_out_groups(self.train, lambda i: contexts[i], options.eval_fraction, options.seed)
            self.sets = {"dev": replace(held, bad=(), skipped=0)}

    def file_facts(self, rows: Examples[Question]) -> dict[str, Any]:
        """Return the number of unanswerable questions."""
        assert isinstance(rows, Questions)
        return {"unanswerable": rows.unanswerable}

    def describe(self) -> str:
        """Return a description in one line, for the log."""
        unanswerable = f", {self.train.unanswerable:,} of them unanswerable" if self.train.unanswerable else ""
        return f"{self.counts()} (questions){unanswerable}"

    def texts(self) -> Iterator[str]:
        """Yield every passage once, and all questions."""
        yield from dict.fromkeys(question.context for question in self.train.examples)
        for question in self.train.examples:
            yield question.question

    def configure(self, config: PreTrainedConfig) -> tuple[PreTrainedConfig, bool]:
        """Return `config` with two outputs, for the start and the end of a span."""
        return config.replace(num_labels=2, problem_type=None), True

    def evaluation(self, tokenizer: BertTokenizer, config: PreTrainedConfig, max_length: int) -> AnswerEvaluation:
        """Return the evaluation on the dev sets."""
        evaluation = AnswerEvaluation(self.sets, tokenizer, max_length)
        evaluation.files.append(self.train)
        return evaluation

    def targets(self, groups: list[list[Any]], config: PreTrainedConfig) -> tuple[list[Features], Targets]:
        """Return every window, and the first and last token of the first answer."""
        features: list[Features] = []
        positions: list[tuple[int, int]] = []
        for question, windows in zip(self.train.examples, groups, strict=True):
            for window in windows:
                start, text = question.answers[0] if question.answers else (0, "")
                positions.append(window.locate(start, start + len(text)) if text else (0, 0))
                features.append(Features(window.input_ids, window.token_type_ids))  # the rest is not needed again
        starts, ends = np.array(positions, dtype=np.int64).T
        return features, {"start_positions": starts, "end_positions": ends}


def to_json(content: Any) -> str:
    """Return JSON with one key per line."""
    return json.dumps(content, indent=1, ensure_ascii=False) + "\n"
