"""Fingerprints: what changes them, what does not, and what cannot have one."""

import math
import pickle
import time
from dataclasses import dataclass
from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from foundation.errors import ConfigError
from pipeline.step import Step, canonical, execution, topological


@dataclass(frozen=True, eq=False, repr=False)
class Make(Step):
    kind: ClassVar[str] = "make"
    value: Any
    workers: int = execution(1)


@dataclass(frozen=True, eq=False, repr=False)
class Join(Step):
    kind: ClassVar[str] = "join"
    sources: dict[str, Step]
    weight: float = 0.5


@dataclass(frozen=True, eq=False, repr=False)
class NewerJoin(Join):
    version: ClassVar[int] = 2


plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text() | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(plain)
def test_equal_values_have_equal_fingerprints(value: Any) -> None:
    assert Make(value).fingerprint == Make(value).fingerprint
    assert Make(value).fingerprint != Make([value, "more"]).fingerprint


def test_execution_fields_do_not_count_and_the_others_do() -> None:
    assert Make(1, workers=4).fingerprint == Make(1, workers=1).fingerprint
    assert Make(1).fingerprint != Make(2).fingerprint
    assert Make(1).fingerprint != Make("1").fingerprint
    a, b = Make("a"), Make("b")
    first = Join({"x": a, "y": b})
    assert first.fingerprint != Join({"y": a, "x": b}).fingerprint
    assert first.fingerprint != Join({"y": b, "x": a}).fingerprint, "the order of sources decides bytes"
    assert first.fingerprint != Join({"x": a, "y": b}, weight=0.4).fingerprint
    assert first.fingerprint != NewerJoin({"x": a, "y": b}).fingerprint


def test_inputs_enter_by_their_fingerprints() -> None:
    assert Join({"x": Make("a", workers=9)}).fingerprint == Join({"x": Make("a")}).fingerprint
    assert Join({"x": Make("b")}).fingerprint != Join({"x": Make("a")}).fingerprint


@pytest.mark.parametrize("value", [lambda: 1, math.nan, math.inf, object(), {1: "a"}, b"bytes"])
def test_a_value_without_a_stable_form_is_refused_by_name(value: Any) -> None:
    with pytest.raises(ConfigError, match=r"Make\.value"):
        _ = Make(value).fingerprint


def test_a_long_chain_costs_linear_time() -> None:
    step: Step = Make(0)
    for _ in range(200):
        step = Join({"previous": step, "tuned": Join({"x": step})})
    start = time.perf_counter()
    assert len(topological([step])) == 401
    assert len(step.fingerprint) == 64
    assert time.perf_counter() - start < 5  # exponential would never end; the bound is not a speed claim


def test_topological_order_puts_inputs_first_and_equal_steps_once() -> None:
    a, same = Make("a"), Make("a")
    join, other = Join({"x": a}), Join({"x": same}, weight=0.1)
    ordered = topological([join, other])
    assert [step.kind for step in ordered] == ["make", "join", "join"]


def test_a_detached_step_is_the_same_step_and_small() -> None:
    step: Step = Make(0)
    for _ in range(300):
        step = Join({"previous": step, "tuned": Make(1)})
    sent = pickle.dumps(step.detached())
    received = pickle.loads(sent)
    assert (received.key, received.fingerprint) == (step.key, step.fingerprint)
    assert [needed.key for needed in received.inputs] == [needed.key for needed in step.inputs]
    assert len(sent) < 1000


def test_canonical_keeps_the_order_of_mappings() -> None:
    assert canonical({"b": 1, "a": 2}, "x") == [["b", 1], ["a", 2]]
