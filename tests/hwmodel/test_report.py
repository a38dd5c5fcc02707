"""The page and the trace of an estimate: complete, escaped, self-contained, and drawn by a browser."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from dataclasses import replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from fick.hwmodel import topology
from fick.hwmodel.estimate import estimate
from fick.hwmodel.hardware import load, names
from fick.hwmodel.report import charts, page, trace
from fick.hwmodel.report.timeline import UNITS, timeline
from fick.hwmodel.workload import Workload

HOSTILE = "</script><script>alert(1)</script><img src=//x.test/y onerror=alert(2)>"


@pytest.fixture(scope="module", params=["sda", "dbsc", "systolic-32x32"])
def facts(request: pytest.FixtureRequest, workloads: dict[str, Workload]) -> dict[str, Any]:
    """An estimate in which what a user names is as hostile as it may be."""
    workload = workloads["bk-sdm-tiny"]
    first, *others = workload.variants["full"]
    variants = {**workload.variants, "full": (replace(first, name=HOSTILE, stage=HOSTILE), *others)}
    return estimate(replace(workload, name=HOSTILE, variants=variants), load(request.param), 4)


class Parsed(HTMLParser):
    """What a browser would load, and the rows of the table."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.rows: list[list[str]] = []
        self._inside = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._inside = tag
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]
        if tag == "tr":
            self.rows.append([])
        elif tag == "td":
            self.rows[-1].append("")

    def handle_data(self, data: str) -> None:
        if self._inside == "td":
            self.rows[-1][-1] += data

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""


def test_the_page_is_whole_escaped_and_loads_nothing(facts: dict[str, Any]) -> None:
    text = page(facts)
    parsed = Parsed(text)
    assert parsed.loaded == [] and "img" not in parsed.tags and HOSTILE not in text
    # plotly.js, its settings and code for each chart.
    assert parsed.tags.count("script") == text.count("</script>")
    assert "default-src 'none'" in text
    shown = [row[0] for row in parsed.rows if row]
    wanted = [one["name"] + (f" + {one['behind']}" if one["behind"] else "") for one in facts["operators"]]
    assert shown == wanted and any(HOSTILE in name for name in shown)
    for one, row in zip(facts["operators"], parsed.rows[1:], strict=True):
        assert (row[6], row[-1]) == (f"{one['cycles']:,}", one["bound"])


def test_the_same_bytes_twice(facts: dict[str, Any]) -> None:
    assert page(facts) == page(json.loads(json.dumps(facts)))


def test_time_line_covers_the_time(facts: dict[str, Any]) -> None:
    spans = list(timeline(facts))
    assert [span.operator for span in spans] == facts["operators"]
    for one, after in pairwise(spans):
        assert after.start_s == pytest.approx(one.start_s + one.seconds, abs=1e-12)
    cycles = sum(one["cycles"] for one in facts["operators"])
    assert spans[-1].start_s + spans[-1].seconds == pytest.approx(cycles / facts["clock_hz"])
    # A unit works no longer than its operator lasts; a nest may round a cycle up.
    for span in spans:
        assert all(0 <= span.busy_s(unit) <= span.seconds + 2 / facts["clock_hz"] for unit in UNITS)


def test_charts_add_up_to_the_step(facts: dict[str, Any]) -> None:
    def total(chart: Any) -> float:
        return sum(sum(bar.x) for bar in chart.data)

    assert total(charts.stage_cycles(facts)) == pytest.approx(facts["step_cycles"] / 1e6)
    assert total(charts.stage_bytes(facts)) == pytest.approx(sum(facts["ema_bytes"].values()) / 1e6)
    assert total(charts.stage_energy(facts)) == pytest.approx(sum(facts["step_energy_mj"].values()))
    shares = charts.bounds(facts)
    rows = len(shares.data[0].y)
    assert total(shares) == pytest.approx(100 * rows)


def test_no_operator_is_above_the_roofs(facts: dict[str, Any]) -> None:
    bandwidth = facts["dram_bytes_per_s"]
    for one in facts["operators"]:
        if one["macs"]:
            seconds = one["cycles"] / facts["clock_hz"]
            assert one["macs"] <= facts["peak_macs_per_s"][one["mode"]] * seconds
            assert bandwidth is None or sum(one["ema_bytes"].values()) <= bandwidth * seconds


def test_a_class_has_one_colour_in_all_charts(facts: dict[str, Any]) -> None:
    found: dict[str, set[str]] = {}
    for chart in (charts.time_line, charts.stage_cycles, charts.roofline):
        for trace_ in chart(facts).data:
            if trace_.name and trace_.marker.color:
                found.setdefault(trace_.name, set()).add(trace_.marker.color)
    assert found.keys() >= {"convolution", "matmul", "attention scores"}
    assert all(len(colours) == 1 for colours in found.values())


def test_trace_is_in_the_trace_event_format(facts: dict[str, Any]) -> None:
    made = json.loads(json.dumps(trace(facts)))
    assert made["displayTimeUnit"] == "ms"
    named: dict[int, str] = {}
    ends: dict[int, float] = {}
    operators: list[str] = []
    for event in made["traceEvents"]:
        assert {"ph", "name", "pid", "tid", "args"} <= event.keys() and event["pid"] == 1
        if event["ph"] == "M":
            assert event["name"] in ("process_name", "thread_name", "thread_sort_index")
            if event["name"] == "thread_name":
                named[event["tid"]] = event["args"]["name"]
            continue
        assert event["ph"] == "X" and event["dur"] > 0 and isinstance(event["cat"], str)
        # Events of a thread are in order and do not overlap, but for a cycle that a nest rounds up.
        assert event["ts"] >= ends.get(event["tid"], 0.0) - 2e6 / facts["clock_hz"]
        ends[event["tid"]] = event["ts"] + event["dur"]
        if named[event["tid"]] == "operators":
            operators.append(event["name"])
    assert list(named.values()) == ["operators", *UNITS]
    assert operators == [one["name"] for one in facts["operators"] if one["cycles"]]


def test_every_spec_and_a_table_of_layers_have_a_page(tmp_path: Path) -> None:
    (tmp_path / "net.csv").write_text("Layer, M, N, K,\nqk, 256, 256, 40,\nff, 256, 640, 320,\n")
    for name in names():
        hardware = load(name)
        made = estimate(topology.load(tmp_path / "net.csv", hardware.spec.bits), hardware, 1)
        assert "qk" in page(made) and len(trace(made)["traceEvents"]) > 2


if shutil.which("chromium"):

    def test_chromium_draws_every_chart(facts: dict[str, Any], tmp_path: Path) -> None:
        (tmp_path / "page.html").write_text(page(facts))
        command = [
            "chromium",
            "--headless=new",
            "--no-sandbox",
            "--disable-gpu",
            f"--user-data-dir={tmp_path}/profile",
        ]
        command += ["--virtual-time-budget=10000", "--dump-dom", f"file://{tmp_path}/page.html"]
        drawn = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True).stdout
        assert len(re.findall(r'<div id="\w+" class="plotly-graph-div js-plotly-plot"', drawn)) == 7
        # A bar for every operator that takes time, and one for the array if it is a product.
        bars = sum(1 + bool(one["macs"]) for one in facts["operators"] if one["cycles"])
        assert drawn.count('class="point"') >= bars
