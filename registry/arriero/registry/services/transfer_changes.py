"""What operators do to transfers: trying them again now, and taking them back.

Whoever may change a rule may do so to its copies. A copy that several rules want is everybody's: taken back by name it
is taken from all of them, and whoever does so has to have the right to change them all.
"""

from collections.abc import Sequence

from sqlalchemy import ColumnElement, Connection, RowMapping, select

from arriero.registry.errors import Busy, InvalidInput
from arriero.registry.operations import Cancelled, CancelOrder, Retried, RetryOrder, TransferChoice
from arriero.registry.ports import Bell
from arriero.registry.schema.base import now
from arriero.registry.schema.tables import locks, requests
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.bad_replicas import RulesCame, retried
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.dry_runs import undone
from arriero.registry.services.lookups import require_did
from arriero.registry.services.rses import require_rse
from arriero.registry.services.rules import parse_rule_id, require_rule
from arriero.registry.states import RESTING, DidType, LockState, RequestState
from arriero.registry.store import transfer_changes as store
from arriero.registry.store import transfers
from arriero.registry.store.contents import file_ids_below
from arriero.registry.store.evaluations import look_at_stuck


def retry(context: Context, actor: Actor, order: RetryOrder) -> Retried:
    """Have what waits in the queue be due now, with all its attempts, and what was given up begin anew.

    Parameters
    ----------
    order
        Of which transfers: of a rule, of what a DID holds, to an RSE, or all of that together.

    Raises
    ------
    NotFound
        What it names is not there.
    Denied
        A rule that it touches is another account's; then nothing is done.
    """
    _authorize_at_all(actor, Action.TRANSFER_RETRY)

    def work(connection: Connection) -> Retried:
        which = _locks(connection, order)
        held = store.hold_rules(connection, [*which, locks.c.state != LockState.OK])
        _authorize_all(actor, Action.TRANSFER_RETRY, order, held)
        awake = [rule["id"] for rule in held if rule["state"] not in RESTING]
        due_now = store.make_due(connection, which, priority=order.priority)
        tried_again, woken = store.retry_locks(connection, awake, which)
        look_at_stuck(connection, woken)
        done = Retried(
            due_now=due_now, tried_again=tried_again, rules=len(held), resting=len(held) - len(awake)
        )
        _record(connection, actor, Action.TRANSFER_RETRY, order, due_now=due_now, tried_again=tried_again)
        return done

    if order.dry_run:
        return undone(context, work)
    done = context.database.run(work)
    context.doorbell.ring(Bell.EVALUATIONS)
    context.doorbell.ring(Bell.REQUESTS)
    return done


def cancel(context: Context, actor: Actor, order: CancelOrder) -> Cancelled:
    """Take transfers back: their locks are STUCK, with who, when and why, until they are tried again or their time comes.

    Of a rule, those in the queue that no other rule wants; those that have begun with ``under_way``. Of a file, all of
    them, whoever wants them. A worker that copies one has lost its lease and ends within seconds.

    Raises
    ------
    NotFound
        What it names is not there.
    InvalidInput
        Without a rule, one file has to be named.
    Denied
        A rule that it touches is another account's; then nothing is done.
    """
    _authorize_at_all(actor, Action.TRANSFER_CANCEL)

    def work(connection: Connection) -> Cancelled:
        return _cancel(context, connection, actor, order)

    if not order.dry_run:
        return retried(context, work)
    try:
        return undone(context, work)
    except RulesCame as error:
        raise Busy("rules come to these copies at this moment: try again") from error


def _cancel(context: Context, connection: Connection, actor: Actor, order: CancelOrder) -> Cancelled:
    shared = 0
    if order.rule is None:
        _take_by_name(connection, actor, order)
    else:
        shared = _take_of_rule(connection, actor, order)
    queued, under_way = store.noted(connection)
    # by the database's clock
    at = connection.execute(select(now())).scalar_one()
    why = f": {order.reason}" if order.reason else ""
    reason = f"taken back by {actor.account} at {at:%Y-%m-%d %H:%M:%S} UTC{why}"
    stopped = store.stop_locks(connection, reason, account=actor.account)
    store.end_them(connection, reason)
    look_at_stuck(connection, stopped, delay_s=context.settings.stuck_retry_s)
    _record(connection, actor, Action.TRANSFER_CANCEL, order, queued=queued, under_way=under_way)
    return Cancelled(queued=queued, under_way=under_way, rules=len(stopped), shared=shared)


def _take_by_name(connection: Connection, actor: Actor, order: CancelOrder) -> None:
    did = require_did(connection, order.scope or "", order.name or "")
    if did["type"] is not DidType.FILE:
        raise InvalidInput(
            f"{order.scope}:{str(order.name)[:200]} is a {did['type'].lower()}: say of which rule, or name a file"
        )
    which = [requests.c.file_id == did["id"]]
    if order.destination is not None:
        which.append(requests.c.destination_id == require_rse(connection, order.destination)["id"])
    store.take(connection, which)
    held = store.rules_concerned(connection)
    _authorize_all(actor, Action.TRANSFER_CANCEL, order, held)
    store.hold_what_was_noted(connection)
    if store.rules_with_locks(connection) - {rule["id"] for rule in held}:
        raise RulesCame


def _take_of_rule(connection: Connection, actor: Actor, order: CancelOrder) -> int:
    """Note what is to be taken back; give how many others want too."""
    rule = require_rule(connection, parse_rule_id(order.rule or ""), lock=True)
    authorize(actor, Action.TRANSFER_CANCEL, Target(rule["uuid"].hex, owner=rule["account"]))
    which = [transfers.wanted_by(rule["id"])]
    if order.scope is not None:
        which.append(transfers.below(require_did(connection, order.scope, order.name or "")["id"]))
    if order.destination is not None:
        which.append(requests.c.destination_id == require_rse(connection, order.destination)["id"])
    states = (RequestState.QUEUED, RequestState.SUBMITTED) if order.under_way else (RequestState.QUEUED,)
    store.take(connection, which, states=states)
    store.hold_what_was_noted(connection)
    return store.leave_to_others(connection, rule["id"], queued_only=not order.under_way)


def _locks(connection: Connection, choice: TransferChoice) -> list[ColumnElement[bool]]:
    which: list[ColumnElement[bool]] = []
    if choice.rule is not None:
        which.append(locks.c.rule_id == require_rule(connection, parse_rule_id(choice.rule))["id"])
    if choice.scope is not None and choice.name is not None:
        did_id = require_did(connection, choice.scope, choice.name)["id"]
        which.append(locks.c.file_id.in_(select(file_ids_below([did_id]).c.id)))
    if choice.destination is not None:
        which.append(locks.c.rse_id == require_rse(connection, choice.destination)["id"])
    return which


def _authorize_at_all(actor: Actor, action: Action) -> None:
    """Refuse who could not do so to any transfer."""
    authorize(actor, action, Target("transfers", owner=actor.account))


def _authorize_all(actor: Actor, action: Action, choice: TransferChoice, held: Sequence[RowMapping]) -> None:
    for rule in held:
        authorize(actor, action, Target(f"{_named(choice)} (rule {rule['uuid'].hex})", owner=rule["account"]))


def _named(choice: TransferChoice) -> str:
    said = [] if choice.rule is None else [f"rule {choice.rule}"]
    said += [] if choice.name is None else [f"{choice.scope}:{choice.name}"]
    said += [] if choice.destination is None else [f"to {choice.destination}"]
    return " ".join(said)[:400]


def _record(
    connection: Connection,
    actor: Actor,
    action: Action,
    order: RetryOrder | CancelOrder,
    **counts: int,
) -> None:
    audit.record(connection, actor, action, _named(order), reason=order.reason, **counts)
