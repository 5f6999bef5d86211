"""A real nginx on a free loopback port, in one process, with bodies of known sizes and answers of known delays."""

import glob
import urllib.request
from pathlib import Path

import proc

CONFIG = """\
load_module {echo_module};
daemon off;
# One process: its pid is all there is to stop, and nothing can be left behind.
master_process off;
worker_processes 1;
worker_rlimit_nofile 65536;
pid {dir}/nginx.pid;
error_log {dir}/error.log warn;
events {{ worker_connections 16384; }}
http {{
    access_log {access_log};
    default_type text/plain;
    keepalive_requests 1000000;
    keepalive_timeout 300s;
    open_file_cache max=100;
    client_body_temp_path {dir}/tmp;
    proxy_temp_path {dir}/tmp;
    fastcgi_temp_path {dir}/tmp;
    uwsgi_temp_path {dir}/tmp;
    scgi_temp_path {dir}/tmp;
    server {{
        {listen}
        root {dir}/html;
        location = /ok {{ return 200 "ok\\n"; }}
        location = /1k {{ return 200 "{body_1k}"; }}
        location = /1k/delay/100 {{ echo_sleep 0.1; echo "{body_1k}"; }}
        location = /1k/delay/1000 {{ echo_sleep 1; echo "{body_1k}"; }}
        location = /64k {{ }}
        location = /delay/100 {{ echo_sleep 0.1; echo ok; }}
        location = /delay/1000 {{ echo_sleep 1; echo ok; }}
        location = /stub_status {{ stub_status; }}
    }}
}}
"""


def echo_module():
    """The path of Debian's echo module, wherever this release keeps its modules."""
    for pattern in ("/usr/lib/nginx/modules", "/usr/lib/*/nginx/modules", "/usr/share/nginx/modules"):
        found = glob.glob(f"{pattern}/ngx_http_echo_module.so")
        if found:
            return found[0]
    raise RuntimeError("nginx's echo module is missing: package libnginx-mod-http-echo")


class Nginx:
    """nginx in the directory `dir`; access_log=True writes access.log there, any_host=True answers on all of 127.0.0.0/8, and
    certificate, a file with key and certificate, adds a port with TLS."""

    def __init__(self, dir, access_log=False, any_host=False, certificate=None):
        self.dir = Path(dir)
        self.access_log = self.dir / "access.log" if access_log else "off"
        self.any_host = any_host
        self.certificate = certificate
        self.port = proc.free_port()
        self.tls_port = proc.free_port() if certificate else None
        self.process = None

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}"

    @property
    def tls_url(self):
        return f"https://127.0.0.1:{self.tls_port}"

    def _listen(self):
        address = "0.0.0.0" if self.any_host else "127.0.0.1"
        lines = [f"listen {address}:{self.port} backlog=4096;"]
        if self.any_host:
            lines += ["allow 127.0.0.0/8;", "deny all;"]
        if self.certificate:
            lines += [f"listen {address}:{self.tls_port} ssl backlog=4096;", f"ssl_certificate {self.certificate};",
                      f"ssl_certificate_key {self.certificate};"]
        return " ".join(lines)

    def start(self):
        (self.dir / "html").mkdir(parents=True, exist_ok=True)
        (self.dir / "tmp").mkdir(exist_ok=True)
        (self.dir / "html" / "64k").write_bytes(b"y" * 65536)
        config = CONFIG.format(echo_module=echo_module(), dir=self.dir, access_log=self.access_log, listen=self._listen(),
                               body_1k="x" * 1024)
        (self.dir / "nginx.conf").write_text(config)
        # /usr/sbin is not on everybody's PATH.
        argv = ["/usr/sbin/nginx", "-p", self.dir, "-e", self.dir / "error.log", "-c", self.dir / "nginx.conf"]
        self.process = proc.spawn(argv, self.dir / "nginx.log")
        proc.wait_until(self._answers, 20, f"nginx answers\n{proc.tail(self.dir / 'nginx.log')}", self.process)
        return self

    def _answers(self):
        try:
            with urllib.request.urlopen(f"{self.url}/ok", timeout=2) as r:
                return r.status == 200
        except OSError:
            return False

    def stop(self):
        if self.process:
            proc.stop(self.process, 5)
