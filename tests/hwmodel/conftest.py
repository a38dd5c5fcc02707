"""The published UNets as fused programs, and their workloads, once a session."""

from __future__ import annotations

import pytest

from fick.hwmodel.extract import extract
from fick.hwmodel.hardware import load
from fick.hwmodel.specs import HybridSystolic
from fick.hwmodel.workload import Workload
from fick.ir.program import Program

from . import programs


@pytest.fixture(scope="session")
def sda() -> HybridSystolic:
    spec = load("sda").spec
    assert isinstance(spec, HybridSystolic)
    return spec


@pytest.fixture(scope="session")
def published(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Program]:
    return {name: programs.kept(name, tmp_path_factory.mktemp("program")) for name in programs.NAMES}


@pytest.fixture(scope="session")
def workloads(published: dict[str, Program], sda: HybridSystolic) -> dict[str, Workload]:
    return {name: extract(program, sda.bits) for name, program in published.items()}
