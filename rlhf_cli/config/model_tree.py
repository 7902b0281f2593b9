"""The tree of configuration models, walked beside the data: which section stands where, which keys it has."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, NamedTuple, Union, get_args, get_origin

from rlhf_cli.config.base import Section
from rlhf_cli.config.problems import KeyPath


class Shape(NamedTuple):
    """What an annotation allows: the sections it may be (several when `kind` decides), directly or in a list."""

    variants: tuple[type[Section], ...]
    is_list: bool


def shape_of(annotation: Any) -> Shape:
    """Read an annotation: Model, Lora | None, list[Source], list[Annotated[A | B, ...]]."""
    origin = get_origin(annotation)
    if origin is Annotated:
        return shape_of(get_args(annotation)[0])
    if origin in (list, Union, UnionType):
        shapes = [shape_of(argument) for argument in get_args(annotation)]
        variants = tuple(variant for shape in shapes for variant in shape.variants)
        return Shape(variants, origin is list or any(shape.is_list for shape in shapes))
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return Shape((annotation,), False)
    return Shape((), False)


def field_shape(section: type[Section], key: str) -> Shape:
    """Return the shape of a field; one without sections when there is no such field."""
    info = section.model_fields.get(key)
    return shape_of(info.annotation) if info else Shape((), False)


def kind_of(section: type[Section]) -> str | None:
    """Return the fixed `kind` of a variant."""
    info = section.model_fields.get("kind")
    return get_args(info.annotation)[0] if info and get_origin(info.annotation) is Literal else None


def pick(variants: tuple[type[Section], ...], node: Any) -> type[Section] | None:
    """Choose the section that a map is meant to be; None when its `kind` does not say."""
    if len(variants) == 1:
        return variants[0]
    kind = node.get("kind") if isinstance(node, dict) else None
    return next((variant for variant in variants if kind_of(variant) == kind), None)


def sections_in(
    section: type[Section], node: Any, path: KeyPath = ()
) -> Iterator[tuple[KeyPath, type[Section]]]:
    """Yield each map of the data that is a section, with the section."""
    yield path, section
    for key, value in node.items():
        shape = field_shape(section, key)
        items = enumerate(value) if shape.is_list and isinstance(value, list) else [(None, value)]
        for index, item in items:
            chosen = pick(shape.variants, item)
            if chosen and isinstance(item, dict):
                yield from sections_in(chosen, item, (*path, key) if index is None else (*path, key, index))


def key_paths(section: type[Section], path: KeyPath = ()) -> Iterator[KeyPath]:
    """Yield the path of every key there could be; an item of a list is item 0."""
    for key in section.model_fields:
        yield (*path, key)
        shape = field_shape(section, key)
        for variant in shape.variants:
            yield from key_paths(variant, (*path, key, 0) if shape.is_list else (*path, key))


def locate(section: type[Section], data: Any, loc: KeyPath) -> tuple[KeyPath, type[Section] | None]:
    """Turn an error location of pydantic into a path in the data, and name the section that path is in.

    Pydantic adds the names of union members, which are in no file; they are left out.
    """
    path: KeyPath = ()
    shape = Shape((section,), False)
    node, owner = data, None
    for part in loc:
        if isinstance(part, int):
            path = (*path, part)
            node = node[part] if isinstance(node, list) and part < len(node) else None
            shape = Shape(shape.variants, False)
            continue
        if shape.is_list or (len(shape.variants) != 1 and not _is_key(shape, node, part)):
            shape = Shape(tuple(v for v in shape.variants if kind_of(v) == part), shape.is_list)
            continue
        path = (*path, part)
        owner = shape.variants[0] if shape.variants else owner
        shape = field_shape(owner, part) if shape.variants and owner else Shape((), False)
        node = node.get(part) if isinstance(node, dict) else None
    return path, owner


def _is_key(shape: Shape, node: Any, part: str) -> bool:
    """Say whether a part is a key of a free map such as `columns`."""
    return not shape.variants and isinstance(node, dict) and part in node
