"""``arriero doctor``: whether the catalogue is whole."""

from collections.abc import Iterator, Mapping
from itertools import chain
from typing import Any, ClassVar

import click

from arriero.agent.cli.options import dry_run_option
from arriero.agent.cli.output import Column, Format, Kind
from arriero.agent.cli.session import Session, pass_session
from arriero.agent.errors import AgentError

_COLUMNS = [
    Column("invariant"),
    Column("check"),
    Column("broken", "CASES", Kind.NUMBER),
    Column("what"),
    Column("example"),
    Column("next_step"),
]


class Broken(AgentError):
    """The catalogue is not whole."""

    code: ClassVar[str] = "invariants_broken"
    exit_code: ClassVar[int] = 7


@click.command("doctor")
@click.option(
    "--check",
    "checks",
    multiple=True,
    metavar="NAME",
    help="Only this check, or those of this invariant (I1 ... I7, keys); may be given several times.",
)
@click.option("--repair", is_flag=True, help="Mend what counting anew and looking again mends.")
@dry_run_option
@pass_session
def command(session: Session, /, *, checks: tuple[str, ...], repair: bool, dry_run: bool) -> None:
    """Prove that the catalogue is whole: locks, counts, requests, arrivals and leases agree.

    Everything is asked at one moment, and rules that wait for an evaluation are not judged: work that goes on does not
    disturb it. Ends with 0 when the catalogue is whole and with 7 when it is not. A table shows what was found; JSON and
    CSV have every check.

    --repair counts the locks of rules anew where the counts are wrong, and has the rules that were named looked at as a
    whole, which adds the locks that are missing and takes away those that are surplus. What is left after that shows the
    next run.
    """
    if repair and not dry_run:
        done = session.client.repair(checks)
        rest = " There are more: repeat it." if done["more"] else ""
        session.output.done(
            f"Counted {done['recounted']} rules anew; {done['looked_at']} rules are looked at as a whole.{rest}",
            done,
        )
        return
    findings = sorted(
        _findings(session, session.client.examine(checks)),
        key=lambda one: (one["invariant"] == "keys", one["invariant"]),
    )
    told = session.output.format is Format.TABLE
    found = [one for one in findings if one["broken"]] if told else findings
    if found:
        session.output.rows(_COLUMNS, found)
    broken = [one for one in findings if one["is_broken"]]
    if broken:
        cases = sum(one["broken"] for one in broken)
        raise Broken(
            f"The catalogue is not whole: {len(broken)} of {len(findings)} checks found {cases} cases "
            f"({', '.join(one['check'] for one in broken)}). Each says its next step; 'arriero doctor --repair' mends "
            "what counting anew and looking again mends."
        )
    if told:
        session.output.note(f"The catalogue is whole: {len(findings)} checks found nothing that is broken.")


def _findings(session: Session, lines: Iterator[Mapping[str, Any]]) -> Iterator[dict[str, Any]]:
    """Give the findings, with the progress shown that comes between them."""
    first = next(lines, None)
    if first is None:
        return
    with session.output.progress("Examining", first.get("of")) as advance:
        for line in chain([first], lines):
            if "step" in line:
                advance()
                continue
            examples = line["examples"]
            example = ", ".join(f"{key} {value}" for key, value in examples[0].items()) if examples else None
            yield {**line, "example": example}
