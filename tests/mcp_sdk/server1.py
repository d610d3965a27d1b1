"""A replica made with the Python SDK 1.x: Streamable HTTP with sessions on /mcp, HTTP+SSE of 2024-11-05 on /sse."""

import contextlib
import warnings
from weakref import WeakKeyDictionary, WeakSet

import anyio
import mcp.types as types
from mcp.server.lowlevel import NotificationOptions, Server
from mcp.server.sse import SseServerTransport
from mcp.server.stdio import stdio_server
from mcp.server.streamable_http_manager import StreamableHTTPSessionManager
from mcp.server.transport_security import TransportSecuritySettings
from pydantic import AnyUrl
from starlette.applications import Starlette
from starlette.responses import Response
from starlette.routing import Mount, Route

from events import Events
from replica import Replica, options, serve

warnings.simplefilter("ignore")
given = options()
replica = Replica(given.name)
server = Server("tidegate-sdk-1", version="1.0.0")
server.experimental.enable_tasks()
counters = WeakKeyDictionary()
subscribers = {}
everyone = WeakSet()


def schema(required=(), **properties):
    return {"type": "object", "properties": properties, "required": list(required)}


NUMBER, TEXT, FLAG = {"type": "number"}, {"type": "string"}, {"type": "boolean"}
TOOLS = [
    types.Tool(name="whoami", description="The replica's name and process", inputSchema=schema()),
    types.Tool(name="count", description="How often this session has asked", inputSchema=schema()),
    types.Tool(name="add", description="a + b", inputSchema=schema(["a", "b"], a=NUMBER, b=NUMBER)),
    types.Tool(name="slow", description="Takes its time", inputSchema=schema(["seconds"], seconds=NUMBER, quiet=FLAG)),
    types.Tool(name="echo", description="The length of a text", inputSchema=schema(["text"], text=TEXT)),
    types.Tool(name="elicit", description="Asks the user for a colour", inputSchema=schema()),
    types.Tool(name="polled", description="Lets the client come back for the result", inputSchema=schema()),
    types.Tool(name="touch", description="Changes a resource", inputSchema=schema(["uri"], uri=TEXT)),
    types.Tool(name="fail", description="Fails", inputSchema=schema()),
    types.Tool(
        name="job",
        description="Runs as a task",
        inputSchema=schema(),
        execution=types.ToolExecution(taskSupport="required"),
    ),
]


def text(value):
    return [types.TextContent(type="text", text=str(value))]


@server.list_tools()
async def list_tools():
    return TOOLS


@server.call_tool()
async def call_tool(name, arguments):
    context = server.request_context
    session = context.session
    everyone.add(session)

    async def progress(step):
        if context.meta and context.meta.progressToken is not None:
            await session.send_progress_notification(
                context.meta.progressToken, step, related_request_id=str(context.request_id)
            )

    match name:
        case "whoami":
            return text(replica.whoami())
        case "count":
            counters[session] = counters.get(session, 0) + 1
            return text(counters[session])
        case "add":
            return text(arguments["a"] + arguments["b"])
        case "slow":
            return text(await replica.slow(arguments["seconds"], progress, arguments.get("quiet", False)))
        case "echo":
            return text(len(arguments["text"]))
        case "elicit":
            wanted = schema(["colour"], colour=TEXT)
            answer = await session.elicit(
                message="Which colour?", requestedSchema=wanted, related_request_id=context.request_id
            )
            return text(answer.content["colour"] if answer.action == "accept" else answer.action)
        case "polled":
            await context.close_sse_stream()
            return text(await replica.slow(0.3, progress, quiet=True))
        case "touch":
            return text(await touch(arguments["uri"]))
        case "fail":
            raise ValueError("this tool fails")
        case "job":

            async def work(task):
                await task.update_status("at work")
                return types.CallToolResult(content=text(replica.whoami()))

            return await context.experimental.run_task(work)
        case _:
            raise ValueError(f"no tool {name}")


@server.list_resources()
async def list_resources():
    return [types.Resource(uri=AnyUrl(f"test://item/{number}"), name=f"item {number}") for number in range(8)]


@server.read_resource()
async def read_resource(uri):
    return f"{uri} at {replica.name}"


@server.subscribe_resource()
async def subscribe(uri):
    subscribers.setdefault(str(uri), WeakSet()).add(server.request_context.session)


@server.unsubscribe_resource()
async def unsubscribe(uri):
    subscribers.get(str(uri), WeakSet()).discard(server.request_context.session)


@server.set_logging_level()
async def set_logging_level(level):
    pass


async def touch(uri):
    sessions = list(subscribers.get(uri, ()))
    for session in sessions:
        await session.send_resource_updated(AnyUrl(uri))
    return len(sessions)


create = server.create_initialization_options
server.create_initialization_options = lambda: create(NotificationOptions(tools_changed=True, resources_changed=True))
strict = TransportSecuritySettings(
    enable_dns_rebinding_protection=True, allowed_hosts=["127.0.0.1:*"], allowed_origins=["http://127.0.0.1:*"]
)
manager = StreamableHTTPSessionManager(
    app=server,
    event_store=Events(given.name),
    json_response=given.json,
    security_settings=strict,
    retry_interval=100,
)
sse = SseServerTransport("/messages/", security_settings=strict)


async def on_sse(request):
    async with sse.connect_sse(request.scope, request.receive, request._send) as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())
    return Response()


async def on_stdio():
    async with stdio_server() as (incoming, outgoing):
        await server.run(incoming, outgoing, server.create_initialization_options())


@contextlib.asynccontextmanager
async def lifespan(_):
    async with manager.run():
        yield


class OnMcp:
    async def __call__(self, scope, receive, send):
        await manager.handle_request(scope, receive, send)


if given.stdio:
    anyio.run(on_stdio)
    raise SystemExit
routes = [Route("/mcp", OnMcp()), Route("/sse", on_sse), Mount("/messages/", sse.handle_post_message)]
serve(replica.wrap(Starlette(routes=routes, lifespan=lifespan), touch), given.port)
