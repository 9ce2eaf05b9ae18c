"""What reading files costs, in a process of its own: files that were made to cost much are refused without much time or memory."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

READ_ALL = """
import importlib, pathlib, sys, time
from foundation import errors
module, reader, refusal, *paths = sys.argv[1:]
read, refused = getattr(importlib.import_module(module), reader), getattr(errors, refusal)
status = pathlib.Path("/proc/self/status")
held = lambda name: int(status.read_text().partition(name + ":")[2].split()[0])
for path in paths:
    pathlib.Path("/proc/self/clear_refs").write_text("5")  # the highest use is from here on that of this file
    before, started = held("VmRSS"), time.process_time()
    try:
        read(pathlib.Path(path))
        told = "taken"
    except refused as error:
        told = str(error)
    print(time.process_time() - started, (held("VmHWM") - before) // 1024, told.splitlines()[0])
"""


def read_all(reader: str, refusal: str, paths: Sequence[Path]) -> list[tuple[float, int, str]]:
    """Per file, read by `reader` ("module:function"): seconds of computing, megabytes more, the first line of the `refusal`, or "taken".

    Any other error is one of this function.
    """
    command = [sys.executable, "-c", READ_ALL, *reader.split(":"), refusal, *map(str, paths)]
    lines = subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()
    assert len(lines) == len(paths), lines
    return [(float(seconds), int(megabytes), told) for seconds, megabytes, told in (line.split(" ", 2) for line in lines)]
