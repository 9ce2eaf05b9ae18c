"""The object store that tests here share: one server, a prefix of its own for each test."""

from objects_server import objects, objects_server

__all__ = ["objects", "objects_server"]
