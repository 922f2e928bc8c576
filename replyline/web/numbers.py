"""Whose a WhatsApp number is: a customer proves it with a token that Meta lets read the number, so nobody can squat another's."""

import asyncio
import uuid
from collections.abc import Mapping

from replyline.app import App
from replyline.channels import ChannelAccount
from replyline.channels.whatsapp_cloud import confirm_number
from replyline.errors import ChannelDown, JobError, Permanent
from replyline.ids import new_id
from replyline.web.auth import Caller
from replyline.web.problems import Problem

_TIMEOUT_S = 15.0


async def check_number(
    app: App, who: Caller, *, chatbot_id: uuid.UUID, number: str, config: Mapping[str, str], token: str | None
) -> None:
    """Let `number` be a channel's; `token` is the access token that comes with it. The operator's word is enough.

    Raises:
        Problem: 403, no token comes with it; 422, Meta does not let it read the number; 502 or 504, Meta does not say.
    """
    if who.customer_id is None:
        return
    if not token:
        raise Problem(403, "token_missing", "a number is claimed with its access_token, in the same call")
    account = ChannelAccount(
        id=new_id(),
        customer_id=who.customer_id,
        chatbot_id=chatbot_id,
        kind="WHATSAPP_CLOUD",
        channel_key="",
        external_id=number,
        config={**app.settings.graph_defaults, **config},
        secrets={"access_token": token},
    )
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            await confirm_number(account, app.http)
    except TimeoutError as error:
        raise Problem(504, "number_not_confirmed", "Meta does not answer: try again") from error
    except (Permanent, ChannelDown) as error:
        raise Problem(422, "number_not_confirmed", f"Meta does not confirm the number: {error}") from error
    except JobError as error:
        raise Problem(502, "number_not_confirmed", f"Meta does not say whether the number is yours: {error}") from error
