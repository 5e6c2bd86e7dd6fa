"""Pipelines against transformers' on the same folders, and what they refuse."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import transformers

from helpers.tokenizers import spelling, tokenizer_of
from pocketbert import configs, decode, pipelines
from pocketbert.bundles import SENTIMENT
from pocketbert.errors import CheckpointError, InputError
from pocketbert.features import Features
from pocketbert.models import auto
from pocketbert.models.predict import TorchPredictor
from pocketbert.pipelines import pipeline
from pocketbert.runtime.stream import Job
from pocketbert.tokenization import BertTokenizer, SqueezeBertTokenizer

WORDS = ["the", "un", "man", "likes", "paris", "food", "is", "this", "example", ".", ",", "?", "'"]
PIECES = spelling(*WORDS)
TEXTS = ["The man likes Paris.", "", "Is this unlikely food?", "the " * 80, "paris, paris"]
LABELS = {
    "ForSequenceClassification": ["contradiction", "entailment", "neutral"],
    "ForTokenClassification": ["O", "B-PER", "I-PER", "B-LOC", "I-LOC"],
}


@pytest.fixture(scope="session")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A folder for each head, with random weights so large that the answers depend on the words."""
    torch.manual_seed(0)
    made = {}
    for head in ("Model", "ForMaskedLM", "ForSequenceClassification", "ForTokenClassification", "ForQuestionAnswering",
                 "ForMultipleChoice"):  # fmt: skip
        names = LABELS.get(head, ["LABEL_0", "LABEL_1"])
        config = configs.SqueezeBertConfig(
            vocab_size=len(PIECES), hidden_size=32, embedding_size=32, num_hidden_layers=2, num_attention_heads=4,
            intermediate_size=64, max_position_embeddings=64, id2label=dict(enumerate(names)),
        )  # fmt: skip
        model = auto.model_class(config, head)(config)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if parameter.dim() > 1:
                    parameter.normal_(0.0, 2.0 if "word_embeddings" in name else 0.2)
        made[head] = tmp_path_factory.mktemp(head)
        model.save_pretrained(made[head])
        tokenizer = tokenizer_of(PIECES, SqueezeBertTokenizer, model_max_length=64)
        tokenizer.save_pretrained(made[head])
    return made


def both(task: str, folder: Path, **options: Any) -> tuple[Any, Any]:
    """Ours and transformers'."""
    reference = transformers.pipeline(task, model=str(folder), device="cpu", **options)
    return pipeline(task, folder, **options), reference


def same(ours: Any, theirs: Any) -> None:
    """Equal in shape, keys, order and value, scores within fp32 rounding."""
    if isinstance(theirs, dict):
        assert ours.keys() == theirs.keys()
        for key in theirs:
            same(ours[key], theirs[key])
    elif isinstance(theirs, list | tuple):
        assert len(ours) == len(theirs)
        for one, other in zip(ours, theirs, strict=True):
            same(one, other)
    elif isinstance(theirs, float | np.floating):
        assert type(ours) is float
        assert ours == pytest.approx(float(theirs), abs=2e-5)
    else:
        assert type(ours) is type(theirs)
        assert ours == theirs


# ── against transformers ──


@pytest.mark.parametrize(
    "options", [{}, {"top_k": 1}, {"top_k": 2}, {"top_k": None}, {"function_to_apply": "sigmoid"}], ids=str
)
def test_text_classification(folders: dict[str, Path], options: dict[str, Any]) -> None:
    ours, theirs = both("text-classification", folders["ForSequenceClassification"])
    same(ours(TEXTS, **options), theirs(TEXTS, truncation=True, **options))
    same(ours(TEXTS[0], **options), theirs(TEXTS[0], **options))
    pairs = [{"text": text, "text_pair": "is this food"} for text in TEXTS]
    same(ours(pairs, **options), theirs(pairs, truncation=True, **options))
    same(ours(pairs[0], **options), theirs(pairs[0], **options))


@pytest.mark.parametrize("problem_type", ["regression", "multi_label_classification"])
def test_text_classification_of_other_problems(folders: dict[str, Path], tmp_path: Path, problem_type: str) -> None:
    folder = folders["ForSequenceClassification"]
    model = auto.AutoModelForSequenceClassification.from_pretrained(folder, problem_type=problem_type)
    model.save_pretrained(tmp_path)
    SqueezeBertTokenizer.from_pretrained(folder).save_pretrained(tmp_path)
    ours, theirs = both("sentiment-analysis", tmp_path)
    same(ours(TEXTS, top_k=None), theirs(TEXTS, top_k=None, truncation=True))


@pytest.mark.parametrize("strategy", decode.AGGREGATIONS)
def test_token_classification(folders: dict[str, Path], strategy: str) -> None:
    for ignore_labels in (["O"], [], ["PER", "B-LOC"]):
        options = {"aggregation_strategy": strategy, "ignore_labels": ignore_labels}
        ours, theirs = both("ner", folders["ForTokenClassification"], **options)
        texts = [*TEXTS, "Unlikely  Xyzzy's man, the unmanly 京 food", "a quick brown fox jumps over lazy dogs"]
        texts.remove("the " * 80)  # which is cut there, and read in windows here
        same(ours(texts), theirs(texts))
        same(ours(texts[0]), theirs(texts[0]))
    found = {
        one.get("entity", one.get("entity_group")) for entities in ours(texts, ignore_labels=[]) for one in entities
    }
    assert len(found) == 3 + 2 * (strategy == "none")


def test_token_classification_of_words(folders: dict[str, Path]) -> None:
    ours, theirs = both("token-classification", folders["ForTokenClassification"], aggregation_strategy="first")
    sentences = [["Unlikely", "man", "likes", "food"], ["Paris"]]
    expected = theirs(sentences, is_split_into_words=True)
    same(ours(sentences, is_split_into_words=True), expected)
    same(ours(sentences[0], is_split_into_words=True), theirs(sentences[0], is_split_into_words=True))


@pytest.mark.parametrize("options", [{}, {"top_k": 2}, {"targets": ["food", "paris"]}, {"targets": "man"}], ids=str)
def test_fill_mask(folders: dict[str, Path], options: dict[str, Any]) -> None:
    ours, theirs = both("fill-mask", folders["ForMaskedLM"])
    for text in ("The [MASK] likes food.", "[MASK] is [MASK]", ["the [MASK]", "[MASK] man, [MASK]"]):
        same(ours(text, **options), theirs(text, **options))
    same(ours(["the [MASK]"]), theirs(["the [MASK]"]))


def test_feature_extraction(folders: dict[str, Path]) -> None:
    ours, theirs = both("feature-extraction", folders["Model"])
    same(ours(TEXTS), theirs(TEXTS, truncation=True))
    same(ours("paris"), theirs("paris"))
    [hidden] = ours("paris is food")
    mean = np.mean(hidden, axis=0)
    np.testing.assert_allclose(ours("paris is food", pooling="mean"), mean, rtol=1e-5)
    np.testing.assert_allclose(ours("paris is food", pooling="cls"), hidden[0], rtol=1e-5)
    unit = ours("paris is food", pooling="mean", normalize=True)
    np.testing.assert_allclose(unit, mean / np.linalg.norm(mean), rtol=1e-5)


@pytest.mark.parametrize("labels", [["paris", "food", "man"], "paris, food", ["paris"]], ids=str)
@pytest.mark.parametrize("multi_label", [False, True])
def test_zero_shot(folders: dict[str, Path], labels: Any, multi_label: bool) -> None:
    ours, theirs = both("zero-shot-classification", folders["ForSequenceClassification"])
    texts = [text for text in TEXTS if text]
    same(ours(texts, labels, multi_label=multi_label), theirs(texts, labels, multi_label=multi_label))
    options = {"candidate_labels": labels, "hypothesis_template": "this food is {}"}
    same(ours(texts[0], **options), theirs(texts[0], **options))


# ── what transformers has no pipeline for ──


def _reference(kind: str, folder: Path, texts: Sequence[str], pairs: Sequence[str]) -> Any:
    model = getattr(transformers, f"SqueezeBert{kind}").from_pretrained(folder)
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder)
    encoded = tokenizer(list(texts), list(pairs), return_tensors="pt", padding=True, return_offsets_mapping=True)
    offsets = encoded.pop("offset_mapping")
    if kind == "ForMultipleChoice":
        encoded = {name: tensor[None] for name, tensor in encoded.items()}
    with torch.inference_mode():
        return model(**encoded), offsets


def test_multiple_choice(folders: dict[str, Path]) -> None:
    folder = folders["ForMultipleChoice"]
    choices = ["man", "food is paris", "", "unlikely"]
    output, _ = _reference("ForMultipleChoice", folder, ["this is"] * 4, choices)
    expected = output.logits[0].softmax(-1).tolist()
    choose = pipeline("multiple-choice", folder)
    found = choose(prompt="this is", choices=choices)
    assert sorted(found, key=lambda one: -one["score"]) == found
    for one in found:
        assert one["choice"] == choices[one["index"]]
        assert one["score"] == pytest.approx(expected[one["index"]], abs=1e-5)
    inputs = [{"prompt": "this is", "choices": choices}, {"prompt": "the", "choices": ["man"]}]
    first, second = choose(inputs)
    same(first, found)
    assert second == [{"choice": "man", "index": 0, "score": 1.0}]


def test_question_answering_in_one_window(folders: dict[str, Path]) -> None:
    folder = folders["ForQuestionAnswering"]
    question, context = "is this food?", "The man, unlikely, likes Paris. Paris is food"
    output, offsets = _reference("ForQuestionAnswering", folder, [question], [context])
    begin, last = 6, len(offsets[0]) - 2  # after [CLS] is this food ? [SEP], before [SEP]
    spans = sorted(
        (
            (float(output.start_logits[0, i] + output.end_logits[0, j]), int(offsets[0, i, 0]), int(offsets[0, j, 1]))
            for i, j in itertools.combinations_with_replacement(range(begin, last + 1), 2)
            if j - i < 4
        ),
        reverse=True,
    )[:20]
    scores = decode.softmax(np.array([logit for logit, _, _ in spans]))
    answer = pipeline("question-answering", folder)  # it reads 64 tokens: the usual windows are scaled to that
    found = answer(question=question, context=context, top_k=20, max_answer_len=4, align_to_words=False)
    assert [(one["start"], one["end"]) for one in found] == [(start, end) for _, start, end in spans]
    np.testing.assert_allclose([one["score"] for one in found], scores, atol=1e-5)
    assert all(one["answer"] == context[one["start"] : one["end"]] for one in found)
    assert answer(question=question, context=context, max_answer_len=4, align_to_words=False) == found[0] | {
        "score": pytest.approx(scores[0], abs=1e-5)
    }


def test_question_answering_over_windows(folders: dict[str, Path]) -> None:
    context = " ".join(itertools.islice(itertools.cycle([*WORDS[:9], *"qwxyz"]), 300))
    answer = pipeline("question-answering", folders["ForQuestionAnswering"], doc_stride=20, max_question_len=16)
    one, other = answer(question=["is this?", "who?"], context=context)
    assert one == answer({"question": "is this?", "context": context})
    assert [one, other] == answer([{"question": q, "context": context} for q in ("is this?", "who?")])
    assert context[one["start"] : one["end"]] == one["answer"] != ""
    never = answer(question="is this?", context=context, handle_impossible_answer=True, null_threshold=1e9)
    always = answer(question="is this?", context=context, handle_impossible_answer=True, null_threshold=-1e9)
    assert (never["answer"], always["answer"]) == (one["answer"], "")
    assert answer(question="is this?", context="") == {"score": 0.0, "start": 0, "end": 0, "answer": ""}


# ── inputs, options, models ──


class Counter:
    """A predictor of two labels that remembers how many inputs it got at a time."""

    def __init__(self, value: float = 1.0) -> None:
        self.calls: list[int] = []
        self.value = value
        self.config = configs.BertConfig(id2label={0: "few", 1: "many"})

    def __call__(self, inputs: Sequence[Features]) -> list[dict[str, np.ndarray]]:
        self.calls.append(len(inputs))
        return [{"logits": np.array([5.0 * self.value, len(one)])} for one in inputs]


@pytest.fixture
def tokenizer() -> BertTokenizer:
    return tokenizer_of(PIECES, SqueezeBertTokenizer)


def test_one_list_or_iterator(tokenizer: BertTokenizer) -> None:
    counter = Counter()
    count = pipeline("text-classification", counter, tokenizer)
    assert [one["label"] for one in count("the the the the")] == ["many"]
    assert [one["label"] for one in count(["the", "the " * 9])] == ["few", "many"]
    assert count([]) == []
    assert count(("the",)) == count(["the"])

    for several in (iter(["the"]), {"the": 1}.keys(), (text for text in ["the"])):
        results = count(several)
        assert isinstance(results, Iterator)
        assert list(results) == count(["the"])
    assert list(count(iter([]))) == []


def test_a_generator_is_read_as_it_is_answered(tokenizer: BertTokenizer) -> None:
    counter = Counter()
    count = pipeline("text-classification", counter, tokenizer)
    taken = 0

    def source() -> Iterator[str]:
        nonlocal taken
        for number in range(20_000):
            taken += 1
            yield "the " * (number % 7)

    results = count(source())
    assert not taken
    ahead = []
    for number, result in enumerate(results):
        assert result["label"] == ("many" if number % 7 > 3 else "few")
        ahead.append(taken - number)
    assert ahead[0] < 200
    assert max(ahead) <= 2 * Job.inputs
    assert sum(counter.calls) == len(ahead) == 20_000


def test_an_error_comes_after_the_answers_before_it(tokenizer: BertTokenizer) -> None:
    count = pipeline("text-classification", Counter(), tokenizer)
    for position in (0, 1, 63, 64, 65, 1000):
        texts: list[Any] = ["the"] * 2000
        texts[position] = 7
        results = count(iter(texts))
        assert len(list(itertools.islice(results, position))) == position
        with pytest.raises(InputError, match=f"^input {position}: int 7 is not a text"):
            next(results)
    with pytest.raises(InputError, match=r"^input 1: the text contains the unpaired surrogate '.ud83d'"):
        count(["the", "\ud83d"])
    with pytest.raises(InputError, match=r"^int 7 is not a text"):
        count(7)


def test_options_of_the_pipeline_are_defaults_of_the_call(tokenizer: BertTokenizer) -> None:
    count = pipeline("text-classification", Counter(), tokenizer, top_k=2)
    assert [[one["label"] for one in row] for row in count("the")] == [["few", "many"]]
    assert [[one["label"] for one in row] for row in count(["the"])] == [["few", "many"]]
    assert [one["label"] for one in count("the", top_k=1)] == ["few"]
    with pytest.raises(InputError, match="no option topk: it takes top_k, function_to_apply"):
        count("the", topk=2)
    with pytest.raises(InputError, match="no option bottom_k"):
        pipeline("text-classification", Counter(), tokenizer, bottom_k=2)


@pytest.mark.parametrize(
    ("task", "inputs", "options", "message"),
    [
        ("text-classification", 7, {}, "not a text"),
        ("text-classification", [["the", "un"]], {}, "not a text"),
        ("text-classification", {"texts": "the"}, {}, "keys text, text_pair"),
        ("text-classification", ["the", {"text": "the", "text_pairs": "un"}], {}, "input 1: the key 'text_pairs'"),
        ("zero-shot-classification", "the", {}, "candidate_labels"),
        (
            "zero-shot-classification",
            "the",
            {"candidate_labels": "a", "hypothesis_template": "x"},
            "must contain {} for the label",
        ),
        ("zero-shot-classification", "the", {"candidate_labels": "a,b"}, "labels are few, many: pass entailment="),
        ("question-answering", {"question": "the"}, {}, "keys question, context"),
        ("question-answering", None, {"question": ["a", "b"], "context": ["c"]}, "of the same length"),
        ("fill-mask", "the", {}, r"no \[MASK\] in the first 512 tokens"),
        ("fill-mask", "the [MASK]", {"targets": ["unman"]}, "not one token"),
        ("multiple-choice", {"prompt": "the", "choices": []}, {}, "list of texts"),
        ("multiple-choice", {"prompt": "the", "choices": "the"}, {}, "list of texts"),
        ("feature-extraction", "the", {"normalize": True}, "needs pooling"),
        ("feature-extraction", "the", {}, r"needs last_hidden_state of a model Model; this one gives logits \[2\]"),
        ("token-classification", "the", {}, r"needs logits of a model ForTokenClassification; this one gives logits"),
    ],
)
def test_what_cannot_be_answered_is_refused(
    tokenizer: BertTokenizer, task: str, inputs: Any, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        pipeline(task, Counter(), tokenizer)(inputs, **options)


def test_zero_shot_with_nameless_labels(tokenizer: BertTokenizer) -> None:
    ask = pipeline("zero-shot-classification", Counter(), tokenizer, entailment="many")
    assert ask("the", ["food", "the the the"])["labels"] == ["the the the", "food"]
    with pytest.raises(InputError, match="pass contradiction="):
        ask("the", ["food"])
    assert ask("the", ["food"], contradiction="few")["scores"] == [pytest.approx(1 / (1 + np.exp(5 - 9)))]
    with pytest.raises(InputError, match="pass entailment="):
        ask("the", ["food", "man"], entailment="yes")


def test_zero_shot_with_two_labels(tokenizer: BertTokenizer) -> None:
    counter = Counter()
    counter.config = configs.BertConfig(id2label={0: "not_entailment", 1: "entailment"})
    found = pipeline("zero-shot-classification", counter, tokenizer)("the", ["food"])
    assert found["scores"] == [pytest.approx(1 / (1 + np.exp(5 - 9)))]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_no_answer(tokenizer: BertTokenizer, value: float) -> None:
    with pytest.raises(CheckpointError, match="computed logits that are not finite numbers: its weights are damaged"):
        pipeline("text-classification", Counter(value), tokenizer)("the")


def test_any_model_can_be_put_underneath(folders: dict[str, Path]) -> None:
    folder = folders["ForSequenceClassification"]
    model = auto.AutoModelForSequenceClassification.from_pretrained(folder)
    by_folder = pipeline("text-classification", str(folder))(TEXTS)
    same(pipeline("text-classification", model, str(folder), device="cpu")(TEXTS), by_folder)
    predictor = TorchPredictor(model)
    with_config = pipeline("text-classification", predictor, folder, config=model.config)
    same(with_config(TEXTS), by_folder)


def test_models_that_are_not_enough(folders: dict[str, Path], tokenizer: BertTokenizer) -> None:
    with pytest.raises(InputError, match="unknown task 'translation': choose one of text-classification"):
        pipeline("translation")
    with pytest.raises(InputError, match="multiple-choice has no bundled model"):
        pipeline("multiple-choice")
    with pytest.raises(InputError, match="tokenizer="):
        pipeline("text-classification", Counter())
    with pytest.raises(InputError, match="config="):
        pipeline("text-classification", lambda inputs: [], tokenizer)
    with pytest.raises(InputError, match="device='cuda' is for PyTorch models"):
        pipeline("text-classification", Counter(), tokenizer, device="cuda")
    with pytest.raises(InputError, match="device='mill' cannot be used"):
        pipeline("text-classification", folders["ForSequenceClassification"], device="mill")


@pytest.mark.parametrize(
    ("task", "head", "message"),
    [
        ("text-classification", "ForMaskedLM", "lacks classifier.bias, classifier.weight"),
        ("text-classification", "ForTokenClassification", "is a SqueezeBertForTokenClassification"),
        ("ner", "ForSequenceClassification", "use a checkpoint that was fine-tuned for this task"),
        ("question-answering", "Model", "lacks qa_outputs.bias, qa_outputs.weight"),
        ("fill-mask", "ForSequenceClassification", "lacks cls.predictions"),
    ],
)
def test_an_untrained_head_never_answers(folders: dict[str, Path], task: str, head: str, message: str) -> None:
    with pytest.raises(CheckpointError, match=message):
        pipeline(task, folders[head])


def test_hidden_states_of_a_tuned_model(folders: dict[str, Path]) -> None:
    assert len(pipeline("feature-extraction", folders["ForSequenceClassification"])("the", pooling="cls")) == 32


def test_the_bundled_model_is_the_default(
    folders: dict[str, Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / SENTIMENT).symlink_to(folders["ForSequenceClassification"])
    monkeypatch.setattr(pipelines, "BUNDLED", tmp_path)
    assert pipeline("sentiment-analysis")("the")[0]["label"] in LABELS["ForSequenceClassification"]


def test_padding_changes_no_answer(folders: dict[str, Path]) -> None:
    classify = pipeline("text-classification", folders["ForSequenceClassification"], top_k=None)
    same([classify(text) for text in TEXTS], [[row] for row in classify(TEXTS)])
    assert dataclasses.is_dataclass(classify.config)
