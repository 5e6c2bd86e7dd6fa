"""The tokenizer class of a model folder."""

from __future__ import annotations

import re
from collections.abc import Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

from pocketbert.arguments import TOKENIZER_FROM_PRETRAINED, read_loading
from pocketbert.errors import TokenizerError
from pocketbert.families import FAMILIES
from pocketbert.tokenization.files import TOKENIZER_FILES, FilePath, read_json_if_any, read_text
from pocketbert.tokenization.tokenizers import BertTokenizer

#: Classes beside those of the families that cut words as BERT's does, by their names without "Fast".
SAME_WORDPIECE = frozenset(
    {
        "ConvBertTokenizer", "DistilBertTokenizer", "ElectraTokenizer", "LayoutLMTokenizer", "LxmertTokenizer",
        "PreTrainedTokenizer", "RetriBertTokenizer", "TokenizersBackend", "DPRContextEncoderTokenizer",
        "DPRQuestionEncoderTokenizer", "DPRReaderTokenizer",
    }
)  # fmt: skip


#: Classes beside those of the families that read `vocab.json` and `merges.txt` as RoBERTa's does.
SAME_BYTES = frozenset({"BartTokenizer", "LongformerTokenizer", "LEDTokenizer"})
ANY_MODEL = "pocketbert.tokenization.PreTrainedTokenizerFast"


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

        A `tokenizer.json` without WordPiece is read whatever the class: it says all by itself.

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
        paths |= {name: "pocketbert.tokenization.RobertaTokenizer" for name in SAME_BYTES}
        config = read_json_if_any(folder / "config.json")
        settings = read_json_if_any(folder / "tokenizer_config.json")
        if not (folder / "tokenizer.json").is_file():
            _refuse_other_cuts(settings, folder / "tokenizer_config.json")
        stored = settings.get("tokenizer_class")
        named = config.get("tokenizer_class") if stored is None else stored
        name, model_type = "" if named is None else str(named).removesuffix("Fast"), str(config.get("model_type"))
        if not name or name in SAME_WORDPIECE:
            path = FAMILIES[model_type if model_type in FAMILIES else "bert"].tokenizer
        elif name in paths:
            path = paths[name]
        elif _holds_another_model(folder / "tokenizer.json"):
            path = ANY_MODEL
        else:
            file = "tokenizer_config.json" if stored is not None else "config.json"
            raise TokenizerError(
                f"{folder / file}: the tokenizer is a {named}, which is not supported: it cuts texts into other "
                "tokens than BERT's WordPiece"
            )
        kind = _load(path)
        if kind.knows_words and _holds_another_model(folder / "tokenizer.json"):
            kind = _load(ANY_MODEL)
        tokenizer: BertTokenizer = kind.from_pretrained(folder, **options)
        return tokenizer


#: Options of BertJapaneseTokenizer → the values with which it cuts words as BERT's WordPiece does.
_JAPANESE = {"word_tokenizer_type": "basic", "subword_tokenizer_type": "wordpiece", "do_word_tokenize": True}


def _refuse_other_cuts(settings: Mapping[str, Any], file: Path) -> None:
    """Raise `TokenizerError` for options that old files have without the class to which they belong."""
    for name, same in _JAPANESE.items():
        if settings.get(name, same) not in (same, None):
            raise TokenizerError(
                f"{file}: {name}={settings[name]!r:.40} is an option of BertJapaneseTokenizer, which is not supported: "
                "it cuts texts into other tokens than BERT's WordPiece"
            )


def _load(path: str) -> type[BertTokenizer]:
    module, _, name = path.rpartition(".")
    kind: type[BertTokenizer] = getattr(import_module(module), name)
    return kind


def _holds_another_model(file: Path) -> bool:
    """Whether a `tokenizer.json` has a model that is not WordPiece; its vocabulary, which is long, is not read."""
    if not file.is_file():
        return False
    kind = re.search(r'"model"\s*:\s*\{\s*"type"\s*:\s*"(\w+)"', read_text(file))
    return kind is not None and kind[1] != "WordPiece"
