"""What tests of several folders ask for, the tiny bundle of tests/runtime/tiny.py first of all, linked once a session."""

import gc
import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from fick.compiler.cache import cache_folder
from fick.targets.compiled import Compiled
from fick.targets.cpu.build import workers_kept

from .runtime import tiny

HERE = Path(__file__).parent
ROOMS = ("compiler", "targets", "runtime", "passes", "hwmodel", "ir")
"""Those whose files take longest first."""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Workers take files in this order, and the last ones are small: none is left alone with a long one."""
    turns = {room: turn for turn, room in enumerate(ROOMS, 1)}
    items.sort(key=lambda item: turns.get(item.path.relative_to(HERE).parts[0], 0))


def pytest_collection_finish() -> None:
    """What torch, TVM and the test files have made so far stays: looking it through for garbage again and again takes
    an eighth of the time of a test that makes graphs.
    """
    gc.collect()
    gc.freeze()


@pytest.fixture(scope="session", autouse=True)
def waiting_workers() -> Iterator[None]:
    """Processes that compile kernels are started once, not for every program."""
    with workers_kept():
        yield


@pytest.fixture(scope="session")
def core_cache() -> Path:
    return cache_folder() / "core"


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return tiny.compiled(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="session")
def bundle(program: Compiled, core_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("bundle") / "tiny.fick", program, core_cache)


@pytest.fixture
def fresh_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache that has the kernels compiled before and no finished compilation."""
    folder = tmp_path / "cache"
    folder.mkdir()
    for kind in ("kernels", "core"):
        (cache_folder() / kind).mkdir(parents=True, exist_ok=True)
        (folder / kind).symlink_to((cache_folder() / kind).absolute())
    monkeypatch.setenv("FICK_CACHE", str(folder))
    return folder


# Here another draw at every run; where a run decides on a change, the same one.
settings.register_profile("same", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("same")
