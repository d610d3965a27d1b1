"""What the Python replicas share: command line, what is counted of the wire, the back door, serving.

A replica answers MCP on /mcp. On /counts, which clients do not know of, it tells what has arrived at it; POST
/touch?uri=… has it tell its subscribers that a resource has changed; GET /health says whether it is well, which POST
/sick and /well change.
"""

import argparse
import asyncio
import json
import os
import socket
from collections import Counter
from urllib.parse import parse_qs

import uvicorn


def options():
    parser = argparse.ArgumentParser()
    parser.add_argument("--port", type=int, default=0)
    parser.add_argument("--name", default="replica")
    parser.add_argument("--json", action="store_true", help="answer with JSON where an event stream is not needed")
    parser.add_argument("--everything", action="store_true", help="what the conformance suite asks for")
    parser.add_argument("--lists", choices=["public", "private"], help="lists hold an hour, for everybody or for the asker")
    parser.add_argument("--stdio", action="store_true", help="on standard input and output instead of a port")
    return parser.parse_args()


class Replica:
    """One replica: its name and what it has seen."""

    def __init__(self, name):
        self.name = name
        self.methods = Counter()
        self.tools = Counter()
        self.statuses = Counter()
        self.verbs = Counter()
        self.listening = 0
        self.running = 0
        self.cancelled = 0
        self.well = True
        self.counters = Counter()

    def whoami(self):
        return f"{self.name}/{os.getpid()}"

    async def slow(self, seconds, progress, quiet=False):
        """Takes its time and tells of it every 100 ms; notices when it is no longer wanted."""
        self.running += 1
        try:
            if quiet:
                await asyncio.sleep(seconds)
            else:
                for step in range(round(seconds * 10)):
                    await progress(step)
                    await asyncio.sleep(0.1)
            return f"{self.whoami()} took {seconds} s"
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        finally:
            self.running -= 1

    def counts(self):
        return {
            "name": self.name,
            "pid": os.getpid(),
            "methods": self.methods,
            "tools": self.tools,
            "verbs": self.verbs,
            "statuses": {str(status): count for status, count in self.statuses.items()},
            "listening": self.listening,
            "running": self.running,
            "cancelled": self.cancelled,
        }

    def seen(self, body):
        """Counts the messages of a POST's body."""
        try:
            messages = json.loads(body)
        except ValueError:
            self.methods["malformed"] += 1
            return
        for message in messages if isinstance(messages, list) else [messages]:
            method = message.get("method", "response")
            self.methods[method] += 1
            if method == "tools/call":
                self.tools[message.get("params", {}).get("name", "")] += 1

    def wrap(self, app, touch):
        """The application with its back door, and counted."""

        async def wrapped(scope, receive, send):
            if scope["type"] != "http":
                return await app(scope, receive, send)
            if scope["path"] == "/counts":
                return await answer(send, self.counts())
            if scope["path"] == "/touch":
                told = await touch(parse_qs(scope["query_string"].decode())["uri"][0])
                return await answer(send, {"told": told})
            if scope["path"] in ("/health", "/sick", "/well"):
                if scope["method"] == "POST":
                    self.well = scope["path"] == "/well"
                return await answer(send, {"well": self.well}, 200 if self.well or scope["method"] == "POST" else 503)
            self.verbs[scope["method"]] += 1
            body = bytearray()

            async def reading():
                message = await receive()
                if message["type"] == "http.request" and scope["method"] == "POST":
                    body.extend(message.get("body", b""))
                    if not message.get("more_body"):
                        self.seen(bytes(body))
                return message

            async def sending(message):
                if message["type"] == "http.response.start":
                    self.statuses[message["status"]] += 1
                await send(message)

            listens = scope["method"] == "GET"
            self.listening += listens
            try:
                await app(scope, reading, sending)
            finally:
                self.listening -= listens

        return wrapped


async def answer(send, value, status=200):
    head = [(b"content-type", b"application/json"), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": head})
    await send({"type": "http.response.body", "body": json.dumps(value).encode()})


def serve(app, port):
    """Serves until it is killed; says where as soon as it can be reached."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(1024)
    config = uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)

    class Server(uvicorn.Server):
        async def startup(self, sockets=None):
            await super().startup(sockets)
            print(json.dumps({"ready": listener.getsockname()[1]}), flush=True)

    Server(config).run(sockets=[listener])
