"""Where Redis is and how to log in there, read from a URL; the password never shows."""

import ssl
from dataclasses import dataclass, field
from urllib.parse import parse_qs, unquote, urlsplit


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One Redis server and database. Its `str` is safe to log."""

    host: str
    port: int
    path: str | None
    """A unix socket; host and port are then unused."""
    tls: bool
    username: str | None
    password: str | None = field(repr=False)
    database: int
    verify: bool = True
    ca_file: str | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}?db={self.database}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'rediss' if self.tls else 'redis'}://{host}:{self.port}/{self.database}"

    def tls_context(self) -> ssl.SSLContext | None:
        """The TLS settings of a `rediss://` URL, else None. Raises OSError when the CA file cannot be read."""
        if not self.tls:
            return None
        context = ssl.create_default_context(cafile=self.ca_file)
        if not self.verify:
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        return context


def parse_endpoint(url: str) -> Endpoint:
    """Read a `redis://`, `rediss://` or `unix://` URL.

    Understood are `redis[s]://[[user]:password@]host[:port][/db]` and `unix://[[user]:password@]/path[?db=N]`; as redis-py
    does, `db`, `username`, `password`, `ssl_cert_reqs=none` and `ssl_ca_certs=FILE` may stand in the query.
    Raises ValueError, which does not repeat the URL because of its password.
    """
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        raise ValueError("the Redis URL has an unreadable port or host") from None
    if parts.scheme not in {"redis", "rediss", "unix"}:
        raise ValueError("the Redis URL must begin with redis://, rediss:// or unix://")
    query = {key: values[-1] for key, values in parse_qs(parts.query).items()}
    username = query.get("username") or (unquote(parts.username) if parts.username else None)
    password = query.get("password") or (unquote(parts.password) if parts.password else None)
    is_socket = parts.scheme == "unix"
    if is_socket and not parts.path:
        raise ValueError("a unix:// URL needs the path of a socket")
    return Endpoint(
        host=parts.hostname or "localhost",
        port=port or 6379,
        path=unquote(parts.path) if is_socket else None,
        tls=parts.scheme == "rediss",
        username=username,
        password=password,
        database=_database(query.get("db") or ("" if is_socket else parts.path.strip("/"))),
        verify=query.get("ssl_cert_reqs", "required").lower() not in {"none", "cert_none"},
        ca_file=query.get("ssl_ca_certs"),
    )


def _database(text: str) -> int:
    if not text:
        return 0
    if not text.isdecimal():
        raise ValueError("the Redis URL's database must be a number")
    return int(text)
