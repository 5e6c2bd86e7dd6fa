"""Texts of any length: windows, what decides each token, and what becomes of the outputs."""

import json
import logging
from collections.abc import Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from helpers.tokenizers import spelling, tokenizer_of
from pocketbert import BertConfig, CrossEncoder, SentenceTransformer, decode
from pocketbert.errors import InputError
from pocketbert.features import Features, TokenIds, Tokens
from pocketbert.models import auto
from pocketbert.pipelines import Pipeline, pipeline
from pocketbert.pipelines.texts import FeatureExtraction
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.tasks.classification import TextClassification
from pocketbert.tasks.evaluate import evaluate
from pocketbert.tasks.evaluate_options import EvaluateOptions
from pocketbert.tasks.tagging import Tagging
from pocketbert.tokenization import BertTokenizer
from pocketbert.windows import Part, divide, encode_long_texts, groups, mean, merge

WORDS = ("the", "film", "is", "great", "dull", "marie", "curie", ".")
PIECES = spelling(*WORDS)
LENGTH = 5000  # tokens of a long text
NAMES = {"marie": "B-PER", "curie": "I-PER"}


def saved(folder: Path, head: str, positions: int, labels: Sequence[str] = ("no", "yes"), **options: Any) -> Path:
    """A tiny model with random weights."""
    torch.manual_seed(1)
    config = BertConfig(
        vocab_size=len(PIECES), hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=positions, id2label=dict(enumerate(labels)), **options,
    )  # fmt: skip
    model = auto.model_class(config, head)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 2.0 if "embeddings" in name else 0.2)
    model.save_pretrained(folder)
    tokenizer_of(PIECES, BertTokenizer).save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text("{}")  # which states no limit
    return folder


def words(count: int, seed: int) -> list[str]:
    """Random words of one token each."""
    return np.random.default_rng(seed).choice(["the", "film", "is", "great", "dull", "."], count).tolist()


# ── which window decides ──


def test_each_token_is_decided_where_it_stands_farthest_from_an_edge() -> None:
    random = np.random.default_rng(0)
    for _ in range(500):
        count, before, after = int(random.integers(1, 80)), int(random.integers(0, 4)), int(random.integers(0, 3))
        length = int(random.integers(before + after + 1, 40))
        room = length - before - after
        overlap = None if random.random() < 0.3 else int(random.integers(0, room))
        ids = np.arange(before + count + after, dtype=np.int32)
        parts = divide(Features(ids, ids * 0), slice(before, before + count), length, overlap)
        whole, output = merge(parts, [part.input_ids.astype(float)[:, None] for part in parts])
        assert output[:, 0].tolist() == whole.input_ids.tolist() == ids.tolist()
        if len(parts) == 1:
            assert len(ids) <= length
            continue
        starts = [int(part.input_ids[before]) for part in parts]
        assert all(len(part) == length for part in parts)
        assert starts[-1] + room == before + count
        steps = {later - earlier for earlier, later in pairwise(starts[:-1])}
        assert steps <= {room - (room // 4 if overlap is None else overlap)}
        for token in range(before, before + count):
            margins = [min(token - start, start + room - 1 - token) for start in starts]
            deciding = [p.decided.start <= token < p.decided.stop for p in parts if isinstance(p, Part)]
            assert deciding.index(True) == margins.index(max(margins))  # of equal ones, the earlier
            assert sum(deciding) == 1
        assert sum(part.share for part in parts if isinstance(part, Part)) == count


def test_windows_that_cannot_be() -> None:
    ids = np.arange(20, dtype=np.int32)
    for overlap in (-1, 8, 100):
        with pytest.raises(InputError, match=rf"stride={overlap} must be at least 0 and less than 8"):
            divide(Features(ids, ids), slice(1, 19), 10, overlap)
    with pytest.raises(InputError, match="no room for the text"):
        divide(Features(ids, ids), slice(10, 19), 11)


def test_mean_and_groups() -> None:
    ids = np.arange(32, dtype=np.int32)
    short = Features(ids[:5], ids[:5])
    parts = divide(Features(ids, ids), slice(1, 31), 12, 2)
    outputs = [np.array([float(i), 1.0], np.float32) for i in range(len(parts))]
    shares = [part.share for part in parts if isinstance(part, Part)]
    expected = sum(i * share for i, share in enumerate(shares)) / 30
    assert mean(parts, outputs).tolist() == pytest.approx([expected, 1.0])
    assert mean(parts, outputs).dtype == np.float32
    assert mean([short], outputs) is outputs[0]
    assert groups([short, *parts, short]) == [slice(0, 1), slice(1, 1 + len(parts)), slice(1 + len(parts), 6)]


def test_windows_of_pairs() -> None:
    tokenizer = tokenizer_of(PIECES)

    def texts(one: Features) -> list[str]:
        names: list[str] = tokenizer.convert_ids_to_tokens(one.input_ids.tolist())
        return names

    for first, second in (("film " * 50, "great dull"), ("great dull", "film " * 50)):
        [parts] = encode_long_texts(tokenizer, [first], [second], max_length=20)
        assert len(parts) > 3
        for part in parts:
            assert (texts(part).count("film"), texts(part).count("great"), len(part)) == (15, 1, 20)
            boundary = texts(part).index("[SEP]") + 1
            assert part.token_type_ids.tolist() == [0] * boundary + [1] * (20 - boundary)
            assert not part.cut
    # The text that is in every window may take half of it, and is cut beyond that.
    [parts] = encode_long_texts(tokenizer, ["film " * 50], ["great " * 30], max_length=21)
    assert all((texts(part).count("great"), part.cut) == (9, True) for part in parts)
    [[whole]] = encode_long_texts(tokenizer, ["film " * 3], ["great " * 4], max_length=20, first=True)
    assert texts(whole).count("film") == 3
    [parts] = encode_long_texts(tokenizer, ["film " * 12], ["great " * 13], max_length=20, first=True)
    assert all(texts(part).count("great") == 8 for part in parts)
    assert encode_long_texts(tokenizer, [], max_length=20) == []


# ── tags ──


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> Pipeline:
    """A tagger of 64 tokens that knows two words as the beginning and the rest of a name."""
    folder = saved(tmp_path_factory.mktemp("tagger"), "ForTokenClassification", 64, ("O", "B-PER", "I-PER"))
    model = auto.AutoModelForTokenClassification.from_pretrained(folder)
    with torch.no_grad():
        for name, parameter in model.named_parameters():  # the tag follows from the word alone
            if "LayerNorm.weight" not in name:
                parameter.zero_()
        names = [PIECES.index(name) for name in NAMES]
        model.bert.embeddings.word_embeddings.weight[:, 0] = 1.0
        for place, number in enumerate(names, start=1):
            model.bert.embeddings.word_embeddings.weight[number, 0] = 0.0
            model.bert.embeddings.word_embeddings.weight[number, place] = 1.0
        for place in range(3):
            model.classifier.weight[place, place] = 1.0
    model.save_pretrained(folder)
    return pipeline("token-classification", folder, aggregation_strategy="first")


def test_a_name_at_every_position_of_a_long_text(tagger: Pipeline) -> None:
    step = 10
    for offset in range(step):
        text = words(LENGTH, offset)
        places = range(offset, LENGTH - 1, step)
        for place in places:
            text[place : place + 2] = NAMES
        sentence = " ".join(text)
        starts = np.cumsum([0, *(len(word) + 1 for word in text)])
        found = tagger(sentence)
        assert [one["start"] for one in found] == [int(starts[place]) for place in places]
        assert all(sentence[one["start"] : one["end"]] == "marie curie" == one["word"] for one in found)
    last = [*words(LENGTH - 1, 0), "marie"]
    [[entity]] = tagger(last, is_split_into_words=True)
    assert entity["end"] == len(" ".join(last))


def test_tags_of_windows_are_those_of_the_deciding_windows(tmp_path: Path) -> None:
    pipe = pipeline("ner", saved(tmp_path, "ForTokenClassification", 32, ("O", "B-PER", "I-PER")), ignore_labels=[])
    text = " ".join(words(100, 3))
    for stride in (None, 0, 20):
        overlap = 7 if stride is None else stride
        found = {one["index"]: one for one in pipe(text, stride=stride)}
        assert list(found) == list(range(1, 101))
        ids = pipe.tokenizer(text, verbose=False)["input_ids"]
        starts = [*range(1, 71, 30 - overlap), 71]
        for token in range(1, 101):
            start = max(starts, key=lambda start: min(token - start, start + 29 - token))
            row = np.array([ids[0], *ids[start : start + 30], ids[-1]], np.int32)
            [output] = pipe.predictor([Features(row, row * 0)])
            scores = decode.softmax(output["logits"][token - start + 1])
            assert found[token]["score"] == float(scores.max())
            assert found[token]["entity"] == pipe.config.id2label[int(scores.argmax())]
    with pytest.raises(InputError, match="stride=30 must be at least 0 and less than 30"):
        pipe(text, stride=30)
    assert pipe("the film", stride=5) == pipe("the film")


def test_no_note_about_tags(tagger: Pipeline, caplog: pytest.LogCaptureFixture) -> None:
    assert len(tagger(["marie " * 300, "", " "])[0]) == 300
    assert not caplog.records


# ── training and evaluation ──


def options(data: Path, folder: Path, **changes: Any) -> FinetuneOptions:
    return FinetuneOptions(data=data, output=folder, model="a model", **changes)


def test_every_tag_of_a_long_sentence_is_trained_once(tmp_path: Path) -> None:
    sentences = [words(50, 9), words(3, 10), words(8, 11)]
    tags = [["B-PER" if word == "dull" else "O" for word in sentence] for sentence in sentences]
    rows = [json.dumps({"tokens": s, "tags": t}) for s, t in zip(sentences, tags, strict=True)]
    (tmp_path / "tags.jsonl").write_text("\n".join(rows * 2))
    task = Tagging(options(tmp_path / "tags.jsonl", tmp_path, task="token-classification", eval_fraction=0.4))
    tokenizer = tokenizer_of(PIECES)
    config, _ = task.configure(BertConfig(vocab_size=len(PIECES)))
    encoded = task.encode(tokenizer, config, 12)
    inputs: list[Any] = list(encoded.features)
    assert max(map(len, inputs)) == 12
    assert encoded.cut_note(12) is None
    trained = []
    for features, labels in zip(inputs, encoded.targets["labels"], strict=True):
        assert len(features) == len(labels)
        names = tokenizer.convert_ids_to_tokens(features.input_ids.tolist())
        trained += [
            (name, config.id2label[label]) for name, label in zip(names, labels.tolist(), strict=True) if label >= 0
        ]
    wanted = [pair for s in task.train.examples for pair in zip(s.words, s.tags, strict=True)]
    assert sorted(trained) == sorted(wanted)


def test_training_and_evaluation_count_what_they_cut(tmp_path: Path) -> None:
    table = ["text,label", *[f"{'film ' * (i % 4 * 5)}the,{i % 2}" for i in range(40)]]
    (tmp_path / "table.csv").write_text("\n".join(table))
    task = TextClassification(options(tmp_path / "table.csv", tmp_path, eval_data=tmp_path / "table.csv"))
    encoded = task.encode(tokenizer_of(PIECES), BertConfig(vocab_size=len(PIECES)), 12)
    assert encoded.cut_note(12) == (
        "20 of 40 training examples are longer than 12 tokens: their ends are ignored (--max-length)"
    )
    folder = saved(tmp_path / "model", "ForSequenceClassification", 12, ("0", "1"))
    result = evaluate(EvaluateOptions(model=folder, data=tmp_path / "table.csv"))
    assert result.notes == ("20 of 40 examples are longer than 12 tokens: their ends were ignored",)
    assert evaluate(EvaluateOptions(model=saved(folder, "ForSequenceClassification", 600, ("0", "1")),
                                    data=tmp_path / "table.csv")).notes == ()  # fmt: skip


# ── positions ──


def test_models_with_more_positions_are_used_to_their_end(tmp_path: Path) -> None:
    folder = saved(tmp_path, "ForSequenceClassification", 1024)
    pipe = pipeline("text-classification", folder, top_k=None)
    text = "the film is " * 233 + "the "
    assert pipe.max_length == 1024
    assert pipe(text + "great") != pipe(text + "dull")
    BertTokenizer.from_pretrained(folder, model_max_length=512).save_pretrained(folder)
    assert pipeline("text-classification", folder).max_length == 512


# ── texts that are cut, or pooled ──


def notes(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    caplog.clear()
    return found


def test_python_says_how_many_texts_were_cut(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    classify = pipeline("text-classification", saved(tmp_path / "c", "ForSequenceClassification", 32))
    short, long = "the film", "the film " * 40
    assert (classify(short), notes(caplog)) == ([*classify([short])], [])
    classify(long)
    line = "the text is longer than the model's limit of 32 tokens: its end was ignored; windows=True reads whole texts"
    assert notes(caplog) == [line]
    classify([short, long, long])
    [note] = notes(caplog)
    assert note.startswith("2 of 3 texts are longer than the model's limit of 32 tokens: their ends were ignored")
    lazy = classify(one for one in (long, short))
    next(lazy)
    assert notes(caplog) == []
    assert (len([*lazy]), len(notes(caplog))) == (1, 1)
    classify([long, long], windows=True)
    assert notes(caplog) == []
    encoder = SentenceTransformer(saved(tmp_path / "e", "Model", 32))
    encoder.encode([short, long])
    assert notes(caplog)[0].startswith("1 of 2 texts")
    ranker = CrossEncoder(saved(tmp_path / "r", "ForSequenceClassification", 32, ("score",)))
    ranker.predict([(short, long), (short, short)])
    assert notes(caplog)[0].startswith("1 of 2 texts")
    answer = pipeline("question-answering", saved(tmp_path / "a", "ForQuestionAnswering", 32))
    answer(question=long, context=short)
    assert "its end was ignored" in notes(caplog)[0]
    answer(question="film", context=long)
    assert notes(caplog) == []


def test_a_text_without_a_known_word_is_noted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    classify = pipeline("text-classification", saved(tmp_path / "c", "ForSequenceClassification", 32))
    classify("\u2603 \u2603")
    line = "the text has no word of the model's vocabulary: the result does not depend on it"
    assert notes(caplog) == [line]
    classify(["the film", "\u2603", "the \u2603", {"text": "\u2603", "text_pair": "\u2603"}])
    assert notes(caplog)[0].startswith("2 of 4 texts have no word of the model's vocabulary")
    classify(["the film", {"text": "\u2603", "text_pair": "film"}])
    assert notes(caplog) == []
    SentenceTransformer(saved(tmp_path / "e", "Model", 32)).encode(["the", "\u2603"])
    assert notes(caplog)[0].startswith("1 of 2 texts have no word")


def windows_of(pipe: Pipeline, ids: Sequence[int], size: int, before: int = 1) -> list[tuple[Features, int]]:
    """The windows of one text with [CLS] and [SEP], of which `before` tokens are in each, and what each decides."""
    inner, room = len(ids) - before - 1, size - before - 1
    overlap, row = room // 4, np.array(ids, np.int32)
    starts = [*range(0, inner - room, room - overlap), inner - room]
    margins = [[min(i - start, start + room - 1 - i) for start in starts] for i in range(inner)]
    shares = np.bincount([margin.index(max(margin)) for margin in margins], minlength=len(starts))
    found = []
    for start, share in zip(starts, shares.tolist(), strict=True):
        first = before + start
        shown = np.concatenate([row[:before], row[first : first + room], row[-1:]])
        found.append((Features(shown, shown * 0), share))
    return found


def test_classes_of_windows(tmp_path: Path) -> None:
    pipe = pipeline("text-classification", saved(tmp_path, "ForSequenceClassification", 32, ("a", "b", "c")))
    text = " ".join(words(77, 5))
    made = windows_of(pipe, pipe.tokenizer(text, verbose=False)["input_ids"], 32)
    logits = np.stack([pipe.predictor([one])[0]["logits"] for one, _ in made])
    expected = np.average(logits, axis=0, weights=[share for _, share in made])
    for function, scores in (("none", expected), ("softmax", decode.softmax(expected))):
        found = pipe([text], top_k=None, function_to_apply=function, windows=True)[0]
        assert {one["label"]: one["score"] for one in found} == pytest.approx(
            dict(zip("abc", scores.tolist(), strict=True)), abs=1e-6
        )
    assert pipe("the film", windows=True) == pipe("the film")
    pair = {"text": "the film", "text_pair": text}
    assert pipe(pair, windows=True) != pipe(pair)


def test_labels_of_ones_own_by_windows(tmp_path: Path) -> None:
    names = ("contradiction", "neutral", "entailment")
    folder = saved(tmp_path, "ForSequenceClassification", 32, names)
    label, pipe = pipeline("zero-shot-classification", folder), pipeline("text-classification", folder, top_k=None)
    text, choices = " ".join(words(90, 6)), ["great", "dull film"]
    found = label([text, "film"], choices, windows=True, hypothesis_template="the {}", multi_label=True)
    assert found[1] == label("film", choices, hypothesis_template="the {}", multi_label=True)
    for name, score in zip(found[0]["labels"], found[0]["scores"], strict=True):
        pair = {"text": text, "text_pair": f"the {name}"}
        raw = {one["label"]: one["score"] for one in pipe(pair, function_to_apply="none", windows=True)}
        both = decode.softmax(np.array([raw["contradiction"], raw["entailment"]]))
        assert score == pytest.approx(float(both[1]), abs=1e-6)


def test_vectors_of_windows(tmp_path: Path) -> None:
    encoder = saved(tmp_path / "encoder", "Model", 32)
    pipe = pipeline("feature-extraction", encoder)
    assert isinstance(pipe, FeatureExtraction)
    text, prompt = " ".join(words(120, 7)), "film great "
    for before in ("", prompt):
        ids = pipe.tokenizer(before + text, verbose=False)["input_ids"]
        made = windows_of(pipe, ids, 32, 1 + 2 * bool(before))
        for pooling in ("mean", "cls"):
            vectors = [decode.pool(pipe.predictor([one])[0]["last_hidden_state"], pooling) for one, _ in made]
            expected = np.average(np.stack(vectors), axis=0, weights=[share for _, share in made])
            options = {"pooling": pooling, "windows": True, "prompt": before or None}
            assert pipe(text, **options) == pytest.approx(expected.tolist(), abs=1e-5)
            given = [TokenIds(pipe.tokenizer(text, verbose=False)["input_ids"])]
            assert pipe(given, **options)[0] == pytest.approx(expected.tolist(), abs=1e-5)
            unit = expected / np.linalg.norm(expected)
            assert pipe(text, normalize=True, **options) == pytest.approx(unit.tolist(), abs=1e-5)
    with pytest.raises(InputError, match="windows needs pooling"):
        pipe(text, windows=True)
    ours = SentenceTransformer(encoder)
    assert ours.encode(text, windows=True) == pytest.approx(pipe(text, pooling="mean", windows=True), abs=1e-6)
    (encoder / "modules.json").write_text(
        '[{"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},'
        '{"idx": 1, "name": "1", "path": "1_P", "type": "sentence_transformers.models.Pooling"},'
        '{"idx": 2, "name": "2", "path": "2_N", "type": "sentence_transformers.models.Normalize"}]'
    )
    unit_vector = SentenceTransformer(encoder).encode(text, windows=True)
    assert np.linalg.norm(unit_vector) == pytest.approx(1.0)  # as it is declared, which the mean of several is not


def test_scores_of_windows(tmp_path: Path) -> None:
    ranker = CrossEncoder(saved(tmp_path, "ForSequenceClassification", 32, ("score",)))
    query, passages = "film great", ["the film", " ".join(words(100, 8))]
    made = [ranker.pipeline(
        {"text": query, "text_pair": one}, windows=True, top_k=None, function_to_apply="sigmoid") for one in passages
    ]  # fmt: skip
    scores = ranker.predict([(query, one) for one in passages], windows=True)
    assert scores.tolist() == pytest.approx([one[0]["score"] for one in made], abs=1e-6)
    assert ranker.rank(query, passages, windows=True)[0]["score"] == pytest.approx(scores.max())


def test_words_of_several_tokens_across_windows(tagger: Pipeline) -> None:
    sentence = ["xyzzyxy", "marie"] * 60
    [found] = tagger(sentence, is_split_into_words=True)
    assert len(found) == 60
    assert isinstance(tagger.stream([sentence], is_split_into_words=True).__next__().features[0], Part)
    assert not issubclass(Part, Tokens)
