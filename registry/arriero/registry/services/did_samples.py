"""A dataset of some files of another, drawn at random."""

from sqlalchemy import Connection

from arriero.registry.errors import InvalidInput
from arriero.registry.services import audit
from arriero.registry.services.authorisation import Action, Target
from arriero.registry.services.context import Actor, Context
from arriero.registry.services.dids import NewCollection, add_within
from arriero.registry.services.lookups import require_did
from arriero.registry.states import DidType
from arriero.registry.store import contents as tree

MAX_FILES = 1_000_000
"""Files of one sample."""


def create_sample(
    context: Context, actor: Actor, source: tuple[str, str], target: tuple[str, str], files: int
) -> None:
    """Add a dataset with some of the files below a DID; with all of them, if there are fewer.

    Parameters
    ----------
    source
        Scope and name of what to draw from.
    target
        Scope and name of the new dataset.
    files
        How many.

    Raises
    ------
    NotFound
        The source, or the scope of the target, is not there.
    Conflict
        The target is there already.
    """
    if not 0 < files <= MAX_FILES:
        raise InvalidInput(f"nbfiles is a number from 1 to {MAX_FILES}")

    def work(connection: Connection) -> None:
        drawn_from = require_did(connection, *source)
        add_within(connection, context, actor, [NewCollection(*target, DidType.DATASET)])
        made = require_did(connection, *target)
        drawn = tree.sample(connection, drawn_from["id"], made["id"], files)
        shown = Target(f"{target[0]}:{target[1]}")
        detail = {"sample_of": f"{source[0]}:{source[1]}", "attached": drawn}
        audit.record(connection, actor, Action.DID_ATTACH, shown.name, **detail)

    context.database.run(work)
