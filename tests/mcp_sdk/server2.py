"""A replica made with the Python SDK 2.x, which serves both eras on /mcp: sessions, and 2026-07-28 without."""

import logging
import warnings
from typing import Annotated

from mcp.server.caching import CacheHint
from mcp.server.mcpserver import Context, Elicit, MCPServer, Resolve
from mcp.server.subscriptions import InMemorySubscriptionBus, ResourceUpdated, ToolsListChanged
from mcp.server.transport_security import TransportSecuritySettings
from mcp_types import EmptyResult, SetLevelRequestParams, SubscribeRequestParams, UnsubscribeRequestParams
from pydantic import BaseModel

from events import Events
from replica import Replica, options, serve

warnings.simplefilter("ignore")
given = options()
replica = Replica(given.name)
bus = InMemorySubscriptionBus()
hints = {"tools/list": CacheHint(3_600_000, given.lists)} if given.lists else None
server = MCPServer(
    "tidegate-sdk-2", version="1.0.0", subscriptions=bus, log_level="CRITICAL", cache_hints=hints
)
logging.disable(logging.CRITICAL)
subscribers = {}


@server.tool(description="For a test")
async def whoami() -> str:
    return replica.whoami()


@server.tool(description="For a test")
async def count(ctx: Context) -> str:
    session = (ctx.headers or {}).get("mcp-session-id", "none")
    replica.counters[session] += 1
    return str(replica.counters[session])


@server.tool(description="For a test")
async def add(a: float, b: float) -> str:
    return f"{a + b:g}"


@server.tool(description="For a test")
async def slow(seconds: float, ctx: Context, quiet: bool = False) -> str:
    return await replica.slow(seconds, ctx.report_progress, quiet)


@server.tool(description="For a test")
async def echo(text: str) -> str:
    return str(len(text))


class Colour(BaseModel):
    colour: str


async def ask() -> Elicit[Colour]:
    return Elicit("Which colour?", Colour)


@server.tool(description="For a test")
async def elicit(answer: Annotated[Colour, Resolve(ask)]) -> str:
    return answer.colour


@server.tool(description="For a test")
async def polled(ctx: Context) -> str:
    await ctx.close_sse_stream()
    return await replica.slow(0.3, ctx.report_progress, quiet=True)


@server.tool(description="For a test")
async def touch(uri: str) -> str:
    return str(await tell(uri))


@server.tool(description="For a test")
async def fail() -> str:
    raise ValueError("this tool fails")


def item(number):
    @server.resource(f"test://item/{number}", name=f"item {number}")
    async def read() -> str:
        return f"test://item/{number} at {replica.name}"


for number in range(8):
    item(number)


async def subscribe(context, params):
    # The session object is per request; what is sent through it without a request goes to the connection's stream.
    session = context.request.headers.get("mcp-session-id", "none")
    subscribers.setdefault(params.uri, {})[session] = context.session
    return EmptyResult()


async def unsubscribe(context, params):
    subscribers.get(params.uri, {}).pop(context.request.headers.get("mcp-session-id", "none"), None)
    return EmptyResult()


async def set_level(context, params):
    return EmptyResult()


async def tell(uri):
    sessions = list(subscribers.get(uri, {}).values())
    for session in sessions:
        await session.send_resource_updated(uri)
    await bus.publish(ToolsListChanged() if uri == "tools" else ResourceUpdated(uri=uri))
    return len(sessions)


low = server._lowlevel_server
low.add_request_handler("resources/subscribe", SubscribeRequestParams, subscribe)
low.add_request_handler("resources/unsubscribe", UnsubscribeRequestParams, unsubscribe)
low.add_request_handler("logging/setLevel", SetLevelRequestParams, set_level)
if given.everything:
    import everything

    everything.add_to(server)
if given.stdio:
    server.run("stdio")
    raise SystemExit
app = server.streamable_http_app(
    event_store=Events(given.name),
    json_response=given.json,
    retry_interval=100,
    transport_security=TransportSecuritySettings(
        enable_dns_rebinding_protection=True,
        allowed_hosts=["127.0.0.1:*", "localhost:*"],
        allowed_origins=["http://127.0.0.1:*", "http://localhost:*"],
    ),
)
serve(replica.wrap(app, tell), given.port)
