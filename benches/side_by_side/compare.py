#!/usr/bin/env python3
"""CPU per request of proxies, side by side; see README.md."""
import argparse
import os
import random
import re
import resource
import shutil
import signal
import socket
import ssl
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import PEERS, Setting, installed

HERE = Path(__file__).resolve().parent
TOOLS = HERE / "tools/target/release"
TICK = os.sysconf("SC_CLK_TCK")
USUAL = "small,b10k,b1m,post10k,close,rate,tls,handshake,h2,h2_b1m"


def output(*command):
    return subprocess.run(command, capture_output=True, text=True).stdout


def pinned(core, command):
    return ["taskset", "-c", str(core), *command] if ARGUMENTS.pin else command


def free_ports(upstreams):
    """The first of enough free ports in a row, below those that the system hands out to clients."""
    def taken(port):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                return True
            return False
    for _ in range(50):
        first = random.randrange(10000, 31000 - upstreams)
        if not any(taken(port) for port in range(first, first + 100 + upstreams)):
            return first
    sys.exit("no free ports")


def certificate(folder):
    cert, key = folder / "cert.pem", folder / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-keyout", key,
         "-out", cert, "-days", "30", "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost"],
        check=True, capture_output=True)
    return cert, key


def tree(pid):
    """A process and all that came of it."""
    children = {}
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            parent = int(Path(f"/proc/{entry}/stat").read_text().rsplit(")", 1)[1].split()[1])
            children.setdefault(parent, []).append(int(entry))
        except OSError:
            pass
    found = [pid]
    for one in found:
        found += children.get(one, [])
    return found


def cpu(pid):
    """Microseconds of user and of system time that the tree has used."""
    user = system = 0
    for one in tree(pid):
        try:
            fields = Path(f"/proc/{one}/stat").read_text().rsplit(")", 1)[1].split()
            user, system = user + int(fields[11]), system + int(fields[12])
        except OSError:
            pass
    return user * 1e6 / TICK, system * 1e6 / TICK


def memory(pid):
    """KiB that the tree holds, shared pages counted in part."""
    total = 0
    for one in tree(pid):
        try:
            found = re.search(r"^Pss:\s+(\d+)", Path(f"/proc/{one}/smaps_rollup").read_text(), re.M)
            total += int(found.group(1)) if found else 0
        except OSError:
            pass
    return total


class Proxy:
    def __init__(self, name, number, folder):
        self.name, self.folder = name, folder / name
        self.folder.mkdir()
        self.http = FIRST_PORT + number * 10
        self.https = self.http + 1
        upstreams = range(FIRST_PORT + 100, FIRST_PORT + 100 + ARGUMENTS.upstreams)
        setting = Setting(self.folder, self.http, self.https, list(upstreams), ARGUMENTS.workers, ARGUMENTS.routes,
                          folder / "cert.pem", folder / "key.pem")
        files, self.command, self.reload_signal = PEERS[name](setting)
        for file, text in files.items():
            (self.folder / file).write_text(text)
        self.start()

    def start(self):
        self.log = open(self.folder / "output", "w")
        self.process = subprocess.Popen(pinned(0, self.command), stdout=self.log, stderr=self.log, cwd=self.folder)

    @property
    def pid(self):
        return self.process.pid

    def ready(self):
        for _ in range(150):
            if self.process.poll() is not None:
                break
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.http)) == 0:
                    if load(self.http, conns=1, secs=0.05).get("done", 0) > 0:
                        return True
            time.sleep(0.1)
        print(f"# {self.name} did not start: {(self.folder / 'output').read_text()[-600:]}", file=sys.stderr)
        return False

    def stop(self):
        # A master that is stopped cannot start workers anew while we end them.
        self.signal(self.pid, signal.SIGSTOP)
        for one in tree(self.pid):
            self.signal(one, signal.SIGKILL)
        self.process.wait()

    @staticmethod
    def signal(pid, number):
        try:
            os.kill(pid, number)
        except ProcessLookupError:
            pass


def load_command(port, **options):
    command = [str(TOOLS / "load"), str(port)]
    for name, value in options.items():
        command += [f"--{name}"] + ([] if value is True else [str(value)])
    return pinned(1, command)


def figures(text):
    return {name: float(value) for name, value in re.findall(r"(\w+)=([\d.]+)", text)}


def load(port, **options):
    return figures(output(*load_command(port, **options)))


def h2load(port, requests, connections, extra, path="/"):
    text = output(*pinned(1, ["h2load", "-n", str(requests), "-c", str(connections), *extra,
                              f"https://localhost:{port}{path}"]))
    counts = re.search(r"(\d+) succeeded, (\d+) failed", text)
    rate = re.search(r"([\d.]+) req/s", text)
    done, failed = map(int, counts.groups()) if counts else (0, 0)
    return {"done": done, "failed": failed, "rps": float(rate.group(1)) if rate else 0}


def handshakes(port, secs):
    """Full TLS handshakes by three clients at once."""
    command = pinned(1, ["openssl", "s_time", "-new", "-time", str(max(1, round(secs))), "-connect", f"127.0.0.1:{port}"])
    clients = [subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for _ in range(3)]
    counts = (re.search(r"(\d+) connections in \d+ real seconds", client.communicate()[0]) for client in clients)
    done = sum(int(count.group(1)) for count in counts if count)
    return {"done": done, "failed": 0, "rps": done / max(1, round(secs))}


def ask(test, proxy, secs, requests):
    """Runs one load against one proxy."""
    conns = ARGUMENTS.connections
    plain = {
        "small": dict(conns=conns),
        "rate": dict(conns=conns, rate=ARGUMENTS.rate),
        "b10k": dict(conns=conns, path="/b/10240"),
        "b1m": dict(conns=min(conns, 16), path=f"/b/{1 << 20}"),
        "post10k": dict(conns=conns, post=10240),
        "close": dict(conns=32, close=True),
        "last_route": dict(conns=conns, path=f"/r{max(0, ARGUMENTS.routes - 1)}/x"),
    }
    if test in plain:
        result = load(proxy.http, secs=secs, **plain[test])
        result["failed"] = sum(result.get(kind, 0) for kind in ("non2xx", "e_conn", "e_inflight"))
        return result
    large = f"/b/{1 << 20}"
    return {
        "tls": lambda: h2load(proxy.https, requests, 32, ["--h1"]),
        "tls_b1m": lambda: h2load(proxy.https, requests // 40, 16, ["--h1"], large),
        "h2": lambda: h2load(proxy.https, requests, 8, ["-m", "16"]),
        "h2_b1m": lambda: h2load(proxy.https, requests // 40, 16, ["-m", "4"], large),
        "handshake": lambda: handshakes(proxy.https, secs),
    }[test]()


def measure(test, proxy, secs, requests):
    user, system = cpu(proxy.pid)
    result = ask(test, proxy, secs, requests)
    user_after, system_after = cpu(proxy.pid)
    done = max(1, result["done"])
    return {"user": (user_after - user) / done, "sys": (system_after - system) / done,
            "us": (user_after - user + system_after - system) / done, **result}


def compare(test, proxies):
    rounds = {proxy.name: [] for proxy in proxies}
    for proxy in proxies:
        measure(test, proxy, 0.3, 2000)  # warms connections and caches
    for number in range(ARGUMENTS.rounds):
        for proxy in proxies if number % 2 == 0 else proxies[::-1]:
            rounds[proxy.name].append(measure(test, proxy, ARGUMENTS.secs, ARGUMENTS.requests))
    base = rounds[proxies[0].name]
    for name, results in rounds.items():
        median = lambda key: statistics.median(result.get(key, 0) for result in results)
        ratio = statistics.median(one["us"] / other["us"] if other["us"] else 0 for one, other in zip(results, base))
        print(f"{test:11} {name:9} {median('us'):9.1f} {median('user'):8.1f} {median('sys'):8.1f} {ratio:7.2f} "
              f"{median('rps'):9.0f} {median('p50'):7.0f} {median('p99'):7.0f} {sum(r['failed'] for r in results):6.0f}",
              flush=True)


def compare_memory(proxies):
    count = 6000
    print(f"{'proxy':9} {'idle KiB':>9} {'KiB/idle connection':>20} {'KiB/request in progress':>24}")
    for proxy in proxies:
        before = memory(proxy.pid)
        idle = subprocess.Popen(load_command(proxy.http, conns=count, secs=1.5, idle=True), stdout=subprocess.PIPE, text=True)
        idle.stdout.readline()
        time.sleep(0.5)
        with_connections = memory(proxy.pid)
        idle.communicate()
        time.sleep(1)
        settled = memory(proxy.pid)
        busy = subprocess.Popen(load_command(proxy.http, conns=2000, secs=2.5, path="/hold/2000"), stdout=subprocess.PIPE)
        time.sleep(1.7)
        with_requests = memory(proxy.pid)
        busy.communicate()
        print(f"{proxy.name:9} {before:9} {(with_connections - before) / count:20.2f} {(with_requests - settled) / 2000:24.2f}",
              flush=True)


def opened(proxy, kind):
    """A connection that has had its answer and is idle since."""
    connection = socket.create_connection(("127.0.0.1", proxy.http if kind == "plain" else proxy.https))
    if kind != "plain":
        context = ssl._create_unverified_context()
        context.set_alpn_protocols(["h2" if kind == "h2" else "http/1.1"])
        connection = context.wrap_socket(connection, server_hostname="localhost")
    if kind == "h2":
        # The preface, SETTINGS, and GET https://localhost/ as the first stream (RFC 9113 section 3.4, RFC 7541 appendix A).
        fields = b"\x82\x87\x84\x41\x09localhost"
        head = len(fields).to_bytes(3, "big") + b"\x01\x05\x00\x00\x00\x01" + fields
        connection.sendall(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + b"\x00\x00\x00\x04\x00\x00\x00\x00\x00" + head)
    else:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
    received = b""
    while b"Hello" not in received:  # what the backend answers
        piece = connection.recv(65536)
        if not piece:
            sys.exit(f"{proxy.name} has closed an idle {kind} connection")
        received += piece
    return connection


def compare_idle(proxies, count=2000):
    """As `memory`, but the connections come one after the other: no burst to the upstreams is in the figure."""
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, limit))
    print(f"{'proxy':9} {'KiB/plain':>10} {'KiB/tls':>10} {'KiB/h2':>10}")
    for proxy in proxies:
        figures = []
        for kind in ("plain", "tls", "h2"):
            # Afresh: what other connections have left behind would be used again.
            proxy.stop()
            proxy.start()
            proxy.ready()
            held = [opened(proxy, kind) for _ in range(50)]
            before = memory(proxy.pid)
            held += [opened(proxy, kind) for _ in range(count)]
            time.sleep(0.5)
            figures.append((memory(proxy.pid) - before) / count)
            for connection in held:
                connection.close()
        print(f"{proxy.name:9} " + " ".join(f"{figure:10.2f}" for figure in figures), flush=True)


def compare_reload(proxies, reloads=5):
    print(f"{'proxy':9} {'requests':>9} {'failed':>7} {'closed':>7} {'p99 us':>7} {'max us':>8} {'peak MiB':>9} {'after MiB':>9} processes")
    for proxy in proxies:
        running = subprocess.Popen(load_command(proxy.http, conns=64, secs=6, rate=4000), stdout=subprocess.PIPE, text=True)
        started, done, peak, processes = time.time(), 0, 0, 0
        while running.poll() is None:
            if done < reloads and time.time() - started > 0.8 + done * 0.9:
                os.kill(proxy.pid, proxy.reload_signal)
                done += 1
            peak, processes = max(peak, memory(proxy.pid)), max(processes, len(tree(proxy.pid)))
            time.sleep(0.05)
        result = figures(running.communicate()[0])
        failed = sum(result.get(kind, 0) for kind in ("non2xx", "e_conn", "e_inflight"))
        closed = result.get("srv_close", 0) + result.get("idle_close", 0)
        print(f"{proxy.name:9} {result['done']:9.0f} {failed:7.0f} {closed:7.0f} {result['p99']:7.0f} {result['max']:8.0f} "
              f"{peak / 1024:9.1f} {memory(proxy.pid) / 1024:9.1f} {processes}", flush=True)


def parse():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tests", nargs="?", default=USUAL)
    parser.add_argument("--proxies", default="nginx,haproxy,tidegate")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--secs", type=float, default=0.6)
    parser.add_argument("--requests", type=int, default=24000, help="of the tests that count instead of timing")
    parser.add_argument("--workers", type=int, default=1)
    parser.add_argument("--connections", type=int, default=64)
    parser.add_argument("--upstreams", type=int, default=2)
    parser.add_argument("--routes", type=int, default=0)
    parser.add_argument("--rate", type=float, default=20000)
    parser.add_argument("--no-pin", dest="pin", action="store_false")
    return parser.parse_args()


def main():
    names = [name for name in ARGUMENTS.proxies.split(",") if installed(name)]
    absent = set(ARGUMENTS.proxies.split(",")) - set(names)
    if absent:
        print(f"# not installed: {', '.join(sorted(absent))}", file=sys.stderr)
    subprocess.run(["cargo", "build", "--quiet", "--release"], cwd=HERE / "tools", check=True)
    folder = Path(tempfile.mkdtemp(prefix="side-by-side-"))
    folder.chmod(0o755)  # workers of other users read the certificate
    certificate(folder)
    backend = subprocess.Popen(pinned(1, [str(TOOLS / "backend"), str(FIRST_PORT + 100), str(ARGUMENTS.upstreams)]))
    started = []
    try:
        time.sleep(0.3)
        started = [Proxy(name, number, folder) for number, name in enumerate(names)]
        ready = [proxy for proxy in started if proxy.ready()]
        tests = ARGUMENTS.tests.split(",")
        timed = [test for test in tests if test not in ("memory", "idle", "reload")]
        if timed:
            print(f"{'test':11} {'proxy':9} {'us/request':>9} {'user':>7} {'sys':>8} {'ratio':>7} {'rps':>9} {'p50 us':>7} {'p99 us':>7} {'failed':>6}")
        for test in timed:
            compare(test, ready)
        if "memory" in tests:
            compare_memory(ready)
        if "idle" in tests:
            compare_idle(ready)
        if "reload" in tests:
            compare_reload(ready)
    finally:
        for proxy in started:
            proxy.stop()
        backend.kill()
        backend.wait()
        shutil.rmtree(folder, ignore_errors=True)


ARGUMENTS = parse()
FIRST_PORT = free_ports(ARGUMENTS.upstreams)
if __name__ == "__main__":
    main()
