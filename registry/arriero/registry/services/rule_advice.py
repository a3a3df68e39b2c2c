"""What an operator can do about each reason for which something of a rule waits. One table; no database.

The keys are the stable codes of rules, groups, locks, requests and RSEs; a test looks for all that the code can give and
tries every command against the command line. Words in braces are filled in; what stays in capitals is for the
operator to choose.
"""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

from arriero.registry.explanations import Advice


@dataclass(frozen=True, slots=True)
class Hint:
    """One sentence, and the commands that it speaks of."""

    sentence: str
    commands: tuple[str, ...] = ()


_BLANKS: Mapping[str, str] = MappingProxyType(
    {
        "rule": "ID",
        "rse": "RSE",
        "source": "SOURCE_RSE",
        "file": "SCOPE:NAME",
        "scope": "SCOPE",
        "account": "ACCOUNT",
        "weight": "ATTRIBUTE",
    }
)
"""What stands for a word that is not known."""

_TRACE = "arriero trace {file}"
_BOOST = "arriero rule boost {rule}"
_REPLICAS = "arriero replica list file {file} --all-states"
_SOURCE_BAD = "rucio replica state update bad PFN --reason 'other bytes than the catalogue says'"
_OPEN_WRITE = "arriero rse resume {rse} --write"
_MOVE = "arriero rule move {rule} --rses EXPRESSION"
_SHOW_RSE = "arriero rse show {rse}"
_LIMIT = "rucio account limit set {account} --rse {rse} --bytes BYTES"
_SPACE = "arriero rse usage list {rse}"

ADVICE: Mapping[str, Hint] = MappingProxyType(
    {
        # the rule as a whole
        "waiting_approval": Hint(
            "Somebody who looks after its RSEs has to approve or deny it.",
            ("arriero rule approve {rule}", "arriero rule deny {rule} --reason WHY"),
        ),
        "suspended": Hint(
            "Nothing is done for it until it is resumed; repair what it was suspended for first.",
            ("arriero rule resume {rule}",),
        ),
        "by_hand": Hint(
            "Somebody has set its state by hand; the rules of the DID say who, and it goes on when it is resumed.",
            ("arriero rule resume {rule}", "arriero rule show {rule}"),
        ),
        "stuck_too_long": Hint(
            "Nothing of it has succeeded for so long that it was suspended: repair what it says, then resume it.",
            ("arriero rule resume {rule}", "arriero rule show {rule} --locks"),
        ),
        "unexpected_error": Hint(
            "Looking at it failed in a way that nobody has foreseen: the logs of the workers have the rest; it is tried "
            "again."
        ),
        "stuck": Hint("It is tried again by itself; to have it tried now, boost it.", (_BOOST,)),
        "evaluation_overdue": Hint(
            "It is due and no worker takes it: see that a worker of the queue `rules` runs.",
            ("celery -A arriero.scheduler.app inspect active_queues",),
        ),
        "worker_not_ready": Hint("The workers cannot work: their logs say what they lack.", ()),
        # RSEs that drop out, and groups without a place
        "not_enough_rses": Hint(
            "Open or free one of the RSEs that dropped out, or have the rule ask for fewer copies or other RSEs; it is "
            "looked at again as soon as one opens.",
            (_MOVE, "arriero rule reduce {rule} --copies COPIES"),
        ),
        "invalid_rse_expression": Hint(
            "Its RSE expression cannot be read any more: move it to one that can.", (_MOVE,)
        ),
        "empty_rse_expression": Hint(
            "Its RSE expression names no RSE any more: give RSEs the attributes that it asks for, or move it.",
            ("arriero rse list --rses EXPRESSION", _MOVE),
        ),
        "blocked": Hint("Open the RSE for writing when it is ready.", (_OPEN_WRITE,)),
        "over_quota": Hint(
            "Remove rules of the account there, or have an administrator raise its limit.",
            ("arriero rule list --account {account}", _LIMIT),
        ),
        "full": Hint(
            "Have space freed or measured anew there, or lower its MinFreeSpace.",
            (_SPACE, "arriero rse limit list {rse}"),
        ),
        "no_weight": Hint(
            "Give the RSE the attribute that weighs it for this rule.",
            ("arriero rse attribute set {rse} --key {weight} --value NUMBER",),
        ),
        "bad_weight": Hint(
            "Give the attribute that weighs the RSE a number.",
            ("arriero rse attribute set {rse} --key {weight} --value NUMBER",),
        ),
        "zero_weight": Hint(
            "The RSE is meant to take nothing; a weight above zero has it take part.",
            ("arriero rse attribute set {rse} --key {weight} --value NUMBER",),
        ),
        # locks
        "no_source": Hint(
            "Register a replica that is there, open an RSE that has one for reading, or bring the file; the copy begins "
            "by itself when a source appears.",
            (_REPLICAS, "arriero replica add --rse RSE --scope {scope} NAME"),
        ),
        "lost": Hint(
            "No copy is left: register one if it turns up anywhere, or detach the file to accept the loss.",
            (_REPLICAS, "arriero did content remove {file} --from DATASET"),
        ),
        "being_deleted": Hint(
            "The copy begins when the replica there has gone; see that the deletions at the RSE go on.",
            (_REPLICAS,),
        ),
        "bad_replica": Hint(
            "The replica there is bad and in the way until it is deleted or copied anew.",
            (_REPLICAS, _TRACE),
        ),
        "retry_now": Hint("It is tried again with the next evaluation; nothing has to be done."),
        "no_rule": Hint("No rule wants this copy any more; the next evaluation settles it."),
        "cancelled": Hint(
            "Its copy was taken back by hand; to have it tried now, say so, of the file or of the rule.",
            ("arriero transfer retry {file}", _BOOST),
        ),
        # copies that go their way
        "copying": Hint("It is being copied; nothing has to be done.", (_TRACE,)),
        "queued": Hint(
            "It waits for its turn; give the rule a higher priority to have it come sooner.",
            ("arriero rule update {rule} --priority 5",),
        ),
        "link_busy": Hint(
            "It waits until its link, or a limit, lets it through; what is under way and how much may be, the links tell.",
            ("arriero link list --to {rse}", "arriero transfer boost {file}"),
        ),
        "multihop": Hint(
            "There is no direct link: it waits for a copy at an RSE on its way, which is being made. Nothing has to be done.",
            ("arriero transfer list --did {file}",),
        ),
        "site_mover": Hint(
            "Its storage can be reached from its site only: see that the site's own mover runs.",
            ("arriero transfer list --to {rse} --code site_mover", "arriero agent run --mover"),
        ),
        "rse_down": Hint(
            "The RSE is down and left alone, which costs no attempts; it is looked at again by itself. When it is back, that "
            "can be said.",
            ("arriero rse health {rse}", "arriero rse retry {rse}"),
        ),
        "announced": Hint(
            "A client has announced that it brings the file, and has not done so; declare the replica there when it has, "
            "or find out what became of the upload.",
            (_REPLICAS,),
        ),
        "announced_too_long": Hint(
            "A client had announced the file and never brought it: bring it, or have the rule copy it from elsewhere.",
            (_REPLICAS, _BOOST),
        ),
        "moved_elsewhere": Hint("Its copy goes to another RSE instead; nothing has to be done."),
        "lease_expired": Hint(
            "The worker that had it was gone for too long; another one takes it. If it goes on, see the workers' logs."
        ),
        "released": Hint("The worker that had it ended; another one takes it. Nothing has to be done."),
        "lease_lost": Hint("The worker that had it was gone for too long; another one takes it."),
        # copies that fail
        "timed_out": Hint(
            "The storage did not answer in time; it is tried again. See whether the storages are up.",
            (_TRACE, _SHOW_RSE),
        ),
        "unavailable": Hint(
            "The storage cannot be reached; it is tried again. While it is down, close it.",
            (_SHOW_RSE, "arriero rse pause {rse} --write --reason WHY"),
        ),
        "fts_unavailable": Hint(
            "The FTS that ARRIERO_FTS_URL names does not take copies; it is tried again. See whether it is up, and whether the "
            "token in ARRIERO_FTS_TOKEN_FILE opens it.",
            (_TRACE,),
        ),
        "transfer_failed": Hint(
            "The copy failed on its way; it is tried again. The storages' logs have the rest.", (_TRACE,)
        ),
        "stalled": Hint(
            "The copy had begun and no byte of it came for too long; it is tried again. See whether the storages and the "
            "network between them are up.",
            ("arriero link show {source} {rse}", _TRACE),
        ),
        "took_too_long": Hint(
            "The copy was slower than a file of its size may be; it is tried again. The link's figures say whether others are too.",
            ("arriero link show {source} {rse}", _TRACE),
        ),
        "other_side_failed": Hint(
            "The storage that was to copy by itself could not reach the other one, or was turned away there; another way is "
            "tried. Let the two reach each other, and see that the other one takes its credentials.",
            ("arriero link show {source} {rse}", _TRACE),
        ),
        "report_lost": Hint(
            "The connection broke off before the storage could say how the copy ended; the next attempt looks first.",
            (_TRACE,),
        ),
        "rse_error": Hint("The storage failed in a way of its own; see what it said.", (_TRACE,)),
        "access_denied": Hint(
            "The storage refuses the workers' credentials: renew or correct the token of this RSE, or of the source; it "
            "is tried again by itself.",
            (_TRACE, _SHOW_RSE),
        ),
        "token_expired": Hint(
            "The workers' token or proxy for this RSE, or for the source, has run out: renew the file that "
            "ARRIERO_CREDENTIALS_FILE names; it is tried again by itself.",
            (_TRACE, _SHOW_RSE),
        ),
        "refused_by_guard": Hint(
            "The address of a protocol is none that may be talked to: correct the protocol, then boost the rule.",
            (_SHOW_RSE, _BOOST),
        ),
        "no_space": Hint(
            "The storage is full: free space there, or move the rule.",
            (_SPACE, _MOVE),
        ),
        "not_found": Hint(
            "The source has not the file that the catalogue says: declare that replica bad, so that another is taken.",
            (_REPLICAS, "rucio replica state update bad PFN --reason 'the file is not there'"),
        ),
        "source_mismatch": Hint(
            "The source has other bytes than the catalogue says: declare that replica bad, or correct the size or "
            "checksum by registering the file anew.",
            (_REPLICAS, _SOURCE_BAD),
        ),
        "size_mismatch": Hint(
            "What arrived had another size; it is tried again. If it goes on, look at the source and at the link.",
            (_TRACE, _REPLICAS),
        ),
        "checksum_mismatch": Hint(
            "What arrived had another checksum; it is tried again. If it goes on, look at the source and at the link.",
            (_TRACE, _REPLICAS),
        ),
        "already_exists": Hint(
            "Another file lies under that name and is never overwritten: remove it at the storage if it is not wanted, "
            "or register it if it is the same; then boost the rule.",
            (_TRACE, _BOOST),
        ),
        "invalid_name": Hint(
            "The storage cannot hold such a name: move the rule to an RSE that can.", (_MOVE,)
        ),
        "unsupported": Hint(
            "The storage cannot do what is asked of it: see its protocols, or move the rule.",
            (_SHOW_RSE, _MOVE),
        ),
        "range_not_there": Hint(
            "The source has fewer bytes than the catalogue says: declare that replica bad, or correct the size by registering "
            "the file anew.",
            (_REPLICAS, _SOURCE_BAD),
        ),
        "no_protocol": Hint(
            "Give the RSE a protocol that can be written to (or read from, where it is the source), then boost the rule.",
            ("arriero rse protocol add {rse} --scheme davs --hostname HOST --prefix /PATH", _BOOST),
        ),
        "no_path": Hint(
            "The RSE is not deterministic and no path is registered for this file: register the replica with its path, "
            "or move the rule.",
            (_REPLICAS, _MOVE),
        ),
        "gone": Hint("The file or the RSE exists no more; the next evaluation settles it.", (_BOOST,)),
    }
)

_UNKNOWN = Hint("See what happened to one of the files, then boost the rule.", (_TRACE, _BOOST))
"""For a code that a storage plug-in has brought."""


def advise(code: str, about: str, **words: str | None) -> Advice:
    """Say what an operator can do.

    Parameters
    ----------
    code
        Of the table; another one gets the general advice.
    about
        What it is about.
    **words
        What the commands are filled in with, as the catalogue has it: it is quoted for the shell here.
    """
    hint = ADVICE.get(code, _UNKNOWN)
    known = {key: shlex.quote(value) for key, value in words.items() if value}
    filled = {**_BLANKS, **known}
    commands = [command.format_map(filled) for command in hint.commands]
    return Advice(code=code, about=about, sentence=hint.sentence, commands=commands)
