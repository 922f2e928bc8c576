"""Query parameters that a route does not have: an error that names the nearest it has, so that a misspelt one is not ignored."""

import difflib

from fastapi import Request
from fastapi.routing import APIRoute

from replyline.web.problems import Problem


async def check_parameters(request: Request) -> None:
    """Raises Problem: 422 `unknown_parameter`, where a call of /v1 has a query parameter that its route does not know."""
    route = request.scope.get("route")
    if not request.query_params or not request.url.path.startswith("/v1/") or not isinstance(route, APIRoute):
        return
    known = _known(route)
    for name in request.query_params:
        if name in known:
            continue
        near = difflib.get_close_matches(name, known, n=1)
        there = f"there are {', '.join(sorted(known))}" if known else "this route has none"
        hint = f"did you mean {near[0]}?" if near else there
        raise Problem(422, "unknown_parameter", f"no such query parameter: {name[:100]!r}; {hint}")


def _known(route: APIRoute) -> frozenset[str]:
    waiting, names = [route.dependant], set[str]()
    while waiting:
        dependant = waiting.pop()
        names.update(field.alias for field in dependant.query_params)
        waiting += dependant.dependencies
    return frozenset(names)
