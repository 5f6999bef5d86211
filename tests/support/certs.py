"""Certificates for TLS origins: a CA of the tests' own and servers that it signed, each with a fault or none. By openssl."""

import subprocess
from pathlib import Path

# `openssl ca`, because only it sets both ends of a certificate's life in every version of OpenSSL.
CA_CONFIG = """\
[ca]
default_ca = test
[test]
database = {dir}/index.txt
new_certs_dir = {dir}
certificate = {dir}/ca.pem
private_key = {dir}/ca.key
rand_serial = yes
default_md = sha256
policy = any
copy_extensions = copy
[any]
commonName = supplied
"""

LOOPBACK = "IP:127.0.0.1,DNS:localhost,DNS:*.origin.test"
# name -> subjectAltName, end of life
SIGNED = {
    "good": (LOOPBACK, "20491231235959Z"),
    "expired": (LOOPBACK, "20210101000000Z"),
    "wrong-host": ("IP:127.0.0.2,DNS:elsewhere.test", "20491231235959Z"),
}


class Certs:
    """Made in the directory `dir`: `ca` is what a client is to trust, `servers` maps a name to a PEM file with key and certificate:
    good, expired, wrong-host, self-signed."""

    def __init__(self, dir):
        self.dir = Path(dir)
        self.dir.mkdir(parents=True, exist_ok=True)
        self.ca = self.dir / "ca.pem"
        (self.dir / "index.txt").touch()
        # Several certificates of one subject.
        (self.dir / "index.txt.attr").write_text("unique_subject = no\n")
        (self.dir / "ca.conf").write_text(CA_CONFIG.format(dir=self.dir))
        self._self_signed("ca", "test CA", ["-addext", "keyUsage=critical,keyCertSign,cRLSign"])
        self.servers = {name: self._signed(name, *how) for name, how in SIGNED.items()}
        self._self_signed("self-signed", "self-signed", ["-addext", f"subjectAltName={LOOPBACK}"])
        self.servers["self-signed"] = self._with_key("self-signed")

    def _openssl(self, *argv):
        done = subprocess.run(["openssl", *map(str, argv)], stdin=subprocess.DEVNULL, capture_output=True, text=True)
        if done.returncode:
            raise RuntimeError(f"openssl {argv[0]}: {done.stderr}")

    def _request(self, name, subject, *more):
        """A new key NAME.key, and a request or certificate for it. EC: quick to make and to sign with."""
        self._openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-subj", f"/CN={subject}",
                      "-keyout", self.dir / f"{name}.key", *more)

    def _self_signed(self, name, subject, extensions):
        self._request(name, subject, "-x509", "-days", "30", "-out", self.dir / f"{name}.pem", *extensions)

    def _signed(self, name, san, end):
        self._request(name, name, "-out", self.dir / f"{name}.csr", "-addext", f"subjectAltName={san}")
        self._openssl("ca", "-batch", "-notext", "-config", self.dir / "ca.conf", "-startdate", "20200101000000Z", "-enddate", end,
                      "-in", self.dir / f"{name}.csr", "-out", self.dir / f"{name}.pem")
        return self._with_key(name)

    def _with_key(self, name):
        path = self.dir / f"{name}-server.pem"
        path.write_text((self.dir / f"{name}.key").read_text() + (self.dir / f"{name}.pem").read_text())
        return path
