"""``arriero watch``: files that arrive without a rule become replicas, and go the way of all others."""

from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
from typing_extensions import override

from arriero.agent.cli.failures import PartialSuccess
from arriero.agent.cli.options import BROKER, BROKER_SETTINGS, all_of
from arriero.agent.cli.session import Session, pass_session
from arriero.agent.cli.signals import until_told

if TYPE_CHECKING:
    from arriero.agent.registration import Registration
    from arriero.agent.topics import Told
    from arriero.agent.watch import Watched, Watcher


class _WatchGroup(click.Group):
    """Takes a folder for `directory` and that folder."""

    @override
    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in self.commands and not args[0].startswith("-"):
            args = ["directory", *args]
        return super().resolve_command(ctx, args)


@click.group("watch", cls=_WatchGroup)
def command() -> None:
    """Register what arrives at an RSE without a rule; Butlers that take it ingest it.

    \b
    arriero watch LSSTComCam --rse IN2P3_RAW_DISK --scope raw
    arriero watch s3-notifications notifications.jsonl --rse IN2P3_RAW_DISK --scope raw --bucket rubin-raw
    arriero watch kafka --broker kafka:9092 --topic IN2P3_RAW_DISK-raw --rse IN2P3_RAW_DISK
    arriero watch stars2-drop /download_dir --rse SUBARU_RAW_DISK --scope raw
    """  # noqa: D301 - click's mark for lines that stay as they are


_where = all_of(
    click.option("--rse", "rse_name", required=True, metavar="RSE", help="Where they arrive."),
    click.option("--scope", required=True, help="Scope of their names."),
    click.option("--scheme", help="Use this protocol of the RSE [default: its first to read]."),
    click.option(
        "--credentials",
        type=click.Path(path_type=Path, exists=True, dir_okay=False),
        help="YAML: ca_bundle and token_file for each RSE.",
    ),
    click.option(
        "--memory",
        type=click.Path(path_type=Path, dir_okay=False),
        help="File that remembers what was registered, over restarts [default: none is kept].",
    ),
    click.option("--once", is_flag=True, help="Look once, and end."),
)


_EVERY = click.option(
    "--every",
    "every_s",
    type=click.FloatRange(min=0.05),
    default=5.0,
    show_default=True,
    help="Seconds between two looks.",
)
_SETTLE = click.option(
    "--settle",
    "settle_s",
    type=click.FloatRange(min=0),
    default=10.0,
    show_default=True,
    help="Seconds for which the size must not change; 0 where files appear by rename.",
)


@command.command("directory")
@click.argument("folder", default="", metavar="[FOLDER]")
@_where
@_EVERY
@_SETTLE
@pass_session
def directory(
    session: Session, /, *, folder: str, every_s: float, settle_s: float, once: bool, **where: Any
) -> None:
    """Watch a folder of an RSE, and all below it; the folder is named as the names in the catalogue begin."""
    from arriero.agent.storage_files import find_files
    from arriero.agent.watch import watch

    with ExitStack() as stack:
        registration, watcher = _watcher(session, stack, settle_s=settle_s, **where)

        def look() -> "Watched":
            return watcher.look(find_files(registration.protocol, registration.layout, [folder]))

        _tell(session, watch(look, until_told(), every_s=every_s, once=once), rse=where["rse_name"])


@command.command("s3-notifications")
@click.argument("source", type=click.File(encoding="utf-8"), default="-")
@_where
@click.option("--bucket", "buckets", multiple=True, help="Only of this bucket; may be repeated.")
@click.option("--prefix", default="", help="What the keys begin with before the names in the catalogue.")
@click.option(
    "--match", metavar="REGEX", default=r"\.fits(\.fz|\.gz)?$", show_default=True, help="Only such keys."
)
@pass_session
def s3_notifications(
    session: Session,
    /,
    *,
    source: IO[str],
    buckets: tuple[str, ...],
    prefix: str,
    match: str,
    once: bool,
    **where: Any,
) -> None:
    """Register the objects that S3 event notifications name, read from a file or stdin, one message a line."""
    import re

    from arriero.agent.notifications import created, in_bursts, messages
    from arriero.agent.storage_files import StoredFile
    from arriero.rse.errors import RSEError

    del once  # it ends with its source
    pattern = re.compile(match)
    with ExitStack() as stack:
        registration, watcher = _watcher(session, stack, settle_s=0.0, **where)

        def files(objects: list[Any]) -> Iterator[StoredFile]:
            for one in objects:
                name = one.key.removeprefix(prefix)
                try:
                    path = registration.layout.path_of(name)
                    yield StoredFile(name, path, registration.protocol.stat(path).bytes)
                except RSEError as error:
                    if error.retryable:
                        raise
                    session.output.note(f"Passed over: {one.bucket}/{one.key}: {error}")

        def looks() -> "Iterator[Watched]":
            for burst in in_bursts(source, 100):
                chosen = [
                    one
                    for message in messages(burst)
                    for one in created(message)
                    if (not buckets or one.bucket in buckets)
                    and one.key.startswith(prefix)
                    and pattern.search(one.key)
                ]
                # a store tells more than once
                yield watcher.take(list(files(list(dict.fromkeys(chosen)))))

        _tell(session, looks(), rse=where["rse_name"])


@command.command("rucio-messages")
@click.argument("source", type=click.File(encoding="utf-8"), default="-")
@click.option("--rse", "rse_name", required=True, metavar="RSE", help="Only what was brought here.")
@pass_session
def rucio_messages(session: Session, /, *, source: IO[str], rse_name: str) -> None:
    """Register what Rucio's transfer-done messages say was brought to an RSE, read from a file or stdin, one a line.

    Sizes, checksums and Rubin's metadata (rubin_butler, rubin_sidecar) are those of the messages, which Rucio has verified.
    What was registered already, the same way, is passed over: messages may be replayed. What pipes the topics of a broker
    into it (kcat, for one) keeps its own offsets.
    """
    from arriero.agent.notifications import in_bursts, replicas_at
    from arriero.agent.topics import Told, register

    with_pfn = not session.client.get_rse(rse_name).get("deterministic", True)
    told = Told()
    for burst in in_bursts(source, 1000):
        told.add(register(session.client, rse_name, replicas_at(burst, rse_name, with_pfn=with_pfn)))
    _told(session, "Rucio", rse_name, told)


@command.command("kafka")
@BROKER
@click.option(
    "--topic", "topics", multiple=True, required=True, help="RSE-SCOPE, as Rubin's; may be repeated."
)
@click.option("--group", default="arriero", show_default=True, help="Whose offsets the broker keeps.")
@click.option("--rse", "rse_name", required=True, metavar="RSE", help="Only what was brought here.")
@BROKER_SETTINGS
@click.option("--once", is_flag=True, help="End when there is nothing more to read.")
@pass_session
def kafka(
    session: Session,
    /,
    *,
    brokers: tuple[str, ...],
    topics: tuple[str, ...],
    group: str,
    rse_name: str,
    settings: dict[str, Any],
    once: bool,
) -> None:
    """Register what Rucio's transfer-done messages on Kafka say was brought to an RSE (needs arriero[kafka]).

    As rucio-messages does. Offsets are committed when the files are registered: what was read by somebody who died is read again.
    """
    from arriero.agent.kafka import KafkaSource
    from arriero.agent.topics import Told, TopicReader

    with_pfn = not session.client.get_rse(rse_name).get("deterministic", True)
    stop = until_told()
    told = Told()
    source = KafkaSource(brokers, group, topics, settings)
    try:
        reader = TopicReader(session.client, source, rse_name, with_pfn=with_pfn)
        for one in reader.run(stop, wait_s=6.0 if once else 1.0):
            told.add(one)
            if once and not one.messages:
                break
    finally:
        source.close()
    _told(session, "Kafka", rse_name, told)


@command.command("stars2-drop")
@click.argument("drop", type=click.Path(path_type=Path, exists=True))
@_where
@_EVERY
@_SETTLE
@click.option("--no-manifest", is_flag=True, help="Take tars without a manifest, too.")
@click.option(
    "--folder", default="raw", show_default=True, help="Folder of the raws, as names in the catalogue begin."
)
@pass_session
def stars2_drop(
    session: Session,
    /,
    *,
    drop: Path,
    every_s: float,
    settle_s: float,
    once: bool,
    no_manifest: bool,
    folder: str,
    **where: Any,
) -> None:
    """Unpack the tars of STARS2 that are put into DROP (a folder, or one tar) into an RSE of files, and register them.

    The script within is never run. A tar that has been taken is renamed to NAME.done, one that is refused to NAME.refused,
    with the reason in NAME.refused.txt.
    """
    from arriero.agent.stars2_drop import Drop
    from arriero.agent.watch import watch

    with ExitStack() as stack:
        registration, watcher = _watcher(session, stack, settle_s=0.0, **where)
        endpoint = registration.protocol.endpoint
        if endpoint.scheme != "file":
            raise click.UsageError(
                f"{where['rse_name']} is no RSE of files here: tars are unpacked beside the storage."
            )
        root = Path(endpoint.prefix) / registration.layout.folder_of(folder)
        drops = Drop(
            drop, root, folder, registration, watcher, need_manifest=not no_manifest, settle_s=settle_s
        )
        _tell(session, watch(drops.look, until_told(), every_s=every_s, once=once), rse=where["rse_name"])


def _watcher(
    session: Session,
    stack: ExitStack,
    *,
    rse_name: str,
    scope: str,
    scheme: str | None,
    credentials: Path | None,
    memory: Path | None,
    settle_s: float,
) -> "tuple[Registration, Watcher]":
    from arriero.agent.registration import Registration
    from arriero.agent.storage_files import DEFAULT_ALGORITHM, Layout, endpoint_to_read, read_credentials
    from arriero.agent.watch import Memory, Watcher
    from arriero.rse.pool import ProtocolPool

    rse = session.client.get_rse(rse_name)
    algorithm: str | None = None
    if rse.get("deterministic", True):
        attributes = session.client.list_rse_attributes(rse_name)
        algorithm = str(attributes.get("lfn2pfn_algorithm") or DEFAULT_ALGORITHM)
    pool = ProtocolPool()
    stack.callback(pool.close)
    found = read_credentials(credentials, rse_name)
    protocol = pool.get(endpoint_to_read(rse_name, rse.get("protocols") or [], found, scheme))
    registration = Registration(session.client, protocol, rse_name, Layout(scope, algorithm))
    kept = stack.enter_context(Memory(memory or ":memory:"))
    return registration, Watcher(registration, kept, settle_s=settle_s)


def _told(session: Session, who: str, rse: str, told: "Told") -> None:
    """End with what messages came to."""
    record = {"rse": rse, "told": told.registered, "refused": told.refused}
    session.output.done(
        f"{who} told of {told.registered} files at {rse}, which are registered; {told.refused} were refused.",
        record,
    )
    if told.refused:
        raise PartialSuccess(f"{told.refused} files were refused by the registry; the log says why.")


def _tell(session: Session, looks: "Iterator[Watched]", *, rse: str) -> None:
    """Tell of every look that did something, and end with what they all came to."""
    registered = failed = waiting = 0
    for one in looks:
        registered += one.registered
        failed += one.failed
        waiting = one.waiting
    record = {"rse": rse, "registered": registered, "failed": failed, "waiting": waiting}
    session.output.done(
        f"Registered {registered} files at {rse}; {failed} failed, {waiting} are not complete.", record
    )
    if failed:
        raise PartialSuccess(f"{failed} files were not registered; the log says why. They are tried again.")
