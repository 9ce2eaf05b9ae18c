"""What travels with a job: the code that runs here, the experiment file and the suites it names, as one archive. Nothing else.

The archive has the same bytes for the same files, so that a cluster is sent each version of the code once.
"""

import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from foundation.errors import ConfigError
from foundation.sizes import size
from pipeline.jobs.request import JobRequest, packed_place

CODE = ("foundation", "mergers", "tasks", "models", "trainers", "evaluators", "pipeline")
LEFT_OUT = ("__pycache__", ".pyc", ".safetensors", ".bin", ".ckpt", ".pt", ".pth")
MOST_BYTES = 32 << 20
EPOCH = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True)
class Package:
    """Files by the place they have in the job's working directory."""

    files: dict[str, Path]

    @property
    def bytes(self) -> int:
        return sum(path.stat().st_size for path in self.files.values())

    def write(self, archive: Path) -> None:
        """Write it as a ZIP file."""
        with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as target:
            for place, path in sorted(self.files.items()):
                entry = zipfile.ZipInfo(place, EPOCH)
                entry.external_attr = 0o644 << 16
                entry.compress_type = zipfile.ZIP_DEFLATED
                target.writestr(entry, path.read_bytes())


def package(request: JobRequest, most: int = MOST_BYTES) -> Package:
    """What the job needs; ConfigError if that is more than `most` bytes."""
    files = dict(_code())
    files[request.packed_file] = request.file
    for suite in request.suites:
        place = packed_place(suite)
        assert place is not None, "read_request has refused a suite from elsewhere"
        files[place] = suite
    made = Package(files)
    if made.bytes > most:
        largest, path = max(files.items(), key=lambda item: item[1].stat().st_size)
        raise ConfigError(
            f"the code and the experiment are {size(made.bytes)}, and at most {size(most)} travel with a job; "
            f"the largest file is {largest} ({size(path.stat().st_size)}): move what is no code out of these directories"
        )
    return made


def _code() -> Iterator[tuple[str, Path]]:
    root = Path(__file__).parents[2]
    for name in CODE:
        for path in sorted((root / name).rglob("*")):
            place = path.relative_to(root)
            if path.is_file() and not any(part.endswith(LEFT_OUT) or part.startswith(".") for part in place.parts):
                yield place.as_posix(), path
