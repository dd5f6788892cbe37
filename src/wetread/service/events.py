"""Server-sent events from a state that is looked at a few times a second.

Decided here: an event's id is the version of the state, so a client that comes back with ``Last-Event-ID`` gets what
it missed in one event; a comment now and then keeps proxies from closing the stream; a stream ends by itself when
there is nothing left to wait for, and after :data:`LONGEST_S` in any case: the browser comes back.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Mapping

from fastapi import Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse

__all__ = ["LONGEST_S", "Look", "stream"]

LONGEST_S = 300.0
_EVERY_S = 0.3
_COMMENT_S = 15.0

Look = Callable[[], tuple[str, Mapping[str, object], bool]]
"""Returns (version, data, whether this is the last event)."""


def stream(request: Request, look: Look) -> StreamingResponse:
    """Answer with a stream of the changes that ``look`` sees."""
    return StreamingResponse(_events(request, look), media_type="text/event-stream")


async def _events(request: Request, look: Look) -> AsyncIterator[str]:
    known = request.headers.get("Last-Event-ID", "")
    begin = spoken = time.monotonic()
    while time.monotonic() - begin < LONGEST_S:
        version, data, last = await run_in_threadpool(look)
        if version != known:
            yield f"id: {version}\ndata: {json.dumps(dict(data))}\n\n"
            known, spoken = version, time.monotonic()
        elif time.monotonic() - spoken > _COMMENT_S:
            yield ": still here\n\n"
            spoken = time.monotonic()
        if last:
            yield "event: end\ndata: {}\n\n"
            return
        await asyncio.sleep(_EVERY_S)
        if await request.is_disconnected():
            return
