"""Where a benchmark's raw files lie: a directory, or a hub data set's files that `data fetch` brought to this machine.

Nothing here goes to a network unless it is told to: an experiment reads what is there.
"""

import os
import re
from collections.abc import Sequence
from pathlib import Path

from foundation.errors import ConfigError, InputError, ResourceError

HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+(@[\w./-]+)?")


def is_hub_data(text: str) -> bool:
    """Whether `text` is a hub data set's id, "lmms-lab/ai2d" or "lmms-lab/ai2d@<revision>", and no directory on this machine."""
    return HUB_ID.fullmatch(text) is not None and not os.path.isdir(os.path.expanduser(text))


def raw_directory(text: str, benchmark: str, patterns: Sequence[str], fetch: bool = False) -> Path:
    """The directory that holds a benchmark's raw files: `text` itself, or the local copy of the hub data set it names.

    With `fetch` the files that match `patterns` are brought here first. Raises InputError where there is nothing, ResourceError where the
    hub does not answer.
    """
    if not is_hub_data(text):
        place = Path(os.path.abspath(Path(text).expanduser()))
        if not place.is_dir():
            raise InputError(f"benchmark {benchmark}: there is no directory {place}; put its raw files there, or name a hub data set")
        return place
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    name, _, revision = text.partition("@")
    try:
        return Path(
            snapshot_download(
                name, repo_type="dataset", revision=revision or None, allow_patterns=list(patterns), local_files_only=not fetch
            )
        )
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise ConfigError(f"benchmark {benchmark}: the hub has no data set {text}, or it wants a token (HF_TOKEN); check the id") from error
    except LocalEntryNotFoundError as error:
        if not fetch:
            command = f"python -m pipeline data fetch {benchmark} --from {text}"
            raise InputError(f"benchmark {benchmark}: {text} is not on this machine; bring it: {command}") from error
        raise ResourceError(f"the hub does not answer for {text}; check the network, or copy the files here by hand") from error
    except (HfHubHTTPError, OSError) as error:
        raise ResourceError(f"{text} could not be fetched ({error}); run the same command again, what has come is kept") from error
