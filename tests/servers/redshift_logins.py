"""AWS as Redshift's clients ask it for a login, in a thread of the test's process, over real sockets.

`GetClusterCredentials` is answered by moto, which is asked with the request as it came. moto knows neither
`GetClusterCredentialsWithIAM` nor Redshift Serverless: those are answered here, to requests whose signature is right.
Whatever is handed out, the private Redshift lets in until it expires.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import http.client
import json
import re
import secrets
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

from tests.servers.redshift import Redshift
from tests.servers.s3 import shared_s3

CLUSTER, WORKGROUP, REGION = "shop", "default", "us-east-1"
KEYS = {"access_key_id": {"env": "TEST_S3_KEY"}, "secret_access_key": {"env": "TEST_S3_SECRET"}}
SECRETS = {"key": "secret"}
"""The keys that may ask, those of `KEYS`."""
WITH_IAM, SERVERLESS = "GetClusterCredentialsWithIAM", "GetCredentials"
_XMLNS = "http://redshift.amazonaws.com/doc/2012-12-01/"


@dataclass
class Logins:
    """What the server was asked and has handed out; `faults` are the next answers, whatever is asked."""

    redshift: Redshift
    port: int = 0
    faults: list[tuple[int, str]] = field(default_factory=list)
    """Status and code of an error. Status 200 with `cut`: the answer breaks off in the middle of the password; with
    `mangled`: the same, and its length is told so; with `empty`: it holds no login."""
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    """Operation and parameters."""
    keys: list[str] = field(default_factory=list)
    """Who asked: ids of keys."""
    scheme: str = "http"
    passwords: list[str] = field(default_factory=list)
    lifetime: float = 900.0
    """Seconds for which the private Redshift takes a password."""

    def settings(self, **iam: Any) -> dict[str, Any]:
        """Return what `iam` of a connection needs to ask here."""
        return {"region": REGION, "endpoint": f"{self.scheme}://localhost:{self.port}", **KEYS, **iam}

    def forget(self) -> None:
        """Be as at the beginning."""
        self.faults, self.asked, self.keys, self.passwords, self.lifetime = [], [], [], [], 900.0

    def let_in(self, user: str, password: str) -> None:
        """Tell the private Redshift of a login."""
        from etl_resources.sources.redshift import RedshiftSource

        self.passwords.append(password)
        told = {"user": user, "password": password, "until": time.time() + self.lifetime}
        with RedshiftSource(**self.redshift.settings("postgres")).session() as session:
            session.execute(f"LOGIN {json.dumps(told)}")


@contextmanager
def running_logins(redshift: Redshift, certificate: Path | None = None) -> Iterator[Logins]:
    """Answer for CLUSTER and WORKGROUP as those of `redshift`; with a `certificate` (and its key) by TLS."""
    _create_cluster()
    logins = Logins(redshift, scheme="https" if certificate else "http")

    class Handler(_Handler):
        state = logins

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    if certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        server.socket = context.wrap_socket(server.socket, server_side=True)
    logins.port = server.server_address[1]
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield logins
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


def client(service: str) -> Any:
    """Return a client of moto."""
    import boto3

    return boto3.client(
        service, region_name=REGION, endpoint_url=shared_s3().options["endpoint"],
        aws_access_key_id="key", aws_secret_access_key="secret",
    )  # fmt: skip


@functools.cache  # it is there for as long as moto
def _create_cluster() -> None:
    from botocore.exceptions import ClientError

    try:
        client("redshift").create_cluster(
            ClusterIdentifier=CLUSTER, NodeType="ra3.large", MasterUsername="root", MasterUserPassword="Secret123"
        )
    except ClientError as error:
        if error.response["Error"]["Code"] != "ClusterAlreadyExists":
            raise


class _Handler(BaseHTTPRequestHandler):
    state: Logins
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if target := self.headers.get("X-Amz-Target"):
            operation, asked = target.rpartition(".")[2], json.loads(body)
        else:
            asked = {name: values[0] for name, values in parse_qs(body.decode()).items()}
            operation = asked.pop("Action")
        self.state.asked.append((operation, asked))
        self.state.keys.append(re.findall(r"Credential=([^/]+)", self.headers["Authorization"])[0])
        fault = self.state.faults.pop(0) if self.state.faults else None
        if fault and fault[0] >= 400:
            self.refuse(*fault)
        elif fault:
            self.break_off(fault[1], operation)
        elif operation not in {WITH_IAM, SERVERLESS}:
            self.by_moto(body)
        elif not self.signed(body):
            self.refuse(403, "InvalidClientTokenId")
        elif asked.get("workgroupName", WORKGROUP) != WORKGROUP:
            self.refuse(400, "ResourceNotFoundException")
        elif asked.get("ClusterIdentifier", CLUSTER) != CLUSTER:
            self.refuse(404, "ClusterNotFound")
        else:
            self.tell(200, *self.handed_out(operation))

    def by_moto(self, body: bytes) -> None:
        moto = http.client.HTTPConnection("127.0.0.1", shared_s3().port, timeout=20)
        moto.request("POST", self.path, body, dict(self.headers))
        answer = moto.getresponse()
        text = answer.read().decode()
        if answer.status == 200:
            user, password = (re.search(f"<{name}>([^<]+)<", text)[1] for name in ("DbUser", "DbPassword"))  # type: ignore[index]
            self.state.let_in(user, password)
        self.tell(answer.status, text, "text/xml")
        moto.close()

    def handed_out(self, operation: str) -> tuple[str, str]:
        password, until = secrets.token_urlsafe(32), time.time() + self.state.lifetime
        self.state.let_in("IAMR:etl", password)
        if operation == SERVERLESS:
            told = {"dbUser": "IAMR:etl", "dbPassword": password, "expiration": until, "nextRefreshTime": until}
            return json.dumps(told), "application/x-amz-json-1.1"
        when = datetime.fromtimestamp(until, UTC).isoformat()
        inner = (
            f"<DbUser>IAMR:etl</DbUser><DbPassword>{password}</DbPassword><Expiration>{when}</Expiration>"
            f"<NextRefreshTime>{when}</NextRefreshTime>"
        )
        return _xml(operation, inner), "text/xml"

    def signed(self, body: bytes) -> bool:
        """Check the signature (version 4) with the secret of the key that it names."""
        told = dict(re.findall(r"(\w+)=([^,\s]+)", self.headers["Authorization"]))
        key, *scope = told["Credential"].split("/")
        headers = "".join(f"{n}:{self.headers[n].strip()}\n" for n in told["SignedHeaders"].split(";"))
        request = "\n".join(["POST", self.path, "", headers, told["SignedHeaders"], hashlib.sha256(body).hexdigest()])
        hashed = hashlib.sha256(request.encode()).hexdigest()
        text = "\n".join(["AWS4-HMAC-SHA256", self.headers["X-Amz-Date"], "/".join(scope), hashed])
        signing = f"AWS4{SECRETS.get(key, '')}".encode()
        for part in [*scope, text]:
            signing = hmac.new(signing, part.encode(), hashlib.sha256).digest()
        return key in SECRETS and hmac.compare_digest(signing.hex(), told["Signature"])

    def refuse(self, status: int, code: str) -> None:
        if self.headers.get("X-Amz-Target"):
            self.tell(status, json.dumps({"__type": code, "message": f"told to: {code}"}), "application/x-amz-json-1.1")
        else:
            inner = f"<Error><Type>Sender</Type><Code>{code}</Code><Message>told to: {code}</Message></Error>"
            self.tell(status, f'<ErrorResponse xmlns="{_XMLNS}">{inner}</ErrorResponse>', "text/xml")

    def break_off(self, how: str, operation: str) -> None:
        text, kind = ("{}" if operation == SERVERLESS else _xml(operation, ""), "text/xml")
        if how != "empty":
            text, kind = self.handed_out(operation)
            text = text[: text.index(self.state.passwords[-1]) + 20]
        self.tell(200, text, kind, promise=1000 if how == "cut" else None)

    def tell(self, status: int, text: str, kind: str, promise: int | None = None) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(promise or len(body)))
        self.end_headers()
        self.wfile.write(body)
        self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass


def _xml(operation: str, inner: str) -> str:
    result = f"<{operation}Result>{inner}</{operation}Result>"
    return f'<{operation}Response xmlns="{_XMLNS}">{result}</{operation}Response>'
