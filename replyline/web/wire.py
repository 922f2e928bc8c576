"""What goes over the wire: camelCase names, pages, and text that Postgres can keep."""

import unicodedata
import uuid
from collections.abc import Sequence
from typing import Annotated, ClassVar, Generic, Protocol, TypeVar

from fastapi import Query
from pydantic import AfterValidator, BaseModel, ConfigDict, StringConstraints, model_validator
from pydantic.alias_generators import to_camel

from replyline.jobs import MAX_REFERENCE_CHARS
from replyline.plain_text import whole

MAX_PAGE = 200
_DEEPEST = 20


def _without_controls(text: str) -> str:
    if any(unicodedata.category(character) == "Cc" for character in text):
        raise ValueError("must not contain control characters")
    return text


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise ValueError("must not contain the character U+0000")
    return text


def mended(given: object, depth: int = 0) -> object:
    """A body with U+FFFD for each half of a surrogate pair in its texts; what is nested deeper than any body is left."""
    match given:
        case str():
            return whole(given)
        case dict() if depth < _DEEPEST:
            return {name: mended(value, depth + 1) for name, value in given.items()}
        case list() if depth < _DEEPEST:
            return [mended(value, depth + 1) for value in given]
        case _:
            return given


Text = Annotated[str, AfterValidator(_without_nul)]
Name = Annotated[Text, StringConstraints(min_length=1, max_length=200, strip_whitespace=True)]
ShortText = Annotated[Text, StringConstraints(max_length=512)]
ReferenceOrNone = Annotated[str, AfterValidator(_without_controls), StringConstraints(max_length=MAX_REFERENCE_CHARS)]
"""What somebody else calls a thing; '' is no name."""
Reference = Annotated[ReferenceOrNone, StringConstraints(min_length=1)]
Url = Annotated[Text, StringConstraints(min_length=1, max_length=2000)]
Secret = Annotated[Text, StringConstraints(min_length=1, max_length=4000)]

Limit = Annotated[int, Query(ge=1, le=MAX_PAGE, description="Entries of the page.")]
Cursor = Annotated[uuid.UUID | None, Query(description="`next` of the page before; the first page without.")]


MOST_FIELDS = 50


def few(given: object) -> object:
    """What an object of a body is refused for before its parts are looked at: each unknown one would be an error of its own."""
    if isinstance(given, dict) and len(given) > MOST_FIELDS:
        raise ValueError(f"has more than {MOST_FIELDS} fields")
    return given


class In(BaseModel):
    """A body that comes in; a field that does not exist is an error, so that a misspelt one is not silently ignored."""

    model_config = ConfigDict(alias_generator=to_camel, extra="forbid", frozen=True)

    @model_validator(mode="before")
    @classmethod
    def _few_and_mended(cls, given: object) -> object:
        # JavaScript that cuts an emoji in two writes the half as an escape, which JSON allows and no encoding has.
        return mended(few(given))


class Changes(In):
    """A body of PATCH: what is left out stays; null is only for what can be cleared."""

    clearable: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="after")
    def _not_null(self) -> "Changes":
        for name in sorted(self.model_fields_set - self.clearable):
            if getattr(self, name) is None:
                raise ValueError(f"{to_camel(name)} cannot be null")
        return self


class Out(BaseModel):
    """A body that goes out, read from a record of the store."""

    model_config = ConfigDict(alias_generator=to_camel, from_attributes=True, populate_by_name=True)


class HasId(Protocol):
    """A record that a cursor can point to."""

    @property
    def id(self) -> uuid.UUID:
        """What pages are ordered by."""
        ...


Record = TypeVar("Record", bound=HasId)
Entry = TypeVar("Entry", bound=Out)


class Page(Out, Generic[Entry]):
    """Some entries, and where the next page begins; null at the end."""

    data: list[Entry]
    next: uuid.UUID | None


def page(records: Sequence[Record], limit: int, kind: type[Entry]) -> Page[Entry]:
    """The page of the first `limit` records; there is a next one if one more was found."""
    shown = records[:limit]
    return Page(
        data=[kind.model_validate(record) for record in shown],
        next=shown[-1].id if shown and len(records) > limit else None,
    )
