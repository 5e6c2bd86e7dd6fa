"""The benchmark on models of a few thousand weights: with no peers, with every peer that is installed, in the shell."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import transformers
from click.testing import CliRunner

from pocketbert import cli
from pocketbert.bench import measure
from pocketbert.bench.peers import OURS, PEERS, OnnxRuntime, Peer, Transformers
from pocketbert.bench.roofline import operations
from pocketbert.bench.subjects import PUBLISHED, Subject, from_folder, with_random_weights
from pocketbert.checkpoints import write_tensors
from pocketbert.configs import PRESETS, BertConfig, MobileBertConfig, PreTrainedConfig, SqueezeBertConfig
from pocketbert.errors import InputError

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
    said: list[str] = []
    bench = measure.Bench(tmp_path, said.append, peers=())
    rows = bench.shape(subject, bench.prepare(subject), (2, 7), seconds=0.0)
    texts = bench.texts(subject, OURS, measure.random_batch(subject, (3, 5)), "random")
    assert [row.engine for row in rows] == [peer.name for peer in OURS] == [row.engine for row in texts]
    assert all(row.ms > 0 and row.rounds == measure.FEWEST for row in rows)
    assert all(row.tokens == 15 and row.tokens_a_second > 0 for row in texts)
    assert len(said) > 3
    assert json.loads(json.dumps(bench.report.as_dict()))["shapes"][0]["length"] == 7


def test_a_peer_that_is_not_installed_or_fails_is_named(tmp_path: Path) -> None:
    absent = Transformers("fp32", needs=("no_such_package",))
    broken = OnnxRuntime("fp32", "split", needs=())
    subject = with_random_weights("squeezebert", CONFIGS["squeezebert"])
    (tmp_path / "file").touch()
    bench = measure.Bench(tmp_path / "file", peers=(absent, broken))  # no folder: the export fails
    assert bench.prepare(subject) == list(OURS)
    assert "pip install no_such_package" in bench.report.missing["transformers fp32"]
    assert len(bench.report.missing) == 2


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
    config = json.loads((folder / "config.json").read_text())
    config["quantization_config"] = {"quant_method": "pocketbert"}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match="already in int8"):
        from_folder(folder)


def test_the_shell_and_the_picture(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("matplotlib")
    picture = tmp_path / "bench.png"
    monkeypatch.setattr(measure.Bench.__init__, "__defaults__", (str, ()))  # no peers, whatever is installed here
    arguments = ["bench", str(folder), "--batch", "1", "--batch", "2", "--length", "8", "--picture", str(picture)]
    done = CliRunner().invoke(cli.app, [*arguments, "--json"])
    assert done.exit_code == 0, done.output
    report = json.loads(done.stdout.splitlines()[-1])
    assert {(row["batch"], row["length"]) for row in report["shapes"]} == {(1, 8), (2, 8)}
    assert report["threads"] >= 1
    assert picture.read_bytes().startswith(b"\x89PNG")
