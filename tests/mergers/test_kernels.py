"""Compiled code against the formulas in torch: the same bits for every method that has some, and the same word on what is not finite."""

import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mergers.engine import served
from mergers.engine.arrays import as_array, as_tensor, is_finite, largest, not_finite
from mergers.engine.rounds import Tally
from mergers.kernels.table import KERNELS, kernel_for
from mergers.merger import Inputs, Merger
from mergers.methods.dare import DareTies
from mergers.methods.ema import Ema
from mergers.methods.gram import gram_of
from mergers.methods.karcher import Karcher
from mergers.methods.linear import WeightedAverage, WiseFT
from mergers.methods.slerp import Slerp, SphericalAverage
from mergers.methods.task_arithmetic import TaskArithmetic
from mergers.methods.ties import Ties, TiesPerTensor
from mergers.table import merger_class

pytest.importorskip("numba", reason="compiled code is an extra: pip install 'mergeline[fast]'")

DTYPES = {torch.bfloat16: np.uint16, torch.float32: np.float32}
SIZES = (1, 7, 2048, 5000)
"""Less than a vector, than a stretch, just one, and some with a rest."""
METHODS: tuple[tuple[Merger, int], ...] = (
    (WiseFT(0.3), 2),
    (WiseFT(0.7), 2),
    (WiseFT(1.0), 2),
    (WeightedAverage((0.2, 0.3, 0.5)), 3),
    (WeightedAverage((0.5, 0.0, 0.5)), 3),
    (WeightedAverage(), 5),
    (Ema(0.8), 3),
    (TaskArithmetic(), 1),
    (TaskArithmetic((0.6, 0.4)), 2),
    (TaskArithmetic((1.0, -0.5, 0.0), scale=0.3), 3),
    (TaskArithmetic((1.0, 2.0), scale=0.7, normalize=True), 2),
    (Slerp(0.3), 2),
    (SphericalAverage(), 3),
    (Karcher(), 3),
    (Ties(0.5), 2),
    (Ties((0.2, 1.0, 0.7), (0.6, 0.4, 1.0), 0.8, normalize=False), 3),
    (TiesPerTensor(0.3, (0.5, 2.0)), 2),
    (TiesPerTensor(1.0), 2),
    (DareTies(0.5, seed=3), 2),
    (DareTies((0.5, 1.0, 0.25), (0.6, 0.4, 1.0), 0.8, seed=1, normalize=False), 3),
    (DareTies(0.5, rescale=False), 2),
)


def blocks(seed: int, count: int, size: int, dtype: torch.dtype) -> tuple[tuple[torch.Tensor, ...], torch.Tensor]:
    """Sources and a base as models have them: changes of every size, none at all, zeros of both signs, and numbers near underflow."""
    random = np.random.default_rng(seed)
    base = random.standard_normal(size, dtype=np.float32) * 0.02
    base[::7], base[1::7], base[2::11] = 0.0, -0.0, 1e-41
    sources = [base + random.standard_normal(size, dtype=np.float32) * 10.0 ** random.integers(-6, 0) for _ in range(count)]
    for source in sources:
        source[::5] = base[::5]
        source[3::13] = -0.0
    sources[-1][1::17] = sources[0][1::17]
    return tuple(torch.from_numpy(source).to(dtype) for source in sources), torch.from_numpy(base).to(dtype)


def compare(merger: Merger, sources: tuple[torch.Tensor, ...], base: torch.Tensor | None, out: torch.dtype) -> bool:
    """Whether compiled code took the case; AssertionError if it gave other bits, or counted otherwise."""
    kernel = kernel_for(merger)
    assert kernel is not None
    seen = Inputs("a tensor", 0, sources, tuple(range(len(sources))), base, tuple("abcde"[: len(sources)]), len(sources[0]))
    arrays, origin = tuple(map(as_array, sources)), None if base is None else as_array(base)
    for number in range(merger.rounds):
        if not merger.needs(number, seen.known):
            continue
        formula, code = Tally(), Tally()
        formula.add(merger.observe(number, seen))
        assert kernel.count is not None
        assert kernel.count(merger, number, replace(seen, tensors=(), base=None), arrays, origin, code)
        assert np.array_equal(formula.total(), code.total())
        seen = replace(seen, known=merger.summarize(number, formula.total(), seen.known))
    expected = as_array(merger.merge(seen).to(out))
    made = np.full(len(expected), 7, dtype=DTYPES[out])
    if not kernel.merge(merger, replace(seen, tensors=(), base=None), arrays, origin, made):
        return False
    assert made.tobytes() == expected.tobytes()
    return True


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize(("merger", "count"), METHODS, ids=str)
def test_the_bits_are_those_of_the_formula(merger: Merger, count: int, dtype: torch.dtype, size: int) -> None:
    sources, base = blocks(size, count, size, dtype)
    took = compare(merger, sources, base if merger.base.value == "required" else None, dtype)
    assert took != (merger in (WiseFT(1.0), TaskArithmetic()) or (merger == TiesPerTensor(1.0) and count == 1))


@pytest.mark.parametrize(("merger", "count"), [each for each in METHODS if each[0].base.value == "required"], ids=str)
def test_half_precision_may_come_out_in_float32(merger: Merger, count: int) -> None:
    sources, base = blocks(0, count, 5000, torch.bfloat16)
    compare(merger, sources, base, torch.float32)


@settings(max_examples=100)
@given(
    bits=st.lists(st.lists(st.integers(0, 0xFFFF), min_size=9, max_size=9), min_size=3, max_size=3),
    method=st.sampled_from([each for each in METHODS if not each[0].rounds]),
)
def test_any_bits_at_all(bits: list[list[int]], method: tuple[Merger, int]) -> None:
    """NaN and infinity too: the same bits, or something that is not finite in both, and then the engine asks torch."""
    merger, count = method
    rows = [torch.tensor(row, dtype=torch.int32).to(torch.int16).view(torch.bfloat16) for row in bits]
    sources = tuple(rows[index % 2] for index in range(count))
    base = rows[2] if merger.base.value == "required" else None
    seen = Inputs("a tensor", 0, sources, tuple(range(count)), base, tuple("abcde"[:count]), 9)
    expected, made = as_array(merger.merge(seen).to(torch.bfloat16)), np.zeros(9, dtype=np.uint16)
    kernel = kernel_for(merger)
    assert kernel is not None
    arrays, origin = tuple(map(as_array, sources)), None if base is None else as_array(base)
    if kernel.merge(merger, replace(seen, tensors=(), base=None), arrays, origin, made):
        assert is_finite(made) == is_finite(expected)
        assert not is_finite(made) or made.tobytes() == expected.tobytes()


def test_every_kernel_is_tried() -> None:
    assert {type(merger) for merger, _ in METHODS} == set(KERNELS) == {merger_class(name) for name in served.METHODS}


def test_dot_products_are_exact_to_the_last_places() -> None:
    """Against sums of exact products, in a block that fills no lane evenly."""
    sources, base = blocks(1, 2, 5001, torch.float32)
    rows = [source.double() - base.double() for source in sources]
    exact = [[float(np.longdouble(1) * (left.numpy().astype(np.longdouble) * right.numpy()).sum()) for right in rows] for left in rows]
    assert np.allclose(gram_of(sources, base), exact, rtol=1e-13, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("broken", [float("nan"), float("inf"), float("-inf")])
def test_what_is_not_finite_is_found(dtype: torch.dtype, broken: float) -> None:
    most = torch.finfo(dtype).max
    values = torch.tensor([0.0, -0.0, most, -most, 1.0] * 500, dtype=dtype)
    assert is_finite(as_array(values))
    assert not_finite(as_array(values)) == 0
    assert largest(as_array(values)) == largest(as_array(values[2:3]))
    values[1999] = broken
    assert not is_finite(as_array(values))
    assert not_finite(as_array(values)) == 1


def test_arrays_and_tensors_are_one_memory() -> None:
    for dtype in (torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.uint8):
        tensor = torch.arange(8).to(dtype)
        array = as_array(tensor)
        assert as_tensor(array).dtype == dtype
        array[:] = 0
        assert not tensor.any()


def test_a_merge_by_compiled_code_loads_no_torch(bench, tmp_path: Path) -> None:
    """And one that is switched to torch gives the same file."""
    code = (
        "import sys; from pathlib import Path; from mergers import *\n"
        "s = [Source(n, read_checkpoint(Path(p))) for n, p in zip('ab', sys.argv[1:3])]\n"
        "from mergers.engine.processes import Processes\n"
        "from mergers.engine.served import needs_torch\n"
        "plan = plan_merge(WeightedAverage(), s, Path(sys.argv[3]))\n"
        "need = any(needs_torch(tensor, 'cpu') for tensor in plan.tensors)\n"
        "with Processes(2, need) as workers:\n"
        "    print(execute(plan, workers).digest, need, 'torch' in sys.modules)"
    )
    a, b = (bench.save(name, {"w": torch.randn(40, 30, generator=torch.manual_seed(seed))}) for seed, name in enumerate("ab"))
    said = []
    for switch in ("1", "0"):
        command = [sys.executable, "-c", code, str(a), str(b), str(tmp_path / switch)]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env={**os.environ, "MERGELINE_COMPILED": switch})
        said.append(done.stdout.split())
    assert said[0][0] == said[1][0]
    assert [words[1] for words in said] == ["False", "True"]
    assert said[0][2] == "False"
