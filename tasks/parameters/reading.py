"""Reads a YAML text, and explains what is wrong with it: line, field, mend."""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping
from typing import Any, get_args

from pydantic import BaseModel, ValidationError
from ruamel.yaml import YAML, MappingNode, Node, SequenceNode
from ruamel.yaml.constructor import DuplicateKeyError
from ruamel.yaml.error import MarkedYAMLError, YAMLError

from p2o_core.schemas import BadInput


def read_yaml(text: str, name: object) -> Any:
    """The values of a text in YAML 1.2, as DVC reads it: ``off`` is a text, 1e-6 a number.

    Raises:
        BadInput: the text is no YAML, or sets a key twice. The message says that it stands in ``name``.
    """
    try:
        return YAML(typ="safe", pure=True).load(text)
    except DuplicateKeyError as error:
        key, again, first = _repeated(text, error)
        raise BadInput(
            f"{name}: line {again}: parameter {key!r} was set before in line {first}. Mend: keep one of them."
        ) from error
    except YAMLError as error:
        line, problem = "", str(error)
        if isinstance(error, MarkedYAMLError) and error.problem_mark is not None:
            line, problem = f" line {error.problem_mark.line + 1}:", error.problem
        raise BadInput(f"{name}:{line} not readable as YAML ({problem}). Mend: correct the syntax.") from error


def explain(error: ValidationError, model: type[BaseModel], text: str, name: object) -> str:
    """A line for each error that pydantic found in the text of a ``model``."""
    root = YAML(typ="safe", pure=True).compose(text)
    return "\n".join(f"{name}: line {_line(root, e['loc'])}: {_explain(e, model)}" for e in error.errors())


def refuse_truth_for_numbers(content: Any, read: Any, text: str, name: object) -> None:
    """Raises BadInput where the text has ``true`` and pydantic has read it as 1."""
    loc = _truth_for_a_number(content, read)
    if loc:
        line = _line(YAML(typ="safe", pure=True).compose(text), loc)
        field = ".".join(map(str, loc))
        raise BadInput(f"{name}: line {line}: parameter {field!r} is a truth value, no number. Mend: write the number.")


def _truth_for_a_number(content: Any, read: Any) -> tuple[int | str, ...]:
    """Where in the content; empty for nowhere."""
    pairs: list[tuple[int | str, Any, Any]] = []
    if isinstance(content, dict) and isinstance(read, BaseModel):
        pairs = [(key, value, getattr(read, str(key), None)) for key, value in content.items()]
    elif isinstance(content, list) and isinstance(read, tuple):
        pairs = [(place, *both) for place, both in enumerate(zip(content, read, strict=False))]
    for key, value, made in pairs:
        if isinstance(value, bool) and not isinstance(made, bool) and isinstance(made, (int, float)):
            return (key,)
        if inner := _truth_for_a_number(value, made):
            return (key, *inner)
    return ()


def sections(annotation: Any) -> list[type[BaseModel]]:
    """The models that a field's annotation admits; more than one for a union of variants."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return [annotation]
    return [model for part in get_args(annotation) for model in sections(part)]


def _explain(error: Mapping[str, Any], model: type[BaseModel]) -> str:
    names, siblings = _field(model, error["loc"])
    field = ".".join(names)
    if error["type"] == "extra_forbidden":
        return f"unknown parameter {field!r}. Mend: {_likely_meant(names, siblings, model)}"
    if error["type"] == "missing":
        return f"parameter {field!r} is missing. Mend: add it; recipes/ has complete examples."
    if error["type"] == "value_error":
        return f"parameter {field or 'of the experiment'!r}: {error['ctx']['error']}."
    return f"parameter {field!r}: {error['msg']} (got {error['input']!r}). Mend: correct the value."


def _field(model: type[BaseModel], loc: tuple[int | str, ...]) -> tuple[list[str], list[str]]:
    """The names in ``loc`` as the file has them, and the fields of the section that the last one is looked for in.
    pydantic's ``loc`` also holds the ``type`` of each union's variant, which stands nowhere in the file."""
    names, here = [], [model]
    siblings = list(model.model_fields)
    for part in loc:
        variants = [section for section in here if _type(section) == part]
        if variants:
            here = variants
            continue
        if isinstance(part, str) and {"[", "("} & set(part):
            continue  # a label for a type in a union: "tuple[str, ...]"
        names.append(str(part))
        if not isinstance(part, int):  # a place in a list stays among the list's sections
            siblings = [name for section in here for name in section.model_fields]
            annotations = [s.model_fields[part].annotation for s in here if part in s.model_fields]
            here = [section for annotation in annotations for section in sections(annotation)]
    return names, siblings


def _type(section: type[BaseModel]) -> str | None:
    """The value of ``type`` that picks this variant of a union."""
    field = section.model_fields.get("type")
    return None if field is None else field.default


def _likely_meant(names: list[str], siblings: list[str], model: type[BaseModel]) -> str:
    """The mend for an unknown field: a name like it in its own section, or else in any other."""
    if close := difflib.get_close_matches(names[-1], siblings, n=1):
        return f"did you mean {close[0]!r}?"
    known = dict(reversed([*_fields(model)]))
    if section := known.get(".".join(names)):  # of another variant
        return f"it belongs to type: {_type(section)}; set that, or remove it."
    dotted = {field.rpartition(".")[2]: field for field in known}
    close = difflib.get_close_matches(names[-1], dotted, n=1)
    return f"did you mean {dotted[close[0]]!r}?" if close else "remove it; docs/reference.md lists all parameters."


def _fields(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every field's dotted name, and the section it belongs to."""
    for name, field in model.model_fields.items():
        yield prefix + name, model
        for section in sections(field.annotation):
            yield from _fields(section, f"{prefix}{name}.")


def _repeated(text: str, error: DuplicateKeyError) -> tuple[str, int, int]:
    """The key that is set twice, and both of its lines, from 1."""
    again, mapping = error.problem_mark, error.context_mark
    for node in _nodes(YAML(typ="safe", pure=True).compose(text)):
        if isinstance(node, MappingNode) and node.start_mark.index == mapping.index:
            lines = {key.start_mark.index: (key.value, key.start_mark.line + 1) for key, _ in node.value}
            name, line = lines[again.index]
            return name, line, next(at for key, at in lines.values() if key == name)
    raise AssertionError("the error's mapping is one of the text's")


def _nodes(node: Node | None) -> Iterator[Node]:
    if node is None:
        return
    yield node
    if isinstance(node, MappingNode):
        for _, value in node.value:
            yield from _nodes(value)
    elif isinstance(node, SequenceNode):
        for value in node.value:
            yield from _nodes(value)


def _line(node: Node | None, loc: tuple[int | str, ...]) -> int:
    """Line (from 1) of the deepest key or list entry of ``loc`` that the file has."""
    line = 1
    for part in loc:
        if isinstance(node, MappingNode):
            for key, value in node.value:
                if key.value == str(part):
                    line, node = key.start_mark.line + 1, value
                    break
        elif isinstance(node, SequenceNode) and isinstance(part, int) and part < len(node.value):
            node = node.value[part]
            line = node.start_mark.line + 1
    return line
