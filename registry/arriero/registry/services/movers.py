"""Use cases of the movers of sites: they claim, extend and report requests of their own RSEs (DESIGN 3, 4.1)."""

from collections.abc import Mapping, Sequence

from sqlalchemy import Connection

from arriero.registry.errors import InvalidInput, Unsupported
from arriero.registry.moving import ClaimRequests, ExtendRequests, ReportRequests, RequestOrder
from arriero.registry.ports import SiteMover, TransferDesk
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.store import movers as store
from arriero.registry.store import tokens as token_store


def authorize_claim(context: Context, actor: Actor, claim: ClaimRequests) -> SiteMover:
    """Check that an actor may carry for the RSEs that it names, or for those of its token.

    Raises
    ------
    Denied
        The token is not bound to one of them, or to none at all.
    InvalidInput
        One of them is not left to the mover of its site.
    """
    for name in claim.rses:
        authorize(actor, Action.REQUEST_CLAIM, Target(name, rse=name))
    names = claim.rses or tuple(sorted(actor.rses))
    if not claim.rses:
        authorize(actor, Action.REQUEST_CLAIM, Target("requests", rse=_any_of(actor)))
    with context.database.snapshot() as connection:
        found = store.mover_rses(connection, names)
        owner = _owner(connection, actor, claim.worker)
    strangers = sorted(set(claim.rses) - found.keys())
    if strangers or not found:
        raise InvalidInput(
            f"{', '.join(strangers or names) or 'no RSE'}: not left to the mover of a site; "
            f"set the attribute {store.SITE_MOVER}=true on the RSEs that only the site reaches",
            code="not_of_a_site_mover",
        )
    return SiteMover(owner, frozenset(found.values()), ", ".join(sorted(found)))


def claim_requests(
    context: Context, actor: Actor, site: SiteMover, claim: ClaimRequests
) -> Sequence[RequestOrder]:
    """Lease due requests, without waiting.

    Parameters
    ----------
    site
        From `authorize_claim`.

    Returns
    -------
    sequence of RequestOrder
        Empty when nothing is due that may go.
    """
    desk = _desk(context)
    if not desk.is_due(site):
        return []

    def note(connection: Connection, count: int) -> None:
        audit.record(
            connection, actor, Action.REQUEST_CLAIM, site.names[:500], requests=count, worker=claim.worker
        )

    return desk.claim(site, limit=claim.limit, lease_s=claim.lease_s, note=note)


def extend_requests(context: Context, actor: Actor, extension: ExtendRequests) -> list[int]:
    """Extend leases.

    Returns
    -------
    list of int
        Ids whose lease is lost; work on them has to end.

    Raises
    ------
    Denied
        The token is bound to neither RSE of one of them; nothing was extended.
    """
    ids = [one.id for one in extension.requests]
    site = _authorize_held(context, actor, extension.worker, ids)
    asked = [(one.id, one.fence) for one in extension.requests]
    copied = {one.id: one.copied for one in extension.requests if one.copied is not None}
    held = _desk(context).extend(site, asked, lease_s=extension.lease_s, copied=copied)
    return [request_id for request_id, fence in asked if (request_id, fence) not in held]


def report_requests(context: Context, actor: Actor, report: ReportRequests) -> Sequence[int]:
    """Take in what became of requests.

    Returns
    -------
    sequence of int
        Ids that were not accepted: their fence has moved, or somebody else holds them.

    Raises
    ------
    Denied
        The token is bound to neither RSE of one of them; nothing was taken in.
    """
    site = _authorize_held(context, actor, report.worker, [one.id for one in report.outcomes])

    def note(connection: Connection, counts: Mapping[str, int]) -> None:
        audit.record(
            connection, actor, Action.REQUEST_REPORT, site.names[:500], worker=report.worker, **counts
        )

    return _desk(context).report(site, report.outcomes, note=note)


def _authorize_held(context: Context, actor: Actor, worker: str, ids: Sequence[int]) -> SiteMover:
    authorize(actor, Action.REQUEST_REPORT, Target("requests", rse=_any_of(actor)))
    with context.database.snapshot() as connection:
        for source, destination in sorted(store.ways_of(connection, ids), key=repr):
            # of the two the one that it may report for, if there is one
            mine = source if source is not None and source in actor.rses else destination
            authorize(actor, Action.REQUEST_REPORT, Target(f"requests of {mine}", rse=mine))
        own = store.mover_rses(connection, actor.rses)
        owner = _owner(connection, actor, worker)
    return SiteMover(owner, frozenset(own.values()), ", ".join(sorted(own)) or "requests")


def _owner(connection: Connection, actor: Actor, worker: str) -> str:
    """Who holds what a worker claims: by the label of its token, so that a renewed token goes on."""
    row = None if actor.token_id is None else token_store.token_row(connection, actor.token_id)
    label = None if row is None else row["label"]
    return f"{actor.account}/{label or 'session'}/{worker}"


def _any_of(actor: Actor) -> str | None:
    return min(actor.rses, default=None)


def _desk(context: Context) -> TransferDesk:
    if context.desk is None:
        raise Unsupported(
            "this registry was started without the scheduler: no requests can be claimed from it"
        )
    return context.desk
