"""A Kafka cluster on a port of this process: librdkafka's own mock, with its broker taken down and brought up again."""

from __future__ import annotations

import ctypes
import ctypes.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import confluent_kafka

_PRODUCER = 0


def _library() -> ctypes.CDLL:
    beside = Path(confluent_kafka.__file__).parent.parent / "confluent_kafka.libs"
    found = next(beside.glob("librdkafka-*"), None) or ctypes.util.find_library("rdkafka")
    library = ctypes.CDLL(str(found))
    pointers = ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new")
    for name in pointers:
        getattr(library, name).restype = ctypes.c_void_p
    library.rd_kafka_new.argtypes = [ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p, ctypes.c_size_t]
    library.rd_kafka_mock_cluster_new.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.rd_kafka_mock_cluster_bootstraps.argtypes = [ctypes.c_void_p]
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    library.rd_kafka_mock_cluster_destroy.argtypes = [ctypes.c_void_p]
    library.rd_kafka_destroy.argtypes = [ctypes.c_void_p]
    for name in (
        "rd_kafka_mock_broker_set_down",
        "rd_kafka_mock_broker_set_up",
        "rd_kafka_mock_group_initial_rebalance_delay_ms",
    ):
        getattr(library, name).argtypes = [ctypes.c_void_p, ctypes.c_int32]
    return library


class Cluster:
    """One broker."""

    def __init__(self, library: ctypes.CDLL, handle: int) -> None:
        self._library = library
        self._handle = handle
        self.address: str = library.rd_kafka_mock_cluster_bootstraps(handle).decode()

    def down(self) -> None:
        """Close its connections, and take no new ones."""
        assert self._library.rd_kafka_mock_broker_set_down(self._handle, 1) == 0

    def up(self) -> None:
        assert self._library.rd_kafka_mock_broker_set_up(self._handle, 1) == 0


@contextmanager
def running_cluster() -> Iterator[Cluster]:
    """Run a cluster of one broker, which makes topics as they are named."""
    library = _library()
    said = ctypes.create_string_buffer(256)
    client = library.rd_kafka_new(_PRODUCER, library.rd_kafka_conf_new(), said, len(said))
    assert client, said.value
    handle = library.rd_kafka_mock_cluster_new(client, 1)
    library.rd_kafka_mock_group_initial_rebalance_delay_ms(handle, 0)
    try:
        yield Cluster(library, handle)
    finally:
        library.rd_kafka_mock_cluster_destroy(handle)
        library.rd_kafka_destroy(client)
