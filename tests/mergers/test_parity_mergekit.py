"""The same configuration merged by mergekit itself and by this project gives the same numbers, element by element.

Needs mergekit in an environment of its own; where there is none, these tests are skipped and say how to get it. What must agree, how
closely, and where the two are free to differ stands beside each case in `benchmarks/parity.py`; `make parity` prints the table.
"""

from pathlib import Path

import pytest

from benchmarks.agreement import compare
from benchmarks.contenders import mergekit_bin
from benchmarks.parity import CASES, DTYPES, Case, Row, run_parity, table
from foundation.errors import ConfigError

CHOICES_AT_MOST = {"BF16": 0.1, "F32": 0.001}
"""Elements that a method's choice among equals may explain: bfloat16 differences lie on a coarse grid, float32 ones hardly ever meet."""

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("parity")]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the checkpoints and both sides' results lie."""
    try:
        mergekit_bin()
    except ConfigError as missing:
        pytest.skip(str(missing))
    return tmp_path_factory.mktemp("parity")


@pytest.fixture(scope="module")
def rows(home: Path) -> dict[tuple[str, str], Row]:
    """Every case in both dtypes, merged by both sides."""
    found = run_parity(home)
    print("\n" + "\n".join(table(found)))
    return {(row.case.name, row.dtype): row for row in found}


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_the_numbers_are_mergekits(rows: dict[tuple[str, str], Row], case: Case, dtype: str) -> None:
    row = rows[case.name, dtype]
    assert row.holds, row.agreement
    assert row.agreement.excused <= CHOICES_AT_MOST[dtype]


def test_another_merge_would_not_pass(rows: dict[tuple[str, str], Row], home: Path) -> None:
    """The comparison can fail: neighbouring cases' results differ by more than any case allows."""
    numbers = {case.name: number for number, case in enumerate(CASES)}
    for mine, theirs in (("ties", "ties, not normalized, lambda"), ("linear", "linear, by filter"), ("breadcrumbs", "breadcrumbs ties")):
        case = CASES[numbers[mine]]
        for dtype in DTYPES:
            ours, peer = (home / dtype / f"{numbers[name]}{end}" for name, end in ((mine, ".ours"), (theirs, ".theirs")))
            assert not Row(case, dtype, compare(ours, peer, case.excuse(home / dtype), case.relative)).holds
