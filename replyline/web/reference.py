"""/docs: every route on one page, made from the OpenAPI description; it loads nothing from anywhere."""

import html
from collections.abc import Iterator, Mapping
from typing import cast

from fastapi import APIRouter, Request
from fastapi.responses import HTMLResponse

router = APIRouter(include_in_schema=False)

Tree = Mapping[str, object]

_HEAD = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><meta name="viewport" content="width=device-width">
<title>Replyline HTTP API</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
section { border-top: 1px solid #8884; padding: .3rem 0; }
h3 { font: 600 1rem ui-monospace, monospace; margin: .6rem 0 .2rem; } h3 b { display: inline-block; min-width: 4.5rem; }
code { font-family: ui-monospace, monospace; } p { margin: .2rem 0; } li { margin-left: 1rem; }
:root { color-scheme: light dark; }
</style></head><body><h1>Replyline HTTP API</h1>
<p>Send a customer's key, or the operator's, as <code>Authorization: Bearer …</code>. Errors are problem JSON (RFC 9457).
The machine-readable description is at <a href="/openapi.json">/openapi.json</a>.</p>
"""


@router.get("/docs", response_class=HTMLResponse)
async def reference(request: Request) -> HTMLResponse:
    """Every route, by subject."""
    page = _HEAD + "".join(_subjects(request.app.openapi())) + "</body></html>"
    return HTMLResponse(page, headers={"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'"})


def _subjects(description: Tree) -> Iterator[str]:
    by_subject: dict[str, list[str]] = {}
    for path, operations in _tree(description, "paths").items():
        for method, found in cast("Tree", operations).items():
            operation = cast("Tree", found)
            for subject in cast("list[str]", operation.get("tags", ["other"])):
                by_subject.setdefault(subject, []).append("".join(_route(description, method, path, operation)))
    for subject, routes in by_subject.items():
        yield f"<h2>{html.escape(subject)}</h2>{''.join(routes)}"


def _route(description: Tree, method: str, path: str, operation: Tree) -> Iterator[str]:
    yield f"<section><h3><b>{method.upper()}</b> {html.escape(path)}</h3>"
    yield f"<p>{html.escape(str(operation.get('description', '')))}</p>"
    fields = [*_parameters(operation), *_body(description, operation)]
    if fields:
        yield f"<ul>{''.join(f'<li>{field}</li>' for field in fields)}</ul>"
    yield "</section>"


def _parameters(operation: Tree) -> Iterator[str]:
    for parameter in cast("list[Tree]", operation.get("parameters", [])):
        yield _field(
            str(parameter["name"]),
            str(parameter["in"]),
            required=bool(parameter.get("required")),
            meaning=str(parameter.get("description", "")),
        )


def _body(description: Tree, operation: Tree) -> Iterator[str]:
    schema = _tree(_tree(_tree(_tree(operation, "requestBody"), "content"), "application/json"), "schema")
    name = str(schema.get("$ref", "")).rpartition("/")[2]
    model = _tree(_tree(_tree(description, "components"), "schemas"), name)
    required = cast("list[str]", model.get("required", []))
    for field, found in _tree(model, "properties").items():
        yield _field(field, "body", required=field in required, meaning=str(cast("Tree", found).get("description", "")))


def _field(name: str, place: str, *, required: bool, meaning: str) -> str:
    said = f"{place}, required" if required else place
    return f"<code>{html.escape(name)}</code> ({said}) {html.escape(meaning)}"


def _tree(parent: Tree, name: str) -> Tree:
    return cast("Tree", parent.get(name, {}))
