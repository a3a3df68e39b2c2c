"""``arriero serve``: the registry service of a production installation."""

import click

from arriero.agent.cli.session import Session, pass_session
from arriero.agent.processes import listen, serve, url_of
from arriero.registry.database import Database
from arriero.registry.migrate import check
from arriero.registry.services.context import Context
from arriero.scheduler.app import create_celery
from arriero.scheduler.doorbell import CeleryDoorbell
from arriero.scheduler.rule_engine import Engine
from arriero.scheduler.transfer_desk import Desk


@click.command("serve")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address to listen on.")
@click.option(
    "--port", default=8080, show_default=True, type=click.IntRange(0, 65535), help="0 takes a free one."
)
@pass_session
def command(session: Session, host: str, port: int) -> None:
    """Serve the registry: REST API, OpenAPI at /docs, dashboard at /ui.

    Refuses to start on a schema that is not this version's; `arriero admin db upgrade` makes it so. TLS and X.509 are
    the business of a proxy before it.
    """
    settings = session.central_settings
    url = settings.database_url.get_secret_value()
    check(url)
    bound = listen(host, port)
    database = Database(url, pool_size=settings.database_pool_size)
    doorbell = CeleryDoorbell(create_celery(settings))
    desk = Desk(database, settings, doorbell)
    context = Context(database, settings, doorbell, Engine(settings), desk)
    try:
        serve(context, bound, lambda: click.echo(f"Arriero serves {url_of(bound)}"))
    finally:
        database.dispose()
