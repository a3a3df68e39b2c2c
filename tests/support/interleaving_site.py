"""The catalogue that each order begins with, what sessions do to it, and what has to hold afterwards."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

import psycopg
from sqlalchemy import text
from structlog.testing import capture_logs

from arriero.registry.errors import Conflict, NotFound
from arriero.registry.services.bad_replicas import Declaration, Named, declare
from arriero.registry.services.contents import Attachment, Child, attach, detach
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.replica_removal import delete_replicas
from arriero.registry.services.replicas import NewReplica, add_replicas
from arriero.registry.services.resting_rules import ALWAYS, compact_resting
from arriero.registry.services.rule_changes import update_rule
from arriero.registry.services.rule_removal import remove_rule
from arriero.registry.services.rule_specs import RuleSpec
from arriero.registry.services.rules import add_rules
from arriero.registry.states import BadReplicaState, DidType, Role
from arriero.scheduler.claim import claim_requests
from arriero.scheduler.deletion_claim import claim_deletions
from arriero.scheduler.deletion_reports import Outcome
from arriero.scheduler.deletion_reports import Report as Deleted
from arriero.scheduler.deletion_settle import settle_deletions
from arriero.scheduler.evaluate import Evaluator
from arriero.scheduler.reports import Transfer, success
from arriero.scheduler.settle import settle
from support.interleaving import Session
from support.interleaving_footprints import DIARIES
from support.invariants import broken_invariants
from support.scheduling import Catalogue

COPIED = Transfer("third_party_pull", 0.5, "SLAC", "davs://slac/x", "davs://in2p3/x", "davs")
LEASE_S = 3600.0
STUCK_RETRY_S = 7200.0

Operation = Callable[["Site", Session], object]


def fixed(name: str) -> uuid.UUID:
    """The id of a rule of that name: the same each time, because places are chosen by it."""
    return uuid.uuid5(uuid.NAMESPACE_URL, name)


class Site:
    """Three files at SLAC, two of them in the dataset ``night`` of the container ``run``, and rules on it.

    Rule ``old`` wants the dataset at IN2P3, and its two copies are being made. Rule ``new`` wants it at IN2P3 and LANCS,
    where the first file lies already, and waits for its first evaluation.

    Parameters
    ----------
    shared
        Rule ``other``, on the container, wants the copies of ``old`` too. Otherwise it is ``new``'s neighbour: it waits
        for its first evaluation as well.
    old
        Rule ``old`` is there.
    suspended
        It is, but somebody has suspended it.
    let_go
        The first file is verified at SLAC and LANCS, and nobody holds it at either: deletion may take one of them.
    """

    def __init__(
        self,
        url: str,
        *,
        shared: bool = False,
        old: bool = True,
        suspended: bool = False,
        let_go: bool = False,
    ) -> None:
        self._plain = psycopg.connect(url.replace("postgresql+psycopg://", "postgresql://"), autocommit=True)
        # nobody waits for the disk here, and small plans need no compiler
        for setting in ("synchronous_commit = off", "jit = off"):
            self._plain.execute(f"ALTER DATABASE {self._plain.info.dbname} SET {setting}")
        self.catalogue = Catalogue(url, evaluation_lease_s=LEASE_S)
        self.database = self.catalogue.database
        self.context: Context = self.catalogue.context
        self.root = Actor(self.catalogue.account_id, "root", Role.ADMIN)
        self._build(shared=shared, old=old, suspended=suspended)
        if let_go:
            self._let_go()
        self._tables = [
            row[0]
            for row in self._plain.execute(
                "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') "
                "AND NOT relispartition AND relname != 'alembic_version' ORDER BY relname"
            )
        ]
        self._restore = self._save()
        self._digest = self._digested()
        self._known: dict[str, list[str]] = {}

    def close(self) -> None:
        self._plain.close()
        self.catalogue.close()

    def _build(self, *, shared: bool, old: bool, suspended: bool) -> None:
        catalogue = self.catalogue
        attributes = {"lfn2pfn_algorithm": "identity"}
        for name in ("SLAC", "IN2P3", "LANCS"):
            catalogue.rse(name, attributes=attributes)
        slac, _, lancs = (row.id for row in catalogue.rows(text("SELECT id FROM rses ORDER BY id")))
        files = catalogue.files(3, at=[slac])
        catalogue.replicas(files[:1], lancs)
        night = catalogue.collection("night", children=files[:2])
        run = catalogue.collection("run", DidType.CONTAINER, children=[night])
        if old:
            catalogue.rule(night, "IN2P3", uuid=fixed("old"))
        if shared:
            catalogue.rule(run, "IN2P3", uuid=fixed("other"))
        Evaluator(self.context).run()
        with self.database.transaction() as tx:
            claimed = claim_requests(tx, "mover", limit=100, lease_s=LEASE_S)
        self.reports = [success(one, COPIED) for one in sorted(claimed, key=lambda one: one.file_id)]
        catalogue.rule(night, "IN2P3|LANCS", copies=2, uuid=fixed("new"))
        if not shared:
            catalogue.rule(run, "IN2P3", uuid=fixed("other"))
        if suspended:
            update_rule(self.context, self.root, fixed("old").hex, {"state": "SUSPENDED"})
        with self.database.transaction() as tx:
            tx.execute(text("UPDATE evaluations SET not_before = not_before - interval '1 hour'"))

    def _let_go(self) -> None:
        with self.database.transaction() as tx:
            first = "(SELECT min(id) FROM dids WHERE type = 'FILE')"
            tx.execute(
                text(
                    "UPDATE replicas SET tombstone = created_at - interval '1 hour', purge = true, "
                    f"verified_at = created_at WHERE file_id = {first} AND state = 'AVAILABLE'"
                )
            )

    def _save(self) -> str:
        """Keep every row; give the statement that brings it all back."""
        self._plain.execute("CREATE SCHEMA saved")
        words = ["BEGIN", "SET LOCAL session_replication_role = replica"]
        for table in self._tables:
            self._plain.execute(f"CREATE TABLE saved.{table} AS TABLE public.{table}")
            words.append(f"DELETE FROM {table}")
            if self._plain.execute(f"SELECT count(*) FROM saved.{table}").fetchone()[0]:
                words.append(f"INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM saved.{table}")
        sequences = self._plain.execute(
            "SELECT sequencename, last_value FROM pg_sequences WHERE schemaname = 'public'"
        )
        for name, last in sequences.fetchall():
            words.append(f"SELECT setval('{name}', {last or 1}, {'true' if last else 'false'})")
        return ";\n".join([*words, "COMMIT"])

    def _digested(self) -> str:
        """Query for one value that stands for all rows, but for when things happened and who did them."""
        rows = self._plain.execute(
            "SELECT table_name, column_name, data_type FROM information_schema.columns "
            "WHERE table_schema = 'public' ORDER BY table_name, ordinal_position"
        ).fetchall()
        parts = []
        for table in [one for one in self._tables if one not in DIARIES]:
            values = []
            for _, column, kind in [row for row in rows if row[0] == table]:
                if kind.startswith("timestamp"):
                    values.append(f"{column} > clock_timestamp()")
                elif column == "lease_owner":
                    values.append(f"{column} IS NULL")
                else:
                    values.append(column)
            row = f"ROW({', '.join(values)})::text"
            parts.append(
                f"SELECT '{table}' || coalesce(string_agg({row}, ';' ORDER BY {row}), '') AS part FROM {table}"
            )
        return f"SELECT md5(string_agg(part, '|' ORDER BY part)) FROM ({' UNION ALL '.join(parts)}) AS parts"

    def prepare(self) -> None:
        """Have the catalogue as it was built."""
        self._plain.execute(self._restore)

    def context_of(self, session: Session) -> Context:
        return replace(self.context, database=session.database)

    def check(self, sessions: Sequence[Session]) -> list[str]:
        """What does not hold after an order: at once, when all evaluations are over, and when all copies are made."""
        broken = [
            f"{one.name} ended with {type(one.error).__name__}: {one.error}"
            for one in sessions
            if one.error is not None and not isinstance(one.error, (Conflict, NotFound))
        ]
        # what follows depends on nothing but the rows: once for orders that end in the same ones
        digest = self._plain.execute(self._digest).fetchone()[0]
        if digest not in self._known:
            self._known[digest] = self._aftermath()
        return broken + self._known[digest]

    def _aftermath(self) -> list[str]:
        failed = "SELECT rule_id, code, reason FROM evaluations WHERE attempt > 0 AND lease_owner IS NULL"
        broken = [
            f"the evaluation of rule {row.rule_id} failed: {row.code}: {row.reason}"
            for row in self.catalogue.rows(text(failed))
        ]
        with capture_logs():
            self._evaluate()
            broken += [f"evaluated: {one}" for one in broken_invariants(self.database)]
            self._finish()
        broken += [f"at rest: {one}" for one in broken_invariants(self.database)]
        return broken + self._unfinished()

    @property
    def ends(self) -> int:
        """In how many different states orders have ended."""
        return len(self._known)

    def _evaluate(self) -> None:
        Evaluator(self.context).run()

    def _finish(self) -> None:
        """Make all copies and have all rules looked at, until nothing is left to do."""
        for _ in range(5):
            with self.database.transaction() as tx:
                claimed = claim_requests(tx, "last mover", limit=100, lease_s=LEASE_S)
            reports = [*self.reports, *(success(one, COPIED) for one in claimed)]
            settle(self.database, reports, stuck_retry_s=STUCK_RETRY_S)
            with self.database.transaction() as tx:
                tx.execute(
                    text(
                        "UPDATE evaluations SET not_before = clock_timestamp() WHERE not_before > clock_timestamp()"
                    )
                )
            self._evaluate()
            if not self.catalogue.rows(
                text("SELECT 1 FROM requests UNION ALL SELECT 1 FROM evaluations LIMIT 1")
            ):
                return

    def _unfinished(self) -> list[str]:
        # what is bad stays in the way, and what is suspended waits for somebody
        rests = "state = 'SUSPENDED' OR EXISTS (SELECT 1 FROM replicas WHERE state = 'BAD')"
        checks = {
            "a rule is not OK though every copy was made": (
                f"SELECT id, state, code, reason FROM rules WHERE state != 'OK' AND NOT ({rests})"
            ),
            "an evaluation is left": (
                "SELECT rule_id, code, reason FROM evaluations WHERE rule_id IN "
                f"(SELECT id FROM rules WHERE NOT ({rests}))"
            ),
            "a request is left": "SELECT id, file_id, destination_id, state FROM requests",
            "a file has no good copy": (
                "SELECT id, name FROM dids WHERE type = 'FILE' AND NOT EXISTS "
                "(SELECT 1 FROM replicas WHERE file_id = dids.id AND state = 'AVAILABLE')"
            ),
        }
        found = []
        for name, query in checks.items():
            rows = self.catalogue.rows(text(query))
            if rows:
                found.append(f"{name}: {[tuple(row) for row in rows[:5]]}")
        return found


def _attach(site: Site, session: Session) -> None:
    attachment = Attachment("raw", "night", [Child("raw", "file-000002")])
    attach(site.context_of(session), site.root, [attachment], ignore_duplicate=True)


def _detach(site: Site, session: Session) -> None:
    detach(site.context_of(session), site.root, "raw", "night", [Child("raw", "file-000001")])


def _add(expression: str, copies: int, did: str) -> Operation:
    def work(site: Site, session: Session) -> object:
        spec = RuleSpec(expression, copies)
        ids = [fixed(f"added {expression}").hex]
        return add_rules(site.context_of(session), site.root, spec, [("raw", did)], rule_ids=ids)

    return work


def _evaluate(site: Site, session: Session) -> int:
    once = iter([False])
    return Evaluator(site.context_of(session), stopping=lambda: next(once, True)).run()


def _settle(part: slice) -> Operation:
    def work(site: Site, session: Session) -> object:
        return settle(session.database, site.reports[part], stuck_retry_s=STUCK_RETRY_S)

    return work


def _move(site: Site, session: Session) -> object:
    """Claim what is queued, and report that it is there."""
    claimed = session.database.run(lambda tx: claim_requests(tx, session.name, limit=100, lease_s=LEASE_S))
    reports = [success(one, COPIED) for one in claimed]
    return settle(session.database, reports, stuck_retry_s=STUCK_RETRY_S) if reports else None


def _remove(rule: str) -> Operation:
    return lambda site, session: remove_rule(site.context_of(session), site.root, fixed(rule).hex, now=True)


def _delete(rse: str) -> Operation:
    return lambda site, session: delete_replicas(
        site.context_of(session), site.root, rse, [("raw", "file-000000")]
    )


def _reap(rse: str) -> Operation:
    """Claim what may go at an RSE, and report that it has gone."""

    def work(site: Site, session: Session) -> object:
        with site.database.snapshot() as connection:
            rse_id = connection.scalar(text("SELECT id FROM rses WHERE name = :name"), {"name": rse})
        claim = session.database.run(
            lambda tx: claim_deletions(tx, rse_id, session.name, limit=100, most=100, lease_s=LEASE_S)
        )
        reports = [Deleted(one, Outcome.DONE) for one in claim.deletions]
        return settle_deletions(site.context_of(session), rse_id, session.name, reports)

    return work


def _register(site: Site, session: Session) -> None:
    new = [NewReplica("raw", "file-000000", 1000, "0a0b0c0d")]
    add_replicas(site.context_of(session), site.root, "IN2P3", new)


def _declare(site: Site, session: Session) -> object:
    named = [Named("raw", "file-000000", "LANCS")]
    return declare(site.context_of(session), site.root, named, Declaration(BadReplicaState.BAD, "read error"))


def _update(rule: str, **options: Any) -> Operation:
    return lambda site, session: update_rule(site.context_of(session), site.root, fixed(rule).hex, options)


def _compact(site: Site, session: Session) -> int:
    return compact_resting(site.context_of(session), spare=ALWAYS)


OPERATIONS: dict[str, Operation] = {
    "attach": _attach,
    "detach": _detach,
    "add rule": _add("SLAC|LANCS", 2, "run"),
    "add another": _add("LANCS|IN2P3", 1, "night"),
    "evaluate": _evaluate,
    "settle": _settle(slice(None)),
    "settle first": _settle(slice(0, 1)),
    "settle second": _settle(slice(1, 2)),
    "move": _move,
    "remove rule": _remove("old"),
    "remove other": _remove("other"),
    "remove new": _remove("new"),
    "claim deletion": _delete("LANCS"),
    "delete source": _delete("SLAC"),
    "reap": _reap("LANCS"),
    "reap source": _reap("SLAC"),
    "register": _register,
    "declare bad": _declare,
    "resume": _update("old", state="INJECT"),
    "compact": _compact,
}


def works(site: Site, names: Sequence[str]) -> list[tuple[str, Callable[[Session], object]]]:
    """Operations by name, for a search."""
    return [(name, lambda session, done=OPERATIONS[name]: done(site, session)) for name in names]
