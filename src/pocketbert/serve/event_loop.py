"""The event loop of a service with TLS: clients that connect and are silent are let go in time."""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.loops.auto import auto_loop_factory

from pocketbert.serve.connections import HEAD_SECONDS


def make_event_loop() -> asyncio.AbstractEventLoop:
    """Return uvicorn's usual loop, but that a TLS handshake may take as long as the headers of a request.

    A connection counts for the service's limits from the end of its handshake, for which the loops allow a minute.
    """
    usual = auto_loop_factory()()
    usual.close()
    base: Any = type(usual)

    class Loop(base):  # type: ignore[misc]  # chosen at run time
        """That loop, with the limit."""

        async def create_server(self, *arguments: Any, **options: Any) -> asyncio.Server:
            """Listen, as the base does."""
            if options.get("ssl") is not None:
                options["ssl_handshake_timeout"] = HEAD_SECONDS
            server: asyncio.Server = await super().create_server(*arguments, **options)
            return server

    loop: asyncio.AbstractEventLoop = Loop()
    return loop
