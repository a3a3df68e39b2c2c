"""The application: every router by name, so that what is served can be read here."""

from functools import partial
from importlib.metadata import version
from typing import Any

from fastapi import Depends, FastAPI
from typing_extensions import override

from arriero.registry.api import (
    account_limits,
    accounts,
    arrivals,
    audits,
    authentication,
    bad_replicas,
    butlers,
    configuration,
    dataset_replicas,
    deletions,
    dids,
    doctor,
    failures,
    identities,
    import_export,
    links,
    locks,
    losses,
    metrics,
    movers,
    ping,
    reference,
    replicas,
    requests,
    rse_measures,
    rses,
    rule_explanations,
    rules,
    scopes,
    subscriptions,
    tokens,
    trace,
    traces,
    transfers,
)
from arriero.registry.api.documents import complete
from arriero.registry.api.middleware import RequestMiddleware
from arriero.registry.api.watches import Watch
from arriero.registry.dashboard import pages
from arriero.registry.dependencies import refuse_null_characters
from arriero.registry.services.arrivals import butlers_with_work
from arriero.registry.services.context import Context
from arriero.registry.services.counts import RecentCounts
from arriero.registry.services.metrics import Metrics

ROUTERS = (
    ping.router,
    authentication.router,
    accounts.router,
    account_limits.router,
    identities.router,
    scopes.router,
    dids.router,
    replicas.router,
    bad_replicas.router,
    losses.router,
    dataset_replicas.router,
    replicas.lists,
    rses.router,
    rse_measures.router,
    import_export.router,
    configuration.router,
    rules.router,
    rule_explanations.router,
    locks.router,
    requests.router,
    transfers.router,
    deletions.router,
    links.router,
    subscriptions.router,
    butlers.router,
    arrivals.router,
    movers.router,
    tokens.router,
    trace.router,
    traces.router,
    pages.router,
    metrics.router,
    reference.router,
    doctor.router,
    audits.router,
)


class _Registry(FastAPI):
    @override
    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            complete(super().openapi(), self.routes)
        return super().openapi()


def create_app(context: Context) -> FastAPI:
    """Assemble the registry's HTTP service.

    Parameters
    ----------
    context
        Database, settings and doorbell of this process.
    """
    app = _Registry(
        title="Arriero registry",
        version=version("arriero"),
        summary="Rucio's REST protocol, and what Rucio has no word for: butlers, arrivals, traces.",
        docs_url=None,
        redoc_url=None,
        redirect_slashes=False,
        dependencies=[Depends(refuse_null_characters)],
    )
    app.state.context = context
    app.state.recent_counts = RecentCounts(context)
    app.state.metrics = Metrics(context)
    app.state.arrivals_watch = Watch(partial(butlers_with_work, context))
    for router in ROUTERS:
        app.include_router(router)
    failures.install(app, context)
    app.add_middleware(
        RequestMiddleware,
        max_body_bytes=context.settings.max_body_bytes,
        body_timeout_s=context.settings.body_timeout_s,
    )
    return app
