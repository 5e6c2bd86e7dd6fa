from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from pocketbert.configs import BertConfig
from pocketbert.data.batches import BatchOrder, LabelledBatches
from pocketbert.errors import CheckpointError, ConfigError
from pocketbert.features import Features, pad
from pocketbert.models.bert import BertForSequenceClassification
from pocketbert.training import teachers
from pocketbert.training.distillation import Distillation, run_teacher
from pocketbert.training.settings import DistillationWeights
from pocketbert.training.teachers import BatchesWithTeacher, TeacherCache

CONFIG = BertConfig(
    vocab_size=40, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=16,
    max_position_embeddings=16, initializer_range=0.3,
)  # fmt: skip
PAIRS = ((0, 0), (1, 2))


def teacher(seed: int = 0) -> BertForSequenceClassification:
    torch.manual_seed(seed)
    return BertForSequenceClassification(CONFIG).eval()


def examples(count: int = 23, seed: int = 0) -> list[Features]:
    random = np.random.default_rng(seed)
    ids = [random.integers(1, 40, size=random.integers(2, 12), dtype=np.int32) for _ in range(count)]
    return [Features(i, np.zeros_like(i)) for i in ids]


@pytest.fixture(autouse=True)
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(teachers, "SHARD", 10)


def filled(folder: Path, features: list[Features], seed: int = 0) -> TeacherCache:
    cache = TeacherCache(folder, teacher(seed), features, [0, 2], bf16=False)
    cache.fill()
    cache.open()
    return cache


def test_what_was_said_is_what_would_be_said(tmp_path: Path) -> None:
    features = examples()
    cache = filled(tmp_path, features)
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "cache.json", "shard-00000.safetensors", "shard-00001.safetensors", "shard-00002.safetensors",
    ]  # fmt: skip
    order = BatchOrder([len(one) for one in features], batch_size=7, seed=1)
    labels = {"labels": np.zeros(len(features), dtype=np.int64)}
    batches = BatchesWithTeacher(LabelledBatches(features, labels, order, parts=2), [(cache, [0, 2])])
    terms = DistillationWeights(alpha=1.0, temperature=2.0, hidden_weight=1.0)
    student = teacher(5)
    from_disk = Distillation(student, terms, pairs=[PAIRS], widths=[16])
    live = Distillation(student, terms, pairs=[PAIRS], widths=[16], teachers=[teacher()])
    for step in range(4):
        for part in batches(step):
            tensors = {name: torch.from_numpy(array) for name, array in part.items()}
            totals = live.units(part)
            asked = {name: tensors[name] for name in ("input_ids", "attention_mask", "token_type_ids")}
            said = run_teacher(teacher(), asked, PAIRS, terms)
            torch.testing.assert_close(tensors["teacher_logits"][:, 0], said.logits, rtol=1e-4, atol=1e-5)
            student.eval()
            with torch.no_grad():
                a, b = from_disk(tensors, totals), live(tensors, totals)
            for name, value in a.items():
                assert value.item() == pytest.approx(b[name].item(), rel=2e-3), name


def test_each_text_is_asked_about_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    features = examples()
    asked = []
    real = TeacherCache._run

    def counting(self: TeacherCache, start: int, stop: int) -> dict[str, np.ndarray]:
        asked.append((start, stop))
        if len(asked) == 2:
            raise MemoryError
        return real(self, start, stop)

    monkeypatch.setattr(TeacherCache, "_run", counting)
    with pytest.raises(MemoryError):
        filled(tmp_path, features)
    with pytest.raises(CheckpointError, match="missing or damaged"):
        TeacherCache(tmp_path, teacher(), features, [0, 2], bf16=False).open()
    broken = filled(tmp_path, features)
    assert asked == [(0, 10), (10, 20), (10, 20), (20, 23)]
    whole = filled(tmp_path / "whole", features)
    everything = np.arange(len(features))
    np.testing.assert_array_equal(broken.logits(everything), whole.logits(everything))
    indices = np.array([22, 0, 10, 9])
    np.testing.assert_array_equal(broken.hidden(indices, 2), whole.hidden(indices, 2))
    asked.clear()
    filled(tmp_path, features)
    assert not asked


def test_no_answer_depends_on_the_others(tmp_path: Path) -> None:
    features = examples()
    whole = filled(tmp_path / "a", features)
    backwards = filled(tmp_path / "b", features[::-1])
    everything = np.arange(len(features))
    np.testing.assert_allclose(backwards.logits(everything[::-1]), whole.logits(everything), rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        one = teacher()(**{name: torch.from_numpy(array) for name, array in pad([features[3]]).items()}).logits
    np.testing.assert_allclose(whole.logits(np.array([3]))[0], one[0].numpy(), rtol=1e-5, atol=1e-6)


def test_a_cache_of_something_else_is_refused(tmp_path: Path) -> None:
    features = examples()
    filled(tmp_path, features)
    changes: list[tuple[str, dict[str, Any]]] = [
        ("data", {"features": examples(seed=1)}),
        ("teacher", {"teacher": teacher(1)}),
        ("layers", {"layers": [0, 1]}),
        ("precision", {"bf16": True}),
    ]
    for name, wrong in changes:
        given: dict[str, Any] = {"teacher": teacher(), "features": features, "layers": [0, 2], "bf16": False, **wrong}
        with pytest.raises(ConfigError, match=rf"other data(?s:.*){name}: was .*, now "):
            TeacherCache(tmp_path, **given)


def test_damage_is_reported(tmp_path: Path) -> None:
    features = examples()
    filled(tmp_path, features)
    (tmp_path / "shard-00001.safetensors").write_bytes(b"nothing")
    with pytest.raises(CheckpointError, match="remove the folder"):
        TeacherCache(tmp_path, teacher(), features, [0, 2], bf16=False).open()
    (tmp_path / "cache.json").write_text("{")
    with pytest.raises(CheckpointError):
        TeacherCache(tmp_path, teacher(), features, [0, 2], bf16=False)
