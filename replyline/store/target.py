"""Which Postgres DATABASE_URL means: read once, and the same for the app and for `replyline migrate`."""

import difflib
from dataclasses import dataclass, field
from urllib.parse import parse_qsl, quote, urlencode, urlsplit, urlunsplit

_SCHEMES = ("postgresql", "postgres", "postgresql+asyncpg", "postgres+asyncpg")

# What asyncpg reads from a URL as libpq does (asyncpg documentation, "connect": DSN).
_OF_THE_DRIVER = frozenset(
    {
        "host",
        "port",
        "dbname",
        "database",
        "user",
        "password",
        "passfile",
        "service",
        "sslmode",
        "sslcert",
        "sslkey",
        "sslrootcert",
        "sslcrl",
        "sslpassword",
        "sslnegotiation",
        "ssl_min_protocol_version",
        "ssl_max_protocol_version",
        "target_session_attrs",
        "krbsrvname",
        "gsslib",
    }
)
_OURS = frozenset({"ssl", "schema", "pgbouncer", "connect_timeout", "channel_binding", "application_name"})
# Ours are in force whatever the URL says: a connection that was forgotten on the way is found within seconds.
_SET_BY_US = frozenset(
    {"keepalives", "keepalives_idle", "keepalives_interval", "keepalives_count", "tcp_user_timeout", "client_encoding"}
)
_YES = {"true", "1", "yes", "on"}


@dataclass(frozen=True, slots=True)
class Target:
    """How to connect, in the driver's words."""

    url: str = field(repr=False)
    """postgresql://…, with what asyncpg reads from it."""
    settings: dict[str, str] = field(default_factory=dict)
    """Server settings of every session, as `search_path`."""
    through_pooler: bool = False
    """The URL says that a pooler stands between (`pgbouncer=true`, as Prisma's URLs have it)."""
    connect_timeout_s: float | None = None
    has_several_hosts: bool = False


def read_target(url: str) -> Target:
    """Read a URL as libpq would (PostgreSQL documentation, "Connection URIs"), and what other tools add to theirs.

    `ssl=require` is `sslmode=require`, `schema=x` is `search_path=x`. A parameter that nobody knows is a setting of the server.
    Raises ValueError, which never repeats the URL because of its password.
    """
    try:
        parts = urlsplit(url)
    except ValueError:
        raise ValueError("DATABASE_URL cannot be read as a URL") from None
    if parts.scheme not in _SCHEMES:
        raise ValueError("DATABASE_URL must begin with postgresql://")
    given = dict(parse_qsl(parts.query, keep_blank_values=True))
    kept = {name: value for name, value in given.items() if name in _OF_THE_DRIVER}
    settings: dict[str, str] = {}
    for name, value in given.items():
        if name in _SET_BY_US:
            raise ValueError(f"DATABASE_URL has {name}, which Replyline sets itself: leave it out")
        if name not in _OF_THE_DRIVER | _OURS:
            settings[_server_setting(name)] = value
    if "ssl" in given:
        kept.setdefault("sslmode", _sslmode(given["ssl"]))
    if "schema" in given:
        settings.setdefault("search_path", given["schema"])
    if "application_name" in given:
        settings["application_name"] = given["application_name"]
    _check_channel_binding(given.get("channel_binding", "prefer"))
    several = "," in parts.netloc.rpartition("@")[2] or "," in kept.get("host", "")
    if several:  # of several, the one that can be written to
        kept.setdefault("target_session_attrs", "read-write")
    return Target(
        url=urlunsplit(parts._replace(scheme="postgresql", query=urlencode(kept, quote_via=quote))),
        settings=settings,
        through_pooler=given.get("pgbouncer", "").lower() in _YES,
        connect_timeout_s=_seconds(given.get("connect_timeout")),
        has_several_hosts=several,
    )


def _server_setting(name: str) -> str:
    """A name that is nearly one of libpq's is a mistake: as a setting of the server it would do nothing that was meant."""
    near = difflib.get_close_matches(name, _OF_THE_DRIVER | _OURS, n=1, cutoff=0.8)
    if near:
        raise ValueError(f"DATABASE_URL has a parameter that is not known: {name}; did you mean {near[0]}?")
    return name


def _sslmode(value: str) -> str:
    """As asyncpg and SQLAlchemy have it: a mode, or yes or no."""
    if value.lower() in _YES:
        return "require"
    return "disable" if value.lower() in {"false", "0", "no", "off"} else value


def _check_channel_binding(value: str) -> None:
    if value not in {"prefer", "disable"}:
        raise ValueError(
            "DATABASE_URL has channel_binding=require, which the driver cannot do: leave it out, and say sslmode=verify-full "
            "with sslrootcert to be sure of the server"
        )


def _seconds(value: str | None) -> float | None:
    if value is None:
        return None
    if not value.isdecimal() or len(value) > 6:
        raise ValueError("DATABASE_URL: connect_timeout is a number of seconds")
    return float(value) or None
