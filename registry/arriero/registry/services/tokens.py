"""Use cases about the standing tokens of agents: scoped, expiring, revocable (DESIGN section 3)."""

from sqlalchemy import Connection

from arriero.registry.errors import NotFound
from arriero.registry.models import IssuedToken, NewToken, Token
from arriero.registry.services import audit
from arriero.registry.services.authentication import issue_token
from arriero.registry.services.authorisation import Action, Target, authorize
from arriero.registry.services.context import Actor, Context
from arriero.registry.states import Role, TokenKind
from arriero.registry.store import accounts as account_store
from arriero.registry.store import butlers as butler_store
from arriero.registry.store import tokens as store


def create_token(context: Context, actor: Actor, token: NewToken) -> IssuedToken:
    """Make a token; only its hash is kept.

    Raises
    ------
    Denied
        Not for this account, or only an administrator may bind it to RSEs and butlers.
    NotFound
        The account, an RSE or a butler does not exist.
    """
    account = token.account or actor.account
    authorize(actor, Action.TOKEN_ADD, Target(account, owner=account))
    if token.rses or token.butlers:
        authorize(actor, Action.TOKEN_BIND, Target(", ".join([*token.rses, *token.butlers])[:500]))

    def create(connection: Connection) -> IssuedToken:
        account_id = account_store.account_id(connection, account)
        if account_id is None:
            raise NotFound(
                f"there is no account {account}", rucio_class="AccountNotFound", code="account_not_found"
            )
        rse_ids = butler_store.rse_ids(connection, token.rses)
        butler_ids = butler_store.butler_ids(connection, token.butlers)
        _all_there("RSE", token.rses, rse_ids)
        _all_there("butler", token.butlers, butler_ids)
        issued = issue_token(
            connection,
            account_id=account_id,
            account=account,
            kind=TokenKind.AGENT,
            lifetime_s=token.lifetime_s,
            label=token.label,
        )
        store.bind_token(connection, issued.token_id, rse_ids.values(), butler_ids.values())
        audit.record(
            connection,
            actor,
            Action.TOKEN_ADD,
            account,
            token_id=issued.token_id,
            label=token.label,
            rses=sorted(rse_ids),
            butlers=sorted(butler_ids),
            lifetime_s=token.lifetime_s,
        )
        return IssuedToken(id=issued.token_id, token=issued.token, expires_at=issued.expires_at)

    return context.database.run(create)


def list_tokens(context: Context, actor: Actor) -> list[Token]:
    """List tokens without their secrets: an administrator sees all, others those of their account."""
    mine = None if actor.role is Role.ADMIN else actor.account_id
    with context.database.snapshot() as connection:
        return [Token.model_validate(row) for row in store.token_rows(connection, mine)]


def revoke_token(context: Context, actor: Actor, token_id: int) -> None:
    """End a token now. Safe to repeat.

    Raises
    ------
    NotFound
        There is no such token.
    Denied
        It belongs to another account.
    """

    def revoke(connection: Connection) -> None:
        row = store.token_row(connection, token_id)
        if row is None:
            raise NotFound(f"there is no token {token_id}: see 'arriero token list'", code="token_not_found")
        authorize(actor, Action.TOKEN_REVOKE, Target(f"token {token_id}", owner=row["account"]))
        store.revoke_token(connection, token_id)
        audit.record(
            connection, actor, Action.TOKEN_REVOKE, row["account"], token_id=token_id, label=row["label"]
        )

    context.database.run(revoke)


def _all_there(kind: str, names: tuple[str, ...], found: dict[str, int]) -> None:
    missing = sorted(set(names) - set(found))
    if missing:
        rucio_class = "RSENotFound" if kind == "RSE" else None
        raise NotFound(
            f"there is no {kind} {', '.join(missing)}: add it, or correct the name",
            rucio_class=rucio_class,
            code=f"{kind.lower()}_not_found",
        )
