import json
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tensorflow_writer
import torch
from transformers import (
    BertConfig,
    BertForPreTraining,
    MobileBertConfig,
    MobileBertForPreTraining,
    SqueezeBertConfig,
    SqueezeBertForMaskedLM,
)

import pocketbert
from pocketbert.checkpoints import read_config, read_tensors, write_tensors
from pocketbert.checkpoints.names import name_tables, tensorflow_name
from pocketbert.errors import CheckpointError

TINY = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2, "intermediate_size": 8, "vocab_size": 9}
MODELS: dict[str, Callable[[], Any]] = {
    "bert": lambda: BertForPreTraining(BertConfig(**TINY)),
    "mobilebert": lambda: MobileBertForPreTraining(
        MobileBertConfig(**TINY, embedding_size=4, intra_bottleneck_size=4, classifier_activation=False)
    ),
    "squeezebert": lambda: SqueezeBertForMaskedLM(SqueezeBertConfig(**TINY, embedding_size=8)),
}


def assert_same(found: dict[str, np.ndarray], wanted: dict[str, torch.Tensor]) -> None:
    assert found.keys() == wanted.keys()
    for name, tensor in wanted.items():
        np.testing.assert_array_equal(found[name], tensor.numpy())


class TestFormats:
    @pytest.fixture(params=MODELS)
    def model(self, request: pytest.FixtureRequest) -> Any:
        return MODELS[request.param]()

    def test_a_folder_of_transformers(self, tmp_path: Path, model: Any) -> None:
        model.save_pretrained(tmp_path)
        tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
        wanted = {name: tensor for name, tensor in model.state_dict().items() if name not in tied}
        assert_same(read_tensors(tmp_path), wanted)
        assert read_config(tmp_path)["model_type"] == model.config.model_type

    def test_shards_of_transformers(self, tmp_path: Path, model: Any) -> None:
        model.save_pretrained(tmp_path, max_shard_size="2KB")
        assert (tmp_path / "model.safetensors.index.json").exists()
        tied = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}
        assert_same(read_tensors(tmp_path), {n: t for n, t in model.state_dict().items() if n not in tied})

    def test_a_pytorch_file(self, tmp_path: Path, model: Any) -> None:
        for as_zip in (True, False):
            torch.save(model.state_dict(), tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=as_zip)
            assert_same(read_tensors(tmp_path), model.state_dict())

    def test_pytorch_shards(self, tmp_path: Path, model: Any) -> None:
        table = {}
        for n, (name, tensor) in enumerate(model.state_dict().items()):
            torch.save({name: tensor.clone()}, tmp_path / f"pytorch_model-{n}.bin")
            table[name] = f"pytorch_model-{n}.bin"
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": table}))
        assert_same(read_tensors(tmp_path), model.state_dict())

    @pytest.mark.parametrize("family", ["bert", "mobilebert"])
    def test_a_tensorflow_checkpoint(self, tmp_path: Path, family: str) -> None:
        state = MODELS[family]().state_dict()
        wanted = {name: tensor for name, tensor in state.items() if "decoder" not in name}
        theirs = {"global_step": np.array(3)}
        for name, tensor in wanted.items():
            rule = tensorflow_name(name, family)
            assert rule is not None
            theirs[rule.tensorflow] = tensor.numpy().T if rule.transposed else tensor.numpy()
            theirs[f"{rule.tensorflow}/adam_m"] = np.zeros(1)
        tensorflow_writer.write_bundle(tmp_path / "model.ckpt-3", theirs, shards=2)
        for place in (tmp_path, tmp_path / "model.ckpt-3", tmp_path / "model.ckpt-3.index"):
            assert_same(read_tensors(place), wanted)

    def test_a_kernel_that_is_none(self, tmp_path: Path) -> None:
        tensorflow_writer.write_bundle(tmp_path / "m", {"bert/pooler/dense/kernel": np.zeros(3)})
        with pytest.raises(CheckpointError, match="bert/pooler/dense/kernel has 1 dimensions, not 2"):
            read_tensors(tmp_path)

    def test_the_table_transposes_what_tensorflow_keeps_as_kernels(self) -> None:
        kernels = {rule.tensorflow for table in name_tables().values() for rule in table.rules if rule.transposed}
        others = {rule.tensorflow for table in name_tables().values() for rule in table.rules if not rule.transposed}
        assert {name.rsplit("/", 1)[1] for name in kernels} == {"kernel", "extra_output_weights"}
        assert not any(name.endswith("kernel") for name in others)


class TestChoice:
    def test_the_best_format_wins(self, tmp_path: Path) -> None:
        tensorflow_writer.write_bundle(tmp_path / "m", {"output_bias": np.array([1.0], np.float32)})
        assert read_tensors(tmp_path)["classifier.bias"].tolist() == [1]
        torch.save({"classifier.bias": torch.tensor([2.0])}, tmp_path / "pytorch_model.bin")
        assert read_tensors(tmp_path)["classifier.bias"].tolist() == [2]
        write_tensors(tmp_path / "model.safetensors", {"classifier.bias": np.array([3.0])})
        assert read_tensors(tmp_path)["classifier.bias"].tolist() == [3]

    @pytest.mark.parametrize("name", ["best.pt", "best.pth", "x.bin"])
    def test_one_file(self, tmp_path: Path, name: str) -> None:
        torch.save({"a": torch.ones(1)}, tmp_path / name)
        assert read_tensors(str(tmp_path / name))["a"].tolist() == [1]

    def test_several_tensorflow_checkpoints(self, tmp_path: Path) -> None:
        for step in (1, 2):
            tensorflow_writer.write_bundle(tmp_path / f"m-{step}", {"output_bias": np.full(1, step, np.float32)})
        with pytest.raises(CheckpointError, match="several TensorFlow checkpoints; pass the path of one: m-1, m-2"):
            read_tensors(tmp_path)
        assert read_tensors(tmp_path / "m-2")["classifier.bias"].tolist() == [2]

    def test_none(self, tmp_path: Path) -> None:
        (tmp_path / "notes.index").write_text("x")  # an index without data is no checkpoint
        with pytest.raises(CheckpointError, match=r"has no weights: neither .* nor a TensorFlow checkpoint$"):
            read_tensors(tmp_path)
        (tmp_path / "my.weights.h5").write_text("x")
        with pytest.raises(CheckpointError, match=r"it has my\.weights\.h5, which PocketBERT does not read"):
            read_tensors(tmp_path)

    def test_a_file_of_another_kind(self, tmp_path: Path) -> None:
        (tmp_path / "x.onnx").write_bytes(b"x")
        with pytest.raises(CheckpointError, match=r"x\.onnx: weights are read from files that end in"):
            read_tensors(tmp_path / "x.onnx")
        with pytest.raises(CheckpointError, match="no such folder"):
            read_tensors(tmp_path / "missing.safetensors")


class TestQuirks:
    def test_old_names_and_half_precision(self, tmp_path: Path) -> None:
        old = {
            "bert.embeddings.position_ids": torch.arange(4).expand(1, -1),
            "bert.embeddings.LayerNorm.gamma": torch.ones(2).half(),
            "bert.embeddings.LayerNorm.beta": torch.zeros(2).bfloat16(),
            "count": torch.tensor(3),
        }
        torch.save(old, tmp_path / "pytorch_model.bin")
        found = read_tensors(tmp_path)
        assert {name: array.dtype.name for name, array in found.items()} == {
            "bert.embeddings.LayerNorm.weight": "float32",
            "bert.embeddings.LayerNorm.bias": "float32",
            "count": "int64",
        }
        narrow = read_tensors(tmp_path, widen=False)
        assert narrow["bert.embeddings.LayerNorm.weight"].dtype == np.float16

    def test_every_half_is_widened_right(self, tmp_path: Path) -> None:
        halves = np.arange(2**16, dtype=np.uint16).view(np.float16)
        write_tensors(tmp_path / "model.safetensors", {"x": halves})
        np.testing.assert_array_equal(read_tensors(tmp_path)["x"], halves.astype(np.float64))


class TestConfig:
    def test_a_weight_file_has_it_beside(self, tmp_path: Path) -> None:
        (tmp_path / "config.json").write_text('{"a": 1}')
        write_tensors(tmp_path / "model.safetensors", {"x": np.zeros(1)})
        assert read_config(tmp_path / "model.safetensors") == {"a": 1}
        tensorflow_writer.write_bundle(tmp_path / "m.ckpt", {})
        assert read_config(tmp_path / "m.ckpt") == {"a": 1}

    @pytest.mark.parametrize(("content", "message"), [("", "is empty"), ("{", "line 1: not JSON"), ("[]", "object")])
    def test_damage(self, tmp_path: Path, content: str, message: str) -> None:
        (tmp_path / "config.json").write_text(content)
        with pytest.raises(CheckpointError, match=rf"config\.json.*{message}"):
            read_config(tmp_path)

    def test_none(self, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match=r"has no config\.json"):
            read_config(tmp_path)

    def test_googles_bert(self, tmp_path: Path) -> None:
        (tmp_path / "bert_config.json").write_text('{"hidden_size": 120, "num_hidden_layers": 2, "type_vocab_size": 2}')
        config = pocketbert.AutoConfig.from_pretrained(tmp_path)
        assert (config.model_type, config.hidden_size, config.type_vocab_size) == ("bert", 120, 2)
        (tmp_path / "bert_config.json").write_text("{}")
        assert pocketbert.AutoConfig.from_pretrained(tmp_path).type_vocab_size == 16

    @pytest.mark.parametrize(
        ("preset", "values"),
        [
            ("mobilebert-uncased", {}),
            ("mobilebert-qat", {"hidden_act": "relu6"}),
            (
                "mobilebert-tiny",
                {"use_bottleneck_attention": True, "key_query_shared_bottleneck": None, "num_feedforward_networks": 2},
            ),
            (  # the teacher, whose file leaves out what a plain BERT lacks
                "ib-bert",
                {"hidden_act": "gelu", "hidden_dropout_prob": 0.1, "intermediate_size": 4096,
                 "intra_bottleneck_size": 1024, "key_query_shared_bottleneck": None, "num_feedforward_networks": None,
                 "normalization_type": None, "classifier_activation": None},
            ),
        ],
    )  # fmt: skip
    def test_googles_mobileberts(self, tmp_path: Path, preset: str, values: dict[str, Any]) -> None:
        """The four files beside Google's code, by what sets them apart from the first."""
        first = {
            "attention_probs_dropout_prob": 0.1, "hidden_act": "relu", "hidden_dropout_prob": 0.0, "hidden_size": 512,
            "initializer_range": 0.02, "intermediate_size": 512, "max_position_embeddings": 512,
            "num_attention_heads": 4, "num_hidden_layers": 24, "type_vocab_size": 2, "vocab_size": 30522,
            "embedding_size": 128, "trigram_input": True, "use_bottleneck": True, "intra_bottleneck_size": 128,
            "key_query_shared_bottleneck": True, "num_feedforward_networks": 4, "normalization_type": "no_norm",
            "classifier_activation": False,
        }  # fmt: skip
        stored = {key: value for key, value in (first | values).items() if value is not None}
        (tmp_path / "bert_config.json").write_text(json.dumps(stored))
        assert pocketbert.AutoConfig.from_pretrained(tmp_path) == pocketbert.PRESETS[preset]

    def test_what_googles_mobilebert_may_leave_out(self, tmp_path: Path) -> None:
        (tmp_path / "mobilebert_config.json").write_text('{"trigram_input": true, "hidden_size": 240}')
        config = pocketbert.AutoConfig.from_pretrained(tmp_path)
        assert isinstance(config, pocketbert.MobileBertConfig)
        assert (config.embedding_size, config.intra_bottleneck_size, config.use_bottleneck) == (240, 240, False)

    def test_a_file_that_names_its_model_is_taken_as_it_is(self, tmp_path: Path) -> None:
        (tmp_path / "bert_config.json").write_text('{"model_type": "bert"}')
        assert read_config(tmp_path) == {"model_type": "bert"}


class TestCost:
    SIZE = 30_000_000

    @pytest.mark.parametrize("kind", ["safetensors", "zip", "stream", "tensorflow"])
    def test_memory_is_that_of_the_result_and_one_tensor(self, tmp_path: Path, kind: str) -> None:
        arrays = {f"output_{part}": np.ones((10, self.SIZE // 80), np.float32) for part in ("weights", "bias")}
        if kind == "safetensors":
            write_tensors(tmp_path / "model.safetensors", arrays)
        elif kind == "tensorflow":
            tensorflow_writer.write_bundle(tmp_path / "m", arrays)
        else:
            tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
            torch.save(tensors, tmp_path / "pytorch_model.bin", _use_new_zipfile_serialization=kind == "zip")
        del arrays
        tracemalloc.start()
        read_tensors(tmp_path)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2.1 * self.SIZE

    def test_neither_torch_nor_tensorflow_is_imported(self) -> None:
        code = (
            "import sys, pocketbert.checkpoints, pocketbert.checkpoints.torch_files\n"
            "import pocketbert.checkpoints.tensorflow_files\n"
            "print({'torch', 'tensorflow', 'transformers', 'huggingface_hub'} & set(sys.modules))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert done.stdout == "set()\n"
