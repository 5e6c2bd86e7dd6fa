"""The tokenizer class of a model folder."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from pocketbert.arguments import TOKENIZER_FROM_PRETRAINED, read_loading
from pocketbert.errors import TokenizerError
from pocketbert.families import FAMILIES
from pocketbert.tokenization.files import TOKENIZER_FILES, FilePath, read_json_if_any
from pocketbert.tokenization.tokenizers import BertTokenizer

#: Classes beside those of the families that cut words as BERT's does, by their names without "Fast".
SAME_WORDPIECE = frozenset(
    {
        "ConvBertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "LayoutLMTokenizer", "LxmertTokenizer",
        "PreTrainedTokenizer", "RetriBertTokenizer", "TokenizersBackend", "DPRContextEncoderTokenizer",
        "DPRQuestionEncoderTokenizer", "DPRReaderTokenizer",
    }
)  # fmt: skip


class AutoTokenizer:
    """Picks the tokenizer class of a folder or hub name."""

    @staticmethod
    def from_pretrained(
        name_or_path: FilePath | None = None,
        *,
        revision: str | None = None,
        cache_dir: FilePath | None = None,
        local_files_only: bool = False,
        **options: Any,
    ) -> BertTokenizer:
        """Read a tokenizer: `tokenizer_class` of tokenizer_config.json decides, then config.json.

        Raises:
            TokenizerError: `tokenizer_class` names one that cuts words in another way.
        """
        from pocketbert.checkpoints import resolve
        from pocketbert.checkpoints.hub import hub_token

        name_or_path, token, options = read_loading(name_or_path, options, TOKENIZER_FROM_PRETRAINED)
        with hub_token(token):
            folder = resolve(
                name_or_path,
                files=(*TOKENIZER_FILES, "config.json"),
                revision=revision,
                cache_dir=cache_dir,
                local_files_only=local_files_only,
            )
        paths = {family.tokenizer.rpartition(".")[2]: family.tokenizer for family in FAMILIES.values()}
        config = read_json_if_any(folder / "config.json")
        stored = read_json_if_any(folder / "tokenizer_config.json").get("tokenizer_class")
        named = config.get("tokenizer_class") if stored is None else stored
        name = "" if named is None else str(named).removesuffix("Fast")
        if name not in paths:
            if name and name not in SAME_WORDPIECE:
                file = "tokenizer_config.json" if stored is not None else "config.json"
                raise TokenizerError(
                    f"{folder / file}: the tokenizer is a {named}, which is not supported: it cuts texts into other "
                    "tokens than BERT's WordPiece"
                )
            model_type = str(config.get("model_type"))
            family = FAMILIES[model_type if model_type in FAMILIES else "bert"]
            name = family.tokenizer.rpartition(".")[2]
        module, _, kind = paths[name].rpartition(".")
        tokenizer: BertTokenizer = getattr(import_module(module), kind).from_pretrained(folder, **options)
        return tokenizer
