"""Pages of the dashboard: rendered here, complete without JavaScript, with nothing loaded from elsewhere.

Anybody may look (docs/adr/0015): what is shown are numbers, counted at most every few seconds whoever asks how often.
Templates escape whatever they are given.
"""

from functools import cache
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Query, Request
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from arriero.registry.errors import NotFound
from arriero.registry.services.counts import KEPT_S, RecentCounts

router = APIRouter(include_in_schema=False)

_STATIC_TYPES = {"style.css": "text/css; charset=utf-8"}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_REFRESH_S = int(KEPT_S)


@router.get("/ui")
def overview(request: Request, paused: Annotated[bool, Query()] = False) -> HTMLResponse:
    """What there is of everything."""
    counts: RecentCounts = request.app.state.recent_counts
    page = _environment().get_template("overview.html")
    refresh_s = None if paused else _REFRESH_S
    return HTMLResponse(page.render(counts=counts.get(), refresh_s=refresh_s))


@router.get("/ui/static/{name}")
def static(name: str) -> Response:
    """A file that pages use."""
    if name not in _STATIC_TYPES:
        raise NotFound("there is no such file")
    content = (files("arriero.registry.dashboard") / "static" / name).read_bytes()
    headers = {"Cache-Control": "public, max-age=300"}
    return Response(content, media_type=_STATIC_TYPES[name], headers=headers)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("arriero.registry.dashboard"),
        autoescape=select_autoescape(default=True, default_for_string=True),
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["size"] = _size
    return environment


def _size(count: float) -> str:
    """Size in binary units."""
    unit = _UNITS[0]
    for unit in _UNITS:
        if count < 1024 or unit == _UNITS[-1]:
            break
        count /= 1024
    return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
