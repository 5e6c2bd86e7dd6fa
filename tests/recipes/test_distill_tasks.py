"""Distillation of tags, answers and choices, and of encoders on raw text: from a teacher's folder to a student's."""

import json
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch

from helpers.corpora import write_corpus
from helpers.labelled import PIECES, choices_file, conll_file, squad_file
from helpers.processes import kill_when, newest
from helpers.runs import CONFIGS, TEACHER, contents
from helpers.seeds import SEED
from helpers.tokenizers import tokenizer_of
from pocketbert.configs import AutoConfig, BertConfig
from pocketbert.errors import CheckpointError, ConfigError, DataError
from pocketbert.models.auto import AutoModel, AutoModelForMaskedLM, load_trained
from pocketbert.models.bert import BertModel
from pocketbert.recipes.distill import distill
from pocketbert.recipes.distill_options import DistillOptions
from pocketbert.recipes.finetune import finetune
from pocketbert.recipes.finetune_options import FinetuneOptions
from pocketbert.recipes.search import Between, Space, search
from pocketbert.tokenization import AutoTokenizer

Make = Callable[..., DistillOptions]

FILES: dict[str, Any] = {
    "question-answering": squad_file, "token-classification": conll_file, "multiple-choice": choices_file,
}  # fmt: skip
HEADS = {
    "question-answering": "ForQuestionAnswering", "token-classification": "ForTokenClassification",
    "multiple-choice": "ForMultipleChoice",
}  # fmt: skip
STUDENT = {**CONFIGS["squeezebert"], "vocab_size": len(PIECES), "max_position_embeddings": 64}


def ruined(task: str, data: Path) -> Path:
    """A file of the same inputs whose labels are wrong."""
    wrong = data.with_name(f"wrong{data.suffix}")
    text = data.read_text()
    if task == "token-classification":
        wrong.write_text(text.replace("-PER", "-XXX").replace("-LOC", "-PER").replace("-XXX", "-LOC"))
    elif task == "multiple-choice":
        rows = [json.loads(line) for line in text.splitlines()]
        wrong.write_text("\n".join(json.dumps({**row, "label": (row["label"] + 1) % 3}) for row in rows))
    else:
        content = json.loads(text)
        for paragraph in content["data"][0]["paragraphs"]:
            first, second = paragraph["qas"]
            first["answers"], second["answers"] = second["answers"], first["answers"]
        wrong.write_text(json.dumps(content))
    return wrong


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Configurations, a tokenizer, and for every task data and a teacher that knows it."""
    folder = tmp_path_factory.mktemp("tasks")
    tokenizer_of(PIECES).save_pretrained(folder / "tokenizer")
    teacher = {**TEACHER, "vocab_size": len(PIECES), "max_position_embeddings": 64, "hidden_dropout_prob": 0.0}
    (folder / "teacher.json").write_text(json.dumps({**teacher, "num_hidden_layers": 2}))
    (folder / "student.json").write_text(json.dumps({**STUDENT, "hidden_dropout_prob": 0.0}))
    for task, make in FILES.items():
        suffix = ".jsonl" if task == "multiple-choice" else ".json" if task == "question-answering" else ".txt"
        data, dev = make(folder / f"{task}{suffix}", 60), make(folder / f"{task}-dev{suffix}", 20, seed=1)
        result = finetune(
            FinetuneOptions(
                task=task, data=data, eval_data=dev, output=folder / task, from_scratch=str(folder / "teacher.json"),
                tokenizer=str(folder / "tokenizer"), epochs=12, batch_size=8, learning_rate=5e-3, tensorboard=False,
                seed=SEED,
            )
        )  # fmt: skip
        assert next(iter(result.metrics.values())) > 0.9
    return folder


@pytest.fixture
def make(folder: Path, tmp_path: Path) -> Make:
    """Options of a run of a second, with changes."""

    def options(task: str, **changes: Any) -> DistillOptions:
        [data] = folder.glob(f"{task}.*")
        [dev] = folder.glob(f"{task}-dev.*")
        defaults: dict[str, Any] = {
            "task": task, "data": data, "eval_data": dev, "output": tmp_path / "out", "teacher": (str(folder / task),),
            "from_scratch": str(folder / "student.json"), "epochs": 12, "batch_size": 8, "learning_rate": 5e-3,
            "tensorboard": False, "seed": SEED,
        }  # fmt: skip
        return DistillOptions(**{**defaults, **changes})

    return options


@pytest.mark.learning
@pytest.mark.parametrize("task", FILES)
def test_a_student_says_what_its_teacher_says_and_not_what_the_labels_do(
    make: Make, task: str, folder: Path, tmp_path: Path
) -> None:
    [data] = folder.glob(f"{task}.*")
    result = distill(make(task, data=ruined(task, data), alpha=1.0, temperature=2.0, hidden_weight=0.5))
    assert next(iter(result.metrics.values())) > 0.9
    assert sorted(path.name for path in (result.folder / "teachers" / "teacher-0").iterdir()) == [
        "cache.json", "shard-00000.safetensors",
    ]  # fmt: skip
    again = distill(make(task, output=tmp_path / "beside", epochs=1, attention_weight=0.1))
    assert np.isfinite(next(iter(again.metrics.values())))
    assert not (again.folder / "teachers").exists()


@pytest.mark.slow
def test_tags_are_matched_by_name(make: Make, folder: Path, tmp_path: Path) -> None:
    model = load_trained(str(folder / "token-classification"), "ForTokenClassification")
    order = list(range(model.config.num_labels))[::-1]
    with torch.no_grad():
        for parameter in (model.classifier.weight, model.classifier.bias):
            parameter.copy_(parameter[order].clone())
    names = [model.config.id2label[i] for i in order]
    model.config = model.config.replace(id2label=dict(enumerate(names)))
    model.save_pretrained(tmp_path / "other")
    AutoTokenizer.from_pretrained(folder / "tokenizer").save_pretrained(tmp_path / "other")
    one = distill(make("token-classification", output=tmp_path / "a", epochs=2))
    two = distill(make("token-classification", output=tmp_path / "b", epochs=2, teacher=(str(tmp_path / "other"),)))
    assert two.history == one.history

    model.config = model.config.replace(id2label={i: f"LABEL_{i}" for i in order})
    model.save_pretrained(tmp_path / "unnamed")
    AutoTokenizer.from_pretrained(folder / "tokenizer").save_pretrained(tmp_path / "unnamed")
    unnamed = (str(tmp_path / "unnamed"),)
    with pytest.raises(ConfigError, match=r"LABEL_0.*B-LOC.*--teacher-labels"):
        distill(make("token-classification", output=tmp_path / "c", teacher=unnamed))
    named = make("token-classification", output=tmp_path / "d", teacher=unnamed, teacher_labels=tuple(names), epochs=2)
    assert distill(named).history == one.history


def test_teachers_of_other_tasks_are_refused(make: Make, folder: Path) -> None:
    with pytest.raises(CheckpointError, match=r"multiple-choice is a Bert\S+: use a .*ForTokenClassification"):
        distill(make("token-classification", teacher=(str(folder / "multiple-choice"),)))


def test_a_vocabulary_of_the_most_used_pieces(make: Make) -> None:
    result = distill(make("question-answering", keep_vocabulary=len(PIECES) - 3, epochs=1))
    kept = AutoTokenizer.from_pretrained(result.folder).get_vocab()
    assert len(kept) == len(PIECES) - 3
    assert kept.keys() < set(PIECES)
    assert not {"one", "two"} & kept.keys()  # no text has them


# ── raw text ──


@pytest.fixture(scope="module")
def corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_corpus(tmp_path_factory.mktemp("corpus"))


@pytest.fixture
def text(corpus: Path, tmp_path: Path) -> Make:
    """Options of a run on raw text, with changes."""
    words = AutoTokenizer.from_pretrained(corpus)
    if not (tmp_path / "encoder").exists():
        torch.manual_seed(3)
        config = BertConfig.from_dict({**TEACHER, "vocab_size": len(words), "max_position_embeddings": 32})
        BertModel(config).save_pretrained(tmp_path / "encoder")
        words.save_pretrained(tmp_path / "encoder")
    (tmp_path / "student.json").write_text(json.dumps({**STUDENT, "hidden_size": 16, "embedding_size": 16}))
    wide = {**STUDENT, "num_hidden_layers": 4, "intermediate_size": 64, "max_position_embeddings": 32}
    (tmp_path / "wide.json").write_text(json.dumps(wide))

    def options(**changes: Any) -> DistillOptions:
        defaults: dict[str, Any] = {
            "task": "feature-extraction", "data": corpus, "output": tmp_path / "out", "epochs": 2, "batch_size": 8,
            "teacher": (str(tmp_path / "encoder"),), "hidden_weight": 1.0, "attention_weight": 0.5, "max_length": 16,
            "from_scratch": str(tmp_path / "student.json"), "learning_rate": 1e-2, "tensorboard": False, "seed": SEED,
        }  # fmt: skip
        return DistillOptions(**{**defaults, **changes})

    return options


def test_an_encoder_from_raw_text(text: Make, tmp_path: Path) -> None:
    result = distill(text(), argv=["pocketbert", "distill"])
    first, last = result.history[0], result.history[-1]
    assert list(result.metrics) == ["loss", "hidden_loss", "attention_loss"]
    assert last["hidden_loss"] < first["hidden_loss"] < 2.0
    assert last["loss"] == pytest.approx(last["hidden_loss"] + 0.5 * last["attention_loss"], rel=1e-4)
    model = AutoModel.from_pretrained(result.folder)
    assert type(model).__name__ == "SqueezeBertModel"
    run = json.loads((result.folder / "run.json").read_text())
    assert run["data"].keys() == {"train", "held-out"}
    card = (result.folder / "README.md").read_text()
    assert "pipeline_tag: feature-extraction" in card
    # What came out is where the others begin.
    rows = [("w1 w2", "a"), ("w4 w6", "b")] * 12
    (tmp_path / "a.csv").write_text("text,label\n" + "\n".join(map(",".join, rows)))
    tuned = finetune(
        FinetuneOptions(data=tmp_path / "a.csv", model=str(result.folder), output=tmp_path / "b", epochs=1)
    )
    assert AutoConfig.from_pretrained(tuned.folder).architectures == ["SqueezeBertForSequenceClassification"]
    further = distill(text(output=tmp_path / "c", from_scratch=None, model=str(result.folder), epochs=0.1))
    assert further.history[0]["attention_loss"] < first["attention_loss"]  # the projection begins anew


@pytest.mark.parametrize("copies", [0.0, 0.3])
def test_the_words_are_there_and_masks_in_copies_alone(text: Make, copies: float) -> None:
    from pocketbert.tasks.raw_text import RawText

    options = text(accumulation=3)
    raw = RawText(options)
    words = AutoTokenizer.from_pretrained(options.data)
    encoded = replace(raw.encode(words, BertConfig(), 16), copies=copies)
    batches = encoded.batches(batch_size=16, parts=3, seed=options.seed)
    assert batches.batches_before(0) == 0
    shards = [raw.corpora["train"].shards[i].tokens.tolist() for i in range(len(raw.corpora["train"].shards))]
    known = {tuple(shard[i : i + 2]) for shard in shards for i in range(len(shard) - 1)}
    parts = batches(0)
    assert sum(len(part["starts"]) - 1 for part in parts) == 16
    for part in parts:
        assert words.mask_token_id not in part["input_ids"]
        for start, end in pairwise(part["starts"].tolist()):
            inside = part["input_ids"][start:end].tolist()[1:-1]
            assert all(pair in known for pair in pairwise(inside))
            assert part["position_ids"][start:end].tolist() == list(range(end - start))
        assert ("copy_ids" in part) == (copies > 0)
        if copies:
            starts, positions = part["copy_starts"], part["masked_positions"]
            assert len(starts) - 1 == round(0.3 * (len(part["starts"]) - 1))
            original = part["input_ids"][: starts[-1]]
            np.testing.assert_array_equal(part["masked_labels"], original[positions])
            others = np.setdiff1d(np.arange(starts[-1]), positions)
            np.testing.assert_array_equal(part["copy_ids"][others], original[others])
            assert words.mask_token_id in part["copy_ids"][positions]
    again = batches(0)
    for a, b in zip(parts, again, strict=True):
        for name, array in a.items():
            np.testing.assert_array_equal(b[name], array)


def test_kinds_of_texts_merged_into_one_micro_batch(text: Make) -> None:
    """The same examples, and the same masked copies, which are of the first ones."""
    from pocketbert.tasks.raw_text import RawText

    options = text()
    raw = RawText(options)
    words = AutoTokenizer.from_pretrained(options.data)
    encoded = replace(raw.encode(words, BertConfig(), 24), short=0.25, pairs=0.4, copies=0.5)

    def examples(part: dict[str, Any], ids: str, starts: str) -> list[tuple[Any, ...]]:
        names = (ids, "token_type_ids", "position_ids")
        return [tuple(map(tuple, (part[n][a:b].tolist() for n in names))) for a, b in pairwise(part[starts].tolist())]

    for step in range(3):
        apart = encoded.batches(batch_size=20, parts=1, seed=SEED)(step)
        [one] = replace(encoded, merges=True).batches(batch_size=20, parts=1, seed=SEED)(step)
        assert len(apart) > 2
        wanted = sorted(example for part in apart for example in examples(part, "input_ids", "starts"))
        assert sorted(examples(one, "input_ids", "starts")) == wanted
        copies = [copy for part in apart if "copy_ids" in part for copy in examples(part, "copy_ids", "copy_starts")]
        assert examples(one, "copy_ids", "copy_starts") == copies
        restored = one["copy_ids"].copy()
        restored[one["masked_positions"]] = one["masked_labels"]
        np.testing.assert_array_equal(restored, one["input_ids"][: len(restored)])


def test_short_sentences_among_the_long_examples(text: Make) -> None:
    from pocketbert.tasks.raw_text import RawText

    options = text()
    raw = RawText(options)
    words = AutoTokenizer.from_pretrained(options.data)
    encoded = replace(raw.encode(words, BertConfig(), 24), short=0.25, copies=0.5)
    batches = encoded.batches(batch_size=16, parts=2, seed=options.seed)
    long, short = 0, 0
    known = {
        tuple(shard.tokens[a:b].tolist()) for shard in raw.corpora["train"].shards for a, b in pairwise(shard.sentences)
    }
    inner = {i for token, i in words.get_vocab().items() if token.startswith("##")}
    for step in range(30):
        *parts, last = batches(step)
        assert [len(part["starts"]) - 1 for part in parts] == [6, 6]
        long += sum(len(part["input_ids"]) for part in parts)
        short += len(last["input_ids"])
        assert len(last["copy_starts"]) - 1 == round(0.5 * (len(last["starts"]) - 1))
        for start, end in pairwise(last["starts"].tolist()):
            sentence = last["input_ids"][start + 1 : end - 1].tolist()
            if len(sentence) < 22:  # otherwise truncated
                assert tuple(sentence) in known
                assert 3 <= sum(token not in inner for token in sentence) <= 20
    assert short / (16 * 24 * 30) == pytest.approx(0.25, abs=0.05)
    assert long / (16 * 24 * 30) < 0.75


def test_pairs_of_segments_among_the_examples(text: Make) -> None:
    from pocketbert.tasks.raw_text import RawText

    options = text()
    raw = RawText(options)
    words = AutoTokenizer.from_pretrained(options.data)
    encoded = replace(raw.encode(words, BertConfig(), 24), pairs=0.75, copies=0.5)
    batches = encoded.batches(batch_size=16, parts=2, seed=options.seed)
    following = {
        tuple(shard.tokens[i : i + 2].tolist())
        for shard in raw.corpora["train"].shards
        for i in range(len(shard.tokens) - 1)
    }
    tokens, goes_on, pairs = [0, 0], 0, 0
    shared: list[float] = []
    for step in range(30):
        *parts, long, short, augmented = batches(step)
        assert [len(part["starts"]) - 1 for part in parts] == [2, 2]
        assert not any(part["token_type_ids"].any() for part in parts)
        for number, (part, most) in enumerate(((long, 24), (short, 8))):
            assert "pair_labels" not in part
            tokens[number] += len(part["input_ids"])
            for start, end in pairwise(part["starts"].tolist()):
                ids, segments = part["input_ids"][start:end].tolist(), part["token_type_ids"][start:end].tolist()
                first = segments.index(1)
                assert end - start <= most
                assert segments == [0] * first + [1] * (end - start - first)
                assert ids[first - 1] == ids[-1] == words.sep_token_id
                goes_on += (ids[first - 2], ids[first]) in following
                pairs += 1
        assert "copy_ids" not in augmented
        for start, end in pairwise(augmented["starts"].tolist()):
            ids, first = augmented["input_ids"][start:end], augmented["token_type_ids"][start:end].tolist().index(1)
            assert augmented["position_ids"][start:end].tolist() == list(range(end - start))
            original, copy = ids[1 : first - 1], ids[first:-1]
            assert ids[first - 1] == ids[-1] == words.sep_token_id
            assert 1 <= len(copy) <= len(original)
            shared.append(np.isin(copy, original).mean())
        for one, other in zip(batches(step)[-1].values(), augmented.values(), strict=True):
            np.testing.assert_array_equal(one, other)
    assert tokens[0] / (16 * 24 * 30) == pytest.approx(0.25, abs=0.08)
    assert tokens[1] / (16 * 24 * 30) == pytest.approx(0.25, abs=0.08)
    assert 0 < goes_on < pairs  # a run of one sentence is always followed by other text
    assert min(shared) < 0.7 < max(shared) == 1.0


def test_masked_words_beside_distillation(text: Make, tmp_path: Path) -> None:
    changes: dict[str, Any] = {"attention_weight": 0.0, "sentence_weight": 0.5, "word_weight": 0.2, "epochs": 1}
    result = distill(text(**changes))
    names = ["loss", "hidden_loss", "sentence_loss", "masked_loss", "masked_accuracy"]
    assert list(result.metrics) == names
    last = result.history[-1]
    wanted = last["hidden_loss"] + 0.5 * last["sentence_loss"] + 0.2 * last["masked_loss"]
    assert last["loss"] == pytest.approx(wanted, rel=1e-4)
    # The encoder and its word head are in one folder.
    assert AutoConfig.from_pretrained(result.folder).architectures == ["SqueezeBertForMaskedLM"]
    _, info = AutoModelForMaskedLM.from_pretrained(result.folder, output_loading_info=True)
    assert info == {"missing_keys": [], "mismatched_keys": [], "unexpected_keys": []}
    assert type(AutoModel.from_pretrained(result.folder)).__name__ == "SqueezeBertModel"
    # A new run goes on from the weights alone.
    changes |= {"from_scratch": None, "model": str(result.folder), "epochs": 0.1}
    assert np.isfinite(distill(text(output=tmp_path / "b", **changes)).metrics["loss"])


def test_pair_loss_is_the_error_of_the_teachers_cosine() -> None:
    from pocketbert.training.pair_loss import PairHead, pair_loss, pairs_of, segments_apart

    rng = np.random.default_rng()
    texts = [(rng.integers(5, 60, a).tolist(), rng.integers(5, 60, b).tolist()) for a, b in rng.integers(1, 9, (5, 2))]
    texts[2] = (texts[2][0], [])  # a single segment
    ids, segments, starts = [], [], [0]
    for one, other in texts:
        ids += [2, *one, 3] + ([*other, 3] if other else [])
        segments += [0] * (len(one) + 2) + ([1] * (len(other) + 1) if other else [])
        starts.append(len(ids))
    batch = {"input_ids": torch.tensor(ids), "token_type_ids": torch.tensor(segments), "starts": torch.tensor(starts)}
    assert pairs_of(batch).tolist() == [0, 1, 3, 4]
    apart = segments_apart(batch, pairs_of(batch))
    paired = [pair for pair in texts if pair[1]]
    wanted = [[2, *one, 3] for one, _ in paired] + [[2, *other, 3] for _, other in paired]
    bounds = pairwise(apart["starts"].tolist())
    assert [apart["input_ids"][a:b].tolist() for a, b in bounds] == wanted
    assert apart["position_ids"].tolist() == [i for text in wanted for i in range(len(text))]
    assert not apart["token_type_ids"].any()

    table, hidden, head = torch.randn(60, 7), torch.randn(len(ids), 6), PairHead(6)

    def vectors(packed: Any) -> torch.Tensor:
        bounds = pairwise(packed["starts"].tolist())
        return torch.stack([table[packed["input_ids"][a:b]].mean(0) for a, b in bounds])

    errors = [
        head(hidden[[start]])[0]
        - torch.cosine_similarity(table[[2, *one, 3]].mean(0), table[[2, *other, 3]].mean(0), dim=0)
        for (one, other), start in zip(texts, starts[:-1], strict=True)
        if other
    ]
    loss = pair_loss(head, hidden, batch, vectors)
    torch.testing.assert_close(loss, torch.stack(errors).square().sum())
    single = {"input_ids": torch.tensor([2, 7, 3]), "token_type_ids": torch.tensor([0, 0, 0])}
    single["starts"] = torch.tensor([0, 3])
    assert pair_loss(head, hidden, single, vectors) == 0


def test_similarities_are_judged_during_a_run(text: Make, tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    words = [f"w{3 * i}" for i in range(1, 200)]
    pairs = [
        (" ".join(random.choice(words, 3)), " ".join(random.choice(words, 4)), 5 * random.random()) for _ in range(30)
    ]
    rows = "".join(f"{a}\t{b}\t{score}\n" for a, b, score in pairs)
    for name in ("dev", "other"):
        (tmp_path / f"{name}.tsv").write_text(f"sentence1\tsentence2\tscore\n{rows}")
    files = (str(tmp_path / "dev.tsv"), str(tmp_path / "other.tsv"))
    changes: dict[str, Any] = {"epochs": 0.3, "eval_every": 2, "similarity_data": files, "attention_weight": 0.0}
    result = distill(text(metric="dev_spearman", **changes))
    assert list(result.metrics) == ["loss", "hidden_loss", "dev_spearman", "other_spearman"]
    assert result.metrics["dev_spearman"] == max(entry["dev_spearman"] for entry in result.history)

    model, tokenizer = AutoModel.from_pretrained(result.folder), AutoTokenizer.from_pretrained(result.folder)
    cosines = []
    for a, b, _ in pairs:
        with torch.no_grad():
            one, two = (model(torch.tensor([tokenizer(t)["input_ids"]])).last_hidden_state[0].mean(0) for t in (a, b))
        cosines.append(torch.cosine_similarity(one, two, dim=0).item())
    wanted = scipy.stats.spearmanr(cosines, [score for *_, score in pairs]).statistic
    assert result.metrics["dev_spearman"] == pytest.approx(wanted, abs=1e-3)

    plain = distill(text(output=tmp_path / "plain", **changes | {"similarity_data": ()}))
    assert result.history[-1]["loss"] == plain.history[-1]["loss"]
    with pytest.raises(ConfigError, match=r"similarity: was .*other\.tsv"):
        distill(text(resume=True, metric="dev_spearman", **changes | {"similarity_data": files[:1]}))
    (tmp_path / "words.tsv").write_text("sentence1\tsentence2\tscore\nw1\tw2\thigh\n")
    with pytest.raises(DataError, match=r"words\.tsv, line 2: the label 'high' is not a number"):
        distill(text(output=tmp_path / "b", similarity_data=(str(tmp_path / "words.tsv"),)))
    (tmp_path / "single.tsv").write_text("text\tscore\nw1\t2.5\n")
    with pytest.raises(DataError, match=r"single\.tsv: has no pairs of texts"):
        distill(text(output=tmp_path / "b", similarity_data=(str(tmp_path / "single.tsv"),)))


RESUMED: dict[str, dict[str, Any]] = {
    "states": {},
    "words": {
        "attention_weight": 0.0, "sentence_weight": 0.5, "word_weight": 0.2, "short_share": 0.25, "pair_share": 0.4,
        "pair_weight": 2.0,
    },
    "local": {"attention_weight": 0.0, "layer_local": True, "freeze": "embeddings", "from_scratch": "wide.json"},
    "relations": {"hidden_weight": 0.0, "attention_weight": 0.0, "relation_weight": 1.0, "relation_heads": 4},
}  # fmt: skip


@pytest.mark.parametrize(
    "name", ["states", *(pytest.param(name, marks=pytest.mark.slow) for name in RESUMED if name != "states")]
)
def test_raw_text_is_resumed_bit_for_bit(text: Make, tmp_path: Path, name: str) -> None:
    changes: dict[str, Any] = {"epochs": 1, "eval_every": 3, **RESUMED[name]}
    if "from_scratch" in changes:
        changes["from_scratch"] = str(tmp_path / changes["from_scratch"])
    whole = distill(text(output=tmp_path / "whole", **changes))
    broken = text(output=tmp_path / "broken", resume=True, **changes)
    states = tmp_path / "broken" / "checkpoints"
    kill_when(lambda: newest(states) > 0, distill, broken)
    result = distill(broken)
    assert result.history == whole.history
    assert contents(result.folder) == contents(whole.folder)


def test_embeddings_are_frozen_and_free_later(text: Make, tmp_path: Path) -> None:
    length: dict[str, Any] = {"schedule": "constant", "warmup_steps": 1, "eval_every": 2, "attention_weight": 0.0}
    changes: dict[str, Any] = {"from_scratch": str(tmp_path / "wide.json"), "init": "copy", **length}
    first = distill(text(output=tmp_path / "a", freeze="embeddings", layer_local=True, max_steps=4, **changes))
    start = AutoModel.from_pretrained(tmp_path / "encoder").state_dict()
    frozen = AutoModel.from_pretrained(first.folder / "last").state_dict()
    for name, tensor in frozen.items():
        if name.startswith("embeddings."):
            assert torch.equal(tensor, start[name][: len(tensor)]), name
    moved = [name for name in start.keys() & frozen.keys() if not torch.equal(start[name], frozen[name])]
    assert not any(name.startswith("embeddings.") for name in moved)

    second = distill(text(output=tmp_path / "b", resume_from=first.folder, max_steps=8, **changes))
    assert [entry["step"] for entry in second.history] == [4, 6, 8]
    free = AutoModel.from_pretrained(second.folder / "last").state_dict()
    for name, tensor in free.items():
        assert torch.equal(tensor, frozen[name]) == name.startswith("pooler."), name


def test_what_is_wrong_with_raw_text(text: Make, make: Make, tmp_path: Path, folder: Path) -> None:
    with pytest.raises(DataError, match=r"not a prepared corpus .* pocketbert prepare SOURCES"):
        distill(text(data=tmp_path / "encoder"))
    stranger = (str(folder / "multiple-choice"),)
    with pytest.raises(DataError, match="another vocabulary"):
        distill(text(output=tmp_path / "a", tokenizer=str(folder / "tokenizer"), teacher=stranger))
    with pytest.raises(ConfigError, match="lacks"):
        distill(text(output=tmp_path / "b", teacher=stranger))
    with pytest.raises(ConfigError, match=r"reads at most 32: lower --max-length"):
        distill(text(output=tmp_path / "c", max_length=40))


@pytest.mark.slow
def test_a_killed_search_ends_as_any_other(make: Make, tmp_path: Path) -> None:
    space: Space = {"alpha": Between(0.1, 0.9), "epochs": (1.0, 2.0)}
    whole = search(distill, make("multiple-choice", output=tmp_path / "whole"), space, 3)
    broken = make("multiple-choice", output=tmp_path / "broken", resume=True)
    second = tmp_path / "broken" / "trial-0001" / "checkpoints"
    kill_when(lambda: newest(second) > 0, search, distill, broken, space, 3)
    result = search(distill, broken, space, 3)
    assert [vars(trial) for trial in result.trials] == [vars(trial) for trial in whole.trials]
    assert result.best == whole.best
    assert (tmp_path / "broken" / "search.png").stat().st_size > 0


def test_a_student_that_begins_by_least_squares(text: Make, corpus: Path, tmp_path: Path) -> None:
    shape = {name: TEACHER[name] for name in ("hidden_size", "num_attention_heads", "intermediate_size")}
    groups = dict.fromkeys(("q_groups", "k_groups", "v_groups", "intermediate_groups", "output_groups"), 2)
    student = {**STUDENT, **shape, **groups, "embedding_size": shape["hidden_size"], "num_hidden_layers": 4}
    (tmp_path / "wide.json").write_text(json.dumps(student))
    changes = {
        "from_scratch": str(tmp_path / "wide.json"),
        "attention_weight": 0.0,
        "learning_rate": 1e-9,
        "epochs": 0.1,
    }
    first, again, copied = (
        distill(text(**changes, init=init, init_tokens=3000, output=tmp_path / name))
        for name, init in (("a", "refit"), ("b", "refit"), ("c", "copy"))
    )
    assert first.metrics == again.metrics
    assert first.metrics["hidden_loss"] < 0.8 * copied.metrics["hidden_loss"]
    assert contents(first.folder / "last") == contents(again.folder / "last")
    with pytest.raises(
        DataError, match=r"has 3,600 tokens in 'train', too few for --init-tokens 4,000: .*lower --init-tokens"
    ):
        distill(text(**changes, init="refit", init_tokens=4000, output=tmp_path / "d"))
    with pytest.raises(ConfigError, match="the teacher's hidden_size: 32, not 16"):
        distill(text(init="refit", init_tokens=3000, output=tmp_path / "e"))
