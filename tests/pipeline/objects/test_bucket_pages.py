"""More objects than a store tells or removes at one time (S3: a thousand)."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from pipeline.objects.bucket import open_bucket

MANY = 1050


@pytest.mark.slow
def test_more_than_a_page_is_listed_and_removed(objects: str) -> None:
    bucket = open_bucket(objects)
    names = [f"many/{number:04d}" for number in range(MANY)]
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda name: bucket.write(name, b"1"), [*names, "other"]))
    assert bucket.sizes("many") == dict.fromkeys(names, 1)
    bucket.remove(names)
    assert bucket.sizes() == {"other": 1}
