"""Models for browsers and Node with random weights, and what Python answers with them.

    PYTHONPATH=tests python -m helpers.web FOLDER

writes `FOLDER/cases.json` and the models that it names; the tests in `npm/test` compare the package with it. Answers
are those of the engine with attention in fp32, as in WebAssembly. Places in texts count UTF-16 units, as JavaScript
does.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tokenizers import AddedToken

from exporters.cases import export_to, model_of, save
from helpers.families import CONFIGS, each_in_turn
from helpers.plans import draw
from helpers.tokenizers import spelling, tokenizer_of
from helpers.web_cases import METHODS, TAGS, TEXTS, WORDS, answered
from pocketbert import configs
from pocketbert.checkpoints.files import read_json
from pocketbert.checkpoints.safetensors_files import open_safetensors
from pocketbert.exporters.web.plans import from_json
from pocketbert.families import FAMILIES, family_of
from pocketbert.features import encode_texts
from pocketbert.models import auto
from pocketbert.pipelines import pipeline
from pocketbert.runtime.engine import Engine
from pocketbert.tokenization import AutoTokenizer, BertTokenizer, SqueezeBertTokenizer


def write(folder: Path) -> None:
    """Write the models and `cases.json`."""
    cases: list[dict[str, Any]] = []
    for head, labels in {
        "ForSequenceClassification": ["negative", "neutral", "positive"], "ForTokenClassification": TAGS,
        "ForQuestionAnswering": ["LABEL_0", "LABEL_1"], "ForMaskedLM": ["LABEL_0", "LABEL_1"],
        "ForMultipleChoice": ["LABEL_0", "LABEL_1"], "Model": ["LABEL_0", "LABEL_1"],
    }.items():  # fmt: skip
        cases += cases_of(head, _export(_model(head, labels), folder / head))
    (folder / "cases.json").write_text(json.dumps(cases, ensure_ascii=True), encoding="utf-8")
    (folder / "plans.json").write_text(json.dumps(plans(folder)), encoding="utf-8")
    (folder / "tokens.json").write_text(json.dumps(tokens(folder)), encoding="utf-8")


def _model(head: str, labels: list[str]) -> Any:
    torch.manual_seed(0)
    config = configs.SqueezeBertConfig(
        vocab_size=len(spelling(*WORDS)), hidden_size=32, embedding_size=32, num_hidden_layers=2, num_attention_heads=4,
        intermediate_size=64, max_position_embeddings=64, id2label=dict(enumerate(labels)),
    )  # fmt: skip
    model = auto.model_class(config, head)(config)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() > 1:
                parameter.normal_(0.0, 2.0 if "word_embeddings" in name else 0.2)
    return model


def _export(model: Any, folder: Path) -> Path:
    """The model in fp32 with a tokenizer, as a folder for the web, and as a folder for Python beside it."""
    model.save_pretrained(folder / "model")
    tokenizer_of(spelling(*WORDS), SqueezeBertTokenizer, model_max_length=64).save_pretrained(folder / "model")
    if family_of(model.config).class_name("ForSequenceClassification") == type(model).__name__:
        path = folder / "model" / "config.json"
        calibration = {"answer_share": {"0.5": 0.6}, "conformal": {"0.9": 0.2}}
        path.write_text(json.dumps(read_json(path) | {"calibration": calibration}))
    [file] = export_to("web", folder / "model", folder / "out", precisions=("fp32",))
    return file.path


def engine_of(path: Path) -> Engine:
    """The engine of a folder for the web, with attention in fp32."""
    plan = from_json(read_json(path / "model.json")["plan"], dict(open_safetensors(path / "model.safetensors")))
    return Engine(plan.with_attention_in(bfloat16=False))


def cases_of(head: str, path: Path) -> list[dict[str, Any]]:
    """What is asked of a model, and what Python answers."""
    folder = path.parent.parent / "model"
    tokenizer, config = AutoTokenizer.from_pretrained(folder), configs.AutoConfig.from_pretrained(folder)
    task, method = METHODS[head]
    ours: Any = pipeline(task, engine_of(path), tokenizer=tokenizer, config=config)
    return answered(ours, method, f"{head}/out/{path.name}")


def plans(folder: Path) -> list[dict[str, Any]]:
    """Models of all families that have WordPiece, in fp32 and int8, and their outputs for token ids."""
    cases = []
    for number, (name, head) in enumerate(each_in_turn()):
        config = CONFIGS[name]
        if not FAMILIES[config.model_type].load(FAMILIES[config.model_type].tokenizer).knows_words:
            continue
        model = save(model_of(config, head), folder / "plans" / str(number) / "model")
        for file in export_to(
            "web", model, folder / "plans" / str(number) / "out", precisions=("fp32", "int8"), force=True
        ):
            inputs = draw([4, 1, 11], seed=number)
            outputs = engine_of(file.path)(inputs)
            cases.append({
                "model": str(file.path.relative_to(folder)), "precision": file.precision,
                "inputs": [{"ids": one.input_ids.tolist(), "segments": one.token_type_ids.tolist()} for one in inputs],
                "outputs": [{key: np.ravel(array).tolist() for key, array in one.items()} for one in outputs],
            })  # fmt: skip
    return cases


def tokens(folder: Path) -> list[dict[str, Any]]:
    """Tokens of texts and pairs, with other options of the tokenizer than the usual ones."""
    cases = []
    unusual: list[dict[str, Any]] = [
        {}, {"do_lower_case": False}, {"strip_accents": False}, {"tokenize_chinese_chars": False},
        {"truncation_side": "left"},
    ]  # fmt: skip
    for number, options in enumerate(unusual):
        tokenizer: BertTokenizer = tokenizer_of(spelling(*WORDS), SqueezeBertTokenizer, model_max_length=64, **options)
        if number == 0:
            tokenizer.add_tokens(["likes paris", AddedToken("<br>", lstrip=True, normalized=False)])
        model = _model("ForSequenceClassification", ["a", "b"])
        model.save_pretrained(folder / "tokens" / str(number) / "model")
        tokenizer.save_pretrained(folder / "tokens" / str(number) / "model")
        [file] = export_to("web", folder / "tokens" / str(number) / "model", folder / "tokens" / str(number) / "out")
        for text in TEXTS:
            for other in (None, TEXTS[2], TEXTS[3]):
                [one] = encode_texts(tokenizer, [text], None if other is None else [other], max_length=64)
                ids = {"ids": one.input_ids.tolist(), "segments": one.token_type_ids.tolist(), "cut": one.cut}
                cases.append({"model": str(file.path.relative_to(folder)), "text": text, "textPair": other, **ids})
    return cases


if __name__ == "__main__":
    write(Path(sys.argv[1]))
