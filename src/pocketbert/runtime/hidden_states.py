"""Plans whose outputs are the hidden states after the embeddings and after each layer."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from pocketbert.runtime.plan import Columns, LayerNorm, Plan, Rows, Stage, Step, tensors_of


def hidden_states_plan(plan: Plan, layers: str, count: int) -> Plan | None:
    """The part of a plan from its beginning to a layer, with its hidden states as outputs.

    Args:
        plan: of an encoder.
        layers: the path of the list of layers in the names of tensors, such as "encoder.layer".
        count: how many layers.

    Returns:
        A plan with the outputs "state 0" (the embeddings) to "state `count`"; None where the embeddings or a layer do
        not end with a layer norm. What is affine between layers is folded into their matrices, so that such a plan may
        not compute its hidden states.
    """
    ends = _ends(plan, layers, count)
    if not all(isinstance(step, LayerNorm) and step.target == ends[0].target for step in ends):
        return None
    hidden = latest = ends[0].target  # where the hidden states are that the next operation reads
    outputs: dict[str, Columns | tuple[Columns, int]] = {}
    stages: list[Stage] = []

    def moved(operation: Any) -> Any:
        nonlocal latest
        sources = ("query", "key", "value", "source", "residual")
        reads = {name: latest for name in sources if getattr(operation, name, None) == hidden}
        target = operation.target
        if target == hidden:
            ends_layer = any(operation is end for end in ends)
            target = Columns(f"state {len(outputs)}", hidden.width) if ends_layer else hidden
            if ends_layer:
                outputs[target.buffer] = target
            latest = target
        return replace(operation, **reads, target=target)

    for stage in plan.stages:
        if not isinstance(stage, Rows):
            stages.append(moved(stage))
            continue
        steps: list[Step] = []
        for step in stage.steps:
            steps.append(moved(step))
            if len(outputs) == len(ends):
                return replace(plan, stages=(*stages, Rows(tuple(steps))), outputs=outputs)
        stages.append(Rows(tuple(steps)))
    raise AssertionError("the last step of the last layer is a step of the plan")


def _ends(plan: Plan, layers: str, count: int) -> list[Step]:
    """The last step of the embeddings and of each layer."""
    ends: dict[int, Step] = {}
    for step in plan.steps():
        for name in tensors_of(step):
            layer = re.match(rf"{re.escape(layers)}\.(\d+)\.", name)
            if layer or name.startswith("embeddings."):
                ends[int(layer[1]) + 1 if layer else 0] = step
    return [ends[number] for number in range(count + 1)]
