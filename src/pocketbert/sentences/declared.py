"""What a folder or hub name in sentence-transformers' layout declares about its encoder; read here and nowhere else.

`modules.json` lists the encoder and what follows it, each with its folder; `config_sentence_transformers.json` holds
prompts, the similarity and the kept dimensions; `sentence_bert_config.json`, beside the encoder, its limits. Old
folders have the encoder in `0_Transformer`. Everything that changes answers is done, or refused by its name.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from pocketbert.checkpoints import resolve
from pocketbert.checkpoints.files import look_at, read_json, read_json_bytes
from pocketbert.configs import AutoConfig, PreTrainedConfig
from pocketbert.decode import unit
from pocketbert.errors import CheckpointError
from pocketbert.families import family_of
from pocketbert.sentences.activations import activation_of
from pocketbert.sentences.modules import MODULES, WEIGHTS, Layer, Pooling, read_module, refuse_options
from pocketbert.tokenization import AutoTokenizer, BertTokenizer
from pocketbert.tokenization.files import TOKENIZER_FILES

Floats = NDArray[np.floating[Any]]

SIMILARITIES = ("cosine", "dot", "euclidean", "manhattan")
SETTINGS = "config_sentence_transformers.json"
# The encoder's file, which older versions named after its family; the first that is there counts.
LIMITS = tuple(
    f"sentence_{name}_config.json"
    for name in ("bert", "roberta", "distilbert", "camembert", "albert", "xlm-roberta", "xlnet")
)
_ENCODERS = ("Transformer", "BERT")  # the class before 2020
_NUMBERED = re.compile(r"(\d+)_(\w+)")


@dataclass(frozen=True)
class Declared:
    """How an encoder is meant to be used.

    Attributes:
        encoder: folder or hub name of the model and its tokenizer.
        pooling: None where nothing is declared, which means the mean.
        layers: what is applied to the pooled vector, in their order.
        max_length: tokens that a text is cut to, if the tokenizer's own limit does not count.
        lower_case: whether texts are lower-cased before the tokenizer's own steps.
        prompts: name → text that is put before a text.
        default_prompt: name of the one that is used where none is chosen.
        similarity: one of `SIMILARITIES`, if one is declared.
        dimensions: how many numbers of a vector are kept; None keeps all.
        activation: PyTorch's name of the function of a cross encoder's scores, if one is declared.
        files: the files of all this, but those of the encoder and its tokenizer, by their path in a folder.
    """

    encoder: str | Path = ""
    pooling: Pooling | None = None
    layers: tuple[Layer, ...] = ()
    max_length: int | None = None
    lower_case: bool = False
    prompts: Mapping[str, str] = field(default_factory=dict)
    default_prompt: str | None = None
    similarity: str | None = None
    dimensions: int | None = None
    activation: str | None = None
    files: Mapping[str, bytes | Path] = field(default_factory=dict)

    @property
    def poolings(self) -> tuple[str, ...]:
        """The names of the poolings."""
        return (self.pooling or Pooling()).modes

    @property
    def has_unit_length(self) -> bool:
        """Whether all vectors have length 1."""
        return bool(self.layers) and self.layers[-1] is unit

    def vector(self, hidden: Floats, prompt_tokens: int = 0) -> Floats:
        """The vector of a text from [tokens, hidden], of which the first `prompt_tokens` are [CLS] and the prompt."""
        vector = (self.pooling or Pooling())(hidden, prompt_tokens)
        for layer in self.layers:
            vector = layer(vector)
        return vector

    def read_config(self, **where: Any) -> PreTrainedConfig:
        """The configuration; of a sentence encoder without the head that its weights were once saved with.

        Published encoders go on naming it in `architectures`, and do not have it.
        """
        config = AutoConfig.from_pretrained(self.encoder, **where)
        if self.pooling is None:
            return config
        return config.replace(extra=config.extra | {"architectures": [family_of(config).class_name("Model")]})

    def read_tokenizer(self, **where: Any) -> BertTokenizer:
        """The encoder's tokenizer with the declared limits; `where` is that of `AutoTokenizer.from_pretrained`."""
        limit: dict[str, Any] = {} if self.max_length is None else {"model_max_length": self.max_length}
        tokenizer = AutoTokenizer.from_pretrained(self.encoder, **limit, **where)
        if self.lower_case:
            tokenizer.lower_case_first()
        return tokenizer

    def write(self, folder: Path) -> None:
        """Write the declarations into the folder of a model, which has its encoder at the top."""
        for name, content in self.files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content.read_bytes() if isinstance(content, Path) else content)


def read_declared(name_or_path: str | Path, **where: Any) -> Declared:
    """What a folder or hub name declares; nothing, for a model that is no sentence encoder.

    Args:
        name_or_path: the folder or name. A weight file declares nothing.
        **where: `revision`, `cache_dir` and `local_files_only`, as for `checkpoints.resolve`.

    Raises:
        CheckpointError: a module or an option that is not supported, or a damaged file.
    """
    if Path(name_or_path).is_file():
        return Declared(name_or_path)
    files = ("config.json", "modules.json", SETTINGS, *LIMITS, "[0-9]*_*/*.json")
    root = resolve(name_or_path, files=files, **where)
    modules = _modules(root)
    inside = modules[0][1] if modules else ""
    # A snapshot of the hub has only the files that were asked for.
    wanted = [f"{path}/{name}" for _, path in modules[1:] for name in WEIGHTS]
    if inside:
        wanted += [f"{inside}/{name}" for name in ("config.json", *LIMITS, *TOKENIZER_FILES, "*.safetensors", "*.bin")]
        wanted += [f"{inside}/*.index.json"]
    if wanted:
        root = resolve(name_or_path, files=wanted, **where)
    pooling, layers = _read_modules(root, modules[1:])
    limits, limits_file = _limits(root / inside)
    settings = _settings(root)
    listed = [{"idx": i, "name": str(i), "path": path if i else "", "type": f"sentence_transformers.models.{kind}"}
              for i, (kind, path) in enumerate(modules)]  # fmt: skip
    copied: dict[str, bytes | Path] = {}
    if len(modules) > 1:
        copied["modules.json"] = (json.dumps(listed, indent=2) + "\n").encode()
    for file, name in ((root / SETTINGS, SETTINGS), (limits_file, LIMITS[0])):
        if file is not None and file.exists():
            copied[name] = file
    for _, path in modules[1:]:
        for name in ("config.json", *WEIGHTS):
            if (root / path / name).exists():
                copied[f"{path}/{name}"] = root / path / name
    encoder = root / inside if inside else name_or_path
    return Declared(encoder, pooling, layers, **limits, **settings, files=copied)


def _modules(root: Path) -> list[tuple[str, str]]:
    """Class and folder of each module, the encoder first; numbered folders count where there is no `modules.json`."""
    path = root / "modules.json"
    if not path.exists():
        numbered = sorted(
            (int(found[1]), found[2], folder.name)
            for folder in (root.iterdir() if root.is_dir() else ())  # the hub may have none of the files
            if (found := _NUMBERED.fullmatch(folder.name)) and (folder / "config.json").exists()
        )
        modules = [(kind, name) for _, kind, name in numbered]
        return modules if not modules or modules[0][0] in _ENCODERS else [("Transformer", ""), *modules]
    modules = [_module(entry, path) for entry in _json_list(path)]
    if not modules or modules[0][0] not in _ENCODERS:
        raise CheckpointError(f"{path}: the first module must be a Transformer")
    return [("Transformer", modules[0][1]), *modules[1:]]


def _json_list(path: Path) -> list[Any]:
    content = read_json_bytes(path)
    try:
        value = json.loads(content.decode("utf-8-sig"))
    except (ValueError, RecursionError):
        look_at(path)
        value = None
    if not isinstance(value, list):
        raise CheckpointError(f"{path} must hold a JSON list of modules")
    return value


def _module(entry: Any, path: Path) -> tuple[str, str]:
    kind, folder = (entry.get("type"), entry.get("path")) if isinstance(entry, dict) else (None, None)
    if not isinstance(kind, str) or not isinstance(folder, str):
        raise CheckpointError(f"{path}: a module must have a type and a path, not {entry!r:.80}")
    name = kind.rpartition(".")[2]
    if not kind.startswith("sentence_transformers.") or name not in (*_ENCODERS, *MODULES):
        known = ", ".join(("Transformer", *MODULES))
        raise CheckpointError(
            f"{path}: the module {kind} is not supported, and vectors would be wrong without it; supported: {known}"
        )
    if entry.get("kwargs"):
        raise CheckpointError(f"{path}: the arguments {entry['kwargs']!r:.60} of the module {kind} are not supported")
    parts = PurePosixPath(folder.replace("\\", "/"))
    if parts.is_absolute() or ".." in parts.parts or ":" in folder:
        raise CheckpointError(f"{path}: {folder!r:.60} is not a folder inside of this one")
    return name, "" if folder in ("", ".", "./") else str(parts)


def _read_modules(root: Path, modules: list[tuple[str, str]]) -> tuple[Pooling | None, tuple[Layer, ...]]:
    pooling, layers = None, []
    for kind, folder in modules:
        if kind in _ENCODERS:
            raise CheckpointError(
                f"{root}: has a second {kind}, in {folder}; only one is supported, as the first module"
            )
        module = read_module(kind, root / folder)
        if isinstance(module, Pooling):
            if pooling is not None:
                raise CheckpointError(f"{root}: has a second pooling, in {folder}; only one is supported")
            pooling = module
        elif module is not None:
            if pooling is None:
                raise CheckpointError(f"{root}: the module {kind} in {folder} precedes the pooling")
            layers.append(module)
    return pooling, tuple(layers)


_TEXT = {"method": "forward"}
_TASKS = ("feature-extraction", "sequence-classification")
_NO_EFFECT: dict[str, tuple[Any, ...]] = {
    "add_pooling_layer": (),
    "attn_implementation": (),
    "low_cpu_mem_usage": (),
    "trust_remote_code": (),
    "use_safetensors": (),
    "dtype": ("float32", "auto", "torch.float32"),
    "torch_dtype": ("float32", "auto", "torch.float32"),
}


def _limits(folder: Path) -> tuple[dict[str, Any], Path | None]:
    """Declarations of the encoder's own file, and that file; see `LIMITS`."""
    path = next((folder / name for name in LIMITS if (folder / name).exists()), None)
    if path is None:
        return {}, None
    config = read_json(path)
    harmless: dict[str, tuple[Any, ...]] = {
        "max_seq_length": (),
        "do_lower_case": (True, False, None),
        "transformer_task": _TASKS,
        "modality_config": (
            {"text": _TEXT | {"method_output_name": "last_hidden_state"}},
            {"text": _TEXT | {"method_output_name": "logits"}},
        ),
        "module_output_name": ("token_embeddings", "scores"),
        "unpad_inputs": (),
        **dict.fromkeys(("processing_kwargs", "query_length", "document_length", "query_expansion"), (None, {})),
        "tokenizer_name_or_path": (None,),
        **dict.fromkeys(("config_args", "config_kwargs"), (None, {}, {"trust_remote_code": False})),
        **dict.fromkeys(("model_args", "model_kwargs", "tokenizer_args", "processor_kwargs"), ()),
    }
    refuse_options(config, harmless, path)
    for name in ("model_args", "model_kwargs"):
        refuse_options(_object(config, name, path), _NO_EFFECT, path)
    given = _object(config, "tokenizer_args", path) | _object(config, "processor_kwargs", path)
    refuse_options(given, {"model_max_length": (), "use_fast": (), "trust_remote_code": ()}, path)
    length = config.get("max_seq_length")
    length = given.get("model_max_length") if length is None else length
    if length is not None and (not isinstance(length, int) or isinstance(length, bool) or length < 1):
        raise CheckpointError(f"{path}: max_seq_length={length!r:.60} must be a whole number of at least 1")
    return {"max_length": length, "lower_case": config.get("do_lower_case") is True}, path


def _object(config: Mapping[str, Any], name: str, path: Path) -> dict[str, Any]:
    value = config.get(name)
    if value is not None and not isinstance(value, dict):
        raise CheckpointError(f"{path}: {name}={value!r:.60} must be an object")
    return value or {}


def _settings(root: Path) -> dict[str, Any]:
    """Declarations of `config_sentence_transformers.json`."""
    path = root / SETTINGS
    if not path.exists():
        return {}
    config = read_json(path)
    harmless: dict[str, tuple[Any, ...]] = {
        **dict.fromkeys(("__version__", "requirements", "prompts", "default_prompt_name", "activation_fn"), ()),
        "truncate_dim": (),
        "keep_in_fp32_modules": (),  # everything is in fp32
        "model_type": ("SentenceTransformer", "CrossEncoder"),
        "similarity_fn_name": (None, *SIMILARITIES),
    }
    refuse_options(config, harmless, path)
    # sentence-transformers gives these two names to every encoder, so that they put nothing before a text by default.
    prompts: dict[str, Any] = {} if config.get("model_type") == "CrossEncoder" else {"query": "", "document": ""}
    prompts |= {name: "" if text is None else text for name, text in _object(config, "prompts", path).items()}
    for name, text in prompts.items():
        if not isinstance(text, str):
            raise CheckpointError(f"{path}: the prompt {name!r} must be a text, not {text!r:.60}")
    default = config.get("default_prompt_name")
    if default is not None and default not in prompts:
        raise CheckpointError(
            f"{path}: default_prompt_name={default!r:.60} is not one of the prompts {', '.join(prompts)}"
        )
    dimensions = config.get("truncate_dim")
    if dimensions is not None and (not isinstance(dimensions, int) or dimensions < 1):
        raise CheckpointError(f"{path}: truncate_dim={dimensions!r:.60} must be a whole number of at least 1")
    activation = config.get("activation_fn")
    if activation is not None and activation_of(activation) is None:
        raise CheckpointError(f"{path}: activation_fn={activation!r:.80} is not supported")
    return {
        "prompts": prompts,
        "default_prompt": default,
        "similarity": config.get("similarity_fn_name"),
        "dimensions": dimensions,
        "activation": activation,
    }
