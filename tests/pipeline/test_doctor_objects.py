"""`doctor --objects`: nodes that are examiners in this process before moto's S3, good ones and ones with one fault; and the command."""

from pathlib import Path

import pytest
from commands import ended
from objects_server import SECRET, Fault, Objects, clean_environment, objects, objects_server, proxied, variables

from pipeline.doctor import objects as trying
from pipeline.doctor.examine import examine
from pipeline.doctor.findings import Finding, State
from pipeline.doctor.nodes import Here
from pipeline.doctor.objects import Told, judge_access, judge_conditions, judge_package
from pipeline.doctor.probe import Examiner
from pipeline.objects.bucket import Bucket, open_bucket

__all__ = ["objects", "objects_server"]
RESOURCES = {"object_store_memory": 1.0}


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A home with a token of its own, as Ray leaves it."""
    token = tmp_path / "home" / ".ray" / "auth_token"
    token.parent.mkdir(parents=True)
    token.write_text("token")
    token.chmod(0o600)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("RAY_AUTH_MODE", "token")
    for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH", "RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        monkeypatch.delenv(name, raising=False)


def examined(uri: str, place: Path, **kinds: type[Examiner]) -> dict[str, Finding]:
    """The findings about nodes of these kinds, each with a workspace of its own that is not there yet."""
    nodes = Here({name: kind(name, str(place / name / "workspace"), str(place / name)) for name, kind in kinds.items()})
    findings = examine(nodes, place, 1.0, dict.fromkeys(kinds, RESOURCES), fix=False, uri=uri)
    assert not nodes.lost
    return {finding.check: finding for finding in findings}


def problems(findings: dict[str, Finding]) -> list[str]:
    return [check for check, finding in findings.items() if finding.state is State.PROBLEM]


def test_good_nodes_have_no_problem_and_nothing_is_left(objects: str, tmp_path: Path) -> None:
    findings = examined(objects, tmp_path, a=Examiner, b=Examiner, c=Examiner)
    assert problems(findings) == []
    assert findings["conditional writes"].seen == "refused where they must be; one of 3 won"
    assert findings["seen at once"].seen == "each of 3 reads and lists what each wrote"
    assert "ms for a small object" in findings["object store"].seen
    assert "shared files" not in findings  # there are none
    assert open_bucket(objects).sizes() == {}


class Elsewhere(Examiner):
    """Is led to another place by the same URI: another endpoint."""

    def try_store(self, uri: str, place: str) -> Told:
        return super().try_store(f"{uri}/elsewhere", place)

    def store_unseen(self, uri: str, place: str, names: list[str]) -> list[str]:
        return super().store_unseen(f"{uri}/elsewhere", place, names)

    def store_race(self, uri: str, place: str) -> bool:
        return super().store_race(f"{uri}/elsewhere", place)


class Denied(Examiner):
    """Has no right there."""

    def try_store(self, uri: str, place: str) -> Told:
        return Told("0.12.1", "could not write: access is denied (AccessDenied)")


class Bare(Examiner):
    """Lacks the package."""

    def try_store(self, uri: str, place: str) -> Told:
        return Told("")


@pytest.mark.parametrize(
    ("kind", "checks", "told"),
    [
        (Elsewhere, ["conditional writes", "seen at once"], "b: does not read or list what a wrote"),
        (Denied, ["object store"], "b: could not write: access is denied (AccessDenied)"),
        (Bare, ["obstore"], "not installed on b"),
    ],
)
def test_one_faulty_node_is_found_and_named(objects: str, tmp_path: Path, kind: type[Examiner], checks: list[str], told: str) -> None:
    findings = examined(objects, tmp_path, a=Examiner, b=kind)
    assert problems(findings) == checks
    assert told in " ".join(findings[check].seen for check in checks)


class Careless(Bucket):
    """A store that heeds no condition."""

    def create(self, name: str, content: bytes, patience: float | None = None) -> str | None:
        return self.write(name, content)

    def replace(self, name: str, content: bytes, tag: str, patience: float | None = None) -> str | None:
        return self.write(name, content)


class Overwriting(Bucket):
    """One that refuses to make what is there, and replaces whatever is there."""

    def replace(self, name: str, content: bytes, tag: str, patience: float | None = None) -> str | None:
        return self.write(name, content)


class Keeping(Bucket):
    """One that shows what was removed, as a cache does."""

    def remove(self, names: object) -> None:
        pass


@pytest.mark.parametrize(
    ("kind", "check", "told"),
    [
        (Careless, "conditional writes", "an object was made where there is one"),
        (Overwriting, "conditional writes", "an object was replaced that had changed"),
        (Keeping, "conditional writes", "an object that was removed is still read"),
        (Keeping, "removal", "is not removed"),
    ],
)
def test_a_store_that_is_not_enough_is_found(
    objects: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: type[Bucket], check: str, told: str
) -> None:
    monkeypatch.setattr(trying, "open_bucket", kind)
    findings = examined(objects, tmp_path, a=Examiner, b=Examiner)
    assert check in problems(findings)
    assert told in findings[check].seen


def test_the_command_on_this_machine(objects: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = ended(capsys, "doctor", "--workspace", tmp_path / "not yet", "--objects", objects)
    assert done.code == 0, done.said
    for check in ("obstore", "object store", "conditional writes", "seen at once"):
        assert check in done.out
    assert f"objects={objects}" in done.said.replace("\n", "")
    assert SECRET not in done.said
    assert not (tmp_path / "not yet").exists()


def test_a_store_that_refuses_ends_with_exit_code_4(
    objects_server: Objects, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clean_environment(monkeypatch)
    with proxied(objects_server.endpoint) as proxy:
        for name, value in variables(proxy.endpoint).items():
            monkeypatch.setenv(name, value)
        proxy.always(Fault.DENY)
        done = ended(capsys, "doctor", "--workspace", tmp_path, "--objects", objects_server.uri())
    assert done.code == 4
    assert "access is denied" in " ".join(done.out.split())
    assert "object store" in done.err
    assert SECRET not in done.said


def test_a_uri_with_a_secret_ends_with_exit_code_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    done = ended(capsys, "doctor", "--workspace", tmp_path, "--objects", "s3://key:hidden@models")
    assert done.code == 2
    assert "hidden" not in done.said


def test_what_is_made_of_the_answers() -> None:
    well = Told("0.12.1", trip=0.02, up=50e6, down=80e6)
    slow = Told("0.12.1", trip=0.2, up=5e6, down=8e6)
    assert "200 ms for a small object, 5 MB/s there, 8 MB/s back" in judge_access({"a": well, "b": slow}, "s3://x").seen
    assert judge_package({"a": well, "b": Told("0.6.0")}).seen == "obstore: 0.12.1 on a, 0.6.0 on b"
    assert judge_conditions({"a": well, "b": slow}, ["a", "b"]).seen == "together: 2 of 2 made one object that was not there (a, b)"
    assert judge_conditions({"a": well}, []).state is State.PROBLEM
