"""Several tasks as one: their examples in turn, each scored by the task it is of."""

import pickle
from dataclasses import replace

import pytest

from foundation.errors import ConfigError, InputError
from tasks.digits import DigitsTask
from tasks.mixture import MixedTask
from tasks.registry import get_task
from tasks.task import Example, Split, Task

MIXED = MixedTask((get_task("parity"), get_task("describe"), get_task("read")))


def test_examples_of_each_task_come_in_turn_under_unique_keys() -> None:
    examples = MIXED.examples(Split.TRAIN, 4)
    alone = [(task.name, example) for task in MIXED.tasks for example in task.examples(Split.TRAIN, 4)]
    assert list(examples) == [replace(example, key=f"{name}/{example.key}") for name, example in alone]
    assert len({example.key for example in examples}) == len(examples) == 12
    assert examples[-1] == examples[11] == examples[4:12][-1]
    assert list(pickle.loads(pickle.dumps(examples))) == list(examples)
    with pytest.raises(IndexError):
        examples[12]


def test_tasks_of_unlike_size_and_none() -> None:
    class Few(DigitsTask):
        def examples(self, split: Split, count: int | None = None) -> list[Example]:
            return super().examples(split, min(count or 0, int(self.data_seed)))

    mixed = MixedTask((Few("parity", 0), Few("read", 2), Few("where", 0), Few("next", 1)))
    assert [example.key.split("/")[0] for example in mixed.examples(Split.TRAIN, 5)] == ["read", "read", "next"]


def test_an_answer_is_scored_by_the_task_that_asked() -> None:
    assert isinstance(MIXED, Task)
    assert (MIXED.name, MIXED.max_new_tokens) == ("parity+describe+read", 40)
    assert [MIXED.score(example.answer, example) for example in MIXED.examples(Split.TEST, 2)] == [1.0] * 6
    with pytest.raises(InputError, match="'next/0' is of none of the tasks parity, describe, read"):
        MIXED.score("", Example("next/0", (), "", ""))


def test_names_that_would_share_keys_are_refused() -> None:
    with pytest.raises(ConfigError, match="no tasks"):
        MixedTask(())
    with pytest.raises(ConfigError, match="named 'parity' and 'parity'"):
        MixedTask((get_task("parity"), DigitsTask("parity", 1)))
