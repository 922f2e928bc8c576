"""Callbacks gone wrong: every way in which a byte, a field or a type can be other than the contract says."""

import copy
from dataclasses import dataclass

import msgspec
from hypothesis import strategies as st

_LEAVES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(max_size=20),
    st.sampled_from(["", "\x00", "a\x00b", "x" * 600, "status@broadcast", "nan", "-1", "99999999999999"]),
    st.just([]),
    st.just({}),
)
_ANYTHING = st.recursive(
    _LEAVES,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(max_size=8), inner, max_size=3)),
    max_leaves=5,
)


@st.composite
def mutated(draw: st.DrawFn, genuine: object) -> bytes:
    """`genuine` with some of its values replaced, removed or doubled, and perhaps some of its bytes changed."""
    root: list[object] = [copy.deepcopy(genuine)]
    for _ in range(draw(st.integers(0, 4))):
        _change_one(draw, root)
    raw = bytearray(msgspec.json.encode(root[0] if root else None))
    for _ in range(draw(st.integers(0, 2))):
        at = draw(st.integers(0, len(raw)))
        raw[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(raw)


@dataclass(frozen=True, slots=True)
class _Item:
    """A place in a list."""

    holder: list[object]
    index: int


@dataclass(frozen=True, slots=True)
class _Field:
    """A place in an object."""

    holder: dict[str, object]
    name: str


def _change_one(draw: st.DrawFn, root: list[object]) -> None:
    places = _places(root)
    if not places:
        return
    act = draw(st.sampled_from(("replace", "remove", "double")))
    match draw(st.sampled_from(places)), act:
        case _Item(holder, index), "replace":
            holder[index] = draw(_ANYTHING)
        case _Item(holder, index), "double":
            holder.append(copy.deepcopy(holder[index]))
        case _Item(holder, index), _:
            del holder[index]
        case _Field(holder=fields, name=name), "remove":
            del fields[name]
        case _Field(holder=fields, name=name), _:
            fields[name] = draw(_ANYTHING)


def _places(node: object) -> list[_Item | _Field]:
    """Every place of `node` that holds a value."""
    found: list[_Item | _Field] = []
    if isinstance(node, list):
        for index, value in enumerate(node):
            found += [_Item(node, index), *_places(value)]
    elif isinstance(node, dict):
        for name, value in node.items():
            found += [_Field(node, name), *_places(value)]
    return found
