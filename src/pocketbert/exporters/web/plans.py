"""A plan as JSON, and back.

    {"max_tokens": 512,
     "buffers": [{"name": "hidden", "width": 384, "local": false}, …],
     "steps": [{"kind": "lookup", "target": {"buffer": "hidden", "start": 0, "width": 384}, "table": "…", …}, …],
     "outputs": [{"name": "logits", "buffer": "scores", "start": 0, "width": 2, "scalar": false}, …]}

Steps are in the order in which they run, with the fields of `runtime.plan`; those without a value are left out. Names
of tensors are those of the safetensors file. A scalar output is one column, without an axis for it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import Any

import numpy as np

from pocketbert.errors import CheckpointError
from pocketbert.runtime.plan import (
    Attention,
    Columns,
    Gather,
    LayerNorm,
    Linear,
    Lookup,
    Plan,
    Rows,
    Stage,
    Step,
    operations_of,
)

KINDS: Mapping[str, type[Step | Attention | Gather]] = {
    "lookup": Lookup, "linear": Linear, "layer norm": LayerNorm, "attention": Attention, "gather": Gather,
}  # fmt: skip
_NAMES = {kind: name for name, kind in KINDS.items()}


def as_json(plan: Plan) -> dict[str, Any]:
    """The plan without its tensors, as a value for JSON."""
    widths, shared = plan.buffers()
    outputs = []
    for name, place in plan.outputs.items():
        scalar = not isinstance(place, Columns)
        columns = place if isinstance(place, Columns) else Columns(place[0].buffer, 1, place[0].start + place[1])
        outputs.append({"name": name, **_columns(columns), "scalar": scalar})
    return {
        "max_tokens": plan.max_tokens,
        "buffers": [{"name": name, "width": width, "local": name not in shared} for name, width in widths.items()],
        "steps": [_step(operation) for stage in plan.stages_to_run() for operation in operations_of(stage)],
        "outputs": outputs,
    }


def _columns(columns: Columns) -> dict[str, Any]:
    return {"buffer": columns.buffer, "start": columns.start, "width": columns.width}


def _step(operation: Step | Attention | Gather) -> dict[str, Any]:
    found = {each.name: getattr(operation, each.name) for each in fields(operation)}
    return {"kind": _NAMES[type(operation)]} | {
        name: _columns(value) if isinstance(value, Columns) else value
        for name, value in found.items()
        if value is not None and value is not False
    }


def from_json(written: Mapping[str, Any], tensors: Mapping[str, np.ndarray]) -> Plan:
    """The plan of a file; raises `CheckpointError`, whose message continues the file's name, if it is none."""
    try:
        stages: list[Stage] = []
        for operation in map(_read_step, written["steps"]):
            if isinstance(operation, Attention | Gather):
                stages.append(operation)
            elif stages and isinstance(stages[-1], Rows):
                stages[-1] = Rows((*stages[-1].steps, operation))
            else:
                stages.append(Rows((operation,)))
        outputs = {
            one["name"]: (_read_columns(one), 0) if one["scalar"] else _read_columns(one) for one in written["outputs"]
        }
        return Plan(tuple(stages), tensors, outputs, int(written["max_tokens"]))
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise CheckpointError(f"is damaged: {type(error).__name__} in its plan ({error})") from None


def _read_columns(value: Mapping[str, Any]) -> Columns:
    return Columns(str(value["buffer"]), int(value["width"]), int(value["start"]))


def _read_step(written: Mapping[str, Any]) -> Step | Attention | Gather:
    given: dict[str, Any] = {
        name: _read_columns(value) if isinstance(value, Mapping) else value
        for name, value in written.items()
        if name != "kind"
    }
    return KINDS[written["kind"]](**given)
