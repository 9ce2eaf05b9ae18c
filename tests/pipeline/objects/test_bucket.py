"""A prefix in an object store, on moto's S3: writes on a condition, lost answers, outages, refusals, files that come whole or not."""

import hashlib
import os
import pickle
import re
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from objects_server import SECRET, Fault, Objects, Proxy, clean_environment, proxied, variables

from foundation.errors import ConfigError, InputError, ResourceError
from pipeline.objects import asking as questions
from pipeline.objects import bucket as buckets
from pipeline.objects.bucket import Bucket, open_bucket

REPOSITORY = Path(__file__).parents[3]
SOME = 8
NAMES = st.text("abcXYZ019._- #%+=~ü", min_size=1, max_size=12).filter(lambda name: name.strip(".") != "")


@pytest.fixture
def proxy(objects_server: Objects, monkeypatch: pytest.MonkeyPatch) -> Iterator[Proxy]:
    """Before the store, and this process led to it; a store that fails is given up after half a second."""
    clean_environment(monkeypatch)
    with proxied(objects_server.endpoint) as running:
        for name, value in variables(running.endpoint).items():
            monkeypatch.setenv(name, value)
        monkeypatch.setattr(questions, "FIRST_SECONDS", 0.5)
        monkeypatch.setattr(questions, "PATIENCE_SECONDS", 0.5)
        monkeypatch.setattr(questions, "PART_RETRIES", 0)
        monkeypatch.setattr(questions, "PAUSE_SECONDS", 0.02)
        yield running


@pytest.fixture
def behind(proxy: Proxy, objects_server: Objects) -> Bucket:
    """A bucket behind the proxy that has answered once."""
    made = open_bucket(objects_server.uri())
    made.write("there", b"content")
    proxy.seen.clear()
    return made


def test_what_is_written_is_read(objects: str) -> None:
    bucket = open_bucket(objects)
    assert bucket.read("a/b") is None
    tag = bucket.write("a/b", b"one")
    found = bucket.read("a/b")
    assert found is not None
    assert (found.content, found.tag) == (b"one", tag)
    bucket.write("a/b", b"")
    bucket.write("ab/c", b"12345")
    assert bucket.sizes() == {"a/b": 0, "ab/c": 5}
    assert bucket.sizes("a") == bucket.sizes("a/") == {"a/b": 0}  # whole directories, not beginnings of names
    assert bucket.sizes("none") == {}
    bucket.remove(["a/b", "not there"])
    bucket.remove([])
    assert bucket.sizes() == {"ab/c": 5}
    assert open_bucket(objects + "-other").sizes() == {}


def test_a_write_on_a_condition_happens_only_then(objects: str) -> None:
    bucket = open_bucket(objects)
    first = bucket.create("name", b"one")
    assert first is not None
    assert bucket.create("name", b"two") is None
    assert bucket.create("name", b"one") is None  # not even with the same content
    second = bucket.replace("name", b"two", first)
    assert second is not None
    assert bucket.replace("name", b"three", first) is None
    assert bucket.replace("none", b"three", second) is None
    found = bucket.read("name")
    assert found is not None
    assert found.content == b"two"
    bucket.remove(["name"])
    assert bucket.replace("name", b"three", second) is None
    assert bucket.create("name", b"four") is not None


def test_of_many_threads_exactly_one_wins(objects: str) -> None:
    bucket, start = open_bucket(objects), threading.Barrier(SOME)

    def race(write: Callable[[bytes], str | None]) -> list[int]:
        def run(number: int) -> str | None:
            start.wait()
            return write(str(number).encode())

        with ThreadPoolExecutor(SOME) as pool:
            return [number for number, tag in enumerate(pool.map(run, range(SOME))) if tag is not None]

    for turn in range(5):
        name = f"name {turn}"
        (winner,) = race(lambda content, name=name: bucket.create(name, content))  # type: ignore[misc]
        found = bucket.read(name)
        assert found is not None
        assert found.content == str(winner).encode()
        (winner,) = race(lambda content, name=name, tag=found.tag: bucket.replace(name, content + b"!", tag))  # type: ignore[misc]
        after = bucket.read(name)
        assert after is not None
        assert after.content == f"{winner}!".encode()


RACE = """
import sys
from pipeline.objects.bucket import open_bucket

bucket = open_bucket(sys.argv[1])
bucket.read("warm")
print("ready", flush=True)
sys.stdin.readline()
print(sum(bucket.create(f"name {turn}", f"{turn} {sys.argv[2]}".encode()) is not None for turn in range(20)))
"""


def test_of_many_processes_exactly_one_wins(objects: str) -> None:
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "cwd": REPOSITORY, "text": True}
    racing = [subprocess.Popen([sys.executable, "-c", RACE, objects, str(number)], **pipes) for number in range(3)]  # type: ignore[call-overload]
    try:
        for process in racing:
            assert process.stdout.readline() == "ready\n"
        wins = [int(process.communicate("go\n", 60)[0]) for process in racing]
    finally:
        for process in racing:
            process.kill()
            process.wait()
    assert sum(wins) == 20
    assert len(open_bucket(objects).sizes()) == 20


@settings(max_examples=15, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    names=st.lists(NAMES, min_size=1, max_size=3),
    content=st.binary(max_size=100),
)
def test_any_file_name_is_kept(objects: str, names: list[str], content: bytes) -> None:
    bucket, name = open_bucket(objects), "/".join(names)
    bucket.write(name, content)
    found = bucket.read(name)
    assert found is not None
    assert found.content == content
    assert bucket.sizes() == {name: len(content)}
    bucket.remove([name])
    assert bucket.sizes() == {}


@settings(max_examples=12, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(size=st.sampled_from([0, 1, 99, 100, 101, 199, 200, 201, 1000, 5431]))
def test_files_come_whole_whatever_the_size_of_a_piece(objects: str, tmp_path: Path, size: int) -> None:
    bucket, source, target = open_bucket(objects), tmp_path / "source", tmp_path / "deep" / "target"
    source.write_bytes(os.urandom(size))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buckets, "PIECE_BYTES", 100)
        bucket.upload(source, "file")
        bucket.download("file", target, hashlib.sha256(source.read_bytes()).hexdigest())
    assert target.read_bytes() == source.read_bytes()
    assert [path.name for path in target.parent.iterdir()] == ["target"]


def test_a_large_file_goes_in_parts(objects: str, tmp_path: Path) -> None:
    bucket, source = open_bucket(objects), tmp_path / "source"
    source.write_bytes(os.urandom((20 << 20) + 17))
    bucket.upload(source, "file")
    assert bucket.sizes() == {"file": (20 << 20) + 17}
    bucket.download("file", tmp_path / "target", hashlib.sha256(source.read_bytes()).hexdigest())


def test_a_damaged_or_missing_object_is_refused(objects: str, tmp_path: Path) -> None:
    bucket = open_bucket(objects)
    bucket.write("file", b"damaged")
    target = tmp_path / "target"
    target.write_bytes(b"before")
    with pytest.raises(InputError, match=r"/file is damaged: its SHA-256 is [0-9a-f]{64}, its record says 0{64}"):
        bucket.download("file", target, "0" * 64)
    with pytest.raises(InputError, match="/none is gone"):
        bucket.download("none", target)
    assert target.read_bytes() == b"before"
    assert list(tmp_path.iterdir()) == [target]
    with pytest.raises(FileNotFoundError):  # a fault of this machine, not of the store
        bucket.upload(tmp_path / "none", "file")


def test_a_lost_answer_is_not_taken_for_a_refusal(proxy: Proxy, behind: Bucket) -> None:
    proxy.once(Fault.LOST, "PUT")
    tag = behind.create("name", b"mine")
    assert tag is not None
    proxy.once(Fault.LOST, "PUT")
    after = behind.replace("name", b"mine again", tag)
    assert after is not None
    assert after != tag
    proxy.once(Fault.LOST, "PUT", times=2)
    assert behind.create("name", b"another's") is None  # there is one, and it is not this
    assert behind.replace("name", b"another's", tag) is None
    proxy.once(Fault.LOST, "PUT")
    found = behind.read("name")
    assert found is not None
    assert (found.content, found.tag) == (b"mine again", after)


def test_two_that_write_at_the_same_time_are_told_apart(proxy: Proxy, behind: Bucket) -> None:
    """S3 answers 409 to one of two conditional writes that come together, even where its condition holds afterwards."""
    proxy.once(Fault.CONFLICT, "PUT")
    tag = behind.create("name", b"mine")
    assert tag is not None
    proxy.once(Fault.CONFLICT, "PUT")
    assert behind.replace("name", b"mine again", tag) is not None


@pytest.mark.parametrize("fault", [Fault.ERROR, Fault.CUT, Fault.LOST, Fault.SLOW])
def test_an_outage_is_waited_for(proxy: Proxy, behind: Bucket, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, fault: Fault) -> None:
    monkeypatch.setattr(questions, "PATIENCE_SECONDS", 20)
    for method, ask in {
        "PUT": lambda: behind.write("name", b"content"),
        "GET": lambda: behind.read("there"),
        "POST": lambda: behind.remove(["name"]),
    }.items():
        proxy.once(fault, method, times=4)
        ask()
        assert len([each for each in proxy.seen if each[0] == method]) >= 5
    proxy.once(Fault.HALF, "GET", times=2)
    behind.download("there", tmp_path / "file", hashlib.sha256(b"content").hexdigest())


def everything(bucket: Bucket, place: Path) -> dict[str, Callable[[], object]]:
    """One call of each method."""
    (place / "file").write_bytes(b"x" * 1000)
    return {
        "read": lambda: bucket.read("there"),
        "write": lambda: bucket.write("name", b"1"),
        "create": lambda: bucket.create("new", b"1"),
        "replace": lambda: bucket.replace("there", b"1", '"tag"'),
        "list": lambda: bucket.sizes(),
        "remove": lambda: bucket.remove(["name"]),
        "upload": lambda: bucket.upload(place / "file", "file"),
        "download": lambda: bucket.download("there", place / "target"),
    }


def told(ask: Callable[[], object]) -> str:
    """The error's message: one line, without a key, a URL or the library's own state."""
    with pytest.raises(ResourceError) as caught:
        ask()
    message = str(caught.value)
    assert caught.value.exit_code == 4
    assert "\n" not in message
    assert len(message) < 300
    assert not re.search(rf"{SECRET}|http://|Debug|source|Generic|<|{{", message), message
    assert caught.value.__suppress_context__
    return message


@pytest.mark.parametrize(
    ("fault", "why"),
    [
        (Fault.DENY, "access is denied (AccessDenied|403)"),
        (Fault.ERROR, "the store answers with an error (InternalError|500)"),
        (Fault.LOST, "the store does not answer"),
        (Fault.REGION, "the bucket is in another region"),
        (Fault.SKEWED, "this machine's clock is wrong (RequestTimeTooSkewed|403)"),
    ],
)
def test_failures_are_told_in_one_sentence(proxy: Proxy, behind: Bucket, tmp_path: Path, fault: Fault, why: str) -> None:
    proxy.always(fault)
    patterns = re.escape(why).replace(r"\|", "|").replace(r"\(", r"\((?:").replace(r"\)", r")\)")
    for what, ask in everything(behind, tmp_path).items():
        message = told(ask)
        assert message.startswith("could not "), what
        assert re.search(patterns, message), (what, message)
    assert not (tmp_path / "target").exists()


def test_a_bucket_that_is_not_there(objects: str, tmp_path: Path) -> None:
    for ask in everything(open_bucket("s3://no-such-bucket/prefix"), tmp_path).values():
        assert "there is no such bucket" in told(ask)


def test_nobody_there_and_nobody_that_answers(proxy: Proxy, objects_server: Objects, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(questions, "SMALL_SECONDS", 1)
    proxy.always(Fault.HANG)
    assert "the store does not answer" in told(lambda: open_bucket(objects_server.uri()).read("name"))
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:1")
    assert "the store does not answer" in told(lambda: open_bucket(objects_server.uri()).read("name"))


def test_a_node_without_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    clean_environment(monkeypatch)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", "http://127.0.0.1:1")  # where a machine's role would be told
    monkeypatch.setattr(questions, "FIRST_SECONDS", 0.1)
    assert re.search("no credentials|does not answer", told(lambda: open_bucket("s3://bucket/without-credentials").read("name")))
    assert "Account must be specified" in told(lambda: open_bucket("az://bucket/without-credentials").read("name"))


def test_an_upload_that_is_cut_leaves_nothing(proxy: Proxy, behind: Bucket, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.write_bytes(os.urandom(18 << 20))
    proxy.once(Fault.CUT, "PUT", part="partNumber=2", times=99)
    assert "could not write file" in told(lambda: behind.upload(source, "file"))
    assert behind.sizes() == {"there": 7}
    assert any(method == "DELETE" and "uploadId" in path for method, path in proxy.seen)  # its parts are given up
    proxy.once(Fault.CUT, "PUT", part="partNumber=2")
    behind.upload(source, "file")
    assert behind.sizes()["file"] == 18 << 20


@pytest.mark.parametrize(
    "uri",
    [
        "",
        "s3://",
        "s3:/models/x",
        "models/x",
        "file:///tmp",
        "http://models/x",
        "s3://models/../x",
        "s3://models//x",
        "s3://mo dels/x",
        "S3://models",
    ],
)
def test_what_names_no_object_store(uri: str) -> None:
    with pytest.raises(ConfigError, match="names no object store; write s3://…, gs://…, az://…"):
        open_bucket(uri)


@pytest.mark.parametrize("uri", ["s3://key:hidden@models/x", "s3://models/x?secret=hidden", "s3://models/x#hidden", "hidden@models"])
def test_a_secret_in_a_uri_is_refused_and_not_repeated(uri: str) -> None:
    with pytest.raises(ConfigError, match="leave names, keys and options out") as caught:
        open_bucket(uri)
    assert "hidden" not in str(caught.value)


def test_a_uri_is_one_whether_it_ends_with_a_slash(objects: str) -> None:
    assert open_bucket(objects + "/") == open_bucket(objects)
    assert pickle.loads(pickle.dumps(open_bucket(objects))) == open_bucket(objects)


def test_without_the_package_it_is_said_how_to_get_it(objects: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.split(".")[0] == "obstore"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "obstore", None)
    with pytest.raises(ResourceError, match=r"needs the package obstore here; pip install 'mergeline\[objects\]' on every node"):
        open_bucket(objects).read("name")
