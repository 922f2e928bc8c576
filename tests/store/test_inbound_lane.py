"""The inbound lane: one message of a sender has a job, the others wait behind it, and none is forgotten."""

import asyncio
import uuid

import asyncpg
import msgspec
import pytest

from replyline.ids import new_id
from replyline.jobs import IncomingMessageJob
from replyline.produced import Produced
from replyline.store.database import Database
from replyline.store.moves import Moves
from replyline.store.moves.accept import Accept, Accepted
from replyline.store.moves.adopt import adopt
from replyline.store.moves.dead_letters import discard, replay
from replyline.store.moves.give_up import Consequence, GivenUp
from replyline.store.moves.inbound_lane import MOST_TAKEN, Receive, free_lanes, go_on_unless_locked
from replyline.store.moves.receive import Received, receive
from replyline.store.moves.work import Run
from replyline.store.outbox import Outbox
from replyline.store.sweep import due_jobs
from replyline.store.timeline import trace
from tests.store.scene import Scene, failure, make_scene, run_of
from tests.waiting import until

_BEHIND = (
    "SELECT count(*) FROM all_jobs WHERE run_at = 'infinity' AND wait_reason = 'behind_earlier' AND state = 'WAITING'"
)


async def _texts(scene: Scene) -> list[str]:
    return [row["content"] for row in await scene.fetch("SELECT content FROM messages ORDER BY seq")]


async def _flood(scene: Scene, count: int) -> list[Accepted]:
    return await asyncio.gather(*(scene.accept(f"m{number}") for number in range(count)))


async def _run_published(scene: Scene) -> int:
    """Run what was published in the order of its publication, until nothing more is; how many runs that took."""
    runs = 0
    while runs < len(scene.published):
        job = scene.published[runs]
        runs += 1
        if job.queue == "incoming-messages":
            payload = msgspec.json.decode(job.payload, type=IncomingMessageJob)
            assert await scene.moves.receive(Receive(run_of(job.id), payload)) is not Received.REFUSED
    return sum(job.queue == "incoming-messages" for job in scene.published)


async def _incoming(scene: Scene, job_id: uuid.UUID) -> IncomingMessageJob:
    job = await scene.job(job_id)
    assert isinstance(job, IncomingMessageJob)
    return job


async def _give_up(scene: Scene, job_id: uuid.UUID) -> None:
    assert await scene.moves.give_up(GivenUp(run_of(job_id), "broken", failure(), Consequence()))


async def test_only_the_first_message_of_a_sender_has_a_job_in_bullmq(database: Database) -> None:
    scene = await make_scene(database)
    accepted = await _flood(scene, 20)
    assert [job.id for job in scene.published] == [accepted[0].job_id]
    assert await scene.value(_BEHIND) == 19


async def test_a_run_takes_those_that_wait_behind_it_in_their_order(database: Database) -> None:
    scene = await make_scene(database)
    accepted = await _flood(scene, 20)
    assert await scene.receive(accepted[0]) is Received.SAVED
    assert await _texts(scene) == [f"m{number}" for number in range(20)]
    assert await scene.value("SELECT count(*) FROM usage_logs WHERE kind = 'message_received'") == 20
    assert await scene.value("SELECT count(*) FROM all_jobs WHERE queue = 'ai-processing'") == 1


async def test_a_long_lane_goes_on_with_one_job_after_the_other(database: Database) -> None:
    scene = await make_scene(database)
    count = 3 * MOST_TAKEN + 7
    await _flood(scene, count)
    assert await _run_published(scene) == 4
    assert await _texts(scene) == [f"m{number}" for number in range(count)]


async def test_whichever_job_of_a_lane_runs_the_front_is_received_first(database: Database) -> None:
    scene = await make_scene(database)
    first, second, third = await _flood(scene, 3)
    assert await scene.receive(third) is Received.SAVED
    assert await scene.receive(first) is Received.ALREADY_DONE
    assert await scene.receive(second) is Received.ALREADY_DONE
    assert await _texts(scene) == ["m0", "m1", "m2"]


async def test_a_run_of_a_message_far_behind_waits_for_its_turn(database: Database) -> None:
    scene = await make_scene(database)
    accepted = await _flood(scene, MOST_TAKEN + 2)
    assert await scene.receive(accepted[-1]) is Received.BEHIND_EARLIER
    assert len(await _texts(scene)) == MOST_TAKEN
    await _run_published(scene)
    assert await _texts(scene) == [f"m{number}" for number in range(MOST_TAKEN + 2)]


async def test_a_run_that_waited_while_the_whole_front_was_received_hands_its_lane_on(database: Database) -> None:
    scene = await make_scene(database)
    accepted = await _flood(scene, MOST_TAKEN + 2)
    # The last two have jobs of their own, as those have that came while the lane was locked: nobody releases them.
    late = [one.job_id for one in accepted[-2:]]
    await scene.value("UPDATE jobs SET run_at = now(), wait_reason = NULL WHERE id = ANY($1)", late)
    first, last = [Receive(run_of(job_id), await _incoming(scene, job_id)) for job_id in (accepted[0].job_id, late[1])]
    async with database.transaction() as other:
        assert await receive(other, [first], Outbox()) == [Received.SAVED]
        waiting = asyncio.create_task(scene.moves.receive(last))
        blocked = (
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()"
        )
        await until(lambda: scene.value(blocked), what="a run that waits for the front")
    assert await waiting is Received.BEHIND_EARLIER
    assert scene.published[-1].id == late[1]
    again = msgspec.json.decode(scene.published[-1].payload, type=IncomingMessageJob)
    assert await scene.moves.receive(Receive(run_of(late[1]), again)) is Received.SAVED
    assert await _texts(scene) == [f"m{number}" for number in range(MOST_TAKEN + 2)]


async def test_doors_of_several_processes_leave_no_message_behind(database: Database) -> None:
    scene = await make_scene(database)
    doors = [Moves(database, scene.published_by) for _ in range(4)]
    for _ in range(6):
        jobs = [_job(scene, f"x{number}") for number in range(40)]
        accepting = [doors[number % 4].accept(Accept(job, 5, None)) for number, job in enumerate(jobs)]
        running = asyncio.create_task(_run_published(scene))
        await asyncio.gather(*accepting)
        await running
    await _run_published(scene)
    assert await scene.value("SELECT count(*) FROM all_jobs WHERE state = 'WAITING' AND lane_key IS NOT NULL") == 0
    assert await scene.value("SELECT count(*) FROM messages") == 240


def _job(scene: Scene, text: str) -> IncomingMessageJob:
    return IncomingMessageJob(
        customer_id=scene.customer.id,
        trace_id=new_id(),
        message_id=new_id(),
        chatbot_id=scene.chatbot.id,
        channel_id=scene.channel.id,
        channel=scene.channel.kind,
        external_user_id="ana",
        content=text,
    )


async def test_a_message_that_comes_while_the_lane_is_received_has_a_job_of_its_own(database: Database) -> None:
    scene = await make_scene(database)
    first = await scene.accept("m0")
    async with database.transaction() as receiving:
        await receiving.execute("SELECT 1 FROM jobs WHERE id = $1 FOR UPDATE", first.job_id)
        second = await asyncio.wait_for(scene.accept("m1"), 5)
    assert [job.id for job in scene.published] == [first.job_id, second.job_id]


async def test_a_repeated_message_holds_up_nobody_who_came_with_it(database: Database) -> None:
    scene = await make_scene(database)
    await scene.hear("m0", external_id="wamid.0")
    again, other = await asyncio.gather(
        scene.accept("m0", external_id="wamid.0"), scene.accept("m1", external_id="wamid.1")
    )
    assert again.duplicate
    assert scene.published[-1].id == other.job_id


async def test_a_message_that_cannot_be_saved_hurts_nobody_behind_it(database: Database) -> None:
    scene = await make_scene(database)
    accepted = await _flood(scene, 5)
    await scene.value(
        "UPDATE jobs SET payload = jsonb_set(payload, '{messageId}', 'null') WHERE id = $1", accepted[2].job_id
    )
    assert await scene.receive(accepted[0]) is Received.SAVED
    assert await scene.receive(accepted[1]) is Received.SAVED
    with pytest.raises(asyncpg.NotNullViolationError):
        await scene.receive(accepted[2])
    assert await scene.receive(accepted[4]) is Received.BEHIND_EARLIER
    await _give_up(scene, accepted[2].job_id)
    assert accepted[3].job_id in {job.id for job in scene.published}
    assert await scene.receive(accepted[3]) is Received.SAVED
    assert await _texts(scene) == ["m0", "m1", "m3", "m4"]


async def test_a_message_that_cannot_be_read_is_left_to_a_run_of_its_own(database: Database) -> None:
    scene = await make_scene(database)
    accepted = await _flood(scene, 4)
    await scene.value("UPDATE jobs SET payload = '[]' WHERE id = $1", accepted[1].job_id)
    assert await scene.receive(accepted[0]) is Received.SAVED
    assert await _texts(scene) == ["m0", "m2", "m3"]
    published = [job.id for job in scene.published if job.queue == "incoming-messages"]
    assert published == [accepted[0].job_id, accepted[1].job_id]
    assert await scene.value(_BEHIND) == 0


async def test_a_dead_head_lets_the_lane_go_on(database: Database) -> None:
    scene = await make_scene(database)
    accepted = await _flood(scene, 3)
    await _give_up(scene, accepted[0].job_id)
    assert [job.id for job in scene.published if job.queue == "incoming-messages"] == [
        accepted[0].job_id,
        accepted[1].job_id,
    ]
    assert await scene.receive(accepted[1]) is Received.SAVED
    assert await _texts(scene) == ["m1", "m2"]


async def test_a_replayed_head_is_received_before_what_waits(database: Database) -> None:
    scene = await make_scene(database)
    accepted = await _flood(scene, 3)
    await _give_up(scene, accepted[0].job_id)
    outbox = Outbox()
    async with database.transaction() as connection:
        await replay(connection, accepted[0].job_id, customer_id=None, outbox=outbox)
    assert [job.id for job in outbox.jobs] == [accepted[0].job_id]
    assert await scene.receive(accepted[1]) is Received.SAVED
    assert await scene.receive(accepted[0]) is Received.ALREADY_DONE
    assert await _texts(scene) == ["m0", "m1", "m2"]


async def test_a_discarded_head_holds_up_nothing(database: Database) -> None:
    scene = await make_scene(database)
    accepted = await _flood(scene, 2)
    await _give_up(scene, accepted[0].job_id)
    async with database.transaction() as connection:
        await discard(connection, accepted[0].job_id, customer_id=None)
    assert await scene.receive(accepted[1]) is Received.SAVED


async def test_a_lane_whose_head_vanished_is_found(database: Database) -> None:
    scene = await make_scene(database)
    accepted = await _flood(scene, 3)
    await asyncio.gather(*(scene.accept(f"b{number}", sender="bob") for number in range(2)))
    outbox = Outbox()
    async with database.transaction() as connection:
        assert await free_lanes(connection, outbox) == 0
        await connection.execute("DELETE FROM jobs WHERE id = $1", accepted[0].job_id)
        assert await free_lanes(connection, outbox) == 1
    assert [job.id for job in outbox.jobs] == [accepted[1].job_id]


async def test_the_sweeper_sees_the_head_of_a_lane_and_not_what_waits_behind_it(database: Database) -> None:
    scene = await make_scene(database)
    accepted = await _flood(scene, 5)
    await scene.value("UPDATE jobs SET run_at = run_at - interval '1 hour'")
    async with database.connection() as connection:
        due = await due_jobs(connection, grace_s=1, after=None, limit=100)
    assert [job.id for job in due] == [accepted[0].job_id]


async def test_a_foreign_job_joins_the_lane_of_its_sender(database: Database) -> None:
    scene = await make_scene(database)
    await scene.accept("m0", sender="ana")
    foreign = IncomingMessageJob(
        chatbot_id=scene.chatbot.id, external_user_id="ana", content="foreign", channel=scene.channel.kind
    )
    async with database.transaction() as connection:
        adopted = await adopt(connection, "17", Produced(foreign, str(scene.chatbot.id), None))
    assert await scene.moves.receive(Receive(run_of(adopted.job_id), adopted.job)) is Received.SAVED
    assert await _texts(scene) == ["m0", "foreign"]


async def test_the_timeline_says_that_a_message_waits_behind_an_earlier_one(database: Database) -> None:
    scene = await make_scene(database)
    first, second = await _flood(scene, 2)
    waiting = await trace(database, second.message_id, customer_id=scene.customer.id)
    assert waiting is not None
    (job,) = waiting.jobs
    assert (job.state, job.wait_reason, job.run_at) == ("WAITING", "behind_earlier", None)
    assert await scene.receive(first) is Received.SAVED
    done = await trace(database, second.message_id, customer_id=scene.customer.id)
    assert done is not None
    received = next(job for job in done.jobs if job.id == second.job_id)
    assert (received.state, received.wait_reason) == ("DONE", None)
    assert received.run_at == received.created_at
    assert [wait.reason for wait in received.waits] == ["behind_earlier"]


async def test_two_runs_of_different_jobs_of_a_lane_at_once_save_each_message_once(database: Database) -> None:
    scene = await make_scene(database)
    accepted = await _flood(scene, 10)
    workers = [Moves(database, scene.published_by) for _ in range(3)]
    jobs = [await scene.job(one.job_id) for one in accepted]
    runs = [Run(one.job_id, run_of(one.job_id).started_at, "w") for one in accepted]
    await asyncio.gather(
        *(
            workers[number % 3].receive(Receive(run, job))  # type: ignore[arg-type]  # their queue says so
            for number, (run, job) in enumerate(zip(runs, jobs, strict=True))
        )
    )
    assert await _texts(scene) == [f"m{number}" for number in range(10)]


async def test_the_door_does_not_wait_for_a_row_of_a_lane_that_another_process_has_locked(database: Database) -> None:
    scene = await make_scene(database)
    accepted = await _flood(scene, 3)
    lane = str(await scene.value("SELECT lane_key FROM all_jobs WHERE id = $1", accepted[1].job_id))
    await scene.fetch("UPDATE jobs SET state = 'DONE', finished_at = now() WHERE id = $1", accepted[0].job_id)
    outbox = Outbox()
    async with database.transaction() as other, database.transaction() as door:
        await other.fetch("SELECT 1 FROM jobs WHERE lane_key = $1 AND finished_at IS NULL FOR UPDATE", lane)
        await door.execute("SET LOCAL lock_timeout = 100")
        await go_on_unless_locked(door, [lane], outbox)
    assert outbox.jobs == []
