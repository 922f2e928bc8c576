"""Jobs of BullMQ for Node are worked by us, ours by it, and its tools read what we leave."""

import json

from replyline.broker import Broker, Completed, Failed, Outcome, Retry
from replyline.broker.contract import ActiveJob
from tests.broker.conformance.reference import ask, line, need_node, node
from tests.broker.scene import QUEUE, Desk, at_work, job
from tests.waiting import until


async def test_jobs_that_node_adds_are_worked_by_us(broker: Broker, valkey_url: str) -> None:
    need_node()
    desk = Desk(lambda _: Completed(b'{"by":"us"}'))
    async with at_work(broker.worker(QUEUE, desk, concurrency=3, name="w")):
        await ask("produce", valkey_url, QUEUE)
        await until(lambda: len(desk.seen) == 5)

    by_id = {given.id: given for given in desk.seen}
    assert json.loads(by_id["plain"].data) == {"text": "grüß dich"}
    assert [by_id[job_id].priority for job_id in ("plain", "prio", "later")] == [0, 5, 5]
    assert by_id["later"].processed_ms - by_id["later"].timestamp_ms >= 200
    assert (await broker.counts(QUEUE)).completed == 5


async def test_jobs_that_we_publish_are_worked_by_node(broker: Broker, valkey_url: str) -> None:
    need_node()
    await broker.publish(
        [job("plain", priority=0), job("prio", data='{"text":"grüß dich"}'.encode()), job("later", delay_ms=50)]
    )

    seen = await ask("consume", valkey_url, QUEUE)

    assert isinstance(seen, list)
    told = {given["id"]: given for given in seen if isinstance(given, dict)}
    assert told["prio"]["data"] == {"text": "grüß dich"}
    assert (told["prio"]["priority"], told["prio"]["attempts"], told["plain"]["name"]) == (3, 4, "answer")
    assert await broker.states(QUEUE, ["plain", "prio", "later"]) == ["completed"] * 3


async def test_node_retries_and_keeps_ours_as_we_asked(broker: Broker, valkey_url: str) -> None:
    need_node()
    await broker.publish([job("a")])

    read = await ask("read", valkey_url, QUEUE)

    assert isinstance(read, dict)
    [shown] = read["jobs"] if isinstance(read["jobs"], list) else []
    assert isinstance(shown, dict)
    assert (shown["attempts"], shown["priority"], shown["attemptsMade"]) == (4, 3, 0)


async def test_nodes_queue_events_hear_what_we_do(broker: Broker, valkey_url: str) -> None:
    need_node()
    ends: dict[str, Outcome] = {"good": Completed(b'{"by":"us"}'), "bad": Failed("no"), "slow": Retry(60_000, "wait")}

    def decide(given: ActiveJob) -> Outcome:
        return ends[given.id]

    heard: list[object] = []
    async with node("listen", valkey_url, QUEUE) as listener:
        assert await line(listener) == {"ready": True}
        async with at_work(broker.worker(QUEUE, Desk(decide), concurrency=1, name="w")):
            await broker.publish([job("good"), job("bad"), job("slow")])
            while len(heard) < 6:
                heard.append(await line(listener))

    assert {"event": "completed", "jobId": "good", "returnvalue": {"by": "us"}} in heard
    assert {"event": "failed", "jobId": "bad", "reason": "no"} in heard
    assert {"event": "delayed", "jobId": "slow"} in heard


async def test_nodes_queue_reads_the_jobs_we_ended(broker: Broker, valkey_url: str) -> None:
    need_node()
    ends: dict[str, Outcome] = {
        "good": Completed(b'{"by":"us"}'),
        "bad": Failed("no", "stack"),
        "slow": Retry(60_000, "wait", "stack"),
    }

    async def ended() -> bool:
        return await broker.states(QUEUE, list(ends)) == ["completed", "failed", "delayed"]

    async with at_work(broker.worker(QUEUE, Desk(lambda given: ends[given.id]), concurrency=1, name="w")):
        await broker.publish([job("good"), job("bad"), job("slow")])
        await until(ended)
    await broker.pause(QUEUE)
    read = await ask("read", valkey_url, QUEUE)

    assert isinstance(read, dict)
    assert isinstance(read["jobs"], list)
    told = {given["id"]: given for given in read["jobs"] if isinstance(given, dict)}
    assert (told["good"]["returnvalue"], told["good"]["processedBy"]) == ({"by": "us"}, "w")
    assert (told["bad"]["failedReason"], told["bad"]["stacks"], told["bad"]["attemptsMade"]) == ("no", 1, 1)
    assert (told["slow"]["failedReason"], told["slow"]["attemptsMade"]) == ("wait", 1)
    assert read["paused"] is True
    counts = read["counts"]
    assert isinstance(counts, dict)
    assert [counts[state] for state in ("completed", "failed", "delayed", "active")] == [1, 1, 1, 0]
