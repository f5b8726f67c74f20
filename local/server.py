"""ministack's HTTP server, exchanged: its own, hypercorn, parses HTTP in Python, and that was two fifths of the
emulator's time. uvicorn with httptools and uvloop, which serves the endpoints too, parses in C.

This module touches ministack's internals, as local/emulator.py does.
"""

import asyncio
from typing import Any

import uvicorn
import uvloop

GRACE_SECONDS = 3
"""As hypercorn: requests that a stop interrupts may end."""


def serve_with_uvicorn() -> None:
    """ministack imports hypercorn's `serve` when it starts to serve."""
    import hypercorn.asyncio

    asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    hypercorn.asyncio.serve = serve  # type: ignore[assignment]


async def serve(app: Any, config: Any) -> None:
    """Serves an ASGI application as hypercorn's `config` says, until a signal."""
    ((host, port),) = (address.rsplit(":", 1) for address in config.bind)
    settings = uvicorn.Config(
        app,
        host,
        int(port),
        http="httptools",
        lifespan="on",
        ws="none",
        proxy_headers=False,
        log_config=None,
        log_level="warning",
        access_log=False,
        server_header=False,
        date_header=False,  # the application adds one
        timeout_keep_alive=int(config.keep_alive_timeout),
        timeout_graceful_shutdown=GRACE_SECONDS,
    )
    await uvicorn.Server(settings).serve()
