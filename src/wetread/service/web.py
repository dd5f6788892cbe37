"""What surrounds every request: its number, the headers of every answer, the log, the metrics, the shape of errors.

Decided here: the log and the metrics know a request by the template of its route, never by its address, because an
address could hold anything; of an unexpected error only the class is logged, its text might quote a header of a file.
"""

from __future__ import annotations

import json
import logging
import secrets
import sys
import time
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from wetread.errors import WetreadError
from wetread.service.problems import Problem, problem_of

if TYPE_CHECKING:
    from wetread.pacs.standing import Standing

__all__ = ["CONTENT_SECURITY_POLICY", "Around", "Metrics", "answer_errors", "dicom_warning", "log_as_json"]

logger = logging.getLogger(__name__)
access_log = logging.getLogger("wetread.service.access")

CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self' 'wasm-unsafe-eval'",  # codecs of the viewer are WebAssembly
        "worker-src 'self'",
        "style-src 'self'",
        "img-src 'self' data: blob:",
        "font-src 'self'",
        "connect-src 'self'",
        "form-action 'self'",
        "base-uri 'none'",
        "frame-ancestors 'none'",
    )
)
_HEADERS = {
    "Content-Security-Policy": CONTENT_SECURITY_POLICY,
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
}
_LOOPBACK = ("localhost", "127.0.0.1", "[::1]", "testserver")
_UPLOADS, _BODY_BYTES = "/api/v1/uploads", 1 << 20
"""The one address that takes a large body, as it comes; any other body is read into memory."""
_STATUS_CODES = {404: "not_found", 405: "not_allowed", 413: "too_large", 415: "unsupported"}

_RECEIVER_FIGURES = {
    "listening": "Whether the DICOM receiver takes associations",
    "received": "Objects received by DICOM and kept",
    "due": "Studies received by DICOM that are not answered yet",
    "waiting": "Results that wait to be sent by DICOM",
    "dead": "Results that could not be sent by DICOM (dead letters)",
}


class Metrics:
    """What ``/metrics`` shows; one registry for each application. ``receiver``: one runs beside it."""

    def __init__(self, *, receiver: bool = False) -> None:
        self.registry = CollectorRegistry()
        names = ["method", "route"]
        self.seconds = Histogram(
            "wetread_request_seconds", "Time to answer", names, registry=self.registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1, 2.5, 10),
        )  # fmt: skip
        self.requests = Counter("wetread_requests", "Requests answered", [*names, "status"], registry=self.registry)
        self.jobs = Gauge("wetread_jobs", "Jobs by state", ["state"], registry=self.registry)
        self.studies = Gauge("wetread_studies", "Studies kept", registry=self.registry)
        figures = _RECEIVER_FIGURES if receiver else {}
        self._receiver = {
            name: Gauge(f"wetread_receiver_{name}", text, registry=self.registry) for name, text in figures.items()
        }

    def show_receiver(self, standing: Standing) -> None:
        """Show how the DICOM receiver stands."""
        for name, gauge in self._receiver.items():
            gauge.set(getattr(standing, name))


class Around:
    """The outermost layer: see the module."""

    def __init__(self, app: ASGIApp, metrics: Metrics, hosts: tuple[str, ...], secure: bool) -> None:
        self.app = app
        self._metrics = metrics
        self._hosts = frozenset(host.lower() for host in (*_LOOPBACK, *hosts))
        self._secure = secure

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        number, begin, status = secrets.token_hex(8), time.perf_counter(), [0]
        scope.setdefault("state", {})["request_id"] = number

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                status[0] = message["status"]
                self._add_headers(MutableHeaders(scope=message), number)
            await send(message)

        try:
            refusal = self._refusal(scope)
            answer = self.app if refusal is None else _answer(refusal, number)
            await answer(scope, receive, send_with_headers)
        except Exception as error:
            # Not left to the server, whose log would hold the error's text, which may quote a header of a file.
            logger.error("request %s: unexpected %s at %s", number, type(error).__name__, _place(error))
            if not status[0]:
                await _answer(Problem("internal", "Something unexpected happened."), number)(
                    scope, receive, send_with_headers
                )
        finally:
            self._note(scope, status[0] or 500, time.perf_counter() - begin, number)

    def _add_headers(self, headers: MutableHeaders, number: str) -> None:
        for name, value in _HEADERS.items():
            headers.setdefault(name, value)
        headers.setdefault("Cache-Control", "no-store")
        headers["X-Request-ID"] = number
        if self._secure:
            headers.setdefault("Strict-Transport-Security", "max-age=31536000")

    def _refusal(self, scope: Scope) -> Problem | None:
        """What can be told from the head of a request alone."""
        if not self._known_host(scope):
            # Another name for this address: a page elsewhere may have bound its own name to it.
            return Problem("bad_request", "The host name is not one of this service.", "See service.hosts.")
        headers = dict(scope["headers"])
        length = headers.get(b"content-length", b"0")
        small = length.isdigit() and int(length) <= _BODY_BYTES and b"transfer-encoding" not in headers
        if scope["path"] != _UPLOADS and not small:
            return Problem("too_large", f"expected a body of at most {_BODY_BYTES} bytes with its length")
        return None

    def _known_host(self, scope: Scope) -> bool:
        given = dict(scope["headers"]).get(b"host", b"").decode("latin-1").lower()
        name = given[: given.rindex("]") + 1] if "]" in given else given.partition(":")[0]
        return name in self._hosts

    def _note(self, scope: Scope, status: int, seconds: float, number: str) -> None:
        route = getattr(scope.get("route"), "path", "") or "none"
        method = scope["method"] if scope["method"] in ("GET", "POST", "PUT", "PATCH", "DELETE", "HEAD") else "other"
        self._metrics.seconds.labels(method, route).observe(seconds)
        self._metrics.requests.labels(method, route, str(status)).inc()
        user = scope.get("state", {}).get("user", "")
        line = {
            "request_id": number, "method": method, "route": route, "status": status,
            "ms": round(seconds * 1e3, 1), "user": user,
        }  # fmt: skip
        access_log.info(json.dumps(line))


def answer_errors(app: FastAPI) -> None:
    """Give every error the one shape."""
    app.add_exception_handler(WetreadError, _expected_error)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http_error)


async def _expected_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, WetreadError)  # noqa: S101  the handler of that class
    problem = problem_of(error)
    answer = _answer(problem, _number(request))
    if problem.warning:
        answer.headers["Warning"] = dicom_warning(request, problem.warning)
    return answer


def dicom_warning(request: Request, text: str) -> str:
    """The value of a header ``Warning`` as DICOMweb writes it: 299, the address of the service, the text."""
    return f"299 {request.base_url}dicom-web: {text}"


async def _invalid(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101
    # Only where and what kind: the value itself may be a name.
    places = sorted({".".join(str(part) for part in one["loc"]) + f" ({one['type']})" for one in error.errors()})
    return _answer(Problem("invalid", f"Not valid: {', '.join(places)[:300]}."), _number(request))


async def _http_error(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101
    code = _STATUS_CODES.get(error.status_code, "bad_request")
    message = {"not_found": "No such address.", "not_allowed": "This address has no such method."}.get(code, "")
    answer = _answer(Problem(code, message or "The request cannot be understood."), _number(request))
    if error.headers and "allow" in {name.lower() for name in error.headers}:
        answer.headers.update(error.headers)
    return answer


def _place(error: Exception) -> str:
    """Module and line where it was raised: no text, no values."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "unknown" if trace is None else f"{trace.tb_frame.f_globals.get('__name__')}:{trace.tb_lineno}"


def _number(request: Request) -> str:
    return str(getattr(request.state, "request_id", ""))


def _answer(problem: Problem, number: str) -> JSONResponse:
    told: dict[str, Any] = {
        "code": problem.code, "message": problem.message, "hint": problem.hint, "request_id": number
    }  # fmt: skip
    headers = {"Retry-After": str(problem.retry_after_s)} if problem.retry_after_s else {}
    return JSONResponse({"error": told}, problem.status, headers)


def log_as_json(stream: Any = None) -> None:
    """Write the access log as one line of JSON for each request on ``stream`` (stderr)."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(logging.Formatter("%(message)s"))
    access_log.addHandler(handler)
    access_log.setLevel(logging.INFO)
    access_log.propagate = False
