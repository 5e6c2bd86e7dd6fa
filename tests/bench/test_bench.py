"""The benchmark on models of a few thousand weights: with no peers, with every peer that is installed, in the shell."""

from __future__ import annotations

import json
import pickle
import re
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import transformers
from click.testing import CliRunner

from pocketbert import cli
from pocketbert.bench import measure
from pocketbert.bench.peers import OURS, PEERS, OnnxRuntime, Peer, Transformers
from pocketbert.bench.roofline import operations, peaks
from pocketbert.bench.subjects import PUBLISHED, Subject, default_subjects, from_folder, with_random_weights
from pocketbert.bench.subjects import subject as subject_of
from pocketbert.bundles import bundled_models
from pocketbert.checkpoints import write_tensors
from pocketbert.configs import PRESETS, BertConfig, MobileBertConfig, PreTrainedConfig, SqueezeBertConfig
from pocketbert.runtime.engine import Engine, backend, native_core
from pocketbert.runtime.quantized_folders import quantize_folder

CONFIGS: dict[str, PreTrainedConfig] = {
    "squeezebert": SqueezeBertConfig(
        vocab_size=99, hidden_size=32, embedding_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=40,
    ),
    "mobilebert": MobileBertConfig(
        vocab_size=99, hidden_size=64, embedding_size=32, intermediate_size=36, intra_bottleneck_size=16,
        num_hidden_layers=2, max_position_embeddings=40,
    ),
    "bert": BertConfig(
        vocab_size=99, hidden_size=32, num_hidden_layers=2, num_attention_heads=4, intermediate_size=64,
        max_position_embeddings=40,
    ),
}  # fmt: skip


measured_once = cache(peaks)


@pytest.fixture(autouse=True)
def one_measurement_of_the_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """It takes seconds, and tests/bench/test_roofline.py looks at it."""
    monkeypatch.setattr(measure, "peaks", lambda all_kernels: {**measured_once()})


@pytest.fixture(params=list(CONFIGS))
def subject(request: pytest.FixtureRequest) -> Subject:
    return with_random_weights(request.param, CONFIGS[request.param])


def test_random_weights_are_those_of_the_model(subject: Subject) -> None:
    family = subject.family.name
    theirs = getattr(transformers, f"{family}Model")(
        getattr(transformers, f"{family}Config").from_dict(subject.config.to_dict())
    )
    assert {name: tensor.shape for name, tensor in subject.tensors.items()} == {
        name: tuple(tensor.shape) for name, tensor in theirs.state_dict().items()
    }


@pytest.mark.parametrize(("name", "giga"), [("SqueezeBERT", 7.40), ("MobileBERT", 5.7), ("BERT-base", 22.5)])
def test_operations_of_the_published_sizes(name: str, giga: float) -> None:
    """At 1×128, as counted elsewhere from the sizes in the papers; a layer stands for all of them here."""
    config = PRESETS[PUBLISHED[name]]
    short = {k: with_random_weights(name, config.replace(num_hidden_layers=k, vocab_size=10)).plan for k in (1, 2)}
    one, two = (operations(plan, [128]) for plan in short.values())
    total = one + (config.num_hidden_layers - 1) * (two - one)
    assert total / 1e9 == pytest.approx(giga, rel=0.03)


def test_operations_of_a_batch(subject: Subject) -> None:
    """Attention grows with the square of each length, all else with their sum."""
    single = [operations(subject.plan, [n]) for n in (5, 9)]
    assert operations(subject.plan, [5, 9]) == sum(single)
    assert operations(subject.plan, [10]) > 2 * single[0] - operations(subject.plan, [0])


def test_without_peers(subject: Subject, tmp_path: Path) -> None:
    steps: list[str] = []
    watched: list[int] = []
    with measure.Bench(tmp_path, (), log=steps.append, watch=lambda rows, _: watched.append(rows[0].passes)) as bench:
        ready = bench.prepare(subject)
        rows = [*bench.shape(subject, ready, (2, 7), seconds=0.0), *bench.shape(subject, ready, (1, 9), seconds=0.0)]
        texts = bench.texts(subject, OURS, measure.random_batch(subject, (3, 5)), "random")
    assert [row.engine for row in rows] == [peer.name for peer in OURS] * 2
    assert [row.engine for row in texts] == [peer.name for peer in OURS]
    assert all(row.median_ms >= row.least_ms > 0 and row.passes >= measure.FEWEST for row in rows)
    assert {row.kernels for row in rows} | {row.kernels for row in texts} == {backend().kernels or "NumPy"}
    assert len(watched) == 2 * measure.FEWEST
    assert watched[: measure.FEWEST] == sorted(watched[: measure.FEWEST])
    assert all(row.tokens == 15 and row.tokens_per_second > 0 for row in texts)
    assert len(steps) > 3
    report = json.loads(json.dumps(bench.report.as_dict()))
    assert [row["length"] for row in report["shapes"]] == [7, 7, 9, 9]
    assert report["disturbed_rows"] == sum(bool(row["disturbed"]) for row in report["shapes"])
    for row, written in zip(rows, report["shapes"], strict=True):
        limit = bench.report.limit_ms(row.model, (row.batch, row.length), row.precision)
        assert (limit is None) == (written["share"] is None) == (native_core() is None)
        assert limit is None or written["share"] == pytest.approx(limit / row.least_ms, abs=1e-4)


def test_a_peak_that_is_measured_again_only_rises(tmp_path: Path) -> None:
    with measure.Bench(tmp_path, (), quick=True) as bench:
        peaks = bench.report.peaks
        before = {name: dict(rates) for name, rates in peaks.items()}
        for rates in peaks.values():
            rates["int8"] = 1.0
        bench.report.measure_peaks()
    assert all(rates["fp32"] >= before[name]["fp32"] for name, rates in peaks.items())
    assert not peaks or bench.report.roofline["int8"] > 1.0


def test_peers_that_cannot_take_part_are_named(tmp_path: Path) -> None:
    absent = Transformers("fp32", needs=("no_such_package",))
    broken = OnnxRuntime("fp32", "split", needs=())
    subject = with_random_weights("squeezebert", CONFIGS["squeezebert"])
    (tmp_path / "file").touch()  # no folder: the export fails
    for quick, reason in ((False, "failed: "), (True, "measured only with --full")):
        with measure.Bench(tmp_path / "file", (absent, broken), quick=quick) as bench:
            assert bench.prepare(subject) == list(OURS)
            missing = bench.report.missing
        assert missing.pop("transformers fp32") == "pip install no_such_package"
        assert [reason in why for why in missing.values()] == [True]


def test_a_model_in_int8_is_measured_as_it_is(folder: Path, tmp_path: Path) -> None:
    quantize_folder(folder, tmp_path / "int8")
    subject = from_folder(tmp_path / "int8")
    assert subject.quantized
    assert not subject.config.quantized
    batch = measure.random_batch(subject, (2, 9))
    own = Engine.from_pretrained(tmp_path / "int8", "Model", threads=1)(batch)
    for copy in (subject, pickle.loads(pickle.dumps(subject))):
        measured = OURS[0].load(copy, tmp_path, None)(batch)
        for one, other in zip(measured, own, strict=True):  # type: ignore[call-overload]
            np.testing.assert_array_equal(one["last_hidden_state"], other["last_hidden_state"])
    light = subject.without_weights()
    assert (light.tensors, light.digest) == ({}, subject.digest)
    assert len(pickle.dumps(light)) < 2000 < len(pickle.dumps(subject))


def test_default_subjects_include_the_bundled_models() -> None:
    names = default_subjects()
    assert set(PUBLISHED) < set(names)
    bundled = [name for name in names if name not in PUBLISHED]
    assert bundled == bundled_models()
    for name in bundled:
        assert subject_of(name).quantized


@pytest.mark.filterwarnings("ignore")  # of the peers'
@pytest.mark.parametrize("peer", [p for p in PEERS if p.precision == "fp32"], ids=lambda p: p.name)
def test_peers_compute_the_same(peer: Peer, subject: Subject, tmp_path: Path) -> None:
    if peer.missing() or not peer.runs(subject):
        pytest.skip(f"needs {peer.missing()}, or is for another model")
    peer.prepare(subject, tmp_path)
    batch = measure.random_batch(subject, (2, 11))
    ours = np.stack([one["last_hidden_state"] for one in OURS[1].load(subject, tmp_path, None)(batch)])  # type: ignore[attr-defined]
    for shape in (None, (2, 11)):
        theirs = np.asarray(next(iter(_arrays(peer.load(subject, tmp_path, shape)(batch)))))
        np.testing.assert_allclose(theirs, ours, atol=2e-3 * np.abs(ours).max())


def _arrays(answer: object) -> list[object]:
    if isinstance(answer, list):
        return answer
    return list(answer.values()) if hasattr(answer, "values") and hasattr(answer, "keys") else [answer]


def test_rounds_end_in_time() -> None:
    times = measure.in_turn({"a": lambda: None, "b": lambda: None}, 50, seconds=0.0)
    assert [len(taken) for taken in times.values()] == [measure.FEWEST] * 2
    assert len(measure.in_turn({"a": lambda: None}, 2)["a"]) == 2


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = with_random_weights("squeezebert", CONFIGS["squeezebert"])
    made.config.save_pretrained(tmp_path / "model")
    write_tensors(tmp_path / "model/model.safetensors", {f"transformer.{name}": x for name, x in made.tensors.items()})
    return tmp_path / "model"


def test_a_folder(folder: Path) -> None:
    made = from_folder(folder)
    assert made.tensors.keys() == with_random_weights("", CONFIGS["squeezebert"]).tensors.keys()
    assert not made.quantized


@pytest.fixture
def no_peaks(monkeypatch: pytest.MonkeyPatch) -> None:
    """They take seconds on a busy machine."""
    monkeypatch.setattr("pocketbert.bench.measure.peaks", lambda all_kernels: {})


@pytest.mark.usefixtures("no_peaks")
def test_the_shell_and_the_picture(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "bench.png"
    monkeypatch.setattr("pocketbert.bench.peers.PEERS", ())  # whatever is installed here
    monkeypatch.setattr("pocketbert.cli.bench.SECONDS", 0.0)
    arguments = ["bench", str(folder), "--batch", "1", "--batch", "2", "--length", "8", "--picture", str(picture)]
    done = CliRunner().invoke(cli.app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout)
    assert {(row["batch"], row["length"]) for row in report["shapes"]} == {(1, 8), (2, 8)}
    assert report["threads"] >= 1
    assert report["complete"]
    assert picture.read_bytes().startswith(b"\x89PNG")
    lines = done.stderr.splitlines()
    assert len(lines) == 4
    assert all(
        re.match(r"model \d×8, PocketBERT (fp32|int8) \(\w+\): median [\d.]+ ms, least ", line) for line in lines
    )


@pytest.mark.usefixtures("no_peaks")
def test_tables(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where no terminal is, too; of 80 columns."""
    monkeypatch.setattr("pocketbert.bench.peers.PEERS", (Transformers("fp32", needs=("no_such_package",)),))
    monkeypatch.setattr("pocketbert.cli.bench.SECONDS", 0.0)
    texts = tmp_path / "texts.txt"
    texts.write_text("the film\n" * 3)
    arguments = ["bench", "sst2", "--length", "8", "--text", str(texts), "--full"]
    monkeypatch.setenv("COLUMNS", "80")
    done = CliRunner().invoke(cli.app, [*arguments, "--table"])
    assert done.exit_code == 0, done.output
    assert max(map(len, done.stdout.splitlines())) <= 80
    text = " ".join(done.stdout.split())
    assert [text.count(title) for title in ("sst2, 1×8 tokens", "sst2, 8×8 tokens")] == [1, 1]
    assert text.count("After Of") == 2
    assert text.count("fastest") == 2
    assert text.count("PocketBERT int8") == 3
    assert "without transformers: pip install no_such_package" in text
    assert "all, unpadded" in text
    assert not done.stderr
