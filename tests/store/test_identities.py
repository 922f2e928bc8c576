"""Who is who: a person's names lead to one contact, a merge loses nothing, and a number given up is free for somebody else."""

from replyline.jobs import Identity
from replyline.store.database import Database
from replyline.store.moves.receive import Received
from tests.store.scene import Scene, make_scene

PHONE = Identity("phone", "5511999999999")
LID = Identity("lid", "123456")


async def _names(scene: Scene) -> list[tuple[str, str]]:
    rows = await scene.fetch("SELECT kind, value FROM contact_identities ORDER BY kind, value")
    return [(row["kind"], row["value"]) for row in rows]


async def test_a_strangers_two_names_make_one_contact(database: Database) -> None:
    scene = await make_scene(database, "WHATSAPP_QR")
    await scene.hear("hi", sender=LID.value, identity_kind="lid", also_known_as=(PHONE,))
    await scene.hear("again", sender=PHONE.value, identity_kind="phone")
    assert await scene.value("SELECT count(*) FROM contacts") == 1
    assert await scene.value("SELECT count(*) FROM conversations") == 1
    assert await _names(scene) == [("lid", LID.value), ("phone", PHONE.value)]


async def test_replies_go_to_the_address_last_seen(database: Database) -> None:
    scene = await make_scene(database, "WHATSAPP_QR")
    await scene.hear("hi", sender=PHONE.value, identity_kind="phone", reply_to="5511999999999@s.whatsapp.net")
    await scene.hear("hi", sender=LID.value, identity_kind="lid", reply_to="123456@lid", also_known_as=(PHONE,))
    assert await scene.value("SELECT reply_to FROM conversations") == "123456@lid"


async def test_two_contacts_become_one_when_a_message_links_them(database: Database) -> None:
    scene = await make_scene(database, "WHATSAPP_QR")
    for sender, kind in ((PHONE.value, "phone"), (LID.value, "lid")):
        await scene.hear(f"hi from {kind}", sender=sender, identity_kind=kind)
        job_id, turn = await scene.open_turn()
        await scene.answer(job_id, turn, f"hello {kind}")
        await scene.route()
        await scene.send(f"3EB0{kind}", "whatsapp-qr-send")
    assert await scene.value("SELECT count(*) FROM contacts") == 2
    await scene.hear("which am I?", sender=LID.value, identity_kind="lid", also_known_as=(PHONE,))
    assert await scene.value("SELECT count(*) FROM contacts") == 1
    (row,) = await scene.fetch("SELECT last_seq, last_inbound_seq, answered_seq, lane_length FROM conversations")
    assert tuple(row) == (5, 5, 3, 0)
    rows = await scene.fetch("SELECT seq, content FROM messages ORDER BY seq")
    assert [tuple(row) for row in rows] == [
        (1, "hi from phone"),
        (2, "hello phone"),
        (3, "hi from lid"),
        (4, "hello lid"),
        (5, "which am I?"),
    ]
    _, turn = await scene.open_turn()
    assert turn.asked == ("which am I?",)
    # What was counted is not rewritten: five messages and two answers, each where it came about.
    assert await scene.value("SELECT count(*) FROM usage_logs") == 7


async def test_a_conversation_with_something_on_its_way_is_merged_later(database: Database) -> None:
    scene = await make_scene(database, "WHATSAPP_QR")
    await scene.hear("unanswered", sender=PHONE.value, identity_kind="phone")
    await scene.hear("one", sender=LID.value, identity_kind="lid", also_known_as=(PHONE,))
    await scene.hear("alone", sender="777", identity_kind="lid")
    await scene.hear("linked", sender="777", identity_kind="lid", also_known_as=(PHONE,))
    assert await scene.value("SELECT count(*) FROM contacts") == 2
    assert await scene.value("SELECT count(*) FROM messages") == 4


async def test_a_person_with_a_new_number_is_the_same_and_the_old_number_is_free(database: Database) -> None:
    scene = await make_scene(database)
    new = Identity("wa_id", "16505559999")
    await scene.hear("hi", sender="16505551234", identity_kind="wa_id")
    await scene.hear(
        "[identity changed]",
        sender="16505551234",
        external_id="wamid.S",
        identity_kind="wa_id",
        kind="identity",
        also_known_as=(new,),
        reply_to=new.value,
    )
    assert await _names(scene) == [("wa_id", new.value)]
    assert await scene.value("SELECT reply_to FROM conversations") == new.value
    assert await scene.value("SELECT count(*) FROM messages") == 1
    await scene.hear("I got this number new", sender="16505551234", identity_kind="wa_id")
    assert await scene.value("SELECT count(*) FROM contacts") == 2


async def test_the_names_of_another_customers_contacts_stay_theirs(database: Database) -> None:
    one = await make_scene(database, "WHATSAPP_QR")
    two = await make_scene(database, "WHATSAPP_QR")
    await one.hear("hi", sender=PHONE.value, identity_kind="phone")
    await two.hear("hi", sender=LID.value, identity_kind="lid", also_known_as=(PHONE,))
    rows = await one.fetch("SELECT customer_id, count(*) FROM contacts GROUP BY 1 ORDER BY 2")
    assert [row["count"] for row in rows] == [1, 1]


WA = Identity("wa_id", "16505551234")
BSUID = Identity("bsuid", "US.1")


async def _known_by_both(scene: Scene) -> None:
    await scene.hear("hi", sender=BSUID.value, identity_kind="bsuid", also_known_as=(WA,))
    job_id, turn = await scene.open_turn()
    await scene.answer(job_id, turn, "hello")
    await scene.route()
    await scene.send("wamid.B")
    await scene.hear("again", sender=BSUID.value, identity_kind="bsuid", also_known_as=(WA,))


async def test_a_new_user_id_leaves_the_number_theirs(database: Database) -> None:
    scene = await make_scene(database)
    await _known_by_both(scene)
    new = Identity("bsuid", "US.2")
    await scene.hear(
        "[identity changed]", sender=WA.value, identity_kind="wa_id", kind="identity", also_known_as=(new,)
    )
    assert await _names(scene) == [("bsuid", "US.2"), ("wa_id", WA.value)]


async def test_a_new_number_that_only_the_user_id_is_told_of_frees_the_old_one(database: Database) -> None:
    scene = await make_scene(database)
    await _known_by_both(scene)
    new = (Identity("wa_id", "1777"), Identity("bsuid", "US.2"))
    await scene.hear(
        "[identity changed]", sender="US.1", identity_kind="bsuid", kind="identity", also_known_as=new, reply_to="1777"
    )
    assert await _names(scene) == [("bsuid", "US.2"), ("wa_id", "1777")]
    assert await scene.value("SELECT reply_to FROM conversations") == "1777"


async def test_a_change_of_name_waits_for_what_the_person_wrote_under_the_new_one(database: Database) -> None:
    scene = await make_scene(database)
    await scene.say("from the old one", "hello")
    await scene.route()
    await scene.send("wamid.B")
    await scene.hear("from the new one", sender="US.2", identity_kind="bsuid")
    renamed = await scene.accept(
        "[identity changed]", kind="identity", sender="ana", also_known_as=(Identity("bsuid", "US.2"),)
    )
    assert await scene.receive(renamed) is Received.CONTACT_BUSY
    assert await scene.waiting("incoming-messages") == [renamed.job_id]
    job_id, turn = await scene.open_turn()
    await scene.answer(job_id, turn, "hello again")
    await scene.route()
    await scene.send("wamid.C")
    assert await scene.receive(renamed) is Received.SAVED
    assert await scene.value("SELECT count(*) FROM contacts") == 1
    assert await scene.value("SELECT count(*) FROM conversations") == 1


async def test_a_change_of_name_is_not_carried_out_twice(database: Database) -> None:
    scene = await make_scene(database)
    await _known_by_both(scene)
    renamed = await scene.accept(
        "[identity changed]", kind="identity", sender="US.1", identity_kind="bsuid", also_known_as=(Identity("bsuid", "US.2"),)
    )  # fmt: skip
    assert await scene.receive(renamed) is Received.SAVED
    await scene.hear(
        "[identity changed]", kind="identity", sender="US.2", identity_kind="bsuid", also_known_as=(BSUID,)
    )
    assert await scene.receive(renamed) is Received.ALREADY_DONE
    assert await _names(scene) == [("bsuid", "US.1"), ("wa_id", WA.value)]
