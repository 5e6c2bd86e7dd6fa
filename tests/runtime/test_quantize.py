"""Models in int8: how near they are, and their folders, which read back as they were written."""

from __future__ import annotations

import json
import os
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file, save_file

from helpers.families import CONFIGS, each_in_turn, our_class, randomise
from helpers.models import WIDE
from helpers.plans import draw, run, tensors
from pocketbert.bundles import BUNDLED
from pocketbert.checkpoints import read_tensors
from pocketbert.configs import AutoConfig, BertConfig, PreTrainedConfig
from pocketbert.errors import CheckpointError, InputError
from pocketbert.families import family_of
from pocketbert.runtime.engine import Engine
from pocketbert.runtime.load import load_plan
from pocketbert.runtime.lowering import lower
from pocketbert.runtime.plan import Linear, Lookup, Plan
from pocketbert.runtime.quantize import matrices, quantize, unquantized_matrices
from pocketbert.runtime.quantized_folders import quantize_folder
from pocketbert.runtime.smoothing import apply_factors, find_factors, norm_scopes, smooth
from pocketbert.tasks.evaluate import read_evaluation

HEADS = ("Model", "ForMaskedLM", "ForPreTraining", "ForSequenceClassification", "ForTokenClassification")


def save(config: PreTrainedConfig, head: str, folder: Path, *, random: bool = True) -> Path:
    model = our_class(config, head)(config)
    if random:
        randomise(model, 0)
    model.save_pretrained(folder)
    return folder


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def plan_in(folder: Path, head: str) -> Plan:
    return load_plan(AutoConfig.from_pretrained(folder), read_tensors(folder), head)


def int8_steps(plan: Plan) -> set[str]:
    steps = list(plan.steps())
    return {step.weight for step in steps if isinstance(step, Linear) and step.scales is not None}


def lookups(plan: Plan) -> list[Lookup]:
    steps = list(plan.steps())
    return [step for step in steps if isinstance(step, Lookup)]


@pytest.mark.parametrize("name", list(WIDE))
def test_hidden_states_stay_near(name: str, tmp_path: Path) -> None:
    """At initial weights: a random stream of no_norm grows without bound, which no published one does."""
    original = save(WIDE[name], "Model", tmp_path / "a", random=False)
    quantize_folder(original, tmp_path / "b")
    inputs = draw([40, 7, 1, 23])
    answers = [Engine.from_pretrained(folder, "Model")(inputs) for folder in (original, tmp_path / "b")]
    for exact, rounded in zip(*answers, strict=True):
        x, y = exact["last_hidden_state"], rounded["last_hidden_state"]
        assert not np.array_equal(x, y)
        cosine = (x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)
        assert cosine.min() > 0.999


@pytest.mark.parametrize(("name", "head"), each_in_turn(HEADS, WIDE))
def test_folder_and_memory_agree(name: str, head: str, tmp_path: Path) -> None:
    """The same steps in int8 with the same weights, but for the last bit of scales into which something was folded."""
    original = save(WIDE[name], head, tmp_path / "a")
    quantize_folder(original, tmp_path / "b")
    expected = quantize(smooth(plan_in(original, head)))
    got = plan_in(tmp_path / "b", head)
    assert got.stages == expected.stages
    assert int8_steps(got)
    assert got.tensors.keys() == expected.tensors.keys()
    for key, tensor in got.tensors.items():
        other = expected.tensors[key]
        assert tensor.dtype == other.dtype
        if key in int8_steps(got):
            ours, theirs = (x[key] * x[f"{key}.scales"][:, None] for x in (got.tensors, expected.tensors))
            unit = np.abs(expected.tensors[f"{key}.scales"][:, None])
            assert (np.abs(ours - theirs) <= 1.001 * unit).all()  # rounding at a tie
            assert (np.abs(ours - theirs) > 0.01 * unit).mean() < 0.01
        elif not key.endswith(".scales"):
            np.testing.assert_array_equal(tensor, other)


@pytest.mark.parametrize(("name", "head"), each_in_turn(("ForMaskedLM", "ForSequenceClassification")))
def test_quantising_again_changes_nothing(
    name: str, head: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for function in (unquantized_matrices, matrices, quantize):  # these models are small
        monkeypatch.setattr(function, "__defaults__", (0,))
    original = save(CONFIGS[name], head, tmp_path / "a")
    first = quantize_folder(original, tmp_path / "b")
    second = quantize_folder(tmp_path / "b", tmp_path / "c")
    assert contents(tmp_path / "b") == contents(tmp_path / "c")
    assert (first.int8, first.fp32) == (second.int8, second.fp32)
    assert first.int8 > 0
    plan = plan_in(tmp_path / "b", head)
    again = quantize(plan)
    assert again.stages == plan.stages
    assert all(again.tensors[key] is tensor for key, tensor in plan.tensors.items())


def test_the_file(tmp_path: Path) -> None:
    """Official names and shapes, scales beside them, everything else as it was, whole numbers within half a unit."""
    original = save(WIDE["squeezebert"], "ForSequenceClassification", tmp_path / "a")
    (original / "run.json").write_text('{"seed": 1}\n')
    (original / "vocab.txt").write_text("[PAD]\n")
    (original / "model.safetensors.index.json").write_text("{}")
    (original / "list.json").write_text("[]")
    quantize_folder(original, tmp_path / "b")
    assert set(contents(tmp_path / "b")) == {"config.json", "model.safetensors", "run.json", "vocab.txt", "list.json"}
    before, after = (load_file(tmp_path / x / "model.safetensors") for x in "ab")
    narrow = {key for key, tensor in after.items() if tensor.dtype == np.int8}
    assert narrow == {k for k, x in before.items() if x.ndim == 3 and x.size >= 4096} | {
        "transformer.pooler.dense.weight", "transformer.embeddings.word_embeddings.weight"
    }  # fmt: skip
    balanced = {key for key in after if key.endswith("layernorm.balance") or key.endswith("LayerNorm.balance")}
    assert len(balanced) == 4
    assert after.keys() - before.keys() == {f"{key}_scale" for key in narrow} | balanced
    for key, tensor in before.items():
        assert after[key].shape == tensor.shape
        if key in narrow and "post_attention" in key:  # what reads no norm
            unit = after[f"{key}_scale"].reshape(-1, *[1] * (tensor.ndim - 1))
            assert (np.abs(after[key] * unit - tensor) <= 0.5001 * unit).all()
        elif key not in narrow:
            assert np.array_equal(after[key], tensor)
    assert AutoConfig.from_pretrained(tmp_path / "b").quantized
    assert not AutoConfig.from_pretrained(original).quantized


@pytest.mark.parametrize("name", list(WIDE))
def test_the_table_of_words_is_shared_with_the_head(name: str, tmp_path: Path) -> None:
    """One tensor in int8 in the file, which may name it twice, and in the plan; MobileBERT's further one has scales."""
    config = WIDE[name].replace(vocab_size=600)
    original = save(config, "ForMaskedLM", tmp_path / "a")
    prefix = f"{family_of(config).prefix}."
    words, rest = "embeddings.word_embeddings.weight", "cls.predictions.dense.weight"
    before = load_file(original / "model.safetensors")
    twice = before | {"cls.predictions.decoder.weight": before[f"{prefix}{words}"]}
    save_file(twice, original / "model.safetensors", {"format": "pt"})
    quantize_folder(original, tmp_path / "b")
    after = load_file(tmp_path / "b" / "model.safetensors")
    assert "cls.predictions.decoder.weight" not in after
    assert after[f"{prefix}{words}"].dtype == np.int8
    assert after[f"{prefix}{words}_scale"].shape == (600,)
    if rest in before:
        assert after[rest].dtype == np.int8
        assert np.abs(after[rest] * after[f"{rest}_scale"] - before[rest]).max() < after[f"{rest}_scale"].max() / 1.9
    plan = load_plan(config, after, "ForMaskedLM")
    assert {step.table for step in lookups(plan) if step.scales} == {words}
    assert words in int8_steps(plan)


def test_a_folder_of_an_older_version_holds_its_words_in_fp32(tmp_path: Path) -> None:
    config = WIDE["squeezebert"]
    original = save(config, "ForMaskedLM", tmp_path / "a")
    quantize_folder(original, tmp_path / "b")
    weights, before = (load_file(tmp_path / x / "model.safetensors") for x in "ba")
    words = "transformer.embeddings.word_embeddings.weight"
    weights[words] = before[words]
    del weights[f"{words}_scale"]
    shutil.copytree(tmp_path / "b", tmp_path / "c")
    save_file(weights, tmp_path / "c" / "model.safetensors")
    inputs = draw([20, 3])
    new, old = (Engine.from_pretrained(tmp_path / x, "ForMaskedLM")(inputs) for x in "bc")
    for one, other in zip(new, old, strict=True):
        assert np.array_equal(one["logits"], other["logits"])


def test_what_stands_out_of_the_residual_stream_of_mobilebert_is_read_in_fp32(tmp_path: Path) -> None:
    report = quantize_folder(save(WIDE["mobilebert"], "ForTokenClassification", tmp_path / "a"), tmp_path / "b")
    streams = {name for name, reason in report.unquantized.items() if "residual stream" in reason}
    assert streams == {f"encoder.layer.{layer}.{part}.weight" for layer in (0, 1) for part in ("x", "qkv")}
    written = json.loads((tmp_path / "b" / "config.json").read_text())["quantization_config"]["fp32"]
    assert written == report.unquantized
    assert not quantize_folder(save(WIDE["bert"], "Model", tmp_path / "c"), tmp_path / "d").unquantized


def test_a_feature_that_outgrows_all_others(tmp_path: Path) -> None:
    """As in the published MobileBERT, whose stream reaches 2.5e7 in one feature: the others still count."""
    config = WIDE["mobilebert"]
    model = our_class(config, "Model")(config)
    weights = {name: tensor.copy() for name, tensor in tensors(model).items()}
    weights["embeddings.LayerNorm.bias"][5] = 1e6
    plan = lower(config, weights, "Model")
    exact, rounded = (Engine(p)(draw([30]))[0]["last_hidden_state"] for p in (plan, quantize(plan)))
    x, y = (np.delete(values, 5, axis=1) for values in (exact, rounded))
    assert ((x * y).sum(-1) / np.linalg.norm(x, axis=-1) / np.linalg.norm(y, axis=-1)).mean() > 0.995
    assert unquantized_matrices(plan)


# ── smoothing ──


@pytest.mark.parametrize(("name", "head"), each_in_turn(("Model", "ForMaskedLM", "ForTokenClassification")))
def test_smoothing_changes_no_bit(name: str, head: str) -> None:
    """Factors are powers of two; what is rounded is rounded alike."""
    model = our_class(CONFIGS[name], head)(CONFIGS[name])
    randomise(model, 0)
    plan = lower(CONFIGS[name], tensors(model), head)
    factors = find_factors(plan)
    assert factors.keys() == {scope.norm.weight for scope in norm_scopes(plan)}
    assert all((np.frexp(by)[0] == 0.5).all() for by in factors.values())
    got, expected = (run(p, draw([20, 3])) for p in (apply_factors(plan, factors), plan))
    for key, array in expected.items():
        scale = max(1.0, float(np.abs(array).max()))
        np.testing.assert_allclose(got[key] / scale, array / scale, atol=2e-6)


def test_a_norm_before_zeros_has_no_factors() -> None:
    """A pruned layer: nothing is divided by nothing."""
    model = our_class(CONFIGS["bert"], "Model")(CONFIGS["bert"])
    randomise(model, 0)
    plan = lower(CONFIGS["bert"], tensors(model), "Model")
    first, *others = norm_scopes(plan)
    zeros = {step.weight: np.zeros_like(plan.tensors[step.weight]) for step in first.readers}
    pruned = replace(plan, tensors={**plan.tensors, **zeros})
    factors = find_factors(pruned)
    assert factors.keys() == {scope.norm.weight for scope in others}
    assert all(np.isfinite(by).all() for by in factors.values())


def test_a_large_feature_costs_less_after_smooth() -> None:
    config = WIDE["bert"]
    torch.manual_seed(0)
    model = our_class(config, "Model")(config)
    weights = {name: tensor.copy() for name, tensor in tensors(model).items()}
    for name, tensor in weights.items():
        if name.endswith("LayerNorm.weight"):
            tensor[7] = 60.0
        elif tensor.ndim == 2 and tensor.shape[1] == 72 and "encoder" in name:
            tensor[:, 7] /= 60.0
    plan = lower(config, weights, "Model")
    assert len(norm_scopes(plan)) == 4

    def error(other: Plan) -> float:
        x, y = (np.delete(Engine(p)(draw([30]))[0]["last_hidden_state"], 7, axis=1) for p in (plan, other))
        return float(np.square(x - y).mean())

    assert error(quantize(smooth(plan))) < error(quantize(plan)) / 4


# ── measuring ──


def test_metrics_are_kept(tmp_path: Path) -> None:
    original = save(WIDE["bert"], "ForSequenceClassification", tmp_path / "a")
    values = {str(original): 0.9}
    report = quantize_folder(
        original, tmp_path / "b", measure=lambda folder: {"accuracy": values.get(str(folder), 0.8901), "loss": 1.0}
    )
    assert report.metrics == {"fp32": {"accuracy": 0.9, "loss": 1.0}, "int8": {"accuracy": 0.8901, "loss": 1.0}}
    how = json.loads((tmp_path / "b" / "config.json").read_text())["quantization_config"]
    assert how["metrics"] == report.metrics
    quantize_folder(tmp_path / "b", tmp_path / "c")
    assert contents(tmp_path / "b") == contents(tmp_path / "c")
    with pytest.raises(InputError, match="already in int8: there is no original"):
        quantize_folder(tmp_path / "b", tmp_path / "d", measure=lambda _: {"accuracy": 1.0})


@pytest.mark.parametrize("after", [0.88, float("nan")])
def test_a_loss_of_over_a_point_is_refused(tmp_path: Path, after: float) -> None:
    original = save(WIDE["bert"], "ForSequenceClassification", tmp_path / "a")

    def measure(folder: str | Path) -> dict[str, float]:
        return {"accuracy": 0.9 if folder == original else after}

    with pytest.raises(InputError, match=r"accuracy falls from 0.9000 to .* nothing was written.*--force"):
        quantize_folder(original, tmp_path / "b", measure=measure)
    assert [path.name for path in tmp_path.iterdir()] == ["a"]
    quantize_folder(original, tmp_path / "b", measure=measure, force=True)
    assert (tmp_path / "b" / "config.json").exists()


# ── what goes wrong ──


def test_an_output_folder_in_use(tmp_path: Path) -> None:
    original = save(WIDE["bert"], "Model", tmp_path / "a")
    before = contents(original)
    with pytest.raises(CheckpointError, match="exists already"):
        quantize_folder(original, original)
    assert contents(original) == before
    (tmp_path / "file").write_text("")
    for out, message in (("file", "exists already"), ("file/b", "cannot write")):
        with pytest.raises(CheckpointError, match=message):
            quantize_folder(original, tmp_path / out)
    (tmp_path / "empty").mkdir()
    quantize_folder(original, tmp_path / "empty")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a", "empty", "file"]


def test_weights_that_are_no_numbers(tmp_path: Path) -> None:
    original = save(WIDE["bert"], "Model", tmp_path / "a")
    weights = load_file(original / "model.safetensors")
    weights["encoder.layer.0.output.dense.weight"][3, 4] = np.nan
    save_file(weights, original / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"damaged: encoder.layer.0.output.dense.weight contains NaN or infinity"):
        quantize_folder(original, tmp_path / "b")
    assert [path.name for path in tmp_path.iterdir()] == ["a"]


def test_damaged_int8_folders(tmp_path: Path) -> None:
    quantize_folder(save(WIDE["bert"], "Model", tmp_path / "a"), tmp_path / "b")
    good = load_file(tmp_path / "b" / "model.safetensors")
    name, words = "encoder.layer.1.output.dense.weight", "embeddings.word_embeddings.weight"
    changes: tuple[tuple[dict[str, Any], str], ...] = (
        ({f"{name}_scale": None}, f"lacks {name}_scale"),
        ({f"{name}_scale": good[f"{name}_scale"][:-1]}, f"{name}_scale of shape \\[71\\], expected \\[72\\]"),
        ({f"{name}_scale": good[f"{name}_scale"] * np.float32("inf")}, "contains values that are not positive numbers"),
        ({f"{name}_scale": -good[f"{name}_scale"]}, "contains values that are not positive numbers"),
        ({name: good[name][:, :-1]}, f"{name} of shape"),
        ({"embeddings.position_embeddings.weight": np.zeros((40, 72), np.int8)}, "lacks embeddings.position"),
        ({"embeddings.LayerNorm.weight": np.zeros(72, np.int8)}, "LayerNorm.weight in int8"),
        *(
            ({f"{words}_scale": scale}, message)
            for scale, message in (
                (None, f"lacks {words}_scale"),
                (good[f"{words}_scale"][:-1], f"{words}_scale of shape \\[98\\], expected \\[99\\]"),
                (good[f"{words}_scale"] * np.float32("nan"), "contains values that are not positive numbers"),
                (good[f"{words}_scale"] * 0, "contains values that are not positive numbers"),
            )
        ),
        ({words: good[words][:-1]}, f"{words} of shape"),
        ({"encoder.layer.1.more.balance": good[f"{name}_scale"]}, "factors for encoder.layer.1.more.weight do not fit"),
        ({"embeddings.LayerNorm.balance": np.zeros(72, np.float32)}, "factors for embeddings.LayerNorm.weight do not"),
        ({"embeddings.LayerNorm.balance": np.ones(71, np.float32)}, "factors for embeddings.LayerNorm.weight do not"),
        ({"encoder.layer.1.more_scale": good[f"{name}_scale"]}, "it has encoder.layer.1.more_scale"),
    )
    for change, message in changes:
        shutil.copytree(tmp_path / "b", tmp_path / "c")
        changed = {key: value for key, value in (good | change).items() if value is not None}
        save_file({k: np.ascontiguousarray(v) for k, v in changed.items()}, tmp_path / "c" / "model.safetensors")
        with pytest.raises(CheckpointError, match=message):
            Engine.from_pretrained(tmp_path / "c", "Model")
        shutil.rmtree(tmp_path / "c")


@pytest.mark.parametrize("name", [*WIDE, "smoothed"])
def test_pytorch_reads_the_weights_in_fp32(name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Each weight as near as half a step of its row, or of its column where the matrix is stored transposed."""
    config, head = WIDE.get(name, WIDE["squeezebert"]), "ForMaskedLM"
    original = save(config, head, tmp_path / "a")
    if name == "smoothed":  # the gains of two features far above the others, as trained models have them
        stored = load_file(original / "model.safetensors")
        for key in stored:
            if key.endswith(("LayerNorm.weight", "layernorm.weight")):
                stored[key][[3, 17]] *= 40
        save_file(stored, original / "model.safetensors")
    quantize_folder(original, tmp_path / "b")
    stored, before = load_file(tmp_path / "b" / "model.safetensors"), load_file(original / "model.safetensors")
    assert (name == "smoothed") <= any(key.endswith(".balance") for key in stored)
    model = our_class(config, head).from_pretrained(tmp_path / "b")
    assert "has int8 weights, which were converted to fp32" in caplog.text
    own, seen = {key: value.numpy() for key, value in model.state_dict().items()}, 0
    for key, value in before.items():
        error, steps = np.abs(own[key] - value), stored.get(f"{key}_scale")
        if steps is None:
            np.testing.assert_array_equal(own[key], value)
            continue
        seen += 1
        if steps.shape != (len(value),):
            error = error.T
        assert error.max() > 0
        # Smoothing divides columns of a matrix by at most what its norm's largest factor is below 1.
        smallest = min([1.0, *(float(stored[k].min()) for k in stored if k.endswith(".balance"))])
        assert (error.reshape(len(steps), -1).max(axis=1) <= 0.5001 * steps / smallest).all()
    assert seen >= 8
    model.save_pretrained(tmp_path / "c")
    assert not AutoConfig.from_pretrained(tmp_path / "c").quantized


def test_bad_scales_are_named(tmp_path: Path) -> None:
    config = WIDE["bert"]
    quantize_folder(save(config, "Model", tmp_path / "a"), tmp_path / "b")
    good, name = load_file(tmp_path / "b" / "model.safetensors"), "encoder.layer.0.attention.self.query.weight"
    settings = json.loads((tmp_path / "b" / "config.json").read_text())

    def read(**changes: np.ndarray | None) -> None:
        changed = {key: value for key, value in (good | changes).items() if value is not None}
        save_file(changed, tmp_path / "b" / "model.safetensors")
        our_class(config, "Model").from_pretrained(tmp_path / "b")

    scale = f"{name}_scale"
    for change, message in (
        ({scale: None}, f"lacks {scale}"),
        ({scale: good[scale][1:]}, f"{scale} of shape"),
        ({scale: -good[scale]}, "not positive numbers"),
        ({scale: good[scale] * np.float32("inf")}, "not positive numbers"),
    ):
        with pytest.raises(CheckpointError, match=message):
            read(**change)
    norm = "encoder.layer.0.attention.output.LayerNorm"
    del settings["quantization_config"]["smoothed"]
    (tmp_path / "b" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=r"by an earlier version.*quantise the original again"):
        read(**{f"{norm}.balance": np.ones(config.hidden_size, np.float32)})
    settings["quantization_config"]["smoothed"] = {norm: [name]}
    (tmp_path / "b" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match="5 smoothing factors do not fit"):
        read(**{f"{norm}.balance": np.ones(5, np.float32)})


def test_the_head_that_a_model_was_made_for() -> None:
    def made(*names: str) -> str:
        return BertConfig(extra={"architectures": list(names)}).saved_head

    assert made("BertForPreTraining") == "ForPreTraining"
    assert made("BertForTokenClassification") == "ForTokenClassification"
    assert made("BertForNextSentencePrediction") == "ForNextSentencePrediction"
    assert made() == made("BertModel") == "Model"


def test_the_bundled_model_is_in_int8() -> None:
    config = AutoConfig.from_pretrained(BUNDLED / "sst2")
    assert config.quantized
    metrics = config.extra["quantization_config"]["metrics"]
    assert metrics["fp32"]["accuracy"] == pytest.approx(0.8968, abs=1e-3)
    assert metrics["int8"]["accuracy"] >= metrics["fp32"]["accuracy"] - 0.005
    assert (BUNDLED / "sst2" / "model.safetensors").stat().st_size < 13.5e6


@pytest.mark.data
def test_the_bundled_model_answers_as_its_record_says() -> None:
    record = AutoConfig.from_pretrained(BUNDLED / "sst2").extra["quantization_config"]["metrics"]["int8"]
    evaluation = read_evaluation(BUNDLED / "sst2", Path(os.environ["POCKETBERT_DATA"]) / "glue", glue="sst-2")
    metrics = evaluation(Engine.from_pretrained(BUNDLED / "sst2", "ForSequenceClassification"))
    # Other kernels may round a few features the other way.
    assert metrics["accuracy"] == pytest.approx(record["accuracy"], abs=0.005)
    assert metrics["loss"] == pytest.approx(record["loss"], abs=0.005)
