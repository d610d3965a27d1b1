"""Clients of the Python SDK 2.x, which find the era out for themselves; see commands.py."""

import asyncio
import logging
import warnings
from contextlib import asynccontextmanager

import httpx2
import mcp_types as types
from mcp import Client
from mcp.client.sse import sse_client
from mcp.client.streamable_http import create_mcp_http_client, streamable_http_client
from mcp.client.subscriptions import ResourceUpdated, SubscriptionLost

from commands import main

logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")
MODERN = "2026-07-28"


class Session:
    def __init__(self):
        self.heard = set()
        self.lost = None
        self.listener = None
        self.inner = None

    @property
    def version(self):
        return self.inner.protocol_version

    async def on_message(self, message):
        if isinstance(message, types.ResourceUpdatedNotification):
            self.heard.add(str(message.params.uri))

    async def call(self, tool, arguments, heard=None):
        result = await self.inner.call_tool(tool, arguments, 90, heard)
        return "".join(getattr(part, "text", "") for part in result.content), bool(result.is_error)

    async def list(self):
        tools = (await self.inner.list_tools()).tools
        return ",".join(sorted(tool.name for tool in tools)), False

    async def listen(self, uris):
        if self.version != MODERN:
            for uri in uris:
                await self.inner.subscribe_resource(uri)
            return "subscribed", False
        heeded = asyncio.get_running_loop().create_future()
        self.listener = asyncio.create_task(self._listen(uris, heeded))
        await heeded
        return "listening", False

    async def _listen(self, uris, heeded):
        try:
            tools, uris = "tools" in uris, [uri for uri in uris if uri != "tools"]
            async with self.inner.listen(tools_list_changed=tools, resource_subscriptions=uris) as changes:
                heeded.set_result(None)
                async for change in changes:
                    self.heard.add(change.uri if isinstance(change, ResourceUpdated) else "tools")
                self.lost = "closed"
        except Exception as error:
            self.lost = f"{type(error).__name__}: {error}"
            if not heeded.done():
                heeded.set_exception(error)


async def on_elicitation(context, params):
    return types.ElicitResult(action="accept", content={"colour": "blue"})


@asynccontextmanager
async def connect(url, mode="auto", headers=None, transport="http", read_timeout=300):
    outer = Session()
    async with create_mcp_http_client(headers, httpx2.Timeout(30, read=read_timeout)) as http:
        how = sse_client(url, headers=headers) if transport == "sse" else streamable_http_client(url, http_client=http)
        async with Client(
            how, mode=mode, elicitation_callback=on_elicitation, message_handler=outer.on_message, cache=None
        ) as outer.inner:
            try:
                yield outer
            finally:
                if outer.listener:
                    outer.listener.cancel()
                    await asyncio.gather(outer.listener, return_exceptions=True)


main(connect)
