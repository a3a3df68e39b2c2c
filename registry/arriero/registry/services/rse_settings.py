"""What can be said of an RSE when it is added, changed or imported, and how that becomes columns."""

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, ValidationError

from arriero.registry.errors import InvalidInput
from arriero.registry.services.names import word_of
from arriero.registry.states import RseType

DETAILS = (
    "city",
    "region_code",
    "country_name",
    "continent",
    "time_zone",
    "ISP",
    "ASN",
    "longitude",
    "latitude",
    "qos_class",
)
"""Where an RSE is, whose, and of what quality: kept as they come, and given back."""

FLAGS = (
    "deterministic",
    "volatile",
    "staging_area",
    "availability_read",
    "availability_write",
    "availability_delete",
)

_BITS = (("availability_read", 4), ("availability_write", 2), ("availability_delete", 1))


def _one_line(text: str) -> str:
    if not text.isprintable():
        raise ValueError("is one line of printable characters")
    return text


Line = Annotated[str, Field(max_length=255), AfterValidator(_one_line)]


class RseSettings(BaseModel):
    """Rucio's settings of an RSE. A detail that is null is forgotten; a flag that is null is not touched."""

    model_config = ConfigDict(extra="forbid", coerce_numbers_to_str=True)

    deterministic: bool | None = None
    volatile: bool | None = None
    staging_area: bool | None = None
    rse_type: str | None = None
    availability: Annotated[int, Field(ge=0, le=7)] | None = None
    availability_read: bool | None = None
    availability_write: bool | None = None
    availability_delete: bool | None = None
    city: Line | None = None
    region_code: Line | None = None
    country_name: Line | None = None
    continent: Line | None = None
    time_zone: Line | None = None
    ISP: Line | None = None
    ASN: Line | None = None
    longitude: Annotated[float, Field(ge=-180, le=180)] | None = None
    latitude: Annotated[float, Field(ge=-90, le=90)] | None = None
    qos_class: Line | None = None


class RseChange(RseSettings):
    """Body of a change."""

    reason: Line | None = Field(default=None, description="Why; kept with what is closed, and in the audit.")


def read_settings(options: Mapping[str, Any]) -> dict[str, Any]:
    """Check settings of an RSE.

    Parameters
    ----------
    options
        As they came. A text that means a truth value or a number is taken for it: the command line sends those.

    Returns
    -------
    dict
        Columns: flags, ``type``, and ``details`` with what was said of those, None where it is to be forgotten.

    Raises
    ------
    InvalidInput
        Names the setting that does not exist or cannot be meant.
    """
    if "name" in options or "rse" in options:
        raise InvalidInput(
            "an RSE is not renamed: rules and tokens refer to it by its name; add another and move the rules"
        )
    unknown = sorted(set(options) - set(RseSettings.model_fields))
    if unknown:
        known = ", ".join(sorted(RseSettings.model_fields))
        raise InvalidInput(
            f"{', '.join(unknown)[:200]}: no setting of an RSE; there are {known}; the rest is attributes"
        )
    try:
        given = RseSettings.model_validate(dict(options)).model_dump(exclude_unset=True)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False, include_context=False)[0]
        place = ".".join(str(part) for part in first["loc"])
        raise InvalidInput(f"{place}: {first['msg']}") from error
    bits = given.get("availability")
    values: dict[str, Any] = {} if bits is None else {name: bool(bits & bit) for name, bit in _BITS}
    values |= {name: given[name] for name in FLAGS if given.get(name) is not None}
    if given.get("rse_type") is not None:
        values["type"] = word_of(RseType, given["rse_type"], "rse_type")
    details = {name: given[name] or None for name in DETAILS if name in given}
    if {"longitude", "latitude"} & set(details):
        details |= {name: given[name] for name in ("longitude", "latitude") if name in given}
    return {**values, "details": details} if details else values


def read_reason(options: Mapping[str, Any]) -> str | None:
    """Give the reason that goes with a change of settings.

    Raises
    ------
    InvalidInput
        It is no line of text.
    """
    try:
        return RseChange.model_validate({"reason": options.get("reason")}).reason or None
    except ValidationError as error:
        raise InvalidInput("reason is one line of at most 255 printable characters") from error


def merged_details(known: Mapping[str, Any] | None, said: Mapping[str, Any]) -> dict[str, Any] | None:
    """Details of an RSE after something was said of them; None when nothing is left."""
    merged = {name: value for name, value in {**(known or {}), **said}.items() if value is not None}
    return merged or None
