"""What an installed obs package says of an instrument: its translator of headers, its class that registers it.

Why it exists: a declaration stands in for an observatory's own code, and must not contradict it where that is installed.
Packages are found as astro_metadata_translator finds them, by the entry points of `astro_metadata_translators`; a class by the
name that the declaration gives the instrument's record.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any

import structlog
from lsst.daf.butler import Butler
from lsst.daf.butler.time_utils import TimeConverter
from lsst.utils import doImportType

from arriero.agent.ingest.errors import HeaderError
from arriero.agent.ingest.file_map import Description, Record
from arriero.agent.ingest.instrument import InstrumentMap
from arriero.agent.ingest.tai import TaiSpan
from arriero.agent.ingest.transforms import Header, Value

if TYPE_CHECKING:
    from astro_metadata_translator import MetadataTranslator, ObservationInfo

log = structlog.get_logger(__name__)

GROUP = "astro_metadata_translators"
DAY_NS = 86_400 * 10**9

_SAME = {
    ("exposure", "id"): "exposure_id",
    ("exposure", "obs_id"): "observation_id",
    ("exposure", "physical_filter"): "physical_filter",
    ("exposure", "group"): "exposure_group",
    ("exposure", "day_obs"): "observing_day",
    ("exposure", "observation_type"): "observation_type",
    ("exposure", "observation_reason"): "observation_reason",
    ("exposure", "seq_num"): "observation_counter",
    ("exposure", "seq_start"): "group_counter_start",
    ("exposure", "seq_end"): "group_counter_end",
    ("exposure", "target_name"): "object",
    ("exposure", "science_program"): "science_program",
    ("exposure", "has_simulated"): "has_simulated_content",
    ("exposure", "can_see_sky"): "can_see_sky",
    ("group", "name"): "exposure_group",
    ("day_obs", "id"): "observing_day",
}
"""Columns that have a property of ObservationInfo as it is."""

_PROPERTIES = {
    *_SAME.values(),
    "boresight_rotation_angle",
    "boresight_rotation_coord",
    "dark_time",
    "datetime_begin",
    "datetime_end",
    "detector_num",
    "exposure_time",
    "altaz_begin",
    "observing_day_offset",
    "tracking_radec",
}


class Translator:
    """Describes the raws of one instrument by its package's translator.

    Parameters
    ----------
    translator
        Of astro_metadata_translator.
    instrument
        Its declaration says which records and columns the repository has.
    """

    def __init__(self, translator: type[MetadataTranslator], instrument: InstrumentMap) -> None:
        self._translator = translator
        self._instrument = instrument

    def describe(self, header: Header, name: str) -> Description:
        """Return what a header says about a raw.

        Raises
        ------
        HeaderError
            If the package cannot translate it.
        """
        from astro_metadata_translator import ObservationInfo

        given = {key: value for key, value in header.items() if value is not None}
        try:
            info = ObservationInfo(
                given,
                filename=name.rpartition("/")[2],
                translator_class=self._translator,
                subset=_PROPERTIES,
                required={"exposure_id", "detector_num"},
                pedantic=False,
                quiet=True,
            )
            columns = _columns(info)
        except (LookupError, TypeError, ValueError, ArithmeticError, AttributeError, OSError) as error:
            raise HeaderError(
                "header", f"{self._translator.__name__} cannot translate it ({error})"
            ) from error
        own = {"instrument": self._instrument.name}
        records: dict[str, Record] = {
            element: {**own, **{c: columns[element, c] for c in wanted if (element, c) in columns}}
            for element, wanted in self._instrument.records.items()
        }
        exposure, detector = columns["exposure", "id"], info.detector_num
        if not isinstance(exposure, int) or not isinstance(detector, int):
            raise HeaderError(
                "header", f"{self._translator.__name__} finds no exposure, or no detector, in it"
            )
        return Description(self._instrument, ({**own, "exposure": exposure, "detector": detector},), records)


def _columns(info: ObservationInfo) -> dict[tuple[str, str], Value]:
    found: dict[tuple[str, str], Value] = {key: getattr(info, name) for key, name in _SAME.items()}
    begin, end = _nanoseconds(info.datetime_begin), _nanoseconds(info.datetime_end)
    if begin is not None and end is not None:
        found["exposure", "timespan"] = TaiSpan(begin, end)
    for column in ("exposure_time", "dark_time"):
        quantity = getattr(info, column)
        found["exposure", column] = None if quantity is None else float(quantity.to_value("s"))
    place, altaz = info.tracking_radec, info.altaz_begin
    if place is not None:
        found["exposure", "tracking_ra"] = float(place.icrs.ra.degree)
        found["exposure", "tracking_dec"] = float(place.icrs.dec.degree)
    if altaz is not None:
        found["exposure", "azimuth"] = float(altaz.az.degree)
        found["exposure", "zenith_angle"] = float(90.0 - altaz.alt.degree)
    if info.boresight_rotation_coord == "sky" and info.boresight_rotation_angle is not None:
        found["exposure", "sky_angle"] = float(info.boresight_rotation_angle.degree)
    if info.observing_day is not None:
        found["day_obs", "timespan"] = _day(info.observing_day, info.observing_day_offset)
    return found


def _nanoseconds(time: Any) -> int | None:
    return None if time is None else int(TimeConverter().astropy_to_nsec(time))


def _day(observing_day: int, offset: Any) -> TaiSpan:
    from astropy.time import Time

    text = str(observing_day)
    start = Time(f"{text[:4]}-{text[4:6]}-{text[6:]}T00:00:00", format="isot", scale="tai")
    begin = int(TimeConverter().astropy_to_nsec(start))
    begin += 0 if offset is None else round(offset.to_value("s")) * 10**9
    return TaiSpan(begin, begin + DAY_NS)


def installed_translators(instruments: tuple[InstrumentMap, ...]) -> Mapping[str, Translator]:
    """Return, by instrument, the translators that installed obs packages have for these instruments' raws.

    Those that come with astro_metadata_translator itself are not meant: they know headers, not a Butler's universe.
    """
    found = entry_points(group=GROUP)
    if not found:
        return {}
    try:
        from astro_metadata_translator import MetadataTranslator
    except ImportError as error:
        log.warning("translators not used", reason=str(error))
        return {}
    before = {id(one) for one in _of_the_library()}
    for entry in found:
        try:
            entry.load()()
        except Exception as error:  # noqa: BLE001 - the border to somebody else's package
            log.warning("obs package not used", package=entry.name, reason=f"{type(error).__name__}: {error}")
    translators: dict[str, Translator] = {}
    for one in MetadataTranslator.translators.values():
        for instrument in instruments:
            if id(one) in before or instrument.name not in {one.name, one.supported_instrument}:
                continue
            if set(instrument.data_id) == {"exposure"} and instrument.detector_extensions is None:
                translators[instrument.name] = Translator(one, instrument)
                log.info("obs package used", instrument=instrument.name, translator=one.__name__)
    return translators


def _of_the_library() -> list[type[MetadataTranslator]]:
    from astro_metadata_translator import MetadataTranslator

    own = "astro_metadata_translator."
    return [one for one in MetadataTranslator.translators.values() if one.__module__.startswith(own)]


def register_by_class(butler: Butler, instrument: InstrumentMap) -> bool:
    """Register an instrument by its own class, if that is installed; return whether it is."""
    try:
        own: Any = doImportType(instrument.instrument.class_name)
    except (ImportError, TypeError):
        return False
    own().register(butler.registry)
    log.info("instrument registered by its class", instrument=instrument.name)
    return True
