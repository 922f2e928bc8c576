"""The demo of `replyline start --demo`: a bakery with a knowledge base and all three channels, on stand-ins."""

import json
import os
import secrets
import stat
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import aiohttp
import msgspec

from replyline import webhooks as webhook_rules
from replyline.cli.running import CommandFailed, Exit
from replyline.jobs import ChannelKind
from replyline.settings import Settings
from replyline.store import api_keys, channels, chatbots, customers, knowledge, webhooks
from replyline.store.chatbots import Chatbot, ChatbotChanges
from replyline.store.database import Database
from replyline.vault import Vault

_PHONE_NUMBER_ID = "106540352242922"
_SESSION = "demo"
_HOOK_PATH = "/hooks"
_KNOWLEDGE = {
    "Opening hours": "What are our opening hours? We are open from Tuesday to Saturday, 7 am to 6 pm. "
    "On Sundays and Mondays we are closed, and on public holidays too.",
    "Delivery": "We deliver bread and cakes within 10 km, from Tuesday to Saturday, for 5 dollars; free from 50 dollars. "
    "Orders until 4 pm are delivered the next morning. We do not deliver on Sundays.",
    "Ordering cakes": "Birthday and wedding cakes need three days. Tell us the date, the number of people and any allergies. "
    "A deposit of 30 percent is due with the order; you can cancel until 48 hours before.",
    "Allergens": "All our bread contains gluten. We have two gluten-free loaves on Thursdays. Nuts are used in the bakery, "
    "so traces are possible in everything.",
}


_LOOK = {
    "title": "Blum's Bakery",
    "subtitle": "We usually answer at once",
    "greeting": "Hello! Ask me about our opening hours, delivery, cakes or allergens.",
    "color": "#9a3412",
}
_MODEL = "demo-model"
_REFERENCE = "test-bot-id"
"""What BullMQ producers may call the demo's bot."""
# As a model does: it thinks a moment, then it writes.
_PACE = {"think_s": 0.8, "tokens_per_s": 30.0}


def _model_at(url: str) -> ChatbotChanges:
    """The demo's model: a stand-in that answers from the knowledge base, and writes as fast as a model does."""
    return {"provider": "openai_compatible", "model": _MODEL, "provider_base_url": f"{url}/v1"}


@dataclass(frozen=True, slots=True)
class Telephone:
    """The QR gateway beside us, to which a real telephone may be paired."""

    gateway_url: str
    token: str


class Demo(msgspec.Struct):
    """What the demo consists of; kept in the data folder, so that the next start finds the same."""

    customer_id: str
    api_key: str
    chatbot_id: str
    channels: dict[str, dict[str, str]]
    access_token: str
    webhook_secret: str
    telephone_channel: str = ""

    def described(self) -> dict[str, object]:
        """As it stands in ready.json."""
        return {
            "customer_id": self.customer_id,
            "api_key": self.api_key,
            "chatbot_id": self.chatbot_id,
            "channels": self.channels,
        }


async def prepare_demo(
    settings: Settings, vault: Vault, standins: Mapping[str, str], telephone: Telephone | None, *, api: str
) -> Demo:
    """Make the demo, or find the one of an earlier start, and tell the stand-ins who they are talking to."""
    if settings.database_url is None:
        raise CommandFailed("the demo needs a database", Exit.WRONG_CALL)
    file = settings.data / "demo.json"
    database = Database(settings.database_url, pool_size=4, through_pooler=settings.database_pooler)
    await database.open()
    try:
        demo = await _existing(database, _kept(file))
        if demo is None:
            demo = await _make(database, vault, standins)
            _keep(file, demo)
        await _move_addresses(database, vault, demo, standins)
        await _name_bot(database, vault, demo)
        if telephone is not None:
            demo = await _connect_telephone(database, vault, demo, telephone)
            _keep(file, demo)
    finally:
        await database.close()
    await _introduce(demo, standins, api)
    return demo


def _kept(file: Path) -> Demo | None:
    return msgspec.json.decode(file.read_bytes(), type=Demo) if file.exists() else None


async def _existing(database: Database, demo: Demo | None) -> Demo | None:
    if demo is None:
        return None
    holder = await api_keys.find(database, demo.api_key)  # another database, or the customer was deleted: make it anew
    return demo if holder is not None and str(holder.customer_id) == demo.customer_id else None


async def _make(database: Database, vault: Vault, standins: Mapping[str, str]) -> Demo:
    customer = await customers.create(database, name="Blum's Bakery", monthly_price=Decimal(79))
    made = await api_keys.create(database, customer_id=customer.id, name="demo")
    if made is None:
        raise LookupError("the customer just made is not there")
    chatbot = await chatbots.create(
        database,
        vault,
        customer_id=customer.id,
        name="Blum's assistant",
        settings={
            "instructions": "Answer questions about the bakery, briefly and kindly.",
            **_model_at(standins["openai"]),
        },
    )
    for title, content in _KNOWLEDGE.items():
        await knowledge.add(database, customer_id=customer.id, chatbot_id=chatbot.id, title=title, content=content)
    access_token = f"demo-token-{secrets.token_urlsafe(16)}"
    connected = await _connect(database, vault, chatbot, access_token, standins)
    webhook_secret = webhook_rules.new_secret()
    await webhooks.create(
        database,
        vault,
        customer_id=customer.id,
        url=f"{standins['customer']}{_HOOK_PATH}",
        events=list(webhook_rules.EVENTS),
        secret=webhook_secret,
    )
    return Demo(str(customer.id), made[1], str(chatbot.id), connected, access_token, webhook_secret)


async def _connect(
    database: Database, vault: Vault, chatbot: Chatbot, access_token: str, standins: Mapping[str, str]
) -> dict[str, dict[str, str]]:
    app_secret, verify_token, qr_secret = (secrets.token_urlsafe(24) for _ in range(3))
    kinds: dict[ChannelKind, tuple[str | None, dict[str, str], dict[str, str]]] = {
        "WIDGET": (None, _LOOK, {}),
        "WHATSAPP_CLOUD": (
            _PHONE_NUMBER_ID,
            {"graph_base": standins["whatsapp_cloud"]},
            {"app_secret": app_secret, "verify_token": verify_token, "access_token": access_token},
        ),
        "WHATSAPP_QR": (
            _SESSION,
            {"gateway_url": standins["qr_gateway"], "messages_per_minute": "0"},  # nobody is banned by a stand-in
            {"secret": qr_secret},
        ),
    }
    keys: dict[str, str] = {}
    ids: dict[str, str] = {}
    site_key = ""
    for kind, (external_id, config, channel_secrets) in kinds.items():
        channel = await channels.create(
            database,
            vault,
            customer_id=chatbot.customer_id,
            chatbot_id=chatbot.id,
            kind=kind,
            name=f"Demo {kind}",
            external_id=external_id,
            config=config,
            secrets=channel_secrets,
        )
        keys[kind] = channel.channel_key
        ids[kind] = str(channel.id)
        site_key = channel.external_id if kind == "WIDGET" else site_key
    return {
        "WIDGET": {"channel_id": ids["WIDGET"], "channel_key": keys["WIDGET"], "site_key": site_key},
        "WHATSAPP_CLOUD": {
            "channel_id": ids["WHATSAPP_CLOUD"],
            "channel_key": keys["WHATSAPP_CLOUD"],
            "app_secret": app_secret,
            "verify_token": verify_token,
            "phone_number_id": _PHONE_NUMBER_ID,
        },
        "WHATSAPP_QR": {
            "channel_id": ids["WHATSAPP_QR"],
            "channel_key": keys["WHATSAPP_QR"],
            "secret": qr_secret,
            "session": _SESSION,
        },
    }


async def _connect_telephone(database: Database, vault: Vault, demo: Demo, telephone: Telephone) -> Demo:
    """A channel for a real telephone, which somebody may pair; its gateway's port is new at each start."""
    customer_id = uuid.UUID(demo.customer_id)
    known = uuid.UUID(demo.telephone_channel) if demo.telephone_channel else None
    found = await channels.get(database, known, customer_id=customer_id) if known else None
    config, token = {"gateway_url": telephone.gateway_url}, {"gateway_token": telephone.token}
    if found is None:
        found = await channels.create(
            database,
            vault,
            customer_id=customer_id,
            chatbot_id=uuid.UUID(demo.chatbot_id),
            kind="WHATSAPP_QR",
            name="Your telephone",
            external_id=f"telephone-{demo.customer_id[-12:]}",
            config=config,
            secrets={"secret": secrets.token_urlsafe(24), **token},
        )
    else:
        changes: channels.ChannelChanges = {"config": {**found.config, **config}, "secrets": token}
        await channels.update(database, vault, found.id, customer_id=customer_id, changes=changes)
    return msgspec.structs.replace(demo, telephone_channel=str(found.id))


async def _move_addresses(database: Database, vault: Vault, demo: Demo, standins: Mapping[str, str]) -> None:
    """The stand-ins' ports are new at each start: the channels, the chatbot and the endpoint of the demo follow them."""
    customer_id = uuid.UUID(demo.customer_id)
    await _move_model(database, vault, uuid.UUID(demo.chatbot_id), customer_id, standins["openai"])
    addresses = {
        "WHATSAPP_CLOUD": {"graph_base": standins["whatsapp_cloud"]},
        "WHATSAPP_QR": {"gateway_url": standins["qr_gateway"], "messages_per_minute": "0"},
    }
    for channel in await channels.list_page(database, customer_id=customer_id):
        if str(channel.id) != demo.telephone_channel and (config := addresses.get(channel.kind)):
            await channels.update(
                database, vault, channel.id, customer_id=customer_id, changes={"config": {**channel.config, **config}}
            )
    url = f"{standins['customer']}{_HOOK_PATH}"
    for endpoint in await webhooks.list_page(database, customer_id=customer_id):
        if endpoint.url.endswith(_HOOK_PATH) and endpoint.url != url:
            await webhooks.update(database, endpoint.id, customer_id=customer_id, changes={"url": url})


async def _move_model(
    database: Database, vault: Vault, chatbot_id: uuid.UUID, customer_id: uuid.UUID, standin: str
) -> None:
    """Whoever has given the demo's bot a real model keeps it."""
    chatbot = await chatbots.get(database, chatbot_id, customer_id=customer_id)
    if chatbot is not None and (chatbot.provider == "knowledge_only" or chatbot.model == _MODEL):
        await chatbots.update(database, vault, chatbot_id, customer_id=customer_id, changes=_model_at(standin))


async def _name_bot(database: Database, vault: Vault, demo: Demo) -> None:
    """Whoever has given the reference to another chatbot, or the bot another reference, keeps it."""
    chatbot_id, customer_id = uuid.UUID(demo.chatbot_id), uuid.UUID(demo.customer_id)
    chatbot = await chatbots.get(database, chatbot_id, customer_id=customer_id)
    if chatbot is None or chatbot.external_reference is not None:
        return
    with suppress(chatbots.ReferenceTaken):
        changes: ChatbotChanges = {"external_reference": _REFERENCE}
        await chatbots.update(database, vault, chatbot_id, customer_id=customer_id, changes=changes)


async def _introduce(demo: Demo, standins: Mapping[str, str], api: str) -> None:
    cloud, qr = demo.channels["WHATSAPP_CLOUD"], demo.channels["WHATSAPP_QR"]
    told: dict[str, dict[str, object]] = {
        "whatsapp_cloud": {
            "numbers": {
                cloud["phone_number_id"]: {
                    "access_token": demo.access_token,
                    "app_secret": cloud["app_secret"],
                    "verify_token": cloud["verify_token"],
                    "callback_url": f"{api}/callbacks/whatsapp-cloud/{cloud['channel_key']}",
                }
            }
        },
        "qr_gateway": {
            "sessions": {
                qr["session"]: {
                    "secret": qr["secret"],
                    "callback_url": f"{api}/callbacks/whatsapp-qr/{qr['channel_key']}",
                }
            }
        },
        "openai": {"quote": True, **_PACE},
        "customer": {"endpoints": {_HOOK_PATH: {"secret": demo.webhook_secret}}},
    }
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=10)) as http:
        for name, body in told.items():
            async with http.post(f"{standins[name]}/_configure", json=body) as response:
                if response.status != 200:
                    raise CommandFailed(f"the stand-in {name} refused its configuration: {await response.text()}")


def _keep(file: Path, demo: Demo) -> None:
    file.unlink(missing_ok=True)
    descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, stat.S_IRUSR | stat.S_IWUSR)
    with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
        json.dump(msgspec.to_builtins(demo), opened, indent=2)
