"""Clients of the Python SDK 1.x; see commands.py."""

import logging
import warnings
from contextlib import asynccontextmanager
from datetime import timedelta

import httpx
import mcp.types as types
from mcp import ClientSession
from mcp.client.sse import sse_client
from mcp.client.streamable_http import streamable_http_client
from pydantic import AnyUrl

from commands import main

logging.disable(logging.CRITICAL)
warnings.simplefilter("ignore")


class Session:
    def __init__(self):
        self.heard = set()
        self.lost = None
        self.version = ""
        self.inner = None

    async def on_message(self, message):
        if isinstance(message, types.ServerNotification) and isinstance(
            message.root, types.ResourceUpdatedNotification
        ):
            self.heard.add(str(message.root.params.uri))

    async def call(self, tool, arguments, heard=None):
        result = await self.inner.call_tool(tool, arguments, timedelta(seconds=90), heard)
        return "".join(getattr(part, "text", "") for part in result.content), bool(result.isError)

    async def list(self):
        tools = (await self.inner.list_tools()).tools
        return ",".join(sorted(tool.name for tool in tools)), False

    async def listen(self, uris):
        for uri in uris:
            await self.inner.subscribe_resource(AnyUrl(uri))
        return "subscribed", False

    async def task(self):
        made = await self.inner.experimental.call_tool_as_task("job", {})
        async for status in self.inner.experimental.poll_task(made.task.taskId):
            last = status.status
        result = await self.inner.experimental.get_task_result(made.task.taskId, types.CallToolResult)
        return result.content[0].text, last != "completed"


async def on_elicitation(context, params):
    return types.ElicitResult(action="accept", content={"colour": "blue"})


@asynccontextmanager
async def connect(url, mode="legacy", headers=None, transport="http", read_timeout=300):
    outer = Session()
    if transport == "sse":
        opening = sse_client(url, headers=headers)
        async with opening as (incoming, outgoing), inner_of(outer, incoming, outgoing):
            yield outer
        return
    timeout = httpx.Timeout(30, read=read_timeout)
    async with httpx.AsyncClient(headers=headers, timeout=timeout) as http:
        async with streamable_http_client(url, http_client=http) as (incoming, outgoing, _):
            async with inner_of(outer, incoming, outgoing):
                yield outer


@asynccontextmanager
async def inner_of(outer, incoming, outgoing):
    async with ClientSession(
        incoming, outgoing, elicitation_callback=on_elicitation, message_handler=outer.on_message
    ) as inner:
        outer.version = (await inner.initialize()).protocolVersion
        outer.inner = inner
        yield


main(connect)
