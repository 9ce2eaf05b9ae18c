"""What the tests of the command line share: calling it in this process, and a small valid experiment to damage."""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from unittest.mock import patch

import pytest

from pipeline.cli import main

EXPERIMENT = """\
recipe: wise_ft
name: small
seed: 0
base: {pretrain: digits_llava, settings: {tower_steps: 3, language_steps: 3, most_samples: 40, threads: 1}}
tasks: [parity, count]
held_out: [name]
alpha: 0.5
train:
  samples: 64
  max_steps: 8
  batch_size: 8
evaluate: {samples: 8}
"""
COMPARE = """\
recipe: compare
name: both
seeds: [0, 1]
common:
  base: {pretrain: digits_llava}
  tasks: [parity, count]
  train: {max_steps: 8}
arms:
  plain: {recipe: sequential}
  averaged:
    recipe: wise_ft
    alpha: 0.5
"""


@dataclass(frozen=True)
class Ended:
    """How a command ended: exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        return self.out + self.err


Command = Callable[..., Ended]


def ended(capsys: pytest.CaptureFixture[str], *arguments: object) -> Ended:
    """`python -m pipeline <arguments>` in this process."""
    code = 0
    with patch.object(sys, "argv", ["mergeline", *map(str, arguments)]):
        try:
            main()
        except SystemExit as exit_:
            code = exit_.code if isinstance(exit_.code, int) else 1
    printed = capsys.readouterr()
    return Ended(code, printed.out, printed.err)


def changed(old: str, new: str, text: str = EXPERIMENT) -> str:
    """The experiment with one passage replaced; fails if the passage is not there once."""
    assert text.count(old) == 1, old
    return text.replace(old, new)


def everything_in(directory: Path) -> dict[str, bytes]:
    """Every file and directory below `directory`, with the files' bytes: to see that nothing was left behind."""
    return {str(path.relative_to(directory)): path.read_bytes() if path.is_file() else b"/" for path in sorted(directory.rglob("*"))}
