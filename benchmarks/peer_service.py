"""A service as a competent user would write it: FastAPI around a transformers pipeline, or around ONNX Runtime.

Settings come from the environment: MODEL, a folder, or an ONNX file beside a tokenizer.json; THREADS of the engine;
AT_ONCE, the number of requests that it computes at a time. Run by benchmarks/serving.py, with uvicorn.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from pydantic import BaseModel

MODEL, THREADS = Path(os.environ["MODEL"]), int(os.environ["THREADS"])
LONGEST = 512  # tokens


class Body(BaseModel):
    """A text to classify."""

    inputs: str


def transformers_pipeline() -> Callable[[str], Any]:
    import torch
    from transformers import pipeline

    torch.set_num_threads(THREADS)
    pipe = pipeline("text-classification", str(MODEL), device="cpu", top_k=None)
    return lambda text: pipe(text, truncation=True, max_length=LONGEST)


def onnx_runtime() -> Callable[[str], Any]:
    import json

    import numpy as np
    import onnxruntime
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(MODEL.with_name("tokenizer.json")))
    tokenizer.no_padding()
    tokenizer.enable_truncation(LONGEST)
    labels = json.loads(MODEL.with_name("config.json").read_text(encoding="utf-8"))["id2label"]
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = onnxruntime.InferenceSession(str(MODEL), options, providers=["CPUExecutionProvider"])
    wanted = {one.name for one in session.get_inputs()}

    def label(text: str) -> list[dict[str, Any]]:
        encoded = tokenizer.encode(text)
        arrays = {
            "input_ids": encoded.ids,
            "attention_mask": encoded.attention_mask,
            "token_type_ids": encoded.type_ids,
        }
        logits = session.run(None, {name: np.array([arrays[name]], np.int64) for name in wanted})[0][0]
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        return [{"label": labels[str(i)], "score": float(shares[i])} for i in shares.argsort()[::-1]]

    return label


label = onnx_runtime() if MODEL.suffix == ".onnx" else transformers_pipeline()
pool = ThreadPoolExecutor(int(os.environ["AT_ONCE"]))
app = FastAPI()


@app.post("/v1/classify")
async def classify(body: Body) -> Any:
    return await asyncio.get_running_loop().run_in_executor(pool, label, body.inputs)


@app.get("/ready")
def ready() -> str:
    return "ok"
