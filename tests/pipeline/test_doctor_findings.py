"""What `doctor` makes of what nodes answered: every judgement, from values."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipeline.doctor.facts import Facts, TokenFile
from pipeline.doctor.findings import (
    CLOCK_SECONDS,
    Finding,
    State,
    judge_clocks,
    judge_dashboard,
    judge_free,
    judge_gpus,
    judge_locks,
    judge_rename,
    judge_seen,
    judge_shared_memory,
    judge_tokens,
    judge_versions,
    judge_workspace,
)
from pipeline.doctor.nodes import node_names, offset

WELL = Facts(
    workspace="",
    free=50_000_000_000,
    shared_memory=8_000_000_000,
    versions={"python": "3.11.7", "torch": "2.13.0", "ray": "2.60.0"},
    code="a" * 64,
    auth_mode="token",
    token=TokenFile("/home/ann/.ray/auth_token", 0o600, False),
    devices=0,
    gpus=0,
)


def nodes(**changed: Facts) -> dict[str, Facts]:
    """Two nodes that are well, apart from what is given."""
    return {"a": WELL, "b": WELL, **changed}


def is_problem(finding: Finding, *words: str) -> bool:
    """Whether it is a problem that says all of these, with something to do."""
    return finding.state is State.PROBLEM and bool(finding.remedy) and all(word in finding.seen for word in words)


def test_a_good_cluster_has_no_problem() -> None:
    findings = [
        judge_workspace(nodes(), "/shared"),
        judge_free(nodes(), 1e9),
        *judge_versions(nodes()),
        judge_shared_memory(nodes(), {"a": 1e9, "b": 1e9}),
        *judge_tokens(nodes(), clustered=True),
        judge_gpus(nodes(), {"a": 0, "b": 0}),
        judge_clocks({"a": (0.01, 0.001), "b": (-0.2, 0.001)}),
        judge_seen({"a": [], "b": []}, 2),
        judge_rename({"b": (1000, 0)}),
        judge_locks("a", {"b": True}, taken_over=True),
        judge_dashboard("127.0.0.1", 8265, 401),
    ]
    assert [finding.check for finding in findings if finding.state is not State.OK] == []


def test_the_workspace_is_missed_where_it_is_not() -> None:
    found = judge_workspace(nodes(b=replace(WELL, workspace="is not there")), "/shared")
    assert is_problem(found, "b: is not there")
    assert "a:" not in found.seen


def test_room_is_measured_against_what_is_asked() -> None:
    assert is_problem(judge_free(nodes(b=replace(WELL, free=999_999_999)), 1e9), "b: 1000.00 MB free")
    assert judge_free(nodes(b=replace(WELL, free=1_000_000_000)), 1e9).state is State.OK
    unknown = nodes(b=replace(WELL, workspace="is not there", free=0))
    assert judge_free(unknown, 1e9).state is State.OK  # said once, as a missing workspace


@pytest.mark.parametrize(
    ("versions", "told"),
    [
        ({"torch": "2.12.0"}, "torch: 2.12.0 on b, 2.13.0 on a"),
        ({"ray": "not installed"}, "ray: 2.60.0 on a, not installed on b"),
    ],
)
def test_versions_that_differ_are_told_with_their_nodes(versions: dict[str, str], told: str) -> None:
    libraries, code = judge_versions(nodes(b=replace(WELL, versions={**WELL.versions, **versions})))
    assert is_problem(libraries, told)
    assert code.state is State.OK


def test_a_library_that_nobody_has_is_missed() -> None:
    (libraries, _) = judge_versions({"a": replace(WELL, versions={"torch": "not installed"})})
    assert is_problem(libraries, "torch: not installed")


def test_other_code_on_one_node_is_seen() -> None:
    libraries, code = judge_versions(nodes(b=replace(WELL, code="b" * 64)))
    assert libraries.state is State.OK
    assert is_problem(code, "aaaaaaaaaaaa on a", "bbbbbbbbbbbb on b")


def test_shared_memory_must_hold_what_ray_puts_there() -> None:
    container = nodes(b=replace(WELL, shared_memory=64_000_000))
    assert is_problem(judge_shared_memory(container, {"a": 1e9, "b": 1e9}), "b: 64.00 MB in all, 1.00 GB wanted")
    assert judge_shared_memory(container, {"a": 1e9, "b": 5e7}).state is State.OK
    assert is_problem(judge_shared_memory({"b": container["b"]}, {}), "64.00 MB")  # a machine without Ray, too


@pytest.mark.parametrize(
    ("mode", "exposed"), [(0o600, False), (0o400, False), (0o644, True), (0o640, True), (0o604, True), (0o602, True), (None, False)]
)
def test_a_token_file_is_its_owners_alone(mode: int | None, exposed: bool) -> None:
    held = replace(WELL, token=TokenFile("/t", mode, in_environment=False))
    file, _ = judge_tokens({"a": held}, clustered=False)
    assert (file.state is State.PROBLEM) == exposed


def test_a_cluster_needs_a_token_on_every_node() -> None:
    without = replace(WELL, token=TokenFile("/t", None, in_environment=False))
    file, _ = judge_tokens(nodes(b=without), clustered=True)
    assert is_problem(file, "b: no /t")
    alone, _ = judge_tokens({"b": without}, clustered=False)
    assert alone.state is State.OK  # Ray makes one
    given_by_variable, _ = judge_tokens(nodes(b=replace(WELL, token=TokenFile("/t", None, in_environment=True))), clustered=True)
    assert given_by_variable.state is State.OK


@pytest.mark.parametrize(
    ("mode", "clustered", "state"),
    [
        ("token", True, State.OK),
        ("TOKEN", True, State.OK),
        ("", True, State.PROBLEM),  # `ray start` and its clients go by different defaults
        ("", False, State.OK),
        ("disabled", True, State.PROBLEM),
        ("disabled", False, State.PROBLEM),
    ],
)
def test_ray_is_told_to_ask_for_the_token(mode: str, clustered: bool, state: State) -> None:
    _, asked = judge_tokens({"a": replace(WELL, auth_mode=mode)}, clustered)
    assert asked.state is state


@pytest.mark.parametrize(
    ("devices", "seen", "counted", "told"),
    [
        (4, 4, {"a": 4}, None),
        (4, 0, {"a": 4}, "Ray counts 4, torch sees 0"),
        (4, 4, {"a": 0}, "torch sees 4, Ray counts none"),
        (4, 4, {"a": 2}, None),  # Ray was given two of them
        (4, 0, {}, "the machine has 4, torch sees none"),
        (0, 0, {}, None),
    ],
)
def test_gpus_are_counted_alike(devices: int, seen: int, counted: dict[str, float], told: str | None) -> None:
    found = judge_gpus({"a": replace(WELL, devices=devices, gpus=seen)}, counted)
    assert found.state is State.OK if told is None else is_problem(found, told)


def test_a_head_may_keep_its_gpus_to_itself() -> None:
    card = replace(WELL, devices=1, gpus=1)
    found = judge_gpus(nodes(a=card, b=card), {"a": 0, "b": 1})
    assert found.state is State.OK


@given(
    offsets=st.dictionaries(
        st.sampled_from("abcde"), st.tuples(st.floats(-20, 20), st.floats(0, 2)), min_size=2
    )  # seconds, of which up to two uncertain
)
def test_clocks_are_a_problem_exactly_where_two_are_apart_for_certain(offsets: dict[str, tuple[float, float]]) -> None:
    certain = max((ahead - doubt) - (behind + unsure) for ahead, doubt in offsets.values() for behind, unsure in offsets.values())
    found = judge_clocks(offsets)
    assert (found.state is State.PROBLEM) == (certain > CLOCK_SECONDS)


def test_a_clock_that_is_ahead_is_named() -> None:
    assert is_problem(judge_clocks({"a": (0.0, 0.01), "b": (7.5, 0.01), "c": (0.1, 0.01)}), "b is at least 7.5 s ahead of a")
    assert judge_clocks({"a": (7.5, 0.0)}).state is State.OK


@pytest.mark.parametrize("ahead", [-12.0, 0.0, 12.0])
def test_an_offset_is_measured_through_a_slow_answer(ahead: float) -> None:
    import time

    delays = iter([0.2, 0.0, 0.1])

    def ask() -> float:
        time.sleep(next(delays))
        return time.time() + ahead

    measured, doubt = offset(ask, 3)
    assert doubt < 0.05  # the quickest of the three
    assert abs(measured - ahead) <= doubt + 0.001


def test_files_that_are_not_seen_name_the_reader_and_the_writers() -> None:
    assert is_problem(judge_seen({"a": [], "b": ["c", "a"]}, 3), "b: does not see what a, c wrote")


def test_a_broken_rename_and_a_lock_that_holds_nobody_are_problems() -> None:
    assert is_problem(judge_rename({"b": (1000, 2), "c": (900, 0)}), "b: 2 of 1000 reads")
    assert is_problem(judge_locks("a", {"b": True, "c": False}, taken_over=True), "c: was given a lock that a held")
    assert is_problem(judge_locks("a", {"b": True}, taken_over=False), "a: its lock could not be had")


@pytest.mark.parametrize(
    ("host", "status", "problem"),
    [
        ("127.0.0.1", 401, False),
        ("localhost", None, False),
        ("head.example.org", 401, False),
        ("head.example.org", 200, True),
        ("10.0.0.7", 401, False),
        ("10.0.0.7", 200, True),  # no token asked
        ("127.0.0.1", 200, True),
        ("8.8.8.8", 401, True),
        ("0.0.0.0", None, True),
        ("2001:4860:4860::8888", 403, True),
    ],
)
def test_the_dashboard_is_neither_public_nor_open(host: str, status: int | None, problem: bool) -> None:
    assert is_problem(judge_dashboard(host, 8265, status)) == problem


def test_nodes_of_one_address_are_told_apart() -> None:
    listed = [{"NodeManagerAddress": "10.0.0.1", "NodeID": "aaaaaaaa"}, {"NodeManagerAddress": "10.0.0.2", "NodeID": "bbbbbbbb"}]
    assert node_names(listed) == ["10.0.0.1", "10.0.0.2"]
    listed.append({"NodeManagerAddress": "10.0.0.1", "NodeID": "cccccccc"})
    assert node_names(listed) == ["10.0.0.1 (aaaaaa)", "10.0.0.2", "10.0.0.1 (cccccc)"]
