"""Addresses that our servers will call: who may set them, and what they must look like."""

from collections.abc import Mapping

from replyline.app import App
from replyline.web.auth import Caller
from replyline.web.problems import Problem
from replyline.webhooks import check_url


def check_addresses(app: App, who: Caller, addresses: Mapping[str, str | None]) -> None:
    """Let a channel's or provider's address be set, given by the name of its field; None is not set.

    Only the operator may: what our servers reach, a customer must not be able to reach through them. Deployments where private
    addresses are open to webhooks anyway (REPLYLINE_WEBHOOK_ALLOW_PRIVATE) leave it to everybody.

    Raises:
        Problem: 403 or 422, with the field that is refused.
    """
    for field, address in addresses.items():
        if address is None:
            continue
        if not who.is_operator and not app.settings.webhook_allow_private:
            raise Problem(403, "operator_only", f"only the operator's key may set {field}")
        try:
            check_url(address, allow_private=True)
        except ValueError as error:
            raise Problem(422, "invalid", f"{field}: {error}") from error
