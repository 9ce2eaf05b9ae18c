"""Names that no file can have, options that are empty as from an unset variable, files without an end: told in a sentence, with code 2."""

from pathlib import Path

import pytest
from commands import EXPERIMENT, Command, changed, ended
from small_merges import save_random

LONG = "n" * 300


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("RAY_ADDRESS", "")
    monkeypatch.setenv("RAY_API_SERVER_ADDRESS", "")
    (tmp_path / "e.yaml").write_text(EXPERIMENT)
    for seed, name in enumerate("ab"):
        save_random(tmp_path / name, seed)
    (tmp_path / "loop").symlink_to("loop")
    return lambda *arguments: ended(capsys, *arguments)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["validate", "e.yaml", f"workspace={LONG}"], "File name too long; name another file or directory"),
        (["validate", "e.yaml", f"base={LONG}"], "File name too long"),
        (["plan", "e.yaml", "workspace=loop"], "Too many levels of symbolic links; name another"),
        (["merge", "--checkpoints", "a", "b", "--output", "loop", "--plan"], "name another file or directory"),
        (["validate", "/dev/zero"], "has more than 1048576 bytes, which an experiment file has at most"),
        (["run", "e.yaml", "--address", ""], "--address is empty; give host:port, ray://host:port or auto, or leave it out"),
        (["search", "e.yaml", "--address", " "], "--address is empty"),
        (["submit", "e.yaml", "workspace=/shared/mergeline", "--address", ""], "--address is empty; give the head's dashboard"),
        (["validate", "e.yaml", 'workspace="a\\0b"'], "a NUL character (\\0) stands in"),
    ],
)
def test_what_was_mistyped_is_told_with_code_2(command: Command, arguments: list[str], says: str) -> None:
    told = command(*arguments)
    assert told.code == 2, told.said
    assert says in told.err
    assert len(told.err.splitlines()) == 1
    assert len(told.err) < 400
    assert {path.name for path in Path().iterdir()} == {"a", "b", "e.yaml", "loop"}


def test_a_nul_in_a_file_is_told_with_its_line(command: Command) -> None:
    Path("e.yaml").write_text(changed("held_out: [name]\n", 'suite: "a\\0b"\n'))
    told = command("validate", "e.yaml")
    assert told.code == 2, told.said
    assert told.err.startswith("error: e.yaml:6: a NUL character")
