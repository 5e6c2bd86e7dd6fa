from typing import Any

import pytest
import torch

from pocketbert.configs import BertConfig, SqueezeBertConfig
from pocketbert.errors import ConfigError
from pocketbert.models.bert import BertForSequenceClassification
from pocketbert.models.init_from_teacher import init_from_teacher
from pocketbert.models.squeezebert import SqueezeBertForSequenceClassification

SHAPE: dict[str, Any] = {
    "vocab_size": 40, "hidden_size": 24, "num_attention_heads": 4, "intermediate_size": 32, "initializer_range": 0.3,
    "max_position_embeddings": 16,
}  # fmt: skip
GROUPS = ("q_groups", "k_groups", "v_groups", "post_attention_groups", "intermediate_groups", "output_groups")


def teacher(**changes: Any) -> Any:
    torch.manual_seed(0)
    model = BertForSequenceClassification(BertConfig(**{**SHAPE, "num_hidden_layers": 4, **changes})).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.05)  # biases and norms too
    return model


def student(groups: int, **changes: Any) -> Any:
    torch.manual_seed(1)
    config = SqueezeBertConfig(
        **{**SHAPE, "embedding_size": 24, "num_hidden_layers": 4, **dict.fromkeys(GROUPS, groups), **changes}
    )
    return SqueezeBertForSequenceClassification(config).eval()


def test_with_one_group_the_student_is_the_teacher() -> None:
    of, to = teacher(), student(1)
    assert init_from_teacher(to, of, [(i, i) for i in range(5)]) == []
    ids = torch.randint(1, 40, (3, 9))
    with torch.no_grad():
        torch.testing.assert_close(to(input_ids=ids).logits, of(input_ids=ids).logits, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("groups", [2, 4])
def test_groups_take_the_blocks_on_the_diagonal(groups: int) -> None:
    of, to = teacher(), student(groups, num_hidden_layers=2)
    assert init_from_teacher(to, of, [(0, 0), (1, 2), (2, 4)]) == []
    for here, there in ((0, 1), (1, 3)):
        grouped, full = to.transformer.encoder["layers"][here], of.bert.encoder["layer"][there]
        for mine, theirs in (
            (grouped.attention.query, full.attention["self"].query),
            (grouped.post_attention.conv1d, full.attention["output"].dense),
            (grouped.intermediate["conv1d"], full.intermediate["dense"]),
            (grouped.output.conv1d, full.output.dense),
        ):
            rows, columns = mine.weight.size(0) // groups, mine.weight.size(1)
            for g in range(groups):
                block = theirs.weight[g * rows : (g + 1) * rows, g * columns : (g + 1) * columns]
                assert torch.equal(mine.weight[g * rows : (g + 1) * rows, :, 0], block)
            assert torch.equal(mine.bias, theirs.bias)


def test_what_does_not_fit_stays_fresh() -> None:
    of, to = teacher(num_labels=3), student(1, max_position_embeddings=8)
    before = to.classifier.weight.clone()
    fresh = init_from_teacher(to, of, [(1, 1), (2, 2), (3, 4)])
    layer = [name for name, _ in to.named_parameters() if "layers.3." in name]
    assert sorted(fresh) == sorted([*layer, "classifier.weight", "classifier.bias"])
    assert torch.equal(to.classifier.weight, before)
    positions = to.transformer.embeddings.position_embeddings.weight
    assert torch.equal(positions, of.bert.embeddings.position_embeddings.weight[:8])
    # Layer 4 has no partner.
    assert not torch.equal(
        to.transformer.encoder["layers"][3].attention.query.bias,
        of.bert.encoder["layer"][3].attention["self"].query.bias,
    )


def test_of_a_squeezebert_too() -> None:
    of, to = student(2), student(2, num_hidden_layers=2)
    with torch.no_grad():
        for parameter in of.parameters():
            parameter.normal_()
    assert init_from_teacher(to, of, [(0, 0), (1, 2), (2, 4)]) == []
    assert torch.equal(
        to.transformer.encoder["layers"][1].output.conv1d.weight,
        of.transformer.encoder["layers"][3].output.conv1d.weight,
    )


def test_another_width_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"48 wide.*24 wide"):
        init_from_teacher(student(1), teacher(hidden_size=48, vocab_size=50), [(1, 1)])
