"""Redis as others run it: with users, TLS, sentinels, replicas, a cluster, another prefix, and somebody else's queues in it."""

import asyncio
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path

import pytest

from replyline.app import open_app
from replyline.broker import Broker, BrokerUnavailable, CommandRefused, LoginRefused, WrongDeployment
from replyline.broker.scripts import SCRIPTS
from replyline.broker.wire import _told
from replyline.settings import SettingsError, load
from replyline.store.database import Database
from replyline.store.deployment import deployment_id
from tests.broker.scene import QUEUE, Client, Desk, at_work, job
from tests.broker.servers import Certificates, ask, free_port, redis_server
from tests.running import settings_for
from tests.waiting import until

DOCS = Path(__file__).parent.parent.parent / "docs" / "redis.md"


@asynccontextmanager
async def opened(url: str, **options: str) -> AsyncIterator[Broker]:
    """An open broker."""
    broker = Broker(url, **options)  # type: ignore[arg-type]  # prefix and deployment are strings
    await broker.open()
    try:
        yield broker
    finally:
        await broker.close()


async def works(broker: Broker, *ids: str) -> bool:
    """Publish jobs and work them; whether all were seen."""
    desk = Desk()
    async with at_work(broker.worker(QUEUE, desk, concurrency=4, name="w")):
        await broker.publish([job(one) for one in ids])
        await until(lambda: set(ids) <= set(desk.ids), timeout_s=20)
    return True


async def test_a_wrong_password_is_named_as_such(tmp_path: Path) -> None:
    async with redis_server(tmp_path, "requirepass right") as port:
        async with opened(f"redis://:wrong@127.0.0.1:{port}") as broker:
            assert isinstance(broker.failure, LoginRefused)
            with pytest.raises(BrokerUnavailable, match="does not take the password of the default user") as refused:
                await broker.ping()
            assert "wrong@" not in str(refused.value)
        async with opened(f"redis://127.0.0.1:{port}") as broker:
            with pytest.raises(BrokerUnavailable, match="wants a password"):
                await broker.ping()
        async with opened(f"redis://:right@127.0.0.1:{port}") as broker:
            assert await works(broker, "a")


async def test_a_password_that_nobody_asks_for_is_named_as_such(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as port, opened(f"redis://:any@127.0.0.1:{port}") as broker:
        with pytest.raises(BrokerUnavailable, match="has no password"):
            await broker.ping()


def _documented_user() -> str:
    found = re.search(r"^ACL SETUSER replyline (.*?)^```", DOCS.read_text(), re.MULTILINE | re.DOTALL)
    assert found is not None
    return " ".join(found[1].replace("\\", " ").split())


async def test_the_documented_acl_user_can_do_all_that_is_needed_and_no_more_keys(tmp_path: Path) -> None:
    async with redis_server(tmp_path) as port:
        rules = _documented_user().replace(">PASSWORD", ">secret").split()
        assert await ask(port, "ACL", "SETUSER", "replyline", *rules) == b"OK"
        async with opened(f"redis://replyline:secret@127.0.0.1:{port}") as broker:
            assert await works(broker, "a", "b")
            await _use_everything(broker)
            with pytest.raises(CommandRefused, match="NOPERM"):
                await broker.command("GET", "somebody-elses")


def test_the_documented_acl_user_may_run_every_command_of_every_script() -> None:
    called = {
        found.lower()
        for script in SCRIPTS
        for found in re.findall(r"""(?:rcall|redis\.p?call)\(\s*["'](\w+)["']""", script.text.decode())
    }
    assert called
    assert called - {word.removeprefix("+") for word in _documented_user().split()} == set()


async def test_a_user_without_dangerous_commands_is_enough(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path, "user app on >secret ~* &* +@all -@dangerous") as port,
        opened(f"redis://app:secret@127.0.0.1:{port}") as broker,
    ):
        assert await works(broker, "a")


async def _use_everything(broker: Broker) -> None:
    """What the processes do besides working: looking, steering, clearing away."""
    await broker.set_epoch("e")
    assert await broker.epoch() == "e"
    await broker.pause(QUEUE)
    await broker.resume(QUEUE)
    await broker.publish([job("later", delay_ms=60_000), job("gone")])
    assert (await broker.states(QUEUE, ["later"]))[0] == "delayed"
    assert await broker.promote(QUEUE, "later")
    assert await broker.oldest_waiting_ms(QUEUE) is not None
    assert await broker.remove(QUEUE, "gone")
    assert await broker.trim(QUEUE, keep=0) == 1
    await broker.drain(QUEUE)
    await broker.counts(QUEUE)
    assert await broker.watch.remembers_since() is not None
    assert (await broker.watch.ended_since(QUEUE, await broker.watch.newest_event(QUEUE)))[0] == []
    assert [found.attempts for found in await broker.watch.finished(QUEUE, ["gone"])] == [0]
    await broker.watch.clean(QUEUE, "completed", keep_s=3600)
    await broker.live.begin("c", "m")
    await broker.live.append("c", "m", "Hello")
    await broker.live.end("c", "m")


async def test_tls_with_a_client_certificate_works_and_without_one_is_refused(tmp_path: Path) -> None:
    made = Certificates(tmp_path / "certificates")
    port = free_port()
    options = [
        *("port 0", f"tls-port {port}", "tls-auth-clients yes", f"tls-ca-cert-file {made.path('ca.pem')}"),
        *(f"tls-cert-file {made.path('server.pem')}", f"tls-key-file {made.path('server.key')}"),
    ]
    ca = f"ssl_ca_certs={made.path('ca.pem')}"
    own = f"ssl_certfile={made.path('client.pem')}&ssl_keyfile={made.path('client.key')}"
    async with redis_server(tmp_path / "server", *options, port=port):
        async with opened(f"rediss://127.0.0.1:{port}?{ca}&{own}") as broker:
            assert await works(broker, "a")
        async with opened(f"rediss://127.0.0.1:{port}?{ca}") as broker:
            assert isinstance(broker.failure, BrokerUnavailable)
        async with opened(f"rediss://127.0.0.1:{port}?{own}") as broker:
            with pytest.raises(BrokerUnavailable, match="certificate verify failed"):
                await broker.ping()


@pytest.mark.parametrize(
    ("parameter", "hint"), [("ssl_certfiles=x", "did you mean ssl_certfile"), ("ssl_keyfile=x", "without ssl_certfile")]
)
def test_a_parameter_that_would_be_ignored_is_refused(parameter: str, hint: str) -> None:
    with pytest.raises(ValueError, match=hint):
        Broker(f"rediss://cache?{parameter}")


@asynccontextmanager
async def _watched_pair(tmp_path: Path) -> AsyncIterator[tuple[str, list[int]]]:
    """A master, its replica and a sentinel that fails over after half a second; the URL, and the ports of the two."""
    async with redis_server(tmp_path / "a", "requirepass pw", "masterauth pw") as first:
        replica = ("requirepass pw", "masterauth pw", f"replicaof 127.0.0.1 {first}")
        async with redis_server(tmp_path / "b", *replica) as second:
            watch = [
                *(f"sentinel monitor shop 127.0.0.1 {first} 1", "sentinel auth-pass shop pw"),
                *("sentinel down-after-milliseconds shop 500", "sentinel failover-timeout shop 2000"),
                "requirepass watcher",
            ]
            async with redis_server(tmp_path / "s", *watch, sentinel=True) as port:
                await until(lambda: _knows_replica(port), timeout_s=30)
                hosts = f"127.0.0.1:{free_port()},127.0.0.1:{port}"
                yield f"redis+sentinel://:pw@{hosts}/shop/0?sentinel_password=watcher", [first, second]


async def _knows_replica(sentinel: int) -> bool:
    known = await ask(sentinel, "SENTINEL", "REPLICAS", "shop", password="watcher")
    return isinstance(known, list) and len(known) == 1


async def test_sentinels_lead_to_the_master_and_after_a_failover_to_the_new_one(tmp_path: Path) -> None:
    async with _watched_pair(tmp_path) as (url, (first, second)), opened(url) as broker:
        desk = Desk()
        async with at_work(broker.worker(QUEUE, desk, concurrency=2, name="w")):
            await broker.publish([job("before")])
            await until(lambda: "before" in desk.ids, timeout_s=20)
            await until(lambda: _in_step(second), timeout_s=20)
            with pytest.raises(ConnectionResetError):
                await ask(first, "SHUTDOWN", "NOSAVE", password="pw")
            await until(lambda: _takes(broker, "after"), timeout_s=40)
            await until(lambda: "after" in desk.ids, timeout_s=20)
        assert await ask(second, "HEXISTS", f"bull:{QUEUE}:after", "finishedOn", password="pw") == 1


async def _in_step(replica: int) -> bool:
    match await ask(replica, "ROLE", password="pw"):
        case [b"slave", _, _, b"connected", _]:
            return True
        case _:
            return False


async def _takes(broker: Broker, job_id: str) -> bool:
    try:
        await broker.publish([job(job_id)])
    except BrokerUnavailable:
        return False
    return True


async def test_a_service_that_no_sentinel_knows_is_named(tmp_path: Path) -> None:
    async with redis_server(tmp_path, sentinel=True) as port:
        async with opened(f"redis+sentinel://127.0.0.1:{port}/nobody") as broker:
            await until(lambda: "no sentinel knows the master of 'nobody'" in str(broker.failure), timeout_s=20)
        async with opened(f"redis://127.0.0.1:{port}") as broker:
            await until(lambda: "is a sentinel" in str(broker.failure), timeout_s=20)


async def test_a_fixed_address_that_became_a_replica_counts_as_away_until_it_is_a_master_again(tmp_path: Path) -> None:
    async with (
        redis_server(tmp_path / "a") as port,
        redis_server(tmp_path / "b") as other,
        opened(f"redis://127.0.0.1:{port}") as broker,
    ):
        await ask(port, "REPLICAOF", "127.0.0.1", str(other))
        await until(lambda: _is_called_a_replica(broker), timeout_s=20)
        await ask(port, "REPLICAOF", "NO", "ONE")
        await until(lambda: _takes(broker, "a"), timeout_s=20)


async def _is_called_a_replica(broker: Broker) -> bool:
    try:
        await broker.publish([job("lost")])
    except BrokerUnavailable as error:
        return "read-only replica" in str(error)
    return False


@asynccontextmanager
async def _cluster(tmp_path: Path) -> AsyncIterator[list[int]]:
    """Two nodes, which have half of the slots each."""
    options = ("cluster-enabled yes", "cluster-node-timeout 2000")
    async with redis_server(tmp_path / "a", *options) as a, redis_server(tmp_path / "b", *options) as b:
        await ask(a, "CLUSTER", "ADDSLOTSRANGE", "0", "8191")
        await ask(b, "CLUSTER", "ADDSLOTSRANGE", "8192", "16383")
        await ask(a, "CLUSTER", "MEET", "127.0.0.1", str(b))
        for node in (a, b):
            await until(partial(_is_ok, node), timeout_s=30)
        yield [a, b]


async def _is_ok(node: int) -> bool:
    info = await ask(node, "CLUSTER", "INFO")
    return isinstance(info, bytes) and b"cluster_state:ok" in info and b"cluster_known_nodes:2" in info


async def test_a_cluster_holds_a_prefix_with_braces_on_one_node_whichever_is_named(tmp_path: Path) -> None:
    async with _cluster(tmp_path) as ports:
        for port in ports:
            async with opened(f"redis://127.0.0.1:{port}", prefix="{shop}") as broker:
                assert await works(broker, f"job-{port}-x")
                await _use_everything(broker)
                assert (await broker.counts(QUEUE)).completed >= 1
        async with opened(f"redis://127.0.0.1:{ports[0]}") as broker:
            assert isinstance(broker.failure, LoginRefused)
            assert "REPLYLINE_PREFIX with braces" in str(broker.failure)


async def test_a_slot_that_moves_to_another_node_is_followed(tmp_path: Path) -> None:
    async with _cluster(tmp_path) as ports, opened(f"redis://127.0.0.1:{ports[0]}", prefix="{shop}") as broker:
        await broker.ping()
        slot = await ask(ports[0], "CLUSTER", "KEYSLOT", "{shop}")
        assert isinstance(slot, int)
        giver, taker = ports if slot < 8192 else reversed(ports)
        new_owner = await ask(taker, "CLUSTER", "MYID")
        assert isinstance(new_owner, bytes)
        await ask(giver, "FLUSHALL")
        for node in (taker, giver):
            assert await ask(node, "CLUSTER", "SETSLOT", str(slot), "NODE", new_owner.decode()) == b"OK"
        await until(lambda: _takes(broker, "moved"), timeout_s=20)
        assert await ask(taker, "EXISTS", "{shop}:" + f"{QUEUE}:moved") == 1


async def test_two_prefixes_share_a_redis_without_meeting(valkey_url: str, redis: Client) -> None:
    async with opened(valkey_url, prefix="one") as one, opened(valkey_url, prefix="{two}") as two:
        assert await works(one, "a")
        assert await works(two, "b")
        assert await redis.exists(f"one:{QUEUE}:a", "{two}:" + f"{QUEUE}:b") == 2
    assert [key for key in await redis.keys("*") if not key.startswith(("one:", "{two}:"))] == []


async def test_another_deployment_on_the_same_prefix_is_refused(valkey_url: str, redis: Client) -> None:
    async with opened(valkey_url, deployment="first") as first, opened(valkey_url, deployment="second") as second:
        assert isinstance(second.failure, WrongDeployment)
        with pytest.raises(BrokerUnavailable, match="belong to another deployment"):
            await second.publish([job("a")])
        assert await works(first, "b")
    async with opened(valkey_url, deployment="second", prefix="own") as second:
        assert await works(second, "a")
    assert await redis.get("bull:replyline:deployment") == "first"


async def test_a_wiped_redis_is_claimed_again_by_who_finds_it_empty(valkey_url: str, redis: Client) -> None:
    async with opened(valkey_url, deployment="first") as first:
        await redis.flushdb()
        await first.set_epoch("e")
        async with opened(valkey_url, deployment="second") as second:
            assert isinstance(second.failure, WrongDeployment)


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        (
            "ERR Error running script (call to f_0123456789abcdef): @user_script:30: @user_script: 30: -READONLY You can't "
            "write against a read only replica.",
            "READONLY",
        ),
        (
            "ERR Error running script (call to f_0123456789abcdef): @user_script:30: @user_script: 30: -OOM command not "
            "allowed when used memory > 'maxmemory'.",
            "OOM",
        ),
        (
            "ERR Error running script (call to f_0123456789abcdef): @user_script:7: @user_script: 7: -MISCONF Redis is "
            "configured to save RDB snapshots, but it is currently not able to persist on disk.",
            "MISCONF",
        ),
        ("READONLY You can't write against a read only replica. script: 0123, on @user_script:1.", "READONLY"),
        ("WRONGTYPE Operation against a key holding the wrong kind of value", "WRONGTYPE"),
    ],
)
def test_the_error_inside_a_script_is_read_in_the_words_of_redis_6_and_7(said: str, meant: str) -> None:
    import hiredis  # noqa: PLC0415  only here: the rest looks at Redis through the broker

    assert _told(hiredis.ReplyError(said)).startswith(meant)


async def test_a_server_that_answers_as_redis_6_2_does_while_it_is_full_is_asked_again() -> None:
    error = (
        b"-ERR Error running script (call to f_00): @user_script:30: @user_script: 30: -OOM command not allowed when used "
        b"memory > 'maxmemory'.\r\n"
    )
    full = True

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while header := await reader.readline():
            words = []
            for _ in range(int(header[1:])):
                size = int((await reader.readline())[1:])
                words.append((await reader.readexactly(size + 2))[:-2])
            writer.write(error if words[0] == b"EVALSHA" and full else b"+OK\r\n")
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with opened(f"redis://127.0.0.1:{port}") as broker:
        with pytest.raises(BrokerUnavailable, match="OOM"):
            await broker.publish([job("a")])
        full = False
        await broker.publish([job("a")])
    server.close()
    await server.wait_closed()


async def test_an_app_of_another_deployment_does_not_start_on_queues_that_are_taken(
    valkey_url: str, database_url: str, database: Database, redis: Client
) -> None:
    settings = settings_for(valkey_url, database_url)
    async with open_app(settings):
        owner = await deployment_id(database)
        assert await redis.get("bull:replyline:deployment") == owner
    async with database.connection() as connection:
        await connection.execute("UPDATE deployment SET id = gen_random_uuid()")
    with pytest.raises(SettingsError, match="belong to another deployment"):
        async with open_app(settings):
            pass
    async with open_app(settings_for(valkey_url, database_url, prefix="other")) as app:
        await app.broker.ping()


@pytest.mark.parametrize("prefix", ["", "a b", ":a", "a:", "{a}{b}", "{}", "a" * 65, "ä"])
def test_a_prefix_that_redis_or_bullmq_would_misread_is_refused(prefix: str) -> None:
    with pytest.raises(SettingsError, match="a prefix is 1 to 64"):
        load(prefix=prefix)
