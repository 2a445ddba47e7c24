"""The time of a training step by part of the network, forward and backward.

Forward, an operation belongs to the innermost part that runs it; backward, to the part of the forward operation whose
gradient it computes, which the profiler identifies by autograd's sequence numbers.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile, record_function

from diffrgen.model import DiffRGenForReportGeneration, coattention
from diffrgen.model.fam import FlexiRouteAggregation

PREFIX = "part:"
REST = "losses, optimiser, other"


Parts = dict[str, list[nn.Module]]


def parts_of_aggregation(fam: FlexiRouteAggregation) -> Parts:
    """The modules that each part of the aggregation module is made of; the operator, a function, comes in addition."""
    routed = [m for m in fam.modules() if isinstance(m, coattention.CoAttentionRouting)]
    return {
        "projections of the operator": [each for m in routed for each in (m.query, m.key, m.value, m.output)],
        "aggregation, the rest": [*fam.layers, *(m.router for m in routed)],
    }


def parts_of(network: DiffRGenForReportGeneration) -> Parts:
    """Those of the whole network."""
    return {
        "image encoder": [network.image_encoder],
        **parts_of_aggregation(network.fam),
        "decoder and LM head": [network.decoder],
    }


def time_shares(parts: Parts, step: Callable[[], Any], device: str) -> dict[str, float]:
    """The share of each part in one step: of the processor's time, or of the GPU's kernels."""
    activities = [ProfilerActivity.CPU] + ([ProfilerActivity.CUDA] if device == "cuda" else [])
    with _named(parts), profile(activities=activities) as found:
        step()
    totals = dict.fromkeys([*parts, "operator", REST], 0.0)
    events = [event for event in found.events() if event.device_type.name == "CPU"]
    part_of = _parts_by_sequence(events)
    for event in events:
        seconds = event.self_device_time_total if device == "cuda" else event.self_cpu_time_total
        totals[_part(event, part_of)] += seconds
    whole = sum(totals.values())
    return {name: value / whole for name, value in totals.items()}


def _parts_by_sequence(events: list[FunctionEvent]) -> dict[int, str]:
    """The part that ran the forward operation of each sequence number."""
    forward = [event for event in events if event.sequence_nr >= 0 and not _is_backward(_top(event))]
    # An operation and those that it calls may carry one number; all lie in one part.
    return {event.sequence_nr: _forward_part(event) for event in forward}


def _part(event: FunctionEvent, part_of: dict[int, str]) -> str:
    top = _top(event)
    return part_of.get(top.sequence_nr, REST) if _is_backward(top) else _forward_part(event)


def _forward_part(event: FunctionEvent) -> str:
    return next((each.name.removeprefix(PREFIX) for each in _upwards(event) if each.name.startswith(PREFIX)), REST)


def _is_backward(event: FunctionEvent) -> bool:
    return event.name.startswith("autograd::engine::evaluate_function")


def _top(event: FunctionEvent) -> FunctionEvent:
    """The outermost call; in backward, the node that autograd's engine evaluates."""
    return next((each for each in _upwards(event) if _is_backward(each)), event)


def _upwards(event: FunctionEvent | None) -> Iterator[FunctionEvent]:
    while event is not None:
        yield event
        event = event.cpu_parent


@contextmanager
def _named(parts: Parts) -> Iterator[None]:
    """Mark the parts' calls for the profiler."""
    running: list[record_function] = []

    def enter(name: str) -> Callable[..., None]:
        def hook(*_: Any) -> None:
            running.append(record_function(PREFIX + name))
            running[-1].__enter__()

        return hook

    def leave(*_: Any) -> None:
        running.pop().__exit__(None, None, None)

    handles = []
    for name, modules in parts.items():
        for module in modules:
            handles += [module.register_forward_pre_hook(enter(name)), module.register_forward_hook(leave)]
    operator = coattention.routed_coattention

    @wraps(operator)
    def named_operator(*arguments: Any, **options: Any) -> Any:
        with record_function(PREFIX + "operator"):
            return operator(*arguments, **options)

    coattention.routed_coattention = named_operator
    try:
        yield
    finally:
        coattention.routed_coattention = operator
        for handle in handles:
            handle.remove()
