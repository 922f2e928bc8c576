"""What WhatsApp's messages say: examples that our own gateway must read alike (gateway/test/content.test.ts)."""

from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from replyline.evolution.content import WRAPPERS, Json, number_of, said_in


class Example(msgspec.Struct):
    """One message, and what it says; None for nothing."""

    name: str
    message: dict[str, object]
    said: Annotated[dict[str, object], msgspec.Meta(min_length=6)] | None


FILE = Path(__file__).parents[2] / "gateway" / "test" / "messages.json"
EXAMPLES = msgspec.json.decode(FILE.read_bytes(), type=list[Example])


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.name)
def test_the_adapter_reads_a_message_as_the_gateway_does(example: Example) -> None:
    said = said_in(example.message)
    read: dict[str, object] | None = None
    if said is not None:
        read = {"type": said.type, "text": said.text, "target": said.target, "reply_to": said.reply_to}
        read["media"], read["content"] = said.media, said.parts
    assert read == example.said


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_an_envelope_in_an_envelope_is_opened(wrapper: str) -> None:
    said = said_in({"ephemeralMessage": {"message": {wrapper: {"message": {"conversation": "Hi"}}}}})
    assert said is not None
    assert said.text == "Hi"


def test_envelopes_without_end_end() -> None:
    message: Json = {"conversation": "deep"}
    for _ in range(50):
        message = {"ephemeralMessage": {"message": message}}
    said = said_in(message)
    assert said is not None
    assert said.type == "unknown"


def test_evolutions_own_transcript_of_a_voice_note_is_its_text() -> None:
    said = said_in({"audioMessage": {"ptt": True}, "speechToText": "[audio] See you at three"})
    assert said is not None
    assert (said.type, said.text) == ("audio", "See you at three")


def test_the_context_may_stand_beside_the_message() -> None:
    said = said_in({"conversation": "That one"}, {"stanzaId": "Q1", "quotedMessage": {"conversation": "Which?"}})
    assert said is not None
    assert (said.reply_to, said.parts) == ("Q1", {"quoted": {"id": "Q1", "from": None, "text": "Which?"}})


@pytest.mark.parametrize(
    "sha256",
    [
        "AQID",
        {"0": 1, "1": 2, "2": 3},
        {"type": "Buffer", "data": [1, 2, 3]},
    ],
)
def test_bytes_are_read_whichever_way_json_wrote_them(sha256: object) -> None:
    said = said_in({"imageMessage": {"fileSha256": sha256, "fileLength": {"low": 5, "high": 0, "unsigned": True}}})
    assert said is not None
    assert said.media is not None
    assert (said.media["sha256"], said.media["size"]) == ("AQID", 5)


@pytest.mark.parametrize("odd", [None, 7, "text", [], {}, {"low": "x", "high": 1}, True, 1e400])
@pytest.mark.parametrize(
    "kind",
    ["imageMessage", "locationMessage", "contactMessage", "orderMessage", "reactionMessage", "extendedTextMessage"],
)
def test_an_odd_field_costs_at_most_itself(kind: str, odd: object) -> None:
    fields = ("caption", "mimetype", "fileLength", "fileSha256", "degreesLatitude", "vcard", "itemCount", "text", "key")
    said_in({kind: odd})
    said = said_in({kind: dict.fromkeys(fields, odd), "conversation": "Hi"})
    assert said is not None
    assert said.text == "Hi"
    said_in({kind: {**dict.fromkeys(fields, odd), "contextInfo": odd}})


@pytest.mark.parametrize(
    ("value", "number"),
    [(5, 5.0), ("5", 5.0), ({"low": -1, "high": 0}, 4294967295.0), ("x", None), (True, None), ("inf", None)],
)
def test_a_number_is_read_whichever_way_json_wrote_it(value: object, number: float | None) -> None:
    assert number_of({"n": value}, "n") == number
