"""``arriero reconcile``: a Butler, its ledger and its storages, held against each other."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from arriero.agent.cli.failures import PartialSuccess
from arriero.agent.cli.output import Column
from arriero.agent.cli.session import Session, pass_session

if TYPE_CHECKING:
    from arriero.agent.reconcile import Reconciler
    from arriero.agent.reconcile_report import Report

_COLUMNS = [
    Column("kind"),
    Column("scope"),
    Column("name"),
    Column("rse", "RSE"),
    Column("state"),
    Column("detail"),
    Column("repair"),
]


@click.command("reconcile")
@click.argument("butler")
@click.option(
    "--files", is_flag=True, help="Ask the storages for the size of every file that the Butler has, too."
)
@click.option("--repair", is_flag=True, help="Mend what can be mended.")
@click.option(
    "--html", type=click.Path(path_type=Path, dir_okay=False, writable=True), help="Write a page of it, too."
)
@click.option(
    "--report",
    "json_file",
    type=click.Path(path_type=Path, dir_okay=False, writable=True),
    help="Write it as JSON, too.",
)
@pass_session
def command(
    session: Session, /, *, butler: str, files: bool, repair: bool, html: Path | None, json_file: Path | None
) -> None:
    """Compare a BUTLER with the ledger of its arrivals, and with what audits found at its storages.

    Tells what is missing from the Butler, what it refers to that is not there, what it has and nobody wrote down, other
    ids, other places, replaced files. With --repair: has it ingested again, written down, or forgotten until it is there
    again; a second run then finds nothing that is not waiting. No file is touched. Runs where the Butler can be reached;
    needs ARRIERO_URL and a token bound to the Butler. Ends with 8 when something is left.
    """
    from arriero.agent.butler_contents import ButlerContents
    from arriero.agent.reconcile import Reconciler
    from arriero.agent.reconcile_report import Report

    known = session.client.butler(butler)
    report = Report(butler, repair=repair)
    with (
        ButlerContents(known.uri, writeable=repair) as contents,
        Reconciler(session.client, contents, known) as reconciler,
    ):
        with session.output.progress("Reading", None) as advance:
            reconciler.read(advance)
        report.files, report.datasets = reconciler.files, reconciler.datasets
        session.output.rows(_COLUMNS, _told(reconciler, report, files))
        if repair:
            report.mended = reconciler.mend(reconciler.findings(look_at_files=files))
    for path, write in ((html, report.write_html), (json_file, report.write_json)):
        if path is not None:
            with path.open("w", encoding="utf-8") as file:
                write(file)
    session.output.note(report.sentence())
    left = sum(report.counts.values()) - sum(report.mended.values())
    if left > 0:
        hint = "the table says what to do" if repair else "--repair mends what can be mended"
        raise PartialSuccess(f"{left} differences are left: {hint}.")


def _told(reconciler: "Reconciler", report: "Report", files: bool) -> Iterator[dict[str, Any]]:
    from arriero.agent.reconcile_report import record

    return map(record, report.passing(reconciler.findings(look_at_files=files)))
