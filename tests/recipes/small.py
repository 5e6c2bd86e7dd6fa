"""The shell with a miniature of the miniature: what tests start in processes of its own."""

from collections.abc import MutableMapping
from dataclasses import replace
from typing import cast

from pocketbert.cli import main
from pocketbert.recipes.published import MINI_ORIGINS, Origin
from training.packed import SQUEEZEBERT

SMALL = replace(
    MINI_ORIGINS["squeezebert"],
    config=SQUEEZEBERT.replace(attention_probs_dropout_prob=0.1, max_position_embeddings=32),
)

if __name__ == "__main__":
    cast(MutableMapping[str, Origin], MINI_ORIGINS)["squeezebert"] = SMALL
    main()
