"""In which order the PFNs of a file are offered: near before far, then as the protocols say. Pure but for ``random``.

Those of the client's own network come first, by the priority of the protocol. The others are sorted as the caller
asked. ``geoip`` is the distance on the globe between the coordinates that the client sent and those of the RSE; where
either is missing, and for Rucio's orders that rest on tables that Arriero does not keep (``closeness``, ``dynamic``,
``ranking``, ``custom_table``), it is the priority of the protocol, then the PFN.
"""

import random
from collections.abc import Mapping
from dataclasses import dataclass
from math import asin, cos, radians, sin, sqrt
from typing import Any

from arriero.registry.errors import InvalidInput

RANDOM = "random"
GEOIP = "geoip"
ORDERS = frozenset({RANDOM, GEOIP, "closeness", "dynamic", "ranking", "custom_table"})

_EARTH_KM = 6371.0
_FAR = 1e9


@dataclass(frozen=True, slots=True)
class Place:
    """Where a client or an RSE is, in degrees."""

    latitude: float
    longitude: float

    @classmethod
    def of(cls, values: Mapping[str, Any] | None) -> "Place | None":
        """Read ``latitude`` and ``longitude``; None where one is missing or cannot be meant."""
        try:
            latitude, longitude = (float((values or {})[key]) for key in ("latitude", "longitude"))
        except (KeyError, TypeError, ValueError):
            return None
        return cls(latitude, longitude) if abs(latitude) <= 90 and abs(longitude) <= 180 else None

    def distance_km(self, other: "Place") -> float:
        """Distance along the surface, by the haversine formula."""
        latitudes = radians(self.latitude), radians(other.latitude)
        turn = radians(other.longitude - self.longitude)
        half = sin((latitudes[1] - latitudes[0]) / 2) ** 2
        half += cos(latitudes[0]) * cos(latitudes[1]) * sin(turn / 2) ** 2
        return 2 * _EARTH_KM * asin(sqrt(min(1.0, half)))


class Order:
    """Sorts the ways to a file.

    Parameters
    ----------
    name
        One of `ORDERS`; None as the protocols say.
    client
        Where the client is, if it told.
    places
        Where the RSEs are, by id.

    Raises
    ------
    InvalidInput
        There is no such order.
    """

    def __init__(
        self, name: str | None = None, client: Place | None = None, places: Mapping[int, Place] | None = None
    ) -> None:
        if name is not None and name not in ORDERS:
            raise InvalidInput(
                f"sort is one of {', '.join(sorted(ORDERS))}, not {name[:40]!a}", rucio_class="InvalidObject"
            )
        self._random = name == RANDOM
        self._distances: Mapping[int, float] = {}
        if name == GEOIP and client is not None:
            self._distances = {rse_id: client.distance_km(place) for rse_id, place in (places or {}).items()}

    def key(self, domain: str, rse_id: int, priority: int, pfn: str) -> tuple[bool, float, int, str]:
        """Sort by this; drawn anew each time where the order is ``random``."""
        if domain == "lan":
            return False, 0.0, priority, pfn
        if self._random:
            return True, random.random(), priority, pfn  # noqa: S311 - spreads load, guards nothing
        return True, self._distances.get(rse_id, _FAR), priority, pfn
