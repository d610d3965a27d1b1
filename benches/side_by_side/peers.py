"""The proxies that are compared, each with a configuration that does the same.

A peer is a name and a function from a Setting to (files, command, reload signal)."""
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[2]


@dataclass
class Setting:
    folder: Path
    http: int
    https: int
    upstreams: list
    workers: int
    routes: int
    certificate: Path
    key: Path


def nginx(s):
    upstreams = "\n".join(f"    server 127.0.0.1:{port};" for port in s.upstreams)
    routes = "\n".join(f"    location /r{i}/ {{ proxy_pass http://up; }}" for i in range(s.routes))
    temporary = "\n".join(
        f"  {kind}_temp_path {s.folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    text = f"""daemon off; worker_processes {s.workers}; pid {s.folder}/pid; error_log {s.folder}/error.log crit;
worker_rlimit_nofile 20000;
events {{ worker_connections 16000; }}
http {{
  access_log off; keepalive_timeout 300; keepalive_requests 100000000; server_tokens off;
  proxy_http_version 1.1; proxy_set_header Connection ""; proxy_max_temp_file_size 0;
{temporary}
  upstream up {{
{upstreams}
    keepalive 256; keepalive_requests 100000000;
  }}
  server {{
    listen 127.0.0.1:{s.http} reuseport backlog=4096;
    listen 127.0.0.1:{s.https} ssl http2 reuseport;
    ssl_certificate {s.certificate}; ssl_certificate_key {s.key};
    ssl_session_cache shared:s:8m; ssl_protocols TLSv1.2 TLSv1.3;
{routes}
    location / {{ proxy_pass http://up; }}
  }}
}}
"""
    command = [shutil.which("nginx", path=PATH), "-c", f"{s.folder}/nginx.conf", "-p", str(s.folder)]
    return {"nginx.conf": text}, command, signal.SIGHUP


def haproxy(s):
    upstreams = "\n".join(f"  server s{i} 127.0.0.1:{port}" for i, port in enumerate(s.upstreams))
    routes = "".join(f"  use_backend up if {{ path_beg /r{i}/ }}\n" for i in range(s.routes))
    text = f"""global
  nbthread {s.workers}
  maxconn 9000
  stats socket {s.folder}/sock level admin expose-fd listeners
defaults
  mode http
  timeout connect 5s
  timeout client 300s
  timeout server 300s
  timeout http-keep-alive 300s
  http-reuse always
frontend f
  bind 127.0.0.1:{s.http} backlog 4096
  bind 127.0.0.1:{s.https} ssl crt {s.folder}/both.pem alpn h2,http/1.1
{routes}  default_backend up
backend up
  balance roundrobin
{upstreams}
"""
    both = s.certificate.read_text() + s.key.read_text()
    command = [shutil.which("haproxy", path=PATH), "-W", "-db", "-f", f"{s.folder}/haproxy.cfg"]
    return {"haproxy.cfg": text, "both.pem": both}, command, signal.SIGUSR2


def tidegate(s):
    upstreams = ", ".join(f'"127.0.0.1:{port}"' for port in s.upstreams)
    routes = "".join(f'[[route]]\npath = "/r{i}"\npool = "up"\n' for i in range(s.routes))
    text = f"""workers = {s.workers}
[admin]
bind = "unix:{s.folder}/admin.sock"
[listener.http]
bind = "127.0.0.1:{s.http}"
[listener.https]
bind = "127.0.0.1:{s.https}"
tls = {{ certificate = "{s.certificate}", key = "{s.key}" }}
[pool.up]
upstreams = [{upstreams}]
{routes}[[route]]
path = "/"
pool = "up"
"""
    return {"tidegate.toml": text}, [str(TIDEGATE), "run", f"{s.folder}/tidegate.toml"], signal.SIGHUP


PATH = os.environ.get("PATH", "") + ":/usr/sbin:/usr/local/sbin"
TIDEGATE = Path(os.environ.get("TIDEGATE", PROJECT / "target/release/tidegate")).resolve()
PEERS = {"nginx": nginx, "haproxy": haproxy, "tidegate": tidegate}


def installed(name):
    return TIDEGATE.exists() if name == "tidegate" else shutil.which(name, path=PATH) is not None
