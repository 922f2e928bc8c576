"""What is outside of both contenders: the model, Meta, and the customer's endpoint. All three live in the load's own process, so
that a message is counted and timed where it arrives, by the clock that timed its post."""

import asyncio
import itertools
import re
from collections.abc import Callable

import msgspec

from bench.pipeline.ledger import Ledger
from bench.pipeline.wire import Server

MODEL_KEY = "bench-key"
_ID = re.compile(rb"(?i)\r\nwebhook-id:\s*(\S+)")


class _Said(msgspec.Struct):
    role: str
    content: str


class _Ask(msgspec.Struct):
    model: str
    messages: list[_Said]


class _Text(msgspec.Struct):
    body: str


class _Send(msgspec.Struct):
    to: str
    text: _Text


_read_ask = msgspec.json.Decoder(_Ask).decode
_read_send = msgspec.json.Decoder(_Send).decode


class Outside:
    """Three servers on loopback. Each contender has a set of its own, with a ledger of its own."""

    def __init__(self, access_token: str) -> None:
        self.ledger = Ledger()
        self.think_s = 0.0
        """How long the model takes."""
        self.refused = 0
        """Calls that were not made as they should be: nothing of the contender's may be refused."""
        self._token = re.compile(rb"(?i)\r\nauthorization:\s*bearer %b" % access_token.encode())
        self._model_token = re.compile(rb"(?i)\r\nauthorization:\s*bearer %b" % MODEL_KEY.encode())
        self._numbers = itertools.count(1)
        self.model = Server(self._answer_model)
        self.meta = Server(self._answer_meta)
        self.customer = Server(self._answer_customer)

    async def start(self) -> None:
        """Listen."""
        for server in (self.model, self.meta, self.customer):
            await server.start()

    def close(self) -> None:
        """End all three."""
        for server in (self.model, self.meta, self.customer):
            server.close()

    def _answer_model(self, head: bytes, body: bytes, write: Callable[[bytes], None]) -> None:
        """`POST …/chat/completions`; the answer repeats the last question."""
        if not head.startswith(b"POST /v1/chat/completions ") or not self._model_token.search(head):
            self.refused += 1
            return write(b"{}")
        ask = _read_ask(body)
        text = next(said.content for said in reversed(ask.messages) if said.role == "user")
        self.ledger.think(text)

        def answer() -> None:
            self.ledger.thought(text)
            write(_completion(ask.model, f"Echo: {text}", len(body)))

        if self.think_s:
            asyncio.get_running_loop().call_later(self.think_s, answer)
            return None
        return answer()

    def _answer_meta(self, head: bytes, body: bytes, write: Callable[[bytes], None]) -> None:
        """`POST /v25.0/…/messages`, a text (WhatsApp Cloud API, "Messages")."""
        if not head.startswith(b"POST /v") or not self._token.search(head):
            self.refused += 1
            return write(b"{}")
        send = _read_send(body)
        to = send.to.lstrip("+")
        self.ledger.sent(to, send.text.body)
        return write(
            b'{"messaging_product":"whatsapp","contacts":[{"input":"%b","wa_id":"%b"}],"messages":[{"id":"wamid.%d"}]}'
            % (send.to.encode(), to.encode(), next(self._numbers))
        )

    def _answer_customer(self, head: bytes, _body: bytes, write: Callable[[bytes], None]) -> None:
        found = _ID.search(head)
        if found is None:
            self.refused += 1
        else:
            self.ledger.delivered(found.group(1).decode())
        write(b'{"received":true}')


def _completion(model: str, text: str, asked_chars: int) -> bytes:
    usage = {"prompt_tokens": asked_chars // 4, "completion_tokens": len(text) // 4}
    return msgspec.json.encode(
        {
            "id": "chatcmpl-bench",
            "object": "chat.completion",
            "created": 1_790_000_000,
            "model": model,
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": text, "refusal": None},
                    "finish_reason": "stop",
                    "logprobs": None,
                }
            ],
            "usage": {**usage, "total_tokens": sum(usage.values())},
        }
    )
