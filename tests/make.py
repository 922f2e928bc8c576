"""Customers, chatbots, channels and the rest, made with defaults that a test may change."""

import uuid
from collections.abc import Mapping, Sequence
from decimal import Decimal

from replyline.ids import new_id
from replyline.jobs import ChannelKind
from replyline.store import api_keys, channels, chatbots, customers, knowledge, webhooks
from replyline.store.channels import Channel
from replyline.store.chatbots import Chatbot, ChatbotChanges
from replyline.store.customers import Customer
from replyline.store.database import Database
from replyline.store.knowledge import Document
from replyline.store.webhooks import WebhookEndpoint
from replyline.vault import Vault
from replyline.webhooks import EVENTS

SECRET_KEY = "cmVwbHlsaW5lLXRlc3RzLXVzZS10aGlzLW9uZS1rZXk="
"""What tests give as `secret_key` to Settings, so that an app opens what `make_channel` sealed."""
VAULT = Vault.from_setting(SECRET_KEY)

CLOUD_SECRETS = {
    "app_secret": "cloud-app-secret-of-32-characters",
    "verify_token": "cloud-verify-token",
    "access_token": "cloud-token",
}
QR_SECRETS = {"secret": "qr-callback-secret-of-32-characters", "gateway_token": "qr-gateway-token"}
WEBHOOK_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
EVERY_EVENT = tuple(EVENTS)


async def make_customer(
    database: Database, *, name: str = "Bakery Blum", monthly_price: Decimal | int = 20
) -> Customer:
    """A customer: Premium from 100 dollars, Pro from 50, else Basic."""
    return await customers.create(database, name=name, monthly_price=Decimal(monthly_price))


async def make_api_key(database: Database, customer_id: uuid.UUID, *, name: str = "server") -> str:
    """A key of the customer, in clear."""
    made = await api_keys.create(database, customer_id=customer_id, name=name)
    if made is None:
        raise LookupError(f"there is no customer {customer_id}")
    return made[1]


async def make_chatbot(
    database: Database,
    customer_id: uuid.UUID,
    *,
    name: str = "Blum's assistant",
    quiet_window_s: float = 0.0,
    quiet_window_max_s: float = 10.0,
    settings: ChatbotChanges | None = None,
    vault: Vault = VAULT,
) -> Chatbot:
    """A chatbot that answers from its knowledge at once: the same quiet window, in seconds, for every channel."""
    full: ChatbotChanges = {
        "quiet_window_widget_s": quiet_window_s,
        "quiet_window_whatsapp_s": quiet_window_s,
        "quiet_window_max_s": quiet_window_max_s,
        **(settings or {}),
    }
    return await chatbots.create(database, vault, customer_id=customer_id, name=name, settings=full)


async def make_channel(
    database: Database,
    chatbot: Chatbot,
    kind: ChannelKind = "WIDGET",
    *,
    external_id: str | None = None,
    config: Mapping[str, str] | None = None,
    secrets: Mapping[str, str] | None = None,
    enabled: bool = True,
    vault: Vault = VAULT,
) -> Channel:
    """A channel of the chatbot with everything its kind needs; `config` and `secrets` come on top of the defaults.

    The default addresses are closed ports of this machine, and sends are not paced: a test of either names its own.
    """
    defaults: dict[ChannelKind, tuple[str | None, dict[str, str], dict[str, str]]] = {
        "WIDGET": (None, {}, {}),
        "WHATSAPP_CLOUD": (
            str(new_id().int % 10**15),
            {
                "graph_base": "http://127.0.0.1:9",
                "graph_version": "v25.0",
                "messages_per_second": "0",
                "pair_interval_s": "0",
            },
            CLOUD_SECRETS,
        ),
        "WHATSAPP_QR": (
            f"session-{new_id()}",
            {"gateway_url": "http://127.0.0.1:9", "messages_per_minute": "0"},
            QR_SECRETS,
        ),
    }
    default_id, default_config, default_secrets = defaults[kind]
    return await channels.create(
        database,
        vault,
        customer_id=chatbot.customer_id,
        chatbot_id=chatbot.id,
        kind=kind,
        name=f"{kind} of {chatbot.name}",
        external_id=external_id or default_id,
        config={**default_config, **(config or {})},
        secrets={**default_secrets, **(secrets or {})},
        enabled=enabled,
    )


async def make_webhook_endpoint(
    database: Database,
    customer_id: uuid.UUID,
    *,
    url: str = "http://127.0.0.1:9/hooks",
    events: Sequence[str] = EVERY_EVENT,
    secret: str = WEBHOOK_SECRET,
    vault: Vault = VAULT,
) -> WebhookEndpoint:
    """An endpoint that asks for every event; what is sent to it is signed with `secret`."""
    return await webhooks.create(database, vault, customer_id=customer_id, url=url, events=events, secret=secret)


async def make_document(
    database: Database,
    chatbot: Chatbot,
    *,
    title: str = "Opening hours",
    content: str = "We are open from Tuesday to Saturday, 7 am to 6 pm. On Sundays and Mondays we are closed.",
) -> Document:
    """A document in the chatbot's knowledge."""
    return await knowledge.add(
        database, customer_id=chatbot.customer_id, chatbot_id=chatbot.id, title=title, content=content
    )
