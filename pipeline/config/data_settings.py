"""The keys of tasks that lie in files: records and images of the user's own, or a published benchmark's raw files.

data:
  birds: {train: birds/train.json, test: birds/test.json, images: birds/images, scoring: exact_match}
  ai2d: {benchmark: ai2d, directory: data/ai2d, answering: likelihood}
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from foundation.errors import ConfigError
from foundation.hints import unknown
from pipeline.config.kinds import Count, Settings, WholeNumber
from tasks.benchmarks.registry import BENCHMARKS, check_options
from tasks.benchmarks.task import BenchmarkTask, benchmark_task
from tasks.files.task import FileTask, file_task
from tasks.registry import TASKS

DataTask = FileTask | BenchmarkTask
OF_BENCHMARKS = ("benchmark", "directory", "answering", "options")


class Data(Settings):
    """One task. A split of one's own is a file of records, {json_path, sampling_strategy}, a mixture file, or a list of these.

    A benchmark lies in a directory, as it was published, or in a hub data set that `data fetch` has brought.
    """

    benchmark: str | None = None
    directory: Annotated[str, Field(min_length=1)] | None = None
    answering: Literal["generate", "likelihood"] = "generate"
    options: dict[str, Any] = {}  # noqa: RUF012
    train: Any = None
    validation: Any = None
    test: Any = None
    images: str | None = None
    scoring: str = "exact_match"
    max_new_tokens: Count = 64
    max_bad_records: WholeNumber = 0
    seed: Annotated[int, Field(ge=0, lt=2**31, strict=True)] = 0

    @model_validator(mode="after")
    def _one_form(self) -> "Data":
        own = sorted(self.model_fields_set - set(OF_BENCHMARKS))
        if self.benchmark is None:
            lost = next((key for key in OF_BENCHMARKS if key in self.model_fields_set), None)
            if lost is not None:
                raise ValueError(f"{lost} belongs to a published benchmark (benchmark: ai2d, directory: …); name one, or leave it out")
            return self
        if self.benchmark not in BENCHMARKS:
            raise ValueError(f"benchmark: {unknown('benchmark', self.benchmark, BENCHMARKS)}")
        if own:
            raise ValueError(f"{own[0]} belongs to files of your own; benchmark {self.benchmark} brings its own files and scoring")
        if self.directory is None:
            source = BENCHMARKS[self.benchmark].source
            raise ValueError(f"benchmark {self.benchmark} needs directory: the place of its raw files, or a hub data set ({source})")
        try:
            check_options(self.benchmark, self.options)
        except ConfigError as error:
            raise ValueError(str(error)) from error  # told with its place in the file
        return self

    def task(self, name: str, cache: Path | None = None) -> DataTask:
        """The task called `name`: reads its record files or digests its raw ones. `cache`: where findings on files are kept.

        Raises ConfigError and InputError as `file_task` and `benchmark_task`.
        """
        if self.benchmark is None:
            return file_task(name, **self.model_dump(exclude=set(OF_BENCHMARKS)), cache=cache)
        return benchmark_task(name, self.benchmark, str(self.directory), self.options, self.answering, cache=cache)


def check_names(names: Iterable[str]) -> None:
    """ValueError for a name that no task of a user's own may have: one that is taken, or that would mix with a score's parts (a/b)."""
    for name in names:
        if name in TASKS:
            raise ValueError(f"data names {name!r}, which is a task that is there already; choose another name")
        if not name or name != name.strip() or "/" in name or not name.isprintable():
            raise ValueError(f"data names {name!r}; give a name that shows, without a slash, or space at its ends")
