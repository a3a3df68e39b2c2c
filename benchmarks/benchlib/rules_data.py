"""The RSEs, rules and expressions of the benchmark of rules, the same on every side. Standard library only."""

from benchlib.data import RSE

DESTINATION = "IN2P3_DISK"
"""Where the copy is missing."""
DESTINATIONS = (DESTINATION, "RAL_DISK", "CSCS_DISK")
ANYWHERE = "|".join(DESTINATIONS)
THERE = RSE
"""Where every file has a replica."""

KINDS = ("name", "attributes", "comparison")
"""Expressions over many RSEs."""

_COUNTRIES = ("FR", "UK", "US", "CH", "DE", "IT", "ES", "CL")


def rse_name(number: int) -> str:
    """Give the name of one of many RSEs."""
    return f"BENCHRSE_{number:04d}"


def rse_attributes(number: int) -> dict[str, str]:
    """Give what is said of it."""
    return {
        "tier": str(1 + number % 3),
        "country": _COUNTRIES[number % 8],
        "cloud": f"C{number % 20}",
        "type": "DATADISK" if number % 2 else "SCRATCHDISK",
        "freespace": str(number),
        "zone": f"Z{number % 7}",
    }


def expression(kind: str, number: int) -> str:
    """Give an expression; another one for each number up to 160."""
    if kind == "name":
        return rse_name(number)
    if kind == "attributes":
        country, cloud = _COUNTRIES[number % 8], f"C{number // 8 % 20}"
        return f"(tier=1&country={country})|(tier=2&type=DATADISK)\\cloud={cloud}"
    return f"freespace>{number}"


def satisfying(kind: str, number: int, rses: int) -> int:
    """Give how many of so many RSEs satisfy an expression."""
    if kind == "name":
        return int(number < rses)
    if kind == "comparison":
        return sum(1 for one in range(rses) if one > number)
    country, cloud = _COUNTRIES[number % 8], f"C{number // 8 % 20}"
    found = 0
    for one in map(rse_attributes, range(rses)):
        first = one["tier"] == "1" and one["country"] == country
        second = one["tier"] == "2" and one["type"] == "DATADISK"
        found += (first or second) and one["cloud"] != cloud
    return found
