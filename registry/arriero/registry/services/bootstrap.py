"""The first account: without it nobody could add the second."""

from sqlalchemy import Connection

from arriero.registry.database import Database
from arriero.registry.services.authentication import hash_password
from arriero.registry.services.authorisation import Action
from arriero.registry.states import AccountType, IdentityType, Role
from arriero.registry.store import accounts as store
from arriero.registry.store import audit, identities

ROOT = "root"


def bootstrap(database: Database, username: str, password: str) -> bool:
    """Create the account ``root``, an administrator, with a user name and password.

    Safe to repeat: an account that is there keeps its identities and passwords.

    Parameters
    ----------
    database
        With the newest schema.
    username, password
        Of the first identity.

    Returns
    -------
    bool
        False when ``root`` was there already and nothing was done.
    """
    secret_hash = hash_password(password)

    def create(connection: Connection) -> bool:
        if store.account_row(connection, ROOT) is not None:
            return False
        owner_id = store.add_account(connection, ROOT, AccountType.SERVICE, Role.ADMIN, None)
        identities.add_identity(
            connection, owner_id, IdentityType.USERPASS, username, secret_hash, is_default=True
        )
        audit.append(
            connection,
            account=ROOT,
            action=Action.ACCOUNT_ADD,
            target=ROOT,
            allowed=True,
            detail={"by": "bootstrap"},
        )
        return True

    return database.run(create)
