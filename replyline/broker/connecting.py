"""Making one connection to the right Redis: logged in, the master, and of our deployment."""

import asyncio
import re
from collections.abc import Sequence
from dataclasses import dataclass

import structlog

from replyline.broker.contract import BrokerUnavailable, CommandRefused
from replyline.broker.endpoint import Address, Endpoint, Login
from replyline.broker.wire import Answer, Reply, Wire, pack

log = structlog.get_logger(__name__)

_CONNECT_TIMEOUT_S = 5.0
_SETUP_TIMEOUT_S = 10.0
_SENTINEL_TIMEOUT_S = 2.0
_MAX_PENDING = 200_000
# A slot may be on its way from one node to another.
_MOST_MOVES = 3
_MOVED = re.compile(r"MOVED \d{1,5} (\S{0,255}):(\d{1,5})$")
_HASH_TAG = re.compile(r"\{[^}]+\}")


class LoginRefused(BrokerUnavailable):
    """Redis is there and does not let us in; somebody has to change a setting."""


class WrongDeployment(BrokerUnavailable):
    """The keys under our prefix belong to another deployment of Replyline."""


@dataclass(frozen=True, slots=True)
class Namespace:
    """The keys that are ours: all those under `prefix`, if they are of `deployment` (None: nobody asks)."""

    prefix: str = "bull"
    deployment: str | None = None

    @property
    def owner_key(self) -> str:
        """Where Redis knows whose keys these are."""
        return f"{self.prefix}:replyline:deployment"

    def claim(self) -> list[bytes]:
        """The commands that claim the keys for us if no deployment has them; the last answer names who has them."""
        if self.deployment is None:
            return []
        return [pack("SET", self.owner_key, self.deployment, "NX"), pack("GET", self.owner_key)]

    def check(self, answers: Sequence[Answer]) -> None:
        """Read the answers to `claim`. Raises BrokerUnavailable if one was refused, WrongDeployment if the keys are another's."""
        for answer in answers:
            if isinstance(answer, BrokerUnavailable | CommandRefused):
                raise BrokerUnavailable(f"Redis refuses us the key {self.owner_key}: {answer}") from answer
        owner = answers[-1] if answers else None
        if not isinstance(owner, bytes) or owner.decode(errors="replace") == self.deployment:
            return
        raise WrongDeployment(
            f"the queues under the prefix {self.prefix!r} of this Redis belong to another deployment of Replyline (another "
            "database): set REPLYLINE_PREFIX or another Redis database; if that deployment is gone for good, "
            f"`redis-cli DEL {self.owner_key}`"
        )


async def connect(
    endpoint: Endpoint, namespace: Namespace, setup: Sequence[bytes], *, reply_timeout_s: float
) -> tuple[Wire, list[Answer]]:
    """Connect to the master, log in, claim the keys, run `setup`; gives the wire and the answers to `setup`.

    Raises:
        BrokerUnavailable: Redis does not answer, is a replica, or refuses us (LoginRefused, WrongDeployment).
    """
    address = endpoint.address if endpoint.sentinels is None else await _ask_sentinels(endpoint)
    for _ in range(_MOST_MOVES):
        wire = await _open(endpoint, address, reply_timeout_s=reply_timeout_s)
        try:
            async with asyncio.timeout(_SETUP_TIMEOUT_S):
                return wire, await _set_up(wire, endpoint, namespace, setup)
        except _Moved as moved:
            await wire.close("the keys are on another node")
            address = Address(moved.address.host or address.host, moved.address.port)
        except TimeoutError as error:
            await wire.close("the login took too long")
            raise BrokerUnavailable(f"{endpoint} does not answer") from error
        except BaseException:
            await wire.close("the login did not succeed")
            raise
    raise BrokerUnavailable(f"{endpoint}: the nodes of the cluster do not agree where our keys are")


class _Moved(Exception):
    def __init__(self, address: Address) -> None:
        super().__init__(str(address))
        self.address = address


async def _open(endpoint: Endpoint, address: Address, *, reply_timeout_s: float) -> Wire:
    loop = asyncio.get_running_loop()

    def protocol() -> Wire:
        return Wire(reply_timeout_s=reply_timeout_s, max_pending=_MAX_PENDING)

    try:
        async with asyncio.timeout(_CONNECT_TIMEOUT_S):
            if endpoint.path is not None:
                _, wire = await loop.create_unix_connection(protocol, endpoint.path)
            else:
                tls = None if endpoint.tls is None else endpoint.tls.context()
                _, wire = await loop.create_connection(protocol, address.host, address.port, ssl=tls)
    except (OSError, TimeoutError) as error:
        # A certificate's error is an OSError too: its words say what is wrong.
        where = endpoint.path or str(address)
        raise BrokerUnavailable(f"cannot connect to Redis at {where}: {str(error) or type(error).__name__}") from error
    return wire


async def _set_up(wire: Wire, endpoint: Endpoint, namespace: Namespace, setup: Sequence[bytes]) -> list[Answer]:
    """Nothing else leaves before the login was answered: Redis closes the connection of a stranger who sends much."""
    await _log_in(wire, endpoint.login)
    (hello,) = await wire.send_group(pack("HELLO"), 1)
    _check_role(hello, endpoint, namespace)
    (selected,) = await wire.send_group(pack("SELECT", endpoint.database), 1)
    _let_in(selected, endpoint.login)
    await _stay_if_the_keys_are_here(wire, namespace)
    claim = namespace.claim()
    commands = [*claim, *setup]
    answers = await wire.send_group(b"".join(commands), len(commands)) if commands else []
    namespace.check(answers[: len(claim)])
    return answers[len(claim) :]


async def _stay_if_the_keys_are_here(wire: Wire, namespace: Namespace) -> None:
    """A node of a cluster tells which other one holds the slot of our keys."""
    try:
        await wire.send(pack("EXISTS", namespace.owner_key))
    except BrokerUnavailable as error:
        moved = _MOVED.match(str(error))
        if moved is None:
            raise
        raise _Moved(Address(moved[1], int(moved[2]))) from error
    except CommandRefused as error:
        raise LoginRefused(f"Redis does not let us read keys that begin with {namespace.prefix!r}: {error}") from error


async def _log_in(wire: Wire, login: Login) -> None:
    """Raises LoginRefused with what to change."""
    if login.password is not None:
        user = [login.username] if login.username else []
        (answer,) = await wire.send_group(pack("AUTH", *user, login.password), 1)
        _let_in(answer, login)


def _let_in(answer: Answer, login: Login) -> None:
    if isinstance(answer, BrokerUnavailable):
        raise answer
    if isinstance(answer, CommandRefused):
        raise LoginRefused(_refusal(str(answer), login)) from answer


def _refusal(said: str, login: Login) -> str:
    """What Redis said, and what to change; never the password."""
    if said.startswith("WRONGPASS"):
        user = f"the user {login.username!r}" if login.username else "the default user"
        return f"Redis does not take the password of {user}: correct REDIS_URL or REDIS_PASSWORD ({said})"
    if said.startswith("NOAUTH"):
        return f"Redis wants a password: put one into REDIS_URL or REDIS_PASSWORD ({said})"
    if "without any password configured" in said:
        return f"Redis has no password, and REDIS_URL or REDIS_PASSWORD gives one: take it out ({said})"
    return f"Redis refuses the login: {said}"


def _check_role(answer: Answer, endpoint: Endpoint, namespace: Namespace) -> None:
    """HELLO tells the server's mode and role (Redis 6 and newer); where it may not be asked, the first write tells.

    Raises:
        BrokerUnavailable: it is a replica, or a cluster that cannot hold our keys together.
    """
    if not isinstance(answer, list):
        return
    told = dict(zip(answer[::2], answer[1::2], strict=False)) if all(isinstance(n, bytes) for n in answer[::2]) else {}
    if told.get(b"mode") == b"sentinel":
        raise LoginRefused(f"{endpoint} is a sentinel: write redis+sentinel://HOST:PORT/SERVICE/0 in REDIS_URL")
    if told.get(b"mode") == b"cluster" and not _HASH_TAG.search(namespace.prefix):
        raise LoginRefused(
            f"{endpoint} is a Redis Cluster, whose nodes would each hold some of a queue's keys: set REPLYLINE_PREFIX with "
            "braces, as {bull}, so that one node holds all"
        )
    if told.get(b"role") not in {None, b"master"}:
        raise BrokerUnavailable(f"Redis at {endpoint} is a read-only replica")


async def _ask_sentinels(endpoint: Endpoint) -> Address:
    """The master's address, from the first sentinel that knows it."""
    sentinels = endpoint.sentinels
    if sentinels is None:
        raise ValueError("the endpoint has no sentinels")
    said: list[str] = []
    for address in sentinels.addresses:
        try:
            async with asyncio.timeout(_SENTINEL_TIMEOUT_S):
                master = await _ask_sentinel(endpoint, sentinels.login, address, sentinels.service)
        except TimeoutError:
            said.append(f"{address} does not answer")
            continue
        except BrokerUnavailable as error:
            said.append(f"{address}: {error}")
            continue
        if master is not None:
            return master
        said.append(f"{address} does not know it")
    raise BrokerUnavailable(f"no sentinel knows the master of {sentinels.service!r}: {'; '.join(said)}")


async def _ask_sentinel(endpoint: Endpoint, login: Login, address: Address, service: str) -> Address | None:
    wire = await _open(endpoint, address, reply_timeout_s=_SENTINEL_TIMEOUT_S)
    try:
        await _log_in(wire, login)
        (answer,) = await wire.send_group(pack("SENTINEL", "get-master-addr-by-name", service), 1)
    finally:
        await wire.close("asked")
    match answer:
        case [bytes() as host, bytes() as port]:
            return Address(host.decode(), int(port))
        case BrokerUnavailable() | CommandRefused():
            raise BrokerUnavailable(str(answer)) from answer
        case _:
            return None


def reply_of(answer: Answer) -> Reply:
    """The reply, or None where the command was refused: for what is good to know and nothing depends on."""
    return None if isinstance(answer, BrokerUnavailable | CommandRefused) else answer
