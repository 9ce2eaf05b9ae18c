"""The least that any merge must do: read every source and write an output of the size of one, with nothing in between.

    python -I -S benchmarks/floor.py THREADS left|flushed OUTPUT SOURCE SOURCE...

Plain preadv and pwrite of 1 MiB blocks through one buffer per source and thread, which the processor's cache holds. The output is left to
the kernel, as mergekit does, or flushed to disk (fsync), as this project does. Stands alone and imports next to nothing, so that its
process costs hardly more than the copying.
"""

import os
import sys
from threading import Thread

BLOCK = 1 << 20
RUN = 64
"""Blocks that a thread takes at a time."""


def copy(files: list[list[int]], sizes: list[int], outputs: list[int], thread: int, threads: int) -> None:
    """One thread's runs of blocks of every file: read them from each source, write the last one read."""
    buffers = [memoryview(bytearray(BLOCK)) for _ in files]
    for index, size in enumerate(sizes):
        for run in range(thread * RUN * BLOCK, size, threads * RUN * BLOCK):
            for start in range(run, min(run + RUN * BLOCK, size), BLOCK):
                count = min(BLOCK, size - start)
                for source, buffer in zip(files, buffers, strict=True):
                    transfer(os.preadv, source[index], buffer, start, count)
                transfer(os.pwritev, outputs[index], buffers[-1], start, count)


def transfer(call: object, descriptor: int, buffer: memoryview, start: int, count: int) -> None:
    """Read or write `count` bytes at `start`, however many calls that takes."""
    done = 0
    while done < count:
        moved = call(descriptor, [buffer[done:count]], start + done)  # type: ignore[operator]
        if moved == 0:
            raise OSError("a file ended early")
        done += moved


def main() -> None:
    """Copy as the arguments say."""
    threads, flush, output, sources = int(sys.argv[1]), sys.argv[2] == "flushed", sys.argv[3], sys.argv[4:]
    names = sorted(name for name in os.listdir(sources[0]) if name.endswith(".safetensors"))
    files = [[os.open(os.path.join(source, name), os.O_RDONLY) for name in names] for source in sources]
    sizes = [os.fstat(descriptor).st_size for descriptor in files[0]]
    os.makedirs(output)
    outputs = [os.open(os.path.join(output, name), os.O_WRONLY | os.O_CREAT | os.O_EXCL) for name in names]
    for descriptor, size in zip(outputs, sizes, strict=True):
        os.ftruncate(descriptor, size)
    workers = [Thread(target=copy, args=(files, sizes, outputs, number, threads)) for number in range(1, threads)]
    for worker in workers:
        worker.start()
    copy(files, sizes, outputs, 0, threads)
    for worker in workers:
        worker.join()
    for descriptor in outputs if flush else []:
        os.fsync(descriptor)


if __name__ == "__main__":
    main()
