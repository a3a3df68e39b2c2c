"""Creates, prepares and opens a Butler repository at a site.

Why it exists: PyPI's Butler has no `register-instrument`, and its `create` has traps: a path with a dot is taken
for a configuration file, and a creation that fails leaves a `butler.yaml` that stops the next. A repository that
is there already keeps its storage classes, formatters and records; nothing here changes or removes them.
"""

from __future__ import annotations

import sqlalchemy
import structlog
from lsst.daf.butler import Butler, Config, DatasetType, MissingDatasetTypeError
from lsst.daf.butler.registry import ConflictingDefinitionError, RegistryConfig
from lsst.daf.butler.registry.connectionString import ConnectionStringFactory
from lsst.resources import ResourcePath

from arriero.agent.ingest.butler_errors import sentence
from arriero.agent.ingest.errors import ButlerUnavailable, UnsuitableRepository
from arriero.agent.ingest.instrument import InstrumentMap, load_instrument

log = structlog.get_logger(__name__)

CONFIG_NAME = "butler.yaml"

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
        if registry_db is not None and registry_db.startswith("postgresql"):
            _require_btree_gist(config_uri, registry_db)
        seed = _seed_config(instrument_map, registry_db, namespace)
        try:
            Butler.makeRepo(config.dirname(), seed, overwrite=existed)
        except BaseException:
            # What is left would be taken for a repository by the next attempt.
            if not existed and config.exists():
                config.remove()
            raise
        log.info("repository created", repository=config_uri, instrument=instrument_map.name)
    with open_repository(config_uri, writeable=True) as butler:
        try:
            register_instrument(butler, instrument_map)
            register_dataset_type(butler, instrument_map)
        except ConflictingDefinitionError as error:
            raise UnsuitableRepository(config_uri, sentence(error)) from error
    return config_uri


def register_instrument(butler: Butler, instrument: InstrumentMap) -> None:
    """Register an instrument with its detectors and filters; what is there must be the same.

    Raises
    ------
    lsst.daf.butler.registry.ConflictingDefinitionError
        If the repository has one of them with other values.
    """
    name = instrument.name
    registry = butler.registry
    with butler.transaction():
        registry.syncDimensionData("instrument", {"name": name, **instrument.instrument.model_dump()})
        for detector in instrument.detectors:
            registry.syncDimensionData("detector", {"instrument": name, **detector.model_dump()})
        for physical_filter, band in instrument.physical_filters.items():
            registry.syncDimensionData(
                "physical_filter", {"instrument": name, "name": physical_filter, "band": band}
            )


def register_dataset_type(butler: Butler, instrument: InstrumentMap) -> DatasetType:
    """Return the dataset type of an instrument's files, registered with its run if the repository lacks it."""
    wanted = instrument.dataset_type
    butler.collections.register(wanted.run)
    try:
        return butler.get_dataset_type(wanted.name)
    except MissingDatasetTypeError:
        dataset_type = DatasetType(
            wanted.name, wanted.dimensions, wanted.storage_class, universe=butler.dimensions
        )
        butler.registry.registerDatasetType(dataset_type)
        return dataset_type


def _seed_config(instrument: InstrumentMap, registry_db: str | None, namespace: str | None) -> Config:
    storage_class = instrument.dataset_type.storage_class
    content: dict[str, object] = {
        "datastore": {"formatters": {storage_class: instrument.dataset_type.formatters[storage_class]}},
        "storageClasses": {storage_class: {"pytype": "astropy.io.fits.HDUList"}},
    }
    registry = {"db": registry_db, "namespace": namespace}
    if given := {key: value for key, value in registry.items() if value is not None}:
        content["registry"] = given
    return Config(content)


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
