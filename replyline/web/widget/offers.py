"""What a message of ours holds besides its words, as a page shows it, and what a visitor chose of it.

It is as bounded as `replyline.contents`, from which it is made: at most three buttons or ten rows, and one file.
"""

import uuid
from typing import Annotated, Literal

from pydantic import StringConstraints

from replyline.contents import Buttons, Choices, Content, Media, MediaKind
from replyline.inbound_content import Choice
from replyline.web.widget.bodies import FromPage, ToPage
from replyline.web.wire import Text


class OptionOut(ToPage):
    """One button, or one row of a list."""

    id: str
    title: str
    description: str | None = None


class SectionOut(ToPage):
    """Options under a title; buttons are one section without a title."""

    title: str | None
    options: tuple[OptionOut, ...]


class FileOut(ToPage):
    """A file at an address of the business; it begins with http:// or https://."""

    kind: MediaKind
    url: str
    name: str | None


class ContentOut(ToPage):
    """What is shown in place of `text`, which says the same in words: a question with options, or a file with its caption."""

    type: Literal["buttons", "list", "media"]
    text: str
    header: str | None = None
    footer: str | None = None
    label: str | None = None
    """What a list is called."""
    sections: tuple[SectionOut, ...] = ()
    file: FileOut | None = None


class ChoiceIn(FromPage):
    """An option that the visitor pressed, and the message of this conversation that offers it."""

    message_id: uuid.UUID
    option_id: Annotated[Text, StringConstraints(min_length=1, max_length=256)]


class ChoiceOut(ToPage):
    """The same in the log."""

    message_id: uuid.UUID
    option_id: str


def content_shown(content: Content | None) -> ContentOut | None:
    """The content as a page shows it; None for what it shows in words."""
    match content:
        case Buttons():
            return ContentOut(
                type="buttons",
                text=content.text,
                header=content.header,
                footer=content.footer,
                sections=_sections(content),
            )
        case Choices():
            return ContentOut(
                type="list",
                text=content.text,
                header=content.header,
                footer=content.footer,
                label=content.button,
                sections=_sections(content),
            )
        case Media():
            file = FileOut(kind=content.kind, url=content.link, name=content.filename)
            return ContentOut(type="media", text=content.caption or "", file=file)
        case _:
            return None


def choice_of(content: Content | None, option_id: str) -> Choice | None:
    """What the business offered under that id, as a tapped button or row is kept; None where it offered nothing so."""
    if not isinstance(content, Buttons | Choices):
        return None
    options = [option for section in _sections(content) for option in section.options]
    option = next((option for option in options if option.id == option_id), None)
    if option is None:
        return None
    kind: Literal["button", "list"] = "button" if isinstance(content, Buttons) else "list"
    return Choice(kind=kind, id=option.id, title=option.title, description=option.description or None)


def _sections(content: Buttons | Choices) -> tuple[SectionOut, ...]:
    if isinstance(content, Buttons):
        options = tuple(OptionOut(id=button.id, title=button.title) for button in content.buttons)
        return (SectionOut(title=None, options=options),)
    return tuple(
        SectionOut(
            title=section.title,
            options=tuple(OptionOut(id=row.id, title=row.title, description=row.description) for row in section.rows),
        )
        for section in content.sections
    )
