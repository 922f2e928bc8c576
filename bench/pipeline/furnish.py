"""Put customers with a chatbot, a channel and a webhook endpoint each into a database, and print how to reach them as JSON.

Run by the interpreter of the checkout that is measured, in its folder, so it uses that checkout's own code: it may import nothing
but `replyline` and `tests.make`.
"""

import asyncio
import json
import sys

from replyline.store.database import Database
from tests.make import make_api_key, make_channel, make_chatbot, make_customer, make_webhook_endpoint


async def _furnish(url: str, outside: tuple[str, str, str, str], others: int) -> list[dict[str, str]]:
    """The customer that is measured, and `others` of the same kind."""
    model, model_key, meta, customer = outside
    database = Database(url, pool_size=2)
    await database.open()
    made = []
    for _ in range(1 + others):
        owner = await make_customer(database, monthly_price=120)
        key = await make_api_key(database, owner.id)
        chatbot = await make_chatbot(
            database,
            owner.id,
            settings={
                "provider": "openai_compatible",
                "model": "bench-1",
                "provider_base_url": f"{model}/v1",
                "provider_key": model_key,
                "instructions": "Answer briefly.",
            },
        )
        channel = await make_channel(database, chatbot, "WHATSAPP_CLOUD", config={"graph_base": meta})
        await make_webhook_endpoint(database, owner.id, url=f"{customer}/hooks", events=["message.sent"])
        made.append(
            {
                "api_key": key,
                "customer_id": str(owner.id),
                "chatbot_id": str(chatbot.id),
                "channel_id": str(channel.id),
            }
        )
    await database.close()
    return made


if __name__ == "__main__":
    _, url, model, model_key, meta, customer, others = sys.argv
    sys.stdout.write(json.dumps(asyncio.run(_furnish(url, (model, model_key, meta, customer), int(others)))) + "\n")
