"""Who is calling: the operator, who may name any customer, or a customer's key, which is that customer and nobody else."""

import hmac
import uuid
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Query, Request
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer

from replyline.app import App
from replyline.store.audit import OPERATOR
from replyline.web.problems import Problem, not_found

_bearer = HTTPBearer(
    auto_error=False, description="A customer's API key (`rk_…`), or the operator's key (REPLYLINE_ADMIN_KEY)."
)


def app_of(request: Request) -> App:
    """The App that serves this request."""
    app: App = request.app.state.replyline
    return app


async def _app(request: Request) -> App:
    return app_of(request)


# Every dependency is a coroutine, also one that waits for nothing: FastAPI calls any other in a thread.
Here = Annotated[App, Depends(_app)]


@dataclass(frozen=True, slots=True)
class Caller:
    """Whoever the key belongs to; the operator where `customer_id` is None."""

    customer_id: uuid.UUID | None
    key_id: uuid.UUID | None = None

    @property
    def actor(self) -> str:
        """Who it is, as the audit trail names them."""
        return OPERATOR if self.key_id is None else f"api-key {self.key_id}"

    def one_or_all(self, named: uuid.UUID | None) -> uuid.UUID | None:
        """The customer whose rows are meant; None where the operator names nobody and so means all.

        Raises:
            Problem: 404, a customer's key names somebody else.
        """
        if self.customer_id is not None and named not in {None, self.customer_id}:
            raise not_found("customer")
        return self.customer_id or named

    def one(self, named: uuid.UUID | None) -> uuid.UUID:
        """The customer whose rows are meant.

        Raises:
            Problem: 404, a customer's key names somebody else; 422, the operator names nobody.
        """
        customer_id = self.one_or_all(named)
        if customer_id is None:
            raise Problem(422, "customer_missing", "the operator must say which customer: customerId")
        return customer_id

    @property
    def is_operator(self) -> bool:
        """Whether this is the operator."""
        return self.customer_id is None

    def require_operator(self) -> None:
        """Raises Problem: 403, it is a customer's key."""
        if not self.is_operator:
            raise Problem(403, "operator_only", "only the operator's key may do this")


async def identify(request: Request) -> Caller:
    """Whoever the `Authorization: Bearer …` header says; asked once a request.

    Raises:
        Problem: 401, there is none or its key is unknown or revoked.
    """
    known: Caller | None = getattr(request.state, "caller", None)
    if known is None:
        credentials = await _bearer(request)
        known = await _holder(app_of(request), credentials.credentials if credentials is not None else "")
        request.state.caller = known
    return known


async def _holder(app: App, key: str) -> Caller:
    admin_key = app.settings.admin_key
    if admin_key is not None and hmac.compare_digest(key.encode(), admin_key.encode()):
        return Caller(None)
    holder = await app.key_holders.find(key)
    if holder is None:
        raise Problem(
            401, "unauthorized", "send a valid key as Authorization: Bearer …", headers={"WWW-Authenticate": "Bearer"}
        )
    return Caller(holder.customer_id, holder.key_id)


async def caller(
    request: Request, _credentials: Annotated[HTTPAuthorizationCredentials | None, Depends(_bearer)]
) -> Caller:
    """Whoever the key belongs to. Raises Problem: see `identify`."""
    return await identify(request)


Anyone = Annotated[Caller, Depends(caller)]
"""The operator or a customer's key."""


async def operator(who: Anyone) -> Caller:
    """The operator.

    Raises:
        Problem: 403, it is a customer's key.
    """
    who.require_operator()
    return who


Operator = Annotated[Caller, Depends(operator)]

CustomerId = Annotated[
    uuid.UUID | None, Query(alias="customerId", description="Whose; needed with the operator's key, else your own.")
]


async def tenant(who: Anyone, customer_id: CustomerId = None) -> uuid.UUID:
    """The one customer whose rows this request is about."""
    return who.one(customer_id)


Tenant = Annotated[uuid.UUID, Depends(tenant)]


async def tenant_or_all(who: Anyone, customer_id: CustomerId = None) -> uuid.UUID | None:
    """The customer whose rows this request is about; None where the operator names nobody."""
    return who.one_or_all(customer_id)


TenantOrAll = Annotated[uuid.UUID | None, Depends(tenant_or_all)]
