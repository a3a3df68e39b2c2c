"""Pages of the dashboard: rendered here, complete without JavaScript, with nothing loaded from elsewhere.

Every number is counted in the database when the page is asked for. Templates escape whatever they are given.
"""

from functools import cache
from importlib.resources import files
from typing import Annotated

from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse, Response
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape

from arriero.registry.dependencies import ContextDep
from arriero.registry.errors import NotFound
from arriero.registry.services.counts import count_everything

router = APIRouter(include_in_schema=False)

_STATIC_TYPES = {"style.css": "text/css; charset=utf-8"}
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_REFRESH_S = 10


@router.get("/ui")
def overview(context: ContextDep, paused: Annotated[bool, Query()] = False) -> HTMLResponse:
    """What there is of everything."""
    page = _environment().get_template("overview.html")
    refresh_s = None if paused else _REFRESH_S
    return HTMLResponse(page.render(counts=count_everything(context), refresh_s=refresh_s))


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
