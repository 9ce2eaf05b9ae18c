"""Statistics of a model gathered on Ray: each part of the records is measured by some actor, and the parts are added in their order.

A part's sums wait in a file of their own in a scratch directory, written whole or not at all. So an actor that dies costs its part alone, a
gathering that was killed goes on from the parts that are there, and neither the number of actors nor the order they end in changes a byte.
"""

import hashlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from pipeline.graph.actors import RayActors
from pipeline.objects.presence import Parts, presence
from trainers.modality.statistics.files import About, Measurement, measurement_text, write_statistics
from trainers.modality.statistics.sums import add_parts, is_part_of, read_sums, write_sums

Progress = Callable[[int, int], None]


def gather(
    measurement: Measurement, output: Path, scratch: Path, actors: int = 0, gpus: float = 0, progress: Progress | None = None
) -> About:
    """Measure all parts that `scratch` does not hold yet on so many actors (0: in this process), and write the directory `output`.

    `gpus` is what each actor takes. `progress(done, parts)` is called for every part, those found included. `scratch` needs room for as
    many statistics in float64 as there are parts, half of each; its files are removed when `output` is there. Raises what measuring
    raises, and ResourceError where Ray loses an actor for good or the disk is full.
    """
    scratch.mkdir(parents=True, exist_ok=True)
    identity = hashlib.sha256(measurement_text(measurement).encode()).hexdigest()
    paths = [scratch / f"part-{number:05d}.safetensors" for number in range(measurement.parts)]
    shared = presence()
    parts = None if shared is None else Parts(shared)
    if parts is not None:
        for path in parts.found([path for path in paths if not path.exists()]):
            parts.bring(path)
    missing = [number for number, path in enumerate(paths) if not is_part_of(path, identity)]
    done = len(paths) - len(missing)
    if progress and done:
        progress(done, len(paths))
    measure = partial(measure_to_file, measurement, identity, scratch)
    for number in measured(measure if parts is None else partial(measure, parts=parts), missing, actors, gpus):
        if parts is not None and not is_part_of(paths[number], identity):
            parts.bring(paths[number])
        done += 1
        if progress:
            progress(done, len(paths))
    about = write_statistics(output, measurement, add_parts(map(read_sums, paths)))
    for path in paths:
        path.unlink()
    return about


def measured(measure: Callable[[int], int], parts: list[int], actors: int, gpus: float) -> Any:
    """The numbers of the parts, as each is measured."""
    if not actors or not parts:
        yield from map(measure, parts)
        return
    crew: Any = RayActors(actors, gpus)  # it hands out anything that can be sent, not merges alone
    with crew:
        yield from crew.map(measure, parts)


def measure_to_file(measurement: Measurement, identity: str, scratch: Path, part: int, parts: Parts | None = None) -> int:
    """Measure one part and write its sums, replacing a damaged file or that of another measurement; gives the part's number.

    `parts`: where it is put too, because the process that asks is on another disk.
    """
    path = scratch / f"part-{part:05d}.safetensors"
    scratch.mkdir(parents=True, exist_ok=True)
    write_sums(path, measurement.measure(part), identity)
    if parts is not None:
        parts.put(path)
    return part
