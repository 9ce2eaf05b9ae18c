"""Before work starts: the object store answers, lets this process write, and keeps two writers apart."""

import uuid

from foundation.errors import ResourceError
from pipeline.objects.bucket import open_bucket


def probe(uri: str) -> None:
    """Write a small object on every condition that the store rests on, and remove it; ResourceError where that is not as it must be."""
    bucket, name = open_bucket(uri), f"locks/probe-{uuid.uuid4().hex}"
    first, second = uuid.uuid4().hex.encode(), uuid.uuid4().hex.encode()
    tag = bucket.create(name, first)
    again = bucket.create(name, second)
    replaced = bucket.replace(name, second, tag) if tag is not None else None
    late = bucket.replace(name, first, tag) if tag is not None else None
    kept = bucket.read(name)
    bucket.remove([name])
    if tag is None or again is not None or replaced is None or late is not None or kept is None or kept.content != second:
        raise ResourceError(
            f"{uri} does not refuse a write whose condition does not hold (If-None-Match, If-Match), so two runs would overwrite each "
            "other's steps; use a store that has conditional writes"
        )
