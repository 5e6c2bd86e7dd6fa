"""Code written for transformers' pipelines: its arguments, its inputs, and what is refused with the reason."""

import copy
import pickle
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pytest
import torch

from pocketbert import AutoConfig, AutoTokenizer, CrossEncoder, SentenceTransformer
from pocketbert.arguments import FROM_PRETRAINED, WORDPIECE_FROM_PRETRAINED
from pocketbert.errors import InputError, TokenizerError
from pocketbert.models.auto import load_trained
from pocketbert.pipelines import TASKS, TextClassification, pipeline
from pocketbert.pipelines.arguments import IDLE
from pocketbert.pipelines.loading import LOADING
from pocketbert.runtime.engine import Engine
from pocketbert.runtime.plan import Plan

pd: Any = pytest.importorskip("pandas")
ROOT = Path(__file__).parents[1]
sys.path.append(str(ROOT / "scripts"))

import compare_pipelines  # noqa: E402
from pipeline_cases import ALWAYS, INPUTS, LIMIT, LONG, NOTHING, OTHER, PASSAGE, REFUSED, TEXT, make_models  # noqa: E402

NOTHING_FITS = object()  # no argument has this value


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return make_models(tmp_path_factory.mktemp("models"))


@pytest.fixture(scope="module")
def pipes(models: dict[str, Path]) -> Callable[[str], Any]:
    """The pipeline of a task, made once."""
    made: dict[str, Any] = {}

    def pipe(task: str) -> Any:
        if task not in made:
            made[task] = pipeline(task, models[task])
        return made[task]

    return pipe


# ── against transformers ──


def test_every_argument_as_in_transformers_and_in_the_table(models: dict[str, Path]) -> None:
    """No argument is taken that changes no result, unless it is one of those that choose nothing."""
    found = compare_pipelines.compare(models)
    assert not found.problems
    for task in TASKS:
        taken = {(name, task) for name in compare_pipelines.taken(task)} - REFUSED
        assert taken <= found.cells.keys(), "taken, but in no case of scripts/pipeline_cases.py that changes a result"
    nothing = {name for (name, _), sign in found.cells.items() if sign == "nothing"}
    assert nothing <= IDLE.keys() | {"truncation"}
    assert NOTHING.keys() == IDLE.keys() | {"truncation"}
    page = (ROOT / "docs/api/pipeline-arguments.md").read_text(encoding="utf-8")
    assert compare_pipelines.table(found) == page, "run scripts/compare_pipelines.py --write"


def test_a_difference_is_noticed() -> None:
    same = {"score": 0.5, "words": ["a", ("iterator", [1.0])]}
    assert compare_pipelines.difference(same, copy.deepcopy(same)) is None
    for other in (
        {"score": 0.501, "words": same["words"]},
        {"score": 0.5},
        {"score": 0.5, "words": ["b", ("iterator", [1.0])]},
        {"score": 0.5, "words": ["a", ("iterator", [1.0, 2.0])]},
        {"score": 0.5, "words": ["a", [1.0]]},
        [same],
    ):
        assert compare_pipelines.difference(other, same) is not None


@pytest.mark.parametrize("name", IDLE)
def test_values_that_would_choose_something_are_refused(pipes: Callable[[str], Any], name: str) -> None:
    for task in TASKS:
        if name not in compare_pipelines._own(task):
            with pytest.raises(InputError, match=f"^{name}="):
                pipes(task)(INPUTS[task], **ALWAYS.get(task, {}), **{name: NOTHING_FITS})


def test_refusals_of_the_tables() -> None:
    for name, idle in {**LOADING, **FROM_PRETRAINED, **WORDPIECE_FROM_PRETRAINED}.items():
        assert idle.holds(None), name
        assert not idle.advice or not idle.holds(NOTHING_FITS), name


# ── arguments of calls ──


def test_how_texts_are_cut(pipes: Callable[[str], Any]) -> None:
    classify = pipes("text-classification")
    words = LONG.split()
    short, cut = classify([" ".join(words[:6])])[0], {"truncation": True, "max_length": 8}
    assert classify([LONG], **cut)[0] == short
    assert classify([LONG], max_length=8)[0] == short  # as a tokenizer has it without padding
    whole = classify([LONG], truncation=True)[0]
    assert classify([LONG])[0] == whole != short
    for padding in (True, "longest", "max_length"):  # the length to pad to
        assert classify([LONG], max_length=8, padding=padding)[0] == whole
        assert classify([LONG], **cut, padding=padding)[0] == short
    assert classify([LONG], truncation=True, max_length=100 * LIMIT)[0] == whole
    assert classify([TEXT], truncation=False) == classify([TEXT])
    for refused in (False, "do_not_truncate"):
        with pytest.raises(InputError, match=f"^input 1: the text has more tokens than the limit of {LIMIT}"):
            classify([TEXT, LONG], truncation=refused)
    for name, value in {"truncation": "end", "max_length": 0}.items():
        with pytest.raises(InputError, match=f"^{name}="):
            classify(TEXT, **{name: value})
    with pytest.raises(TokenizerError, match="leaves no room"):
        classify(TEXT, max_length=2)


def test_a_longer_limit_than_that_of_the_tokenizer(models: dict[str, Path]) -> None:
    tokenizer = AutoTokenizer.from_pretrained(models["feature-extraction"], model_max_length=10)
    embed = pipeline("feature-extraction", models["feature-extraction"], tokenizer=tokenizer)
    lengths = [len(embed(LONG, tokenize_kwargs={"max_length": n, "truncation": True})[0]) for n in (8, 10, 20, 99)]
    assert lengths == [8, 10, 20, LIMIT]
    assert len(embed(LONG)[0]) == embed.max_length == tokenizer.model_max_length == 10


def test_a_note_on_cut_texts_only_where_none_asked_to_cut(
    pipes: Callable[[str], Any], caplog: pytest.LogCaptureFixture
) -> None:
    pipes("text-classification")(LONG, truncation=True)
    pipes("feature-extraction")(LONG, tokenize_kwargs={"truncation": True})
    assert not caplog.messages
    pipes("text-classification")(LONG)
    assert len(caplog.messages) == 1


@pytest.mark.parametrize(
    ("task", "options", "message"),
    [
        ("text-classification", {"top_k": 0}, "top_k=0"),
        ("text-classification", {"top_k": 1, "return_all_scores": True}, "top_k or return_all_scores"),
        ("text-classification", {"function_to_apply": "tanh"}, "function_to_apply='tanh'"),
        ("text-classification", {"tokenize_kwargs": {}}, "no option tokenize_kwargs"),
        ("token-classification", {"delimiter": " "}, "needs is_split_into_words"),
        ("token-classification", {"grouped_entities": True, "aggregation_strategy": "max"}, "not both"),
        ("token-classification", {"offset_mapping": [(0, 1)]}, "no option offset_mapping"),
        ("question-answering", {"max_length": 20}, "max_seq_len"),
        ("question-answering", {"top_k": 0}, "top_k=0"),
        ("question-answering", {"max_answer_len": 0}, "max_answer_len=0"),
        ("fill-mask", {"top_k": 0}, "top_k=0"),
        ("fill-mask", {"targets": []}, "at least one word"),
        ("fill-mask", {"tokenizer_kwargs": 7}, "must be a dictionary"),
        ("feature-extraction", {"truncation": True, "tokenize_kwargs": {"truncation": True}}, "given both"),
        ("feature-extraction", {"tokenize_kwargs": {"padding": "max_length"}}, "vectors of padding"),
        ("feature-extraction", {"return_tensors": "jax"}, "return_tensors='jax'"),
        ("feature-extraction", {"tokenize_kwargs": {"return_tensors": "np"}}, "tokenize_kwargs: return_tensors"),
        ("zero-shot-classification", {"hypothesis_template": None}, "for the label"),
        ("zero-shot-classification", {"hypothesis_template": "{label}"}, "for the label"),
    ],
)  # fmt: skip
def test_options_that_cannot_be_meant(
    pipes: Callable[[str], Any], task: str, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(InputError, match=message):
        pipes(task)(INPUTS[task], **{**ALWAYS.get(task, {}), **options})


def test_older_arguments_of_labels(pipes: Callable[[str], Any]) -> None:
    classify = pipes("text-classification")
    names = ["dull", "great", "plain"]  # in the order of the model, not of the scores
    assert [[one["label"] for one in row] for row in classify(TEXT, return_all_scores=True)] == [names]
    assert [[one["label"] for one in row] for row in classify([TEXT, OTHER], return_all_scores=True)] == [names, names]
    assert classify(TEXT, return_all_scores=False) == classify(TEXT)
    assert classify(TEXT, function_to_apply="default") == classify(TEXT)
    assert classify(TEXT, top_k=np.int64(2)) == classify(TEXT, top_k=2)


def test_tensors_and_arrays_of_vectors(pipes: Callable[[str], Any]) -> None:
    embed = pipes("feature-extraction")
    lists = embed(TEXT)
    tensor, array = embed(TEXT, return_tensors="pt"), embed(TEXT, return_tensors="np")
    assert isinstance(tensor, torch.Tensor)
    assert isinstance(array, np.ndarray)
    assert tensor.tolist() == array.tolist() == lists
    assert embed([TEXT], pooling="mean", return_tensors=True)[0].shape == (len(lists[0][0]),)


# ── questions ──


def test_forms_of_questions(pipes: Callable[[str], Any]) -> None:
    ask = pipes("question-answering")
    question, one = "Who was in Paris?", {"question": "Who was in Paris?", "context": PASSAGE}
    answer = ask(one)

    class Example:  # transformers 4 has such a class
        question_text, context_text = question, PASSAGE

    same: list[Any] = [
        ask(question, PASSAGE), ask(question=question, context=PASSAGE), ask([one]), ask(data=one), ask(X=[one]),
        ask(question=[question], context=[PASSAGE]), ask(Example()), ask({**one, "id": "7", "title": "France"}),
        next(ask(one for _ in "a")), ask(question=pd.Series([question]), context=PASSAGE),
    ]  # fmt: skip
    assert same == [answer] * len(same)
    two: list[Any] = [
        ask([one, one]), ask(one, one), ask(question=[question] * 2, context=PASSAGE), list(ask(one for _ in "ab")),
        ask(question=pd.Series([question] * 2), context=np.array([PASSAGE] * 2)),
    ]  # fmt: skip
    assert two == [[answer, answer]] * len(two)
    rows = datasets.Dataset.from_dict({"id": [1, 2], "question": [question] * 2, "context": [PASSAGE] * 2})
    assert list(ask(rows)) == [answer, answer]
    for wrong in (
        {"question": pd.Series([question]), "context": [PASSAGE] * 2},
        {"question": None, "context": PASSAGE},
    ):
        with pytest.raises(InputError, match="two lists of the same length"):
            ask(**wrong)
    with pytest.raises(InputError, match="keys question, context"):
        ask({"question": question, "contxt": PASSAGE})


def test_answers_are_whole_words(pipes: Callable[[str], Any]) -> None:
    ask = pipes("question-answering")
    text = "Zdzisawa was in Paris, ÉTÉ. 北京大学 was-in Kraków!\nWho"
    tokens = ask("Who was in Paris?", text, top_k=60, align_to_words=False)
    words = ask("Who was in Paris?", text, top_k=60)
    assert 0 < len(words) < len(tokens)
    encoded = pipes("question-answering").tokenizer(text, add_special_tokens=False)[0]
    edges = [encoded.word_to_chars(word) for word in dict.fromkeys(encoded.word_ids)]
    assert not {one["start"] for one in tokens} <= {start for start, _ in edges}
    for one in words:
        assert text[one["start"] : one["end"]] == one["answer"]
        assert one["start"] in {start for start, _ in edges}
        assert one["end"] in {end for _, end in edges}
    assert len({(one["start"], one["end"]) for one in words}) == len(words)
    assert sum(one["score"] for one in words) == pytest.approx(1)
    assert [one["score"] for one in words] == sorted((one["score"] for one in words), reverse=True)


# ── inputs ──


class Texts(torch.utils.data.Dataset[str]):
    """A data set with items and a length, and no iterator."""

    def __init__(self, texts: list[str]) -> None:
        self.texts = texts

    def __len__(self) -> int:
        return len(self.texts)

    def __getitem__(self, index: int) -> str:
        return self.texts[index]


def test_columns_become_lists_and_data_sets_iterators(pipes: Callable[[str], Any]) -> None:
    classify, texts = pipes("text-classification"), [TEXT, OTHER, TEXT]
    wanted = classify(texts)
    frame = pd.DataFrame({"text": texts, "label": [1, 0, 1]})
    table = pa.table({"text": texts})
    columns: list[Any] = [
        tuple(texts), np.array(texts), np.array(texts, dtype=object), frame["text"], frame["text"].astype("string"),
        frame["text"].astype("category"), pd.Index(texts), table["text"], table["text"].chunk(0),
        frame.to_dict("records"),
    ]  # fmt: skip
    assert [classify(column) for column in columns] == [wanted] * len(columns)
    rows = datasets.Dataset.from_pandas(frame)
    for several in (rows, rows["text"], Texts(texts), {text + str(i): i for i, text in enumerate(texts)}.keys()):
        results = classify(several)
        assert isinstance(results, Iterator)
        assert len(results) == 3  # type: ignore[arg-type] # for progress bars
        labels = [one["label"] for one in results]
        assert labels == [one["label"] for one in wanted] or isinstance(several, type({}.keys()))
    assert not hasattr(classify(iter(texts)), "__len__")


@pytest.mark.parametrize(
    "task", ["token-classification", "feature-extraction", "zero-shot-classification", "fill-mask"]
)
def test_rows_with_a_text(pipes: Callable[[str], Any], task: str) -> None:
    pipe, texts = pipes(task), INPUTS[task]
    wanted = pipe(texts, **ALWAYS.get(task, {}))
    assert pipe([{"text": text, "label": 1} for text in texts], **ALWAYS.get(task, {})) == wanted


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        (pd.DataFrame({"text": [TEXT], "label": [1]}), "DataFrame is a table.*table\\['text'\\]"),
        (pa.table({"text": [TEXT]}), "Table is a table"),
        ({"text": [TEXT, OTHER]}, "holds columns"),
        ({"text": TEXT, "textpair": OTHER}, "'textpair' is not known"),
        ({"texts": TEXT}, "keys text, text_pair"),
        ([[TEXT, OTHER]], "^input 0: .*dictionary with the keys"),
        ([TEXT, None], "^input 1: NoneType"),
        (pd.Series([TEXT, float("nan")]), "^input 1: float nan is not a text"),
        (np.array([[TEXT]]), "^input 0"),
        (b"text", "bytes"),
        (3, "int 3 is not a text"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_inputs_that_are_no_texts(pipes: Callable[[str], Any], inputs: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        pipes("text-classification")(inputs)


def test_rows_with_words(pipes: Callable[[str], Any]) -> None:
    tag, words = pipes("token-classification"), TEXT.split()
    wanted = tag([words], is_split_into_words=True)
    rows = datasets.Dataset.from_dict({"id": ["7"], "tokens": [words], "ner_tags": [[0] * len(words)]})
    assert list(tag(rows, is_split_into_words=True)) == tag([{"words": words}], is_split_into_words=True) == wanted
    with pytest.raises(InputError, match=r"^input 0: list .* is not a text"):
        list(tag(rows))


def test_several_texts_as_arguments(pipes: Callable[[str], Any]) -> None:
    for task in ("text-classification", "token-classification", "feature-extraction", "fill-mask"):
        with pytest.raises(InputError, match="pass several texts as a list"):
            pipes(task)(TEXT, OTHER)
    zero = pipes("zero-shot-classification")
    assert zero(sequences=TEXT, candidate_labels=("film", 7)) == zero(TEXT, ["film", 7])
    assert zero(TEXT, np.array(["film", "match"])) == zero(TEXT, "film, match")


# ── the pipeline itself ──


@pytest.mark.parametrize(
    "device", [-1, "cpu", torch.device("cpu"), *([] if torch.cuda.is_available() else [0])], ids=str
)
def test_this_processor_needs_no_pytorch(models: dict[str, Path], device: Any) -> None:
    folder = models["text-classification"]
    pipe = pipeline("text-classification", folder, device=device)
    assert isinstance(pipe.model, Engine)
    assert pipe([TEXT]) == pipeline("text-classification", folder, device_map="auto")([TEXT])
    model = load_trained(folder, "ForSequenceClassification")
    in_torch = pipeline("text-classification", model=model, tokenizer=pipe.tokenizer, device=device)
    assert not isinstance(in_torch.model, Engine)
    assert in_torch(TEXT)[0]["score"] == pytest.approx(pipe(TEXT)[0]["score"], abs=1e-5)
    assert pipeline("text-classification", pipe.model, pipe.tokenizer, device=device)(TEXT) == pipe(TEXT)


def test_other_precision_in_pytorch_alone(models: dict[str, Path]) -> None:
    folder = models["text-classification"]
    tokenizer, model = AutoTokenizer.from_pretrained(folder), load_trained(folder, "ForSequenceClassification")
    exact = pipeline("text-classification", folder)(TEXT)[0]["score"]
    for dtype in (torch.bfloat16, "bfloat16"):
        found = pipeline("text-classification", copy.deepcopy(model), tokenizer, dtype=dtype, device_map={"": "cpu"})
        assert found.model.model.dtype == torch.bfloat16  # type: ignore[attr-defined] # of the predictor
        assert found(TEXT)[0]["score"] == pytest.approx(exact, abs=0.05)
    for dtype in ("auto", "float32", torch.float32):
        assert pipeline("text-classification", folder, torch_dtype=dtype)(TEXT)[0]["score"] == exact


def test_the_task_of_a_model(models: dict[str, Path], tmp_path: Path) -> None:
    for task, folder in models.items():
        wanted = "text-classification" if task == "zero-shot-classification" else task
        assert pipeline(model=folder).task == wanted
    engine = Engine.from_pretrained(models["fill-mask"], "ForMaskedLM")
    tokenizer = AutoTokenizer.from_pretrained(models["fill-mask"])
    assert pipeline(model=engine, tokenizer=tokenizer).task == "fill-mask"
    model = load_trained(models["fill-mask"], "ForMaskedLM")
    assert pipeline(model=model, tokenizer=tokenizer).task == "fill-mask"
    assert pipeline(pipeline_class=TextClassification, model=models["zero-shot-classification"]).task.startswith("text")
    with pytest.raises(InputError, match="pass a task, a model, or both"):
        pipeline()
    wrong: Any = ["ner"]
    with pytest.raises(InputError, match="unknown task"):
        pipeline(wrong, models["fill-mask"])
    with pytest.raises(InputError, match="pass one of text-classification"):
        pipeline(model=lambda inputs: [], tokenizer=tokenizer)


def test_a_configuration_and_a_tokenizer_without_their_names(models: dict[str, Path]) -> None:
    folder = models["text-classification"]
    config = AutoConfig.from_pretrained(folder, id2label={0: "a", 1: "b", 2: "c"})
    tokenizer = AutoTokenizer.from_pretrained(folder)
    plain = pipeline("text-classification", folder, top_k=None)([TEXT])
    named = pipeline("text-classification", folder, config, tokenizer, top_k=None)([TEXT])
    assert [one["score"] for one in plain[0]] == [one["score"] for one in named[0]]
    assert {one["label"] for one in named[0]} == {"a", "b", "c"}
    assert pipeline("text-classification", folder, str(folder), str(folder), top_k=None)([TEXT]) == plain
    assert pipeline("text-classification", folder, tokenizer=(folder, {"use_fast": True}), top_k=None)([TEXT]) == plain
    with pytest.raises(InputError, match="another model"):
        pipeline("text-classification", folder, config=config.replace(num_hidden_layers=1))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"trust_remote_code": True}, "no code of a model is ever run"),
        ({"dtype": "float16"}, "computes in float32.*pocketbert quantize"),
        ({"torch_dtype": torch.float16}, "computes in float32"),
        ({"dtype": "float32", "torch_dtype": "float16"}, "not both"),
        ({"device": "cpu", "device_map": "auto"}, "not both"),
        ({"device_map": {"a": 0, "b": "cpu"}}, "several devices"),
        ({"model_kwargs": {"num_labels": 7}}, "num_labels cannot be changed"),
        ({"model_kwargs": {"load_in_8bit": True}}, "pocketbert quantize"),
        ({"revision": "main", "model_kwargs": {"revision": "v1"}}, "revision is given both"),
        ({"pipeline_class": dict}, "pipeline_class"),
        ({"feature_extractor": "x"}, "is for other tasks"),
        ({"batch_size": 0}, "batch_size=0"),
        ({"batchsize": 1}, "no option batchsize"),
        ({"device": "mill"}, "cannot be used"),
    ],
)
def test_loading_that_cannot_be_meant(models: dict[str, Path], options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        pipeline("text-classification", models["text-classification"], **options)


def test_a_model_of_another_library(models: dict[str, Path]) -> None:
    folder = models["text-classification"]
    with pytest.raises(InputError, match="torch's Linear, not a class of PocketBERT: save it, and pass its folder"):
        pipeline("text-classification", torch.nn.Linear(2, 2), folder)


@pytest.mark.parametrize("task", TASKS)
def test_a_pipeline_travels(pipes: Callable[[str], Any], task: str, monkeypatch: pytest.MonkeyPatch) -> None:
    pipe, needed = pipes(task), ALWAYS.get(task, {})
    sent = pickle.dumps(pipe)
    assert len(sent) < 100_000  # the weights are read again
    monkeypatch.chdir("/")
    for other in (pickle.loads(sent), copy.deepcopy(pipe)):
        assert other(INPUTS[task], **needed) == pipe(INPUTS[task], **needed)
        assert repr(other) == repr(pipe)


def test_sentence_encoders_travel(models: dict[str, Path]) -> None:
    encoder, ranker = SentenceTransformer(models["feature-extraction"]), CrossEncoder(models["text-classification"])
    pairs = [(TEXT, OTHER), (OTHER, TEXT)]
    other: Any = pickle.loads(pickle.dumps((encoder, ranker)))
    assert np.array_equal(other[0].encode([TEXT, OTHER]), encoder.encode([TEXT, OTHER]))
    assert np.array_equal(other[1].predict(pairs), ranker.predict(pairs))
    assert np.array_equal(encoder.encode(pd.Series([TEXT, OTHER])), encoder.encode([TEXT, OTHER]))
    for table in (pd.DataFrame({"text": [TEXT]}), pa.table({"text": [TEXT]}), {"text": [TEXT]}):
        with pytest.raises(InputError, match=r"table|neither a text"):
            encoder.encode(table)


def test_choices_of_any_kind(pipes: Callable[[str], Any]) -> None:
    choose, wanted = pipes("multiple-choice"), ["is great", "is dull"]
    for choices in (np.array(wanted), pd.Series(wanted), tuple(wanted)):
        assert choose(prompt="The film", choices=choices) == choose(prompt="The film", choices=wanted)


def test_an_engine_of_a_plan_stays(pipes: Callable[[str], Any]) -> None:
    with pytest.raises(TypeError, match="from_pretrained makes one that can"):
        pickle.dumps(Engine(Plan(stages=(), outputs={}, tensors={}, max_tokens=1)))


def test_names_of_scikit_learn(pipes: Callable[[str], Any]) -> None:
    classify = pipes("text-classification")
    assert classify.predict([TEXT]) == classify.transform([TEXT]) == classify([TEXT])
    assert repr(classify) == f"TextClassification(squeezebert, 3 labels, up to {LIMIT} tokens)"
