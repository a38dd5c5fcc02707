"""The time line in the trace event format that Perfetto and chrome://tracing open.

Complete events (``ph`` is "X") of a name, a start ``ts`` and a duration ``dur`` in microseconds on a process and a
thread; metadata events (``ph`` is "M") name those. A unit of the accelerator is a thread.
"""

from __future__ import annotations

from typing import Any

from .timeline import UNITS, Facts, Span, timeline

PROCESS = 1
DETAILS = ("kind", "stage", "shape", "bits", "macs", "cycles", "bound", "behind", "ema_bytes", "energy_mj")


def trace(facts: Facts) -> dict[str, Any]:
    """An estimate's time line, ready for JSON: a thread for the operators and one for each unit's work on them."""
    threads = ("operators", *UNITS)
    events = [_named("process_name", 0, f"{facts['model']} on {facts['hardware']}")]
    for thread, name in enumerate(threads):
        events += [
            _named("thread_name", thread, name),
            _metadata("thread_sort_index", thread, sort_index=thread),
        ]
    for span in timeline(facts):
        seconds = (span.seconds, *(span.busy_s(unit) for unit in UNITS))
        events += [_complete(span, thread, one) for thread, one in enumerate(seconds) if one]
    return {"traceEvents": events, "displayTimeUnit": "ms"}


def _complete(span: Span, thread: int, seconds: float) -> dict[str, Any]:
    operator = span.operator
    return {
        "ph": "X",
        "name": operator["name"],
        "cat": f"{operator['variant']},{operator['kind']}",
        "ts": span.start_s * 1e6,
        "dur": seconds * 1e6,
        "pid": PROCESS,
        "tid": thread,
        "args": {key: operator[key] for key in DETAILS},
    }


def _named(what: str, thread: int, name: str) -> dict[str, Any]:
    return _metadata(what, thread, name=name)


def _metadata(what: str, thread: int, **arguments: object) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": PROCESS, "tid": thread, "args": arguments}
