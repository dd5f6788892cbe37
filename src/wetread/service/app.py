"""The application: routes, and what surrounds them; built from an opened installation."""

from __future__ import annotations

from fastapi import FastAPI
from fastapi.routing import APIRoute

from wetread.service.context import Service
from wetread.service.limits import LOGIN_BURST, LOGIN_PER_S, RateLimit
from wetread.service.pages import Pages
from wetread.service.routes import images, openid, operations, pages, reports, results, sessions, studies, workitems
from wetread.service.schemas import ErrorOut
from wetread.service.web import Around, Metrics, answer_errors

__all__ = ["ROUTERS", "build_app"]

ROUTERS = (
    operations.health,
    pages.router,
    sessions.home,
    openid.router,
    sessions.router,
    studies.router,
    images.router,
    results.router,
    reports.router,
    workitems.router,
    operations.router,
)

_ABOUT = (
    "Reads medical images, says how far a reading may be trusted, and keeps what people say to it. Research use only."
)
_ERRORS = (400, 401, 403, 404, 409, 413, 415, 422, 429, 503, 507)


def build_app(service: Service) -> FastAPI:
    """Return the ASGI application of an installation."""
    from wetread import __version__

    app = FastAPI(
        title="wetread",
        version=__version__,
        description=_ABOUT,
        openapi_url="/api/v1/openapi.json",
        docs_url=None,  # they load scripts from elsewhere; the document itself is served
        redoc_url=None,
        generate_unique_id_function=_operation_id,
        responses={status: {"model": ErrorOut} for status in _ERRORS},
    )
    metrics = Metrics(receiver=service.receiver is not None)
    chosen = service.settings.service
    app.state.service, app.state.metrics, app.state.pages = service, metrics, Pages()
    app.state.rate = RateLimit(chosen.requests_per_s, 4 * chosen.requests_per_s)
    app.state.login_rate = RateLimit(LOGIN_PER_S, LOGIN_BURST)
    answer_errors(app)
    for router in ROUTERS:
        app.include_router(router)
    app.add_middleware(Around, metrics=metrics, hosts=chosen.hosts, secure=service.secure)
    return app


def _operation_id(route: APIRoute) -> str:
    return route.name
