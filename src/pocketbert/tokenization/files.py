"""The files of tokenizers: vocabulary, stored options, special tokens; and the checks of each."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tokenizers import AddedToken, Tokenizer, pre_tokenizers
from tokenizers.models import WordPiece
from tokenizers.normalizers import BertNormalizer

from pocketbert.errors import CheckpointError, TokenizerError

Token = str | AddedToken
FilePath = str | Path

#: The files that `from_pretrained` reads from a folder or hub name, if they exist.
TOKENIZER_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "merges.txt", "tokenizer_config.json", "special_tokens_map.json",
    "added_tokens.json",
)  # fmt: skip
TOKEN_NAMES = ("unk_token", "sep_token", "pad_token", "cls_token", "mask_token")
STORED_OPTIONS = (
    *TOKEN_NAMES, "do_lower_case", "do_basic_tokenize", "never_split", "tokenize_chinese_chars", "strip_accents",
    "clean_text", "wordpieces_prefix", "model_max_length", "padding_side", "truncation_side",
)  # fmt: skip
LARGEST = 256 << 20  # bytes of a vocabulary file; those of a quarter of a million tokens have 20 MB
#: Argument → file, of each kind of tokenizer.
WORDPIECE_FILES = {"tokenizer_file": "tokenizer.json", "vocab_file": "vocab.txt"}
SUBWORD_FILES = {"tokenizer_file": "tokenizer.json", "vocab_file": "vocab.json", "merges_file": "merges.txt"}
NO_LIMIT = 10**9  # files store "no limit" as 1e30

logger = logging.getLogger(__name__)


def stored_options(
    folder: Path, files: Mapping[str, str] = WORDPIECE_FILES, names: Iterable[str] = STORED_OPTIONS
) -> dict[str, Any]:
    """Arguments of the class as the files of a folder give them.

    Args:
        folder: of a model.
        files: argument → the file whose path it takes.
        names: of the arguments in `tokenizer_config.json` and `special_tokens_map.json`.
    """
    options: dict[str, Any] = {name: folder / file for name, file in files.items() if (folder / file).exists()}
    if not options:
        raise TokenizerError(
            f"{folder} holds no tokenizer: neither {' nor '.join(files.values())}{_only_pieces(folder)}"
        )
    stored = read_json_if_any(folder / "tokenizer_config.json") | read_json_if_any(folder / "special_tokens_map.json")
    options |= {name: stored[name] for name in names if stored.get(name) is not None}
    if isinstance(stored.get("model_max_length"), int | float) and stored["model_max_length"] >= NO_LIMIT:
        del options["model_max_length"]  # it was not known when this was stored
    extra = stored.get("additional_special_tokens") or stored.get("extra_special_tokens") or ()
    options["additional_special_tokens"] = list(extra.values()) if isinstance(extra, dict) else extra
    added = {index: token for token, index in read_json_if_any(folder / "added_tokens.json").items()}
    try:
        added |= stored.get("added_tokens_decoder") or {}
        options["added_tokens_decoder"] = {int(index): as_token(token) for index, token in added.items()}
    except (TypeError, ValueError) as error:
        raise TokenizerError(f"{folder}: the added tokens are damaged: {error}") from None
    return options


def _only_pieces(folder: Path) -> str:
    """What to do if a folder has nothing but the model of SentencePiece."""
    pieces = sorted(path.name for path in folder.glob("*.model"))
    if not pieces:
        return ""
    return (
        f". {', '.join(pieces)} alone is not read: transformers' AutoTokenizer.from_pretrained(FOLDER)"
        ".save_pretrained(FOLDER) writes tokenizer.json beside it"
    )


def read_text(path: Path) -> str:
    """The text of a file in UTF-8; `TokenizerError` if it is none."""
    from pocketbert.checkpoints.files import check_regular

    try:
        check_regular(path, LARGEST)
        content = path.read_bytes()
    except CheckpointError as error:
        raise TokenizerError(str(error)) from None
    except OSError as error:
        raise TokenizerError(f"cannot read {path}: {error.strerror or error}") from None
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise TokenizerError(f"{path}, line {line}: not UTF-8 (byte 0x{content[error.start]:02x})") from None


def read_json_if_any(path: Path) -> dict[str, Any]:
    """The object in a JSON file; an empty one if the file does not exist."""
    from pocketbert.checkpoints.files import read_json

    return read_json(path) if path.exists() else {}


def _read_vocab(path: Path) -> dict[str, int]:
    """Token → number of its line; of a repeated token the later line counts, as in other implementations."""
    text = read_text(path)
    lines = text.split("\n")  # not splitlines: U+2028 and its like are tokens
    tokens = [line.removesuffix("\r") for line in lines]
    while tokens and not tokens[-1]:  # empty lines at the end of the file
        tokens.pop()
    vocab = {token: index for index, token in enumerate(tokens)}
    if len(vocab) < len(tokens):
        twice = next(index for index, token in enumerate(tokens) if vocab[token] != index)
        logger.warning("%s, line %d: %r is repeated on a later line, which counts", path, twice + 1, tokens[twice])
    return vocab


def read_backend(vocab_file: FilePath | None, tokenizer_file: FilePath | None, vocab: Any) -> Tokenizer:
    """A backend with the published defaults around a vocabulary, or as `tokenizer_file` stores it."""
    source = tokenizer_file if tokenizer_file is not None else vocab_file if vocab is None else "the given vocabulary"
    if source is None:
        raise TokenizerError("a tokenizer needs a vocabulary: give vocab_file, tokenizer_file or vocab")
    text = None if tokenizer_file is None else read_text(Path(tokenizer_file))
    tokens = _read_vocab(Path(source)) if text is None and vocab is None else vocab
    try:
        if text is not None:
            backend = _parse(text)
        else:
            backend = Tokenizer(WordPiece(dict(tokens), unk_token="[UNK]"))
            backend.normalizer = BertNormalizer()
            backend.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    except Exception as error:
        raise TokenizerError(f"{source}: not a vocabulary that can be read ({error})") from None
    if not isinstance(backend.model, WordPiece):
        raise TokenizerError(
            f"{source} holds a {type(backend.model).__name__} model; BERT's tokenizers are WordPiece: "
            "AutoTokenizer and PreTrainedTokenizerFast read any"
        )
    if backend.get_vocab_size() == 0:
        raise TokenizerError(f"{source}: the vocabulary is empty")
    return backend


def _parse(text: str) -> Tokenizer:
    """What `Tokenizer.from_str` gives of model, normaliser, pre-tokenizer and added tokens, in a third of its time.

    It is slow at vocabularies, so that part of the file is read here.
    """
    stored = json.loads(text)
    model = stored.get("model") if isinstance(stored, dict) else None
    if not isinstance(model, dict) or model.get("type") != "WordPiece" or not isinstance(model.get("vocab"), dict):
        return Tokenizer.from_str(text)
    rest = Tokenizer.from_str(json.dumps({**stored, "model": {**model, "vocab": {}}}))
    backend = Tokenizer(
        WordPiece(
            model["vocab"],
            unk_token=rest.model.unk_token,
            continuing_subword_prefix=rest.model.continuing_subword_prefix,
            max_input_chars_per_word=rest.model.max_input_chars_per_word,
        )
    )
    backend.normalizer, backend.pre_tokenizer = rest.normalizer, rest.pre_tokenizer
    flags = ("single_word", "lstrip", "rstrip", "normalized", "special")
    backend.add_tokens(
        [AddedToken(one["content"], **{flag: one[flag] for flag in flags}) for one in stored.get("added_tokens") or ()]
    )
    return backend


def as_token(value: Any, special: bool = False, known: Mapping[str, AddedToken] | None = None) -> AddedToken:
    """A token given as text (with the flags of a known one), as `AddedToken`, or as files store one."""
    if isinstance(value, str) and value:
        value = (known or {}).get(value, AddedToken(value, normalized=not special))
    if isinstance(value, AddedToken):
        value = value.__getstate__()
    if not isinstance(value, Mapping) or not isinstance(value.get("content"), str) or not value["content"]:
        raise TokenizerError(f"a token must be a text or an AddedToken, not {value!r}")
    flags = {name: bool(value[name]) for name in ("single_word", "lstrip", "rstrip", "normalized") if name in value}
    return AddedToken(value["content"], special=special or bool(value.get("special")), **flags)


def as_tokens(values: Any) -> list[Any]:
    """A list of tokens, still as they were given."""
    if isinstance(values, str | AddedToken) or not isinstance(values, Iterable):
        raise TokenizerError(f"expected a list of tokens, not {values!r}")
    return list(values)


def check(name: str, value: Any, kind: Any, wanted: str) -> None:
    """Refuse an option of another type."""
    if not isinstance(value, kind):
        raise TokenizerError(f"{name}={value!r} must be {wanted}")


def one_of(name: str, value: Any, *allowed: str) -> str:
    """The option, if it is one of those allowed."""
    if value not in allowed:
        raise TokenizerError(f"{name}={value!r} must be one of {', '.join(allowed)}")
    return str(value)
