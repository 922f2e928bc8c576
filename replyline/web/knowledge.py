"""Documents that a chatbot answers from."""

import uuid
from datetime import datetime
from typing import Annotated

from fastapi import APIRouter, Query, Response
from pydantic import StringConstraints

from replyline.store import chatbots, knowledge
from replyline.web.auth import Anyone, CustomerId, Here, Tenant
from replyline.web.guards import KeyedRoute, takes
from replyline.web.problems import not_found
from replyline.web.wire import Cursor, In, Limit, Out, Page, Text, page

router = APIRouter(prefix="/v1/knowledge", tags=["knowledge"], route_class=KeyedRoute)


class DocumentIn(In):
    """A text for a chatbot's knowledge; a blank line ends a paragraph."""

    chatbot_id: uuid.UUID
    title: Annotated[Text, StringConstraints(min_length=1, max_length=300, strip_whitespace=True)]
    content: Annotated[Text, StringConstraints(min_length=1, max_length=knowledge.MAX_DOCUMENT_CHARS)]
    customer_id: uuid.UUID | None = None


class DocumentOut(Out):
    """A document; `chunks` is how many pieces it was cut into."""

    id: uuid.UUID
    customer_id: uuid.UUID
    chatbot_id: uuid.UUID
    title: str
    chars: int
    chunks: int
    created_at: datetime


class DocumentWithContentOut(DocumentOut):
    """A document with its text."""

    content: str


@router.post("", status_code=201)
@takes(None)
async def add_document(body: DocumentIn, app: Here, who: Anyone, customer_id: CustomerId = None) -> DocumentOut:
    """Add a document; answers use it from now on."""
    owner = who.one(body.customer_id or customer_id)
    if await chatbots.get(app.database, body.chatbot_id, customer_id=owner) is None:
        raise not_found("chatbot")
    added = await knowledge.add(
        app.database, customer_id=owner, chatbot_id=body.chatbot_id, title=body.title, content=body.content
    )
    return DocumentOut.model_validate(added)


@router.get("")
async def list_documents(
    *,
    app: Here,
    customer_id: Tenant,
    chatbot_id: Annotated[uuid.UUID | None, Query(alias="chatbotId")] = None,
    cursor: Cursor = None,
    limit: Limit = 50,
) -> Page[DocumentOut]:
    """Documents, oldest first, without their content."""
    found = await knowledge.list_page(
        app.database, customer_id=customer_id, chatbot_id=chatbot_id, after=cursor, limit=limit + 1
    )
    return page(found, limit, DocumentOut)


@router.get("/{document_id}")
async def get_document(document_id: uuid.UUID, app: Here, customer_id: Tenant) -> DocumentWithContentOut:
    """One document with its content."""
    found = await knowledge.get(app.database, document_id, customer_id=customer_id)
    if found is None:
        raise not_found("document")
    document, content = found
    return DocumentWithContentOut(**DocumentOut.model_validate(document).model_dump(), content=content)


@router.delete("/{document_id}", status_code=204)
async def delete_document(document_id: uuid.UUID, app: Here, customer_id: Tenant) -> Response:
    """Delete a document; answers no longer use it."""
    if not await knowledge.delete(app.database, document_id, customer_id=customer_id):
        raise not_found("document")
    return Response(status_code=204)
