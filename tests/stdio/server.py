"""A small MCP server on standard input and output, for the tests of the bridge. Needs nothing but Python.

Its tools are named for what they do. Arguments on the command line make it behave worse: --stubborn, --broken, --modern.
"""

import json
import os
import signal
import subprocess
import sys
import threading
import time

lock = threading.Lock()
received = []
waiting = {}
asked = 0
counted = 0


def send(message):
    with lock:
        sys.stdout.write(json.dumps(message) + "\n")
        sys.stdout.flush()


def text(value):
    return {"content": [{"type": "text", "text": value if isinstance(value, str) else json.dumps(value)}]}


def ask(method, params):
    global asked
    with lock:
        asked += 1
        id, done = f"ask-{asked}", threading.Event()
        waiting[id] = [done, None]
    send({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
    done.wait()
    return waiting.pop(id)[1]


def call(name, arguments, meta):
    global counted
    if name == "echo":
        return text(arguments["text"])
    if name == "slow":
        time.sleep(arguments["seconds"])
        return text("done")
    if name == "progress":
        for n in range(arguments["times"]):
            send({
                "jsonrpc": "2.0",
                "method": "notifications/progress",
                "params": {"progressToken": meta["progressToken"], "progress": n},
            })
        return text("done")
    if name == "ask":
        answer = ask(arguments["method"], arguments.get("params", {}))
        return text({key: answer[key] for key in ("result", "error") if key in answer})
    if name == "notify":
        send({"jsonrpc": "2.0", "method": arguments["method"], "params": arguments.get("params", {})})
        return text("done")
    if name == "count":
        counted += 1
        return text(str(counted))
    if name == "pid":
        return text(str(os.getpid()))
    if name == "received":
        return text(received)
    if name == "crash":
        sys.stderr.write("the roof is on fire\n")
        sys.stderr.flush()
        os._exit(arguments["code"])
    if name == "children":
        code = "import time; time.sleep(1000)"
        near = subprocess.Popen([sys.executable, "-c", code])
        far = subprocess.Popen([sys.executable, "-c", code], start_new_session=True)
        return text([os.getpid(), near.pid, far.pid])
    if name == "noise":
        with lock:
            sys.stdout.write("this is no JSON\n[1,2]\n\n{\"jsonrpc\":\"2.0\"}\n{\"jsonrpc\":\"2.0\",\"id\":99999,\"result\":{}}\n")
            sys.stdout.flush()
        return text("done")
    if name == "flood":
        with lock:
            sys.stdout.write("x" * arguments["bytes"])
            sys.stdout.flush()
        return text("never")
    if name == "chatter":
        for n in range(arguments["lines"]):
            sys.stderr.write(f"line {n}\n")
        sys.stderr.flush()
        return text("done")
    return {"content": [], "isError": True}


def answer(message):
    method, params = message["method"], message.get("params", {})
    if method == "initialize":
        version = params["protocolVersion"]
        result = {
            "protocolVersion": version if version in ("2025-03-26", "2025-06-18") else "2025-06-18",
            "capabilities": {"tools": {}, "logging": {}, "resources": {"subscribe": True}},
            "serverInfo": {"name": "scripted", "version": "1"},
        }
    elif method == "server/discover" and "--modern" in sys.argv:
        result = {"supportedVersions": ["2026-07-28"], "capabilities": {"tools": {}}, "serverInfo": {"name": "scripted", "version": "1"}}
    elif method == "tools/call":
        result = call(params["name"], params.get("arguments", {}), params.get("_meta", {}))
    elif method in ("ping", "logging/setLevel", "resources/subscribe", "resources/unsubscribe", "tools/list"):
        result = {"tools": []} if method == "tools/list" else {}
    else:
        send({"jsonrpc": "2.0", "id": message["id"], "error": {"code": -32601, "message": "Method not found"}})
        return
    send({"jsonrpc": "2.0", "id": message["id"], "result": result})


if "--broken" in sys.argv:
    sys.stderr.write("no module named nothing\n")
    sys.exit(3)
if "--stubborn" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)

for line in sys.stdin:
    message = json.loads(line)
    if "method" not in message:
        waiting[message["id"]][1] = message
        waiting[message["id"]][0].set()
        continue
    received.append([message["method"], message.get("id"), message.get("params")])
    if "id" in message:
        threading.Thread(target=answer, args=(message,), daemon=True).start()

while "--stubborn" in sys.argv:
    time.sleep(1)
