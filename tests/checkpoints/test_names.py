import os
import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    BertConfig,
    BertForPreTraining,
    BertForQuestionAnswering,
    BertForSequenceClassification,
    MobileBertConfig,
    MobileBertForPreTraining,
    MobileBertForQuestionAnswering,
)

from pocketbert.checkpoints.names import (
    match_names,
    mend_names,
    name_tables,
    official_names,
    table_for,
    tensorflow_name,
)
from pocketbert.checkpoints.tensorflow_files import Bundle
from pocketbert.errors import CheckpointError

DATA = os.environ.get("POCKETBERT_DATA")
TINY = {"hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 12, "intermediate_size": 8, "vocab_size": 9}
TINY_MOBILE = {**TINY, "embedding_size": 4, "intra_bottleneck_size": 4}
TIED = {"cls.predictions.decoder.weight", "cls.predictions.decoder.bias"}


class TestLegacyNames:
    def test_gamma_and_beta_are_mended_and_position_ids_dropped(self) -> None:
        norm = "bert.embeddings.LayerNorm"
        old = ["bert.embeddings.position_ids", f"{norm}.gamma", f"{norm}.beta", "gamma", "cls.predictions.bias"]
        assert list(mend_names(old, "it").items()) == [
            (f"{norm}.weight", f"{norm}.gamma"),
            (f"{norm}.bias", f"{norm}.beta"),
            ("gamma", "gamma"),
            ("cls.predictions.bias", "cls.predictions.bias"),
        ]

    def test_two_tensors_of_one_name(self) -> None:
        with pytest.raises(CheckpointError, match=r"f\.bin has a\.weight twice"):
            mend_names(["a.gamma", "a.weight"], "f.bin")

    def test_what_a_wrapper_puts_before_all_names_is_taken_off(self) -> None:
        names = ["module.bert.embeddings.w", "module.bert.pooler.w", "module.classifier.gamma"]
        assert list(mend_names(names, "it")) == ["bert.embeddings.w", "bert.pooler.w", "classifier.weight"]
        assert list(mend_names(["a.b.embeddings.w", "a.b.d.w"], "it")) == ["embeddings.w", "d.w"]
        for kept in (["bert.a.w", "bert.b.w"], ["module.bert.a", "b"], ["a.b.c", "a.b.d"], ["w"], ["a", "a.b"], []):
            assert list(mend_names(kept, "it")) == kept

    @pytest.mark.parametrize("name", ["a\nb", "\x1b[31mred", "\ud800", "a\0"])
    def test_names_that_would_garble_a_message(self, name: str) -> None:
        with pytest.raises(CheckpointError) as caught:
            mend_names([name], "f.bin")
        assert str(caught.value).isprintable()


class TestMatching:
    BASE = ("embeddings.w", "encoder.w", "pooler.w")
    HEADED = ("bert.embeddings.w", "bert.encoder.w", "bert.pooler.w", "cls.w", "classifier.w")

    @pytest.mark.parametrize("prefix", ["bert", "bert."])
    def test_prefix_is_put_on_and_taken_off(self, prefix: str) -> None:
        assert match_names(self.HEADED, self.BASE, prefix) == {n: f"bert.{n}" for n in self.BASE}
        assert match_names(self.BASE, self.HEADED, prefix) == {f"bert.{n}": n for n in self.BASE}
        assert match_names(self.BASE, self.BASE, prefix) == {n: n for n in self.BASE}
        assert match_names(self.HEADED, self.HEADED, prefix) == {n: n for n in self.HEADED}

    def test_a_name_that_is_there_already_wins(self) -> None:
        assert match_names(["w"], ["bert.w", "w"], "bert") == {"w": "w"}
        assert match_names(["w"], ["w", "bert.w"], "bert") == {"w": "w"}

    def test_no_other_prefix_is_forgiven(self) -> None:
        assert match_names(["bert.w"], ["module.bert.w", "model.w", "bertw"], "bert") == {}

    @given(st.sets(st.text("ab.", min_size=1)), st.lists(st.text("ab.", min_size=1), unique=True))
    def test_each_wanted_name_gets_one_tensor_at_most(self, wanted: set[str], found: list[str]) -> None:
        pairs = match_names(wanted, found, "a")
        assert set(pairs) <= set(found)
        assert set(pairs.values()) <= wanted
        assert len(set(pairs.values())) == len(pairs)
        assert all(theirs in (mine, f"a.{mine}") or f"a.{theirs}" == mine for theirs, mine in pairs.items())


#: The variables of Google's bert_model.ckpt, with one layer.
GOOGLE_BERT = re.findall(r"\S+", """
bert/embeddings/LayerNorm/beta bert/embeddings/LayerNorm/gamma bert/embeddings/position_embeddings
bert/embeddings/token_type_embeddings bert/embeddings/word_embeddings
bert/encoder/layer_0/attention/output/LayerNorm/beta bert/encoder/layer_0/attention/output/LayerNorm/gamma
bert/encoder/layer_0/attention/output/dense/bias bert/encoder/layer_0/attention/output/dense/kernel
bert/encoder/layer_0/attention/self/key/bias bert/encoder/layer_0/attention/self/key/kernel
bert/encoder/layer_0/attention/self/query/bias bert/encoder/layer_0/attention/self/query/kernel
bert/encoder/layer_0/attention/self/value/bias bert/encoder/layer_0/attention/self/value/kernel
bert/encoder/layer_0/intermediate/dense/bias bert/encoder/layer_0/intermediate/dense/kernel
bert/encoder/layer_0/output/LayerNorm/beta bert/encoder/layer_0/output/LayerNorm/gamma
bert/encoder/layer_0/output/dense/bias bert/encoder/layer_0/output/dense/kernel
bert/pooler/dense/bias bert/pooler/dense/kernel
cls/predictions/output_bias cls/predictions/transform/LayerNorm/beta cls/predictions/transform/LayerNorm/gamma
cls/predictions/transform/dense/bias cls/predictions/transform/dense/kernel
cls/seq_relationship/output_bias cls/seq_relationship/output_weights
""")  # fmt: skip


class TestTensorFlowNames:
    @pytest.mark.parametrize("table", name_tables())
    def test_no_name_stands_twice_in_a_table(self, table: str) -> None:
        assert len({rule.tensorflow for rule in name_tables()[table].rules}) == len(name_tables()[table].rules)
        assert len({rule.official for rule in name_tables()[table].rules}) == len(name_tables()[table].rules)

    @pytest.mark.parametrize(
        ("table", "model"),
        [
            ("bert", BertForPreTraining(BertConfig(**TINY))),
            ("bert", BertForQuestionAnswering(BertConfig(**TINY))),
            ("bert", BertForSequenceClassification(BertConfig(**TINY))),
            ("mobilebert", MobileBertForPreTraining(MobileBertConfig(**TINY_MOBILE))),
            (
                "mobilebert with layer_norm",
                MobileBertForPreTraining(MobileBertConfig(**TINY_MOBILE, normalization_type="layer_norm")),
            ),
        ],
    )
    def test_a_bijection_over_the_published_models(self, table: str, model: object) -> None:
        official = set(model.state_dict()) - TIED  # type: ignore[attr-defined]
        rules = {name: tensorflow_name(name, table) for name in official}
        assert [name for name, rule in rules.items() if rule is None] == []
        theirs = {rule.tensorflow for rule in rules.values() if rule}
        assert len(theirs) == len(official)
        assert table_for(theirs) == table
        assert {rule.official for rule in official_names(theirs, table).values()} == official

    def test_googles_bert(self) -> None:
        state = set(BertForPreTraining(BertConfig(**{**TINY, "num_hidden_layers": 1})).state_dict()) - TIED
        rules = official_names(GOOGLE_BERT, table_for(GOOGLE_BERT))
        assert {rule.official for rule in rules.values()} == state
        assert {name for name, rule in rules.items() if rule.transposed} == {n for n in GOOGLE_BERT if "kernel" in n}

    def test_heads_of_googles_scripts(self) -> None:
        names = ["output_weights", "output_bias", "cls/squad/output_weights", "cls/squad/output_bias"]
        assert [rule.official for rule in official_names(names, "bert").values()] == [
            "classifier.weight",
            "classifier.bias",
            "qa_outputs.weight",
            "qa_outputs.bias",
        ]

    def test_the_optimisers_state_is_left_out(self) -> None:
        slots = [
            f"{name}/{slot}" for name in GOOGLE_BERT for slot in ("adam_m", "adam_v", "AdamWeightDecayOptimizer_1")
        ]
        assert official_names([*slots, "global_step", "beta1_power"], "bert") == {}

    def test_all_unknown_names_are_reported(self) -> None:
        strange = ["bert/encoder/layer_x/output/dense/bias", "bert/encoder/layer_00/output/dense/bias", "dense"]
        with pytest.raises(CheckpointError, match=f"^m.index .* not part of bert: {', '.join(strange)}$"):
            official_names([*GOOGLE_BERT, *strange], "bert", "m.index")

    @pytest.mark.data
    @pytest.mark.skipif(DATA is None, reason="POCKETBERT_DATA is unset")
    def test_a_real_mobilebert(self) -> None:
        entries = Bundle(Path(str(DATA)) / "oracles/mobilebert_float.variables.index").entries
        assert table_for(entries) == "mobilebert"
        rules = official_names(entries, "mobilebert")
        shapes = {
            rule.official: entries[name].shape[::-1] if rule.transposed else entries[name].shape
            for name, rule in rules.items()
        }
        model = MobileBertForQuestionAnswering(MobileBertConfig(classifier_activation=False))
        assert shapes == {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
        back = {tensorflow_name(rule.official, "mobilebert") for rule in rules.values()}
        assert back == set(rules.values())
