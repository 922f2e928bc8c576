"""Jobs of external queues by HTTP: the operator lists them and settles them."""

import uuid

from replyline.jobs import WHATSAPP_QR_SEND
from replyline.store.database import Database
from replyline.store.external import LOST
from tests.make import make_api_key
from tests.store.scene import Scene, make_scene
from tests.waiting import until
from tests.web.conftest import Serve


async def _sending(database: Database) -> tuple[Scene, uuid.UUID]:
    scene = await make_scene(database, "WHATSAPP_QR")
    await scene.say("Are you open?", "From 7 am.")
    await scene.route()
    (job_id,) = await scene.waiting(WHATSAPP_QR_SEND)
    return scene, job_id


async def test_a_reported_result_settles_a_job_once(database: Database, serve: Serve) -> None:
    scene, job_id = await _sending(database)
    async with serve(external_queues=WHATSAPP_QR_SEND) as door:
        (listed,) = (await door.operator("GET", "/v1/jobs/external")).entries
        assert (listed["id"], listed["queue"]) == (str(job_id), WHATSAPP_QR_SEND)
        assert (await door.operator("GET", "/v1/jobs/external?lost=true")).entries == []
        metrics = await door.call("GET", "/metrics")
        assert b'replyline_external_jobs{queue="whatsapp-qr-send",standing="open"} 1.0' in metrics.body
        body = {"outcome": "sent", "externalId": "3EB0AA"}
        assert (await door.operator("POST", f"/v1/jobs/{job_id}/result", json=body)).status == 204
        again = await door.operator("POST", f"/v1/jobs/{job_id}/result", json=body)
        assert again.problem == (409, "not_open")
    assert await scene.outbound() == [("From 7 am.", "SENT")]


async def test_health_says_which_external_jobs_are_late_or_lost_and_stays_ready(
    database: Database, serve: Serve
) -> None:
    scene, job_id = await _sending(database)
    await scene.value("UPDATE jobs SET run_at = now() - interval '1 hour' WHERE id = $1 RETURNING 1", job_id)
    async with serve(external_queues=WHATSAPP_QR_SEND, external_late_s=60) as door:

        async def says(what: str) -> bool:
            ready = await door.call("GET", "/health/ready")
            return ready.status == 200 and ready.json["external"] == what

        await until(lambda: says("1 jobs of whatsapp-qr-send are late"))
        await scene.value("UPDATE jobs SET wait_reason = $2 WHERE id = $1 RETURNING 1", job_id, LOST)
        await until(lambda: says("1 jobs of whatsapp-qr-send are lost"))


async def test_a_reported_failure_is_a_dead_letter(database: Database, serve: Serve) -> None:
    scene, job_id = await _sending(database)
    async with serve(external_queues=WHATSAPP_QR_SEND) as door:
        body = {"outcome": "failed", "error": "the phone is off"}
        assert (await door.operator("POST", f"/v1/jobs/{job_id}/result", json=body)).status == 204
    assert await scene.outbound() == [("From 7 am.", "FAILED")]
    assert (
        await scene.value("SELECT reason FROM all_jobs WHERE id = $1 AND state = 'DEAD'", job_id) == "external_failed"
    )


async def test_only_the_operator_and_only_for_external_queues(database: Database, serve: Serve) -> None:
    scene, job_id = await _sending(database)
    key = await make_api_key(database, scene.customer.id)
    body = {"outcome": "sent"}
    async with serve(external_queues=WHATSAPP_QR_SEND) as door:
        assert (await door.call("POST", f"/v1/jobs/{job_id}/result", key=key, json=body)).problem == (
            403,
            "operator_only",
        )
    async with serve() as door:
        for path in ("result", "again"):
            answer = await door.operator("POST", f"/v1/jobs/{job_id}/{path}", json=body if path == "result" else None)
            assert answer.problem == (409, "not_open")
    assert await scene.outbound() == [("From 7 am.", "SENDING")]
