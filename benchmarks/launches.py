"""Launches and waits of a stage, counted in a profiler's trace."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

# Waits that do not have the word in their names: an ordinary copy and freeing memory wait for the device.
WAITS = ("cudaMemcpy", "cudaFree")


class Stage(NamedTuple):
    launches: list[str]  # names of kernels, copies and fills, in the order of their launch
    waits: list[str]  # names of calls that make the host wait for the GPU


def count(events: Iterable[Mapping[str, Any]], names: Iterable[str]) -> dict[str, Stage]:
    """What was launched from within each range of `names`, from whichever thread: backward runs in one of its own.

    A launch belongs to the range in which the host made it; the GPU may run it later. Host and GPU events of one launch
    share a correlation number.
    """
    events = [event for event in events if "dur" in event]
    host = [event for event in events if event.get("cat") in ("cuda_runtime", "cuda_driver")]
    device = {
        event["args"]["correlation"]: event["name"]
        for event in events
        if event.get("cat") in ("kernel", "gpu_memcpy", "gpu_memset")
    }
    stages = {}
    for name in names:
        (span,) = (event for event in events if event.get("cat") == "user_annotation" and event["name"] == name)
        inside = [event for event in host if span["ts"] <= event["ts"] <= span["ts"] + span["dur"]]
        inside.sort(key=lambda event: event["ts"])
        correlations = [event.get("args", {}).get("correlation") for event in inside]
        stages[name] = Stage(
            [device[correlation] for correlation in correlations if correlation in device],
            [event["name"] for event in inside if "Synchronize" in event["name"] or event["name"] in WAITS],
        )
    return stages
