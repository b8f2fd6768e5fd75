"""What httpx2 and httpx have in common: their requests, and the bodies of their responses."""

from __future__ import annotations

import importlib
from collections.abc import AsyncIterator
from math import inf
from typing import TYPE_CHECKING, Any

import anyio

from pyresilience.runtime import _sources as sources
from pyresilience_middleware.outbound._http import (
    Body,
    ErrorKinds,
    Exchange,
    body_timed_out,
    headers_to_pass_on,
    retry_wish,
)

if TYPE_CHECKING:
    from types import ModuleType

    import httpx
    import httpx2

    from pyresilience import Call, Hold

    class TransportBase(httpx2.AsyncBaseTransport, httpx.AsyncBaseTransport):  # type: ignore[misc]  # pyright: ignore[reportIncompatibleMethodOverride]
        pass

    class StreamBase(httpx2.AsyncByteStream, httpx.AsyncByteStream):
        pass


def libraries() -> list[ModuleType]:
    """httpx2 and httpx, as far as they are installed. After `httpx2.alias_httpx()` they are one and the same."""
    found: dict[ModuleType, None] = {}
    for name in ("httpx2", "httpx"):
        try:
            found[importlib.import_module(name)] = None
        except ModuleNotFoundError as missing:
            if missing.name != name:
                raise
    if not found:
        raise ImportError("ResilienceTransport needs an HTTP client: pip install httpx2 (or httpx)")
    return list(found)


LIBRARIES = libraries()


def _classes(*names: str) -> tuple[type[Any], ...]:
    return tuple(getattr(library, name) for library in LIBRARIES for name in names)


KINDS = ErrorKinds(
    not_sent=_classes("ConnectError", "ConnectTimeout", "PoolTimeout"),
    local=_classes("PoolTimeout"),
    misuse=_classes("UnsupportedProtocol", "LocalProtocolError", "StreamError"),
)
BYTE_STREAMS = _classes("ByteStream")

if not TYPE_CHECKING:
    # A client asserts that streams are of its own library's class, so ours are of both.
    TransportBase = type("TransportBase", _classes("AsyncBaseTransport"), {})
    StreamBase = type("StreamBase", _classes("AsyncByteStream"), {})


class HttpxExchange(Exchange):
    """A request of either library."""

    def __init__(self, request: Any, *, propagate: bool) -> None:
        wish = retry_wish(request.extensions.get("resilience"))
        super().__init__(KINDS, request.method, request.headers, wish)
        self.request = request
        self.outgoing = request
        self.propagate = propagate

    def prepare(self, call: Call[Any]) -> None:
        """Changes are made on a copy: the client takes headers and extensions of the original along to redirects."""
        request = self.request
        headers = headers_to_pass_on(call, request.headers) if self.propagate else None
        if not headers and call.attempt == 1:
            return
        resent = {"resend_count": call.attempt - 1} if call.attempt > 1 else {}
        self.outgoing = type(request)(
            request.method,
            request.url,
            headers=request.headers,
            stream=request.stream,
            extensions={**request.extensions, **resent},
        )
        self.outgoing.headers.update(headers or {})

    def attach(self, response: Any, call: Call[Any]) -> Body | None:
        if response.is_closed:  # a transport that makes responses up
            return None
        body = response.stream = HttpxBody(response.stream, call)
        return body

    def replayable(self) -> bool:
        request = self.request
        stream = request.stream
        if hasattr(request, "_content") or isinstance(stream, BYTE_STREAMS):
            return True
        fields = getattr(stream, "fields", None)
        if fields is not None:  # multipart: each field rewinds its file, where that is possible
            return all(_rewinds(getattr(field, "file", b"")) for field in fields)
        if getattr(stream, "_is_generator", True):  # only the libraries' wrapper of an async iterable says False
            return False
        source = getattr(stream, "_stream", None)
        one_way = isinstance(source, (AsyncIterator, StreamBase.__bases__)) or hasattr(source, "aread")
        return source is not None and not one_way


def _rewinds(file: Any) -> bool:
    if isinstance(file, (str, bytes)):
        return True
    try:
        return bool(file.seekable())
    except (AttributeError, ValueError):  # not a file as we know it, or closed
        return False


class HttpxBody(StreamBase):
    """The body of a response, which keeps the call going until it ends."""

    def __init__(self, stream: Any, call: Call[Any]) -> None:
        self._stream = stream
        self._call = call
        self._iterator: Any = None
        self._hold: Hold | None = call.hold()

    def __aiter__(self) -> AsyncIterator[bytes]:
        return self

    async def __anext__(self) -> bytes:
        if self._iterator is None:
            self._iterator = self._stream.__aiter__()
        try:
            return await self._next(self._iterator)
        except StopAsyncIteration:
            await self.end(None)
            raise
        except BaseException as error:
            await self.end(error)
            raise

    async def aclose(self) -> None:
        """Close the response. What has not been read of it does not matter to the call's outcome."""
        await self.end(None)

    async def end(self, error: BaseException | None) -> None:
        hold, self._hold = self._hold, None
        if hold is None:
            return
        try:
            await self._stream.aclose()
            if not getattr(self._iterator, "ag_running", True):  # a generator, and nobody is reading just now
                await self._iterator.aclose()
        finally:
            hold.release(error)

    async def _next(self, iterator: AsyncIterator[bytes]) -> bytes:
        deadline = self._call.deadline
        if deadline == inf:
            return await anext(iterator)
        left = sources.seconds_until(deadline)
        if left > 0:
            with anyio.move_on_after(left):
                return await anext(iterator)
        raise body_timed_out(self._call)
