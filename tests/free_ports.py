"""Ports for servers that a test starts, which nobody else takes while the server is on its way up."""

import random
import socket
from pathlib import Path

FIRST, BEYOND = 20_000, 32_000
"""Above the ports that Ray gives to its workers, below those that Linux gives to whoever asks for any port."""


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on.

    One that the system chose could be given to another process between this call and the server's start, which takes seconds.
    """
    low = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    choices = range(FIRST, BEYOND) if low >= BEYOND else [0]
    for port in random.SystemRandom().choices(choices, k=100):
        with socket.socket() as tried:
            try:
                tried.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(tried.getsockname()[1])
    raise RuntimeError(f"none of a hundred ports from {FIRST} to {BEYOND} is free")
