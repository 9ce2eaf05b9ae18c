"""The keys of tasks that lie in a user's own files: where the records and images are, and how an answer is scored.

data:
  birds: {train: birds/train.json, test: birds/test.json, images: birds/images, scoring: exact_match}
"""

from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from pipeline.config.kinds import Count, Settings, WholeNumber
from tasks.files.task import FileTask, file_task


class Data(Settings):
    """One task. A split is a file of records, {json_path, sampling_strategy}, a mixture file, or a list of these."""

    train: Any = None
    validation: Any = None
    test: Any = None
    images: str | None = None
    scoring: str = "exact_match"
    max_new_tokens: Count = 64
    max_bad_records: WholeNumber = 0
    seed: Annotated[int, Field(ge=0, lt=2**31, strict=True)] = 0

    def task(self, name: str, cache: Path | None = None) -> FileTask:
        """The task called `name`: reads its record files. `cache`: where findings on files are kept.

        Raises ConfigError and InputError as `file_task`.
        """
        return file_task(name, **self.model_dump(), cache=cache)
