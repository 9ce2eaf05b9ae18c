"""What the merge tests share: scratch directories."""

from collections.abc import Callable
from pathlib import Path

import pytest
from merge_bench import Bench


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A fresh scratch directory."""
    return Bench(tmp_path)


@pytest.fixture
def bench_factory(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], Bench]:
    """Fresh scratch directories, one per call (for property tests)."""
    return lambda: Bench(tmp_path_factory.mktemp("merge"))
