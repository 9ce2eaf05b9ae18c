"""The examples a trainer reads: a sequence that knows the places of its records, and opens a record and its images when it is asked for."""

from array import array
from collections.abc import Callable, Sequence
from typing import Any, TypeVar, overload

from foundation.errors import InputError
from tasks.files.check import Usable, record_key
from tasks.files.conversation import Conversation, read_record
from tasks.files.headers import picture_size
from tasks.files.images import open_picture
from tasks.files.problems import Unusable
from tasks.files.readers import open_records
from tasks.outline import ImageSize, Outline
from tasks.task import Example, Split

Found = TypeVar("Found")


class FileExamples(Sequence[Example]):
    """Usable records of one split as examples, in their order; 12 bytes for each. A slice is such a sequence again.

    Equal to another that names the same records of the same files. Sent to another process, it opens its files there.
    """

    def __init__(self, task: str, split: Split, folder: str, usable: Usable) -> None:
        self.task, self.split, self.folder, self.usable = task, split, folder, usable

    def __len__(self) -> int:
        return len(self.usable.rows)

    @overload
    def __getitem__(self, index: int) -> Example: ...

    @overload
    def __getitem__(self, index: slice) -> "FileExamples": ...

    def __getitem__(self, index: int | slice) -> "Example | FileExamples":
        """One example with its images decoded. Raises InputError where its files are no longer as they were when they were checked."""
        if isinstance(index, slice):
            held = self.usable
            return FileExamples(self.task, self.split, self.folder, Usable(held.records, held.names, held.files[index], held.rows[index]))
        key, conversation, images = self._read(
            index, lambda conversation: tuple(open_picture(self.folder, picture) for picture in conversation.pictures)
        )
        *before, question, answer = conversation.turns
        return Example(key, images, question.text, answer.text, tuple(before))

    def outline(self, index: int) -> Outline:
        """What one example says, and the sizes of its images, by their headers where those tell. Raises InputError as reading it does."""
        key, conversation, sizes = self._read(
            index, lambda conversation: tuple(picture_size(self.folder, picture) for picture in conversation.pictures)
        )
        path, row = self.usable.records[self.usable.files[index]].path, self.usable.rows[index]
        return Outline(key, conversation.turns, tuple(ImageSize("RGB", size) for size in sizes), f"record {row} (from 0) of {path}")

    def has_images(self, index: int) -> bool:
        """Whether one example shows an image, as its record says."""
        return self._read(index, lambda conversation: bool(conversation.pictures))[2]

    def _read(self, index: int, find: Callable[[Conversation], Found]) -> tuple[str, Conversation, Found]:
        """The key of one example, its conversation, and what is asked of that."""
        file, row = self.usable.files[index], self.usable.rows[index]
        name = self.usable.names[file]
        try:
            conversation = read_record(self.usable.records[file][row])
            found = find(conversation)
        except Unusable as error:
            key = record_key(self.task, self.split, name, row, None)
            raise InputError(
                f"record {key} was sound when it was checked and now is not ({error}); put its files back, and run again"
            ) from error
        return record_key(self.task, self.split, name, row, conversation.id), conversation, found

    def __eq__(self, other: object) -> bool:
        return isinstance(other, FileExamples) and self._value() == other._value()

    def __hash__(self) -> int:
        return hash((self.task, self.split, len(self)))

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "usable": (self._paths(), self.usable.names, self.usable.files, self.usable.rows)}

    def __setstate__(self, state: dict[str, Any]) -> None:
        paths, names, files, rows = state.pop("usable")
        self.__dict__.update(state, usable=Usable(tuple(map(open_records, paths)), names, files, rows))

    def _paths(self) -> tuple[str, ...]:
        return tuple(records.path for records in self.usable.records)

    def _value(self) -> tuple[str, Split, str, tuple[str, ...], array, array]:
        return self.task, self.split, self.folder, self._paths(), self.usable.files, self.usable.rows
