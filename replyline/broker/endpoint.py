"""Where Redis is and how to log in there, read from a URL; the password never shows."""

import difflib
import ssl
from dataclasses import dataclass, field
from urllib.parse import SplitResult, parse_qsl, unquote, urlsplit

_PORT = 6379
_SENTINEL_PORT = 26379
_SCHEMES = {"redis", "rediss", "unix", "redis+sentinel", "rediss+sentinel"}
# As redis-py names them; the last two are ours.
_PARAMETERS = (
    "db",
    "username",
    "password",
    "ssl_cert_reqs",
    "ssl_ca_certs",
    "ssl_certfile",
    "ssl_keyfile",
    "ssl_check_hostname",
    "sentinel_username",
    "sentinel_password",
)
_NO = {"false", "no", "0", "off"}


@dataclass(frozen=True, slots=True)
class Address:
    """A host and port that listens. Its `str` is the two with a colon between."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Login:
    """Who we are to a server; without a password, nobody."""

    username: str | None = None
    password: str | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Tls:
    """How a TLS connection is made."""

    verify: bool = True
    check_hostname: bool = True
    ca_file: str | None = None
    certificate_file: str | None = None
    key_file: str | None = None

    def context(self) -> ssl.SSLContext:
        """Ready to connect with. Raises OSError if a file cannot be read or is of another kind."""
        context = ssl.create_default_context(cafile=self.ca_file)
        context.check_hostname = self.verify and self.check_hostname
        if not self.verify:
            context.verify_mode = ssl.CERT_NONE
        if self.certificate_file is not None:
            context.load_cert_chain(self.certificate_file, self.key_file)
        return context


@dataclass(frozen=True, slots=True)
class Sentinels:
    """Those who know which server is the master of a service."""

    addresses: tuple[Address, ...]
    service: str
    login: Login


@dataclass(frozen=True, slots=True)
class Endpoint:
    """One Redis server and database, or the sentinels that know it. Its `str` is safe to log."""

    address: Address
    path: str | None
    """A unix socket; the address is then unused."""
    login: Login
    database: int
    tls: Tls | None = None
    sentinels: Sentinels | None = None

    def __str__(self) -> str:
        if self.path is not None:
            return f"unix://{self.path}?db={self.database}"
        scheme = "redis" if self.tls is None else "rediss"
        if self.sentinels is not None:
            hosts = ",".join(map(str, self.sentinels.addresses))
            return f"{scheme}+sentinel://{hosts}/{self.sentinels.service}/{self.database}"
        return f"{scheme}://{self.address}/{self.database}"


def parse_endpoint(url: str) -> Endpoint:
    """Read the URL of a Redis, or of the sentinels that know it.

    Understood are `redis[s]://[[user]:password@]host[:port][/db]`, `unix://[[user]:password@]/path[?db=N]` and
    `redis[s]+sentinel://[[user]:password@]host[:port][,host[:port]…]/service[/db]`; in the query may stand `db`, `username`,
    `password`, `ssl_cert_reqs=none`, `ssl_ca_certs`, `ssl_certfile`, `ssl_keyfile`, `ssl_check_hostname=false` (as redis-py has
    them), and `sentinel_username` and `sentinel_password` where the sentinels have a login of their own.
    Raises ValueError, which does not repeat the URL because of its password.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("the Redis URL has an unreadable port or host") from None
    if parts.scheme not in _SCHEMES:
        raise ValueError(
            "the Redis URL must begin with redis://, rediss://, unix://, redis+sentinel:// or rediss+sentinel://"
        )
    query = _query(parts)
    login = Login(
        query.get("username") or (unquote(parts.username) if parts.username else None),
        query.get("password") or (unquote(parts.password) if parts.password else None),
    )
    tls = _tls(query) if parts.scheme.startswith("rediss") else None
    if parts.scheme == "unix":
        if not parts.path:
            raise ValueError("a unix:// URL needs the path of a socket")
        return Endpoint(Address("localhost", _PORT), unquote(parts.path), login, _database(query.get("db", "")))
    if parts.scheme.endswith("+sentinel"):
        service, _, database = parts.path.strip("/").partition("/")
        if not service:
            raise ValueError(
                "a Redis URL with sentinels needs the service's name: redis+sentinel://host:26379/SERVICE/0"
            )
        own = Login(query.get("sentinel_username"), query.get("sentinel_password"))
        addresses = tuple(_address(host, _SENTINEL_PORT) for host in _hosts(parts).split(","))
        sentinels = Sentinels(addresses, unquote(service), own)
        return Endpoint(addresses[0], None, login, _database(query.get("db") or database), tls, sentinels)
    database = query.get("db") or parts.path.strip("/")
    return Endpoint(_address(_hosts(parts), _PORT), None, login, _database(database), tls)


def _query(parts: SplitResult) -> dict[str, str]:
    query = dict(parse_qsl(parts.query))
    for name in query:
        if name not in _PARAMETERS:
            near = difflib.get_close_matches(name, _PARAMETERS, n=1)
            hint = f"did you mean {near[0]}?" if near else f"there are {', '.join(_PARAMETERS)}"
            raise ValueError(f"the Redis URL has a parameter that is not known: {name}; {hint}")
    return query


def _tls(query: dict[str, str]) -> Tls:
    if "ssl_keyfile" in query and "ssl_certfile" not in query:
        raise ValueError("the Redis URL has ssl_keyfile without ssl_certfile")
    return Tls(
        verify=query.get("ssl_cert_reqs", "required").lower() not in {"none", "cert_none"},
        check_hostname=query.get("ssl_check_hostname", "true").lower() not in _NO,
        ca_file=query.get("ssl_ca_certs"),
        certificate_file=query.get("ssl_certfile"),
        key_file=query.get("ssl_keyfile"),
    )


def _hosts(parts: SplitResult) -> str:
    return parts.netloc.rpartition("@")[2]


def _address(text: str, default_port: int) -> Address:
    try:
        one = urlsplit(f"//{text}")
        return Address(one.hostname or "localhost", one.port or default_port)
    except ValueError:
        raise ValueError("the Redis URL has an unreadable port or host") from None


def _database(text: str) -> int:
    if not text:
        return 0
    if not text.isdecimal() or len(text) > 9:
        raise ValueError("the Redis URL's database must be a number")
    return int(text)
