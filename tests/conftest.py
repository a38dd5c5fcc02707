"""What tests of several folders ask for, the tiny bundle of tests/runtime/tiny.py first of all, linked once a session."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from fick.targets.compiled import Compiled

from .runtime import tiny


@pytest.fixture(scope="session")
def core_cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("core")


@pytest.fixture(scope="session")
def program(tmp_path_factory: pytest.TempPathFactory) -> Compiled:
    return tiny.compiled(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="session")
def bundle(program: Compiled, core_cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny.write(tmp_path_factory.mktemp("bundle") / "tiny.fick", program, core_cache)


@pytest.fixture(scope="module")
def one_torch_thread() -> Iterator[None]:
    """Of tensors as small as the tests' a second one waits more than it does."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


# Here another draw at every run; where a run decides on a change, the same one.
settings.register_profile("same", derandomize=True)
if os.environ.get("CI"):
    settings.load_profile("same")
