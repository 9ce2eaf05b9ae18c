"""Which object store a workspace is the cache of: `store/objects.json`, written when it is first used with `objects:` in the experiment.

Every command that opens the workspace finds it there. No secret is ever in it: a URI holds a bucket and a prefix.
"""

import json
from pathlib import Path

from foundation.errors import ConfigError, InputError
from foundation.files import write_json_atomic
from pipeline.objects.bucket import open_bucket

MARKER = "objects.json"


def marked(root: Path) -> str | None:
    """The URI that the store at `root` mirrors; None where it stands alone. InputError for a marker that cannot be read."""
    path = root / MARKER
    try:
        told = json.loads(path.read_bytes())
        return open_bucket(told["uri"]).uri
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError, ConfigError) as error:
        raise InputError(f'{path} does not say which object store this workspace mirrors; write {{"uri": "s3://…"}} into it') from error


def mark(root: Path, uri: str | None) -> None:
    """Have the store at `root` mirror `uri`, or leave it as it is for None; ConfigError where it holds steps that lie elsewhere."""
    if uri is None:
        return
    wanted, found = open_bucket(uri).uri, marked(root)
    if found == wanted:
        return
    if any(root.glob("*/record.json")):
        mirrors = f"mirrors {found}" if found else "stands alone"
        raise ConfigError(f"{root} {mirrors}, but objects is {wanted}; give another workspace, or the objects that this one was used with")
    root.mkdir(parents=True, exist_ok=True)
    write_json_atomic(root / MARKER, {"uri": wanted})
