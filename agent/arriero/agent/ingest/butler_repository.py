"""Creates, prepares and opens a Butler repository at a site.

Why it exists: PyPI's Butler has no `register-instrument`, and its `create` has traps: a path with a dot is taken
for a configuration file, and a creation that fails leaves a `butler.yaml` that stops the next. A repository that
is there already keeps its storage classes, formatters and records; nothing here changes or removes them.
"""

from __future__ import annotations

from pathlib import Path

import sqlalchemy
import structlog
from lsst.daf.butler import Butler, Config, DatasetType, MissingDatasetTypeError
from lsst.daf.butler.registry import ConflictingDefinitionError, RegistryConfig
from lsst.daf.butler.registry.connectionString import ConnectionStringFactory
from lsst.resources import ResourcePath

from arriero.agent.ingest.butler_errors import sentence
from arriero.agent.ingest.butler_translators import register_by_class
from arriero.agent.ingest.drafts import TypeOfDataset
from arriero.agent.ingest.errors import ButlerUnavailable, UnsuitableRepository
from arriero.agent.ingest.instrument import InstrumentMap, load_instrument

log = structlog.get_logger(__name__)

CONFIG_NAME = "butler.yaml"
HDU_LIST = "astropy.io.fits.HDUList"

UNDEFINED_TABLE = "42P01"
"""PostgreSQL's SQLSTATE (its manual, appendix A)."""

_NO_TABLES = ("no such table: butler_attributes", "unable to open database file")
"""What SQLite says when the registry's file is empty, or is not there."""


def repository_config(uri: str) -> str:
    """Return the URI of a repository's configuration, given it or the repository's directory.

    The Butler itself takes a directory with a dot in its name for a configuration file.
    """
    if uri.endswith((".yaml", ".yml")):
        return uri
    return str(ResourcePath(uri, forceDirectory=True).join(CONFIG_NAME))


def open_repository(uri: str, *, writeable: bool = False) -> Butler:
    """Return a Butler for a repository.

    Parameters
    ----------
    uri
        The repository's directory or its ``butler.yaml``.
    """
    return Butler.from_config(repository_config(uri), writeable=writeable)


def create_repository(
    uri: str,
    instrument: str | InstrumentMap,
    *,
    registry_db: str | None = None,
    namespace: str | None = None,
    datastore_root: str | None = None,
    seed_config: str | None = None,
) -> str:
    """Create a repository for an instrument, or complete one that is there.

    Parameters
    ----------
    uri
        The repository's directory, on any storage that the Butler can write its configuration to.
    instrument
        A map or the name of one.
    registry_db
        SQLAlchemy URL of a PostgreSQL database, without a password (see ``LSST_DB_AUTH``); by default an
        SQLite file in the repository.
    namespace
        Schema in that database.
    datastore_root
        Where files that are not ingested in place go, as a URI; by default the repository itself.
    seed_config
        A seed configuration as `butler create` takes it; what is said here goes before what it says.

    Returns
    -------
    str
        URI of the repository's ``butler.yaml``.

    Raises
    ------
    ButlerUnavailable
        If the database cannot be reached.
    UnsuitableRepository
        If there is another kind of repository, or the database lacks what the Butler needs.
    """
    instrument_map = load_instrument(instrument) if isinstance(instrument, str) else instrument
    config_uri = repository_config(uri)
    config = ResourcePath(config_uri)
    if config.dirname().getExtension():
        cause = "the Butler takes a directory with a dot in its name for a file. Choose another name."
        raise UnsuitableRepository(config_uri, cause)
    existed = config.exists()
    if existed and _has_registry(config_uri):
        log.info("repository exists", repository=config_uri)
    else:
        seed = _seed_config(instrument_map, registry_db, namespace, datastore_root, seed_config)
        database = str(seed["registry", "db"]) if ("registry", "db") in seed else ""
        if database.startswith("postgresql"):
            _require_btree_gist(config_uri, database)
        try:
            Butler.makeRepo(
                config.dirname(),
                seed,
                dimensionConfig=_universe_config(instrument_map),
                # The Butler's own name for: keep the root of a datastore that is somewhere else.
                forceConfigRoot=("datastore", "root") not in seed,
                overwrite=existed,
            )
        except BaseException:
            # What is left would be taken for a repository by the next attempt.
            if not existed and config.exists():
                config.remove()
            raise
        log.info("repository created", repository=config_uri, instrument=instrument_map.name)
    with open_repository(config_uri, writeable=True) as butler:
        try:
            register_instrument(butler, instrument_map)
            register_dataset_types(butler, instrument_map)
        except ConflictingDefinitionError as error:
            raise UnsuitableRepository(config_uri, sentence(error)) from error
    return config_uri


def register_instrument(butler: Butler, instrument: InstrumentMap) -> None:
    """Register an instrument with its detectors, filters and what else it declares; what is there must be the same.

    Its own class does it, where that is installed.

    Raises
    ------
    lsst.daf.butler.registry.ConflictingDefinitionError
        If the repository has one of them with other values.
    """
    if register_by_class(butler, instrument):
        return
    name = instrument.name
    registry = butler.registry
    with butler.transaction():
        own = instrument.instrument.model_dump(exclude_none=True)
        registry.syncDimensionData("instrument", {"name": name, **own})
        for element, records in instrument.registered.items():
            for record in records:
                registry.syncDimensionData(element, {"instrument": name, **record})
        for detector in instrument.detectors:
            columns = detector.model_dump(exclude_none=True)
            registry.syncDimensionData("detector", {"instrument": name, **columns})
        for physical_filter, band in instrument.physical_filters.items():
            registry.syncDimensionData(
                "physical_filter", {"instrument": name, "name": physical_filter, "band": band}
            )


def register_dataset_types(butler: Butler, instrument: InstrumentMap) -> list[DatasetType]:
    """Return the dataset types of an instrument's files, registered with their runs where the repository lacks them."""
    for files in instrument.kinds:
        butler.collections.register(files.dataset_type.run)
    wanted = (files.dataset_type for files in instrument.kinds)
    return [registered_type(butler, TypeOfDataset(w.name, w.dimensions, w.storage_class)) for w in wanted]


def registered_type(butler: Butler, wanted: TypeOfDataset) -> DatasetType:
    """Return the repository's dataset type of a name, registered as wanted if there is none."""
    try:
        return butler.get_dataset_type(wanted.name)
    except MissingDatasetTypeError:
        dataset_type = DatasetType(
            wanted.name,
            wanted.dimensions,
            wanted.storage_class,
            universe=butler.dimensions,
            isCalibration=wanted.is_calibration,
        )
        butler.registry.registerDatasetType(dataset_type)
        return dataset_type


def _seed_config(
    instrument: InstrumentMap,
    registry_db: str | None,
    namespace: str | None,
    datastore_root: str | None,
    seed_config: str | None,
) -> Config:
    """Return what the repository is to have besides the Butler's defaults: the caller's seed, then the instrument's."""
    formatters = {
        files.dataset_type.storage_class: files.dataset_type.formatters[files.dataset_type.storage_class]
        for files in instrument.kinds
        if files.dataset_type.storage_class in files.dataset_type.formatters
    }
    pytypes = dict.fromkeys(formatters, HDU_LIST) | instrument.storage_classes
    datastore: dict[str, object] = {"formatters": formatters}
    if instrument.templates:
        datastore["templates"] = dict(instrument.templates)
    if datastore_root is not None:
        datastore["root"] = datastore_root
    content: dict[str, object] = {
        "datastore": datastore,
        "storageClasses": {name: {"pytype": pytype} for name, pytype in pytypes.items()},
    }
    registry = {"db": registry_db, "namespace": namespace}
    if given := {key: value for key, value in registry.items() if value is not None}:
        content["registry"] = given
    seed = Config(seed_config) if seed_config is not None else Config()
    seed.update(Config(content))
    return seed


def _universe_config(instrument: InstrumentMap) -> str | None:
    """Return the file that defines the universe of an instrument which has one of its own."""
    name = instrument.universe.config
    return None if name is None else str(Path(instrument.directory or ".", name))


def _has_registry(config_uri: str) -> bool:
    """Return whether a repository can be opened; False if its configuration is all that was ever made of it."""
    try:
        Butler.from_config(config_uri, writeable=False).close()
    except sqlalchemy.exc.DBAPIError as error:
        said = str(error.orig)
        if getattr(error.orig, "sqlstate", None) != UNDEFINED_TABLE and not said.startswith(_NO_TABLES):
            raise UnsuitableRepository(config_uri, sentence(error)) from error
        log.warning("repository has no registry, it is made again", repository=config_uri, reason=said)
        return False
    return True


def _require_btree_gist(config_uri: str, registry_db: str) -> None:
    """Create the extension that the Butler's time spans need, or say who has to."""
    # With the credentials that the Butler will use.
    url = ConnectionStringFactory.fromConfig(RegistryConfig({"registry": {"db": registry_db}}))
    engine = sqlalchemy.create_engine(url)
    try:
        with engine.begin() as connection:
            connection.execute(sqlalchemy.text("CREATE EXTENSION IF NOT EXISTS btree_gist"))
    except sqlalchemy.exc.ProgrammingError as error:
        cause = f"{sentence(error)}. As a superuser of its database: CREATE EXTENSION btree_gist;"
        raise UnsuitableRepository(config_uri, cause) from error
    except sqlalchemy.exc.OperationalError as error:
        raise ButlerUnavailable(config_uri, sentence(error)) from error
    finally:
        engine.dispose()
