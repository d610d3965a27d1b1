"""What a test can ask of clients: one JSON object per line on standard input, one answer each on standard output.

The same words are understood by client1.py, client2.py (Python SDK 1.x and 2.x) and client.mjs (TypeScript SDK):

    {"do": "open", "count": 24}                       open so many sessions more; "mode", "headers",
                                                      "transport", "read_timeout" (Python: seconds of silence)
    {"do": "call", "tool": "whoami", "times": 6}      on each session, all sessions at once; "arguments", "text", "patience"
    {"do": "list", "times": 1}                        tools/list
    {"do": "progress", "seconds": 2}                  a slow call with progress; the widest gap
    {"do": "cancel"}                                  begin a slow call, give it up once it runs
    {"do": "listen", "uris": [...]}                   subscribe to changes ("tools", 2.x: of the list of tools)
    {"do": "heard"}                                   what has been heard of since, and which streams were lost
    {"do": "load", "tool": "add"} … {"do": "rest"}    call without pause until told to rest
    {"do": "tasks", "count": 20}                      create tasks, poll them, fetch their results
    {"do": "close"}                                   end all sessions
    {"do": "fresh", "count": 12}                      open, call, close, one after the other
    {"do": "quit"}

Answers hold counts (`ok`, `failed`), the first `errors`, and what was answered. Any command but `open` can name the
`sessions` that it is for, by index.
"""

import asyncio
import json
import sys
import time
from collections import Counter

PATIENCE = 20


def told(error):
    """An error and what is inside it, on one line."""
    inner = getattr(error, "exceptions", None)
    if inner:
        return "; ".join(told(one) for one in inner)
    return f"{type(error).__name__}: {error}"[:300]


class Held:
    """A session in a task of its own, as the SDKs want it: who enters a context must leave it."""

    def __init__(self, connect):
        self.opened = asyncio.get_running_loop().create_future()
        self.over = asyncio.Event()
        self.session = None
        self.ended = None
        self.task = asyncio.create_task(self._hold(connect))

    async def _hold(self, connect):
        try:
            async with connect() as session:
                self.session = session
                if not self.opened.done():
                    self.opened.set_result(None)
                await self.over.wait()
        except BaseException as error:
            self.ended = told(error)
            if not self.opened.done():
                self.opened.set_exception(RuntimeError(self.ended))
            if isinstance(error, asyncio.CancelledError):
                raise

    async def ready(self):
        try:
            await asyncio.wait_for(asyncio.shield(self.opened), PATIENCE)
        except TimeoutError:
            self.task.cancel()
            raise RuntimeError("timed out") from None

    async def close(self):
        self.over.set()
        done, _ = await asyncio.wait([self.task], timeout=PATIENCE)
        if not done:
            self.task.cancel()
            self.ended = "did not end"


class Tally:
    """Counts of what went well and what did not."""

    def __init__(self):
        self.ok = self.failed = 0
        self.errors = []
        self.texts = Counter()
        self.slowest = 0.0

    async def of(self, future, good=lambda text, bad: not bad, patience=PATIENCE):
        begun = time.monotonic()
        try:
            text, bad = await asyncio.wait_for(future, patience)
        except Exception as error:
            self.fail(told(error))
            return None
        self.slowest = max(self.slowest, time.monotonic() - begun)
        self.texts[text] += 1
        if good(text, bad):
            self.ok += 1
        else:
            self.fail(text)
        return text

    def fail(self, error):
        self.failed += 1
        if len(self.errors) < 5 and error not in self.errors:
            self.errors.append(error)

    def told(self, **more):
        texts = dict(self.texts.most_common(30))
        return {"ok": self.ok, "failed": self.failed, "errors": self.errors, "texts": texts,
                "slowest_ms": round(self.slowest * 1000), **more}


class Commands:
    """`connect(url, **how)` gives an SDK's client, wrapped so that all look the same here."""

    def __init__(self, url, connect):
        self.url = url
        self.connect = connect
        self.held = []
        self.listening = []
        self.load = None

    def chosen(self, given):
        return [self.held[index] for index in given["sessions"]] if "sessions" in given else self.held

    async def open(self, given):
        tally, versions = Tally(), Counter()
        how = {key: given[key] for key in ("mode", "headers", "transport", "read_timeout") if key in given}

        async def one():
            held = Held(lambda: self.connect(given.get("url", self.url), **how))
            try:
                await held.ready()
                versions[held.session.version] += 1
                self.held.append(held)
                return held.session.version, False
            except Exception:
                await held.close()
                raise

        for _ in range(given.get("count", 1)):
            await tally.of(one())
        return tally.told(versions=versions)

    async def call(self, given):
        tally, steady = Tally(), 0
        wanted = given.get("text")

        async def each(held):
            texts = set()
            for _ in range(given.get("times", 1)):
                call = held.session.call(given["tool"], given.get("arguments", {}))
                good = (lambda text, bad: text == wanted) if wanted else (lambda text, bad: not bad)
                texts.add(await tally.of(call, good, given.get("patience", PATIENCE)))
            return len(texts) == 1 and None not in texts

        steady = sum(await asyncio.gather(*[each(held) for held in self.chosen(given)]))
        return tally.told(steady=steady)

    async def echo(self, given):
        return await self.call({**given, "tool": "echo", "arguments": {"text": "x" * given["size"]},
                                "text": str(given["size"])})

    async def list(self, given):
        tally = Tally()

        async def each(held):
            for _ in range(given.get("times", 1)):
                await tally.of(held.session.list())

        await asyncio.gather(*[each(held) for held in self.chosen(given)])
        return tally.told()

    async def progress(self, given):
        tally, events, widest = Tally(), 0, 0.0

        async def each(held):
            nonlocal events, widest
            last = None

            async def heard(*_):
                nonlocal events, widest, last
                now = time.monotonic()
                if last is not None:
                    widest = max(widest, now - last)
                last, events = now, events + 1

            await tally.of(held.session.call("slow", {"seconds": given["seconds"]}, heard))

        await asyncio.gather(*[each(held) for held in self.chosen(given)])
        return tally.told(events=events, widest_gap_ms=round(widest * 1000))

    async def cancel(self, given):
        begun = failed = 0

        async def each(held):
            nonlocal begun, failed
            runs = asyncio.Event()

            async def heard(*_):
                runs.set()

            call = asyncio.create_task(held.session.call("slow", {"seconds": 60}, heard))
            try:
                await asyncio.wait_for(runs.wait(), PATIENCE)
                begun += 1
            except TimeoutError:
                failed += 1
            call.cancel()
            await asyncio.gather(call, return_exceptions=True)

        await asyncio.gather(*[each(held) for held in self.chosen(given)])
        return {"ok": begun, "failed": failed}

    async def listen(self, given):
        tally = Tally()
        for held in self.chosen(given):
            await tally.of(held.session.listen(given["uris"]))
        return tally.told()

    async def heard(self, given):
        sessions = [held.session for held in self.chosen(given)]
        return {"heard": [sorted(session.heard) for session in sessions], "lost": [session.lost for session in sessions]}

    async def load_(self, given):
        tally, over = Tally(), asyncio.Event()

        async def each(held):
            while not over.is_set():
                await tally.of(held.session.call(given.get("tool", "add"), given.get("arguments", {"a": 1, "b": 2})))
                await asyncio.sleep(given.get("gap", 0.005))

        tasks = [asyncio.create_task(each(held)) for held in self.chosen(given)]
        self.load = tally, over, tasks
        return {"ok": len(tasks), "failed": 0}

    async def so_far(self, given):
        return self.load[0].told()

    async def rest(self, given):
        tally, over, tasks = self.load
        over.set()
        await asyncio.gather(*tasks)
        return tally.told()

    async def tasks(self, given):
        tally = Tally()
        for held in self.chosen(given):
            for _ in range(given.get("count", 1)):
                await tally.of(held.session.task())
        return tally.told()

    async def close(self, given):
        chosen = list(self.chosen(given))
        await asyncio.gather(*[held.close() for held in chosen])
        self.held = [held for held in self.held if held not in chosen]
        ended = [held.ended for held in chosen if held.ended]
        return {"ok": len(chosen) - len(ended), "failed": len(ended), "errors": ended[:5]}

    async def fresh(self, given):
        tally, versions = Tally(), Counter()
        how = {key: given[key] for key in ("mode", "headers") if key in given}

        async def one():
            held = Held(lambda: self.connect(self.url, **how))
            try:
                await held.ready()
                versions[held.session.version] += 1
                return await held.session.call(given.get("tool", "whoami"), given.get("arguments", {}))
            finally:
                await held.close()

        for _ in range(given.get("count", 1)):
            await tally.of(one())
        return tally.told(versions=versions)

    async def obey(self):
        lines = asyncio.StreamReader(limit=2**24)
        protocol = asyncio.StreamReaderProtocol(lines)
        await asyncio.get_running_loop().connect_read_pipe(lambda: protocol, sys.stdin)
        while line := await lines.readline():
            given = json.loads(line)
            if given["do"] == "quit":
                break
            command = {"load": self.load_}.get(given["do"]) or getattr(self, given["do"])
            try:
                said = await command(given)
            except Exception as error:
                said = {"ok": 0, "failed": 1, "errors": [told(error)]}
            print(json.dumps(said), flush=True)


def main(connect):
    async def run():
        await Commands(sys.argv[1], connect).obey()
        # What a broken session left behind is not waited for.
        sys.stdout.flush()
        __import__("os")._exit(0)

    asyncio.run(run())
