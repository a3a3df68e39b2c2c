"""``arriero trace``: the whole way of one file."""

import click

from arriero.agent.cli.options import DID, DidName
from arriero.agent.cli.output import Column, Format, Kind, human_bytes, human_seconds
from arriero.agent.cli.session import Session, pass_session


@click.command("trace")
@click.argument("did", type=DID)
@pass_session
def command(session: Session, did: DidName) -> None:
    """Show what happened to a file, from its registration to the Butlers that have it, and why if it did not."""
    trace = session.client.trace(did.scope, did.name)
    if session.output.format in {Format.JSON, Format.JSONL}:
        session.output.record(trace.model_dump(mode="json"))
        return
    if session.output.format is Format.TABLE:
        facts = [trace.type.value]
        if trace.bytes is not None:
            facts.append(human_bytes(trace.bytes))
        if trace.adler32:
            facts.append(f"adler32 {trace.adler32}")
        session.output.note(f"{did}  {', '.join(facts)}")
    columns = [
        Column("at", kind=Kind.TIME),
        Column("age_s", "AGE", Kind.SECONDS),
        Column("step"),
        Column("where"),
        Column("state"),
        Column("took_s", "TOOK", Kind.SECONDS),
        Column("detail"),
    ]
    rows = [step.model_dump(mode="json") for step in trace.steps]
    session.output.rows(columns, rows)
    if session.output.format is Format.TABLE and rows:
        whole = (trace.steps[-1].at - trace.steps[0].at).total_seconds()
        session.output.note(f"{human_seconds(whole)} from the first to the last of these.")
