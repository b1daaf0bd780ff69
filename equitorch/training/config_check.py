"""What is wrong with a config, in sentences: unknown keys, wrong types, files that are not there."""

import inspect
import json
import re
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, get_args, get_type_hints

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from equitorch.training.config_reader import Document, Key, Problem, suggestion

_NOUNS = {
    "int_type": "an integer",
    "int_from_float": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "string_type": "text",
    "dict_type": "a section with keys",
    "model_type": "a section with keys",
    "list_type": "a list",
    "tuple_type": "a list",
    "none_required": "nothing",
}
_BOUNDS = {"greater_than": ">", "greater_than_equal": ">=", "less_than": "<", "less_than_equal": "<="}
_BOUND_KEYS = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}


def keys_of(model: type[BaseModel]) -> list[str]:
    """The keys that a section of the config has, as users write them."""
    return [field.alias or name for name, field in model.model_fields.items()]


def _section(model: type[BaseModel], key: Key) -> type[BaseModel] | None:
    """The class of the section that ``key`` names, or None where it is a plain value."""
    for part in key:
        names = {field.alias or name: field for name, field in model.model_fields.items()}
        inner = names[part].annotation if part in names else None
        if not (isinstance(inner, type) and issubclass(inner, BaseModel)):
            return None
        model = inner
    return model


def _all_keys(model: type[BaseModel], prefix: str = "") -> list[str]:
    keys = []
    for name in keys_of(model):
        inner = _section(model, (name,))
        keys += _all_keys(inner, f"{prefix}{name}.") if inner else [f"{prefix}{name}"]
    return keys


def _unknown(model: type[BaseModel], key: Key) -> str:
    """Say what may have been meant: a key of the same section, or the same key of another one."""
    section = _section(model, key[:-1])
    allowed = keys_of(section) if section else []
    elsewhere = [name for name in _all_keys(model) if name.split(".")[-1] == key[-1]]
    if elsewhere and not get_close_matches(key[-1], allowed, n=1):
        return f"unknown setting; did you mean '{elsewhere[0]}'?"
    return f"unknown setting; {suggestion(key[-1], allowed)}"


def _message(details: ErrorDetails) -> str:
    kind, given, context = details["type"], details["input"], details.get("ctx", {})
    if kind == "missing":
        return "is required"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        allowed = [word.strip("'") for word in str(context["expected"]).replace(" or ", ", ").split(", ")]
        near = get_close_matches(str(given), allowed, n=1)
        hint = f"; did you mean '{near[0]}'?" if near else ""
        return f"expected one of {', '.join(allowed)}, got {given!r}{hint}"
    if kind in _BOUNDS:
        return f"expected a number {_BOUNDS[kind]} {context[_BOUND_KEYS[kind]]:g}, got {given!r}"
    if kind in _NOUNS:
        return f"expected {_NOUNS[kind]}, got {given!r}"
    return f"{details['msg']}, got {given!r}"


def explain(error: ValidationError, model: type[BaseModel], document: Document) -> list[Problem]:
    """Turn pydantic's findings into problems, one a key."""
    found: dict[Key, str] = {}
    for details in error.errors(include_url=False):
        key = tuple(str(part) for part in details["loc"])
        while len(key) > 1 and _section(model, key[:-1]) is None:
            key = key[:-1]  # the branch of a union or the item of a list
        message = _unknown(model, key) if details["type"] == "extra_forbidden" else _message(details)
        found.setdefault(key, message)
    return [document.problem(key, message) for key, message in found.items()]


def _class(name: str) -> type:
    from equitorch.models.checkpoint import model_class

    return model_class(name)


def _parameters(name: str) -> dict[str, inspect.Parameter]:
    parameters = inspect.signature(_class(name)).parameters
    kinds = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return {key: parameter for key, parameter in parameters.items() if parameter.kind in kinds}


def model_options(name: str) -> dict[str, Any]:
    """Keywords of a model's constructor and their defaults."""
    empty = inspect.Parameter.empty
    return {key: p.default for key, p in _parameters(name).items() if p.default is not empty}


def model_problems(document: Document) -> list[Problem]:
    """Check the name of the model and the keywords of its constructor, types included."""
    from equitorch.models.checkpoint import MODELS
    from equitorch.training.config import Model

    values = document.values.get("model", {})
    if not isinstance(values, dict):
        return []
    own, name = keys_of(Model), values.get("name", "tensornet")
    if not isinstance(name, str):
        return []
    if name not in MODELS:
        message = f"no model is called '{name}'; {suggestion(name, list(MODELS))}"
        return [document.problem(("model", "name"), message)]
    parameters, problems = _parameters(name), []
    allowed = [*parameters, *own]
    for key, value in values.items():
        if key in own:
            continue
        if key not in parameters:
            message = f"unknown setting; {suggestion(key, allowed)}"
            problems.append(document.problem(("model", key), message))
        elif message := _type_problem(_class(name), key, value):
            problems.append(document.problem(("model", key), message))
    for key, parameter in parameters.items():
        if parameter.default is inspect.Parameter.empty and key not in values and "from" not in values:
            problems.append(document.problem(("model", key), f"is required by the model {name}"))
    if not problems and "from" not in values:
        problems += _build_problems(name, {k: v for k, v in values.items() if k not in own}, document)
    return problems


def _build_problems(name: str, options: dict[str, Any], document: Document) -> list[Problem]:
    """Build the model without memory; the option that a constructor refuses is the one its message names."""
    import torch

    try:
        with torch.device("meta"):
            _class(name)(**options)
    except ValueError as error:
        message = str(error)
        words = re.findall(r"\w+", message)
        named = [key for key in options if key in words]
        first = min(named, key=words.index, default="name")
        return [document.problem(("model", first), message)]
    return []


def _type_problem(model: Any, key: str, value: Any) -> str:
    """Compare a value with the annotation of the constructor's keyword; empty where it fits."""
    try:
        hint = get_type_hints(model.__init__).get(key)
    except (NameError, TypeError):
        return ""
    if hint is None:
        return ""
    try:
        adapter: TypeAdapter[Any] = TypeAdapter(
            hint, config=ConfigDict(strict=True, arbitrary_types_allowed=True)
        )
        adapter.validate_json(json.dumps(value))
    except ValidationError as error:
        messages = list(dict.fromkeys(_message(details) for details in error.errors(include_url=False)))
        return " or ".join(messages) if len(get_args(hint)) < 3 else messages[0]
    return ""


def _names(values: Sequence[Any] | Any) -> list[str]:
    return [v for v in (values if isinstance(values, list) else [values]) if isinstance(v, str)]


def file_problems(document: Document) -> list[Problem]:
    """Name every file of the config that is not there, and the file that was probably meant."""
    from equitorch.datasets.shipped import shipped_names

    data, model = document.values.get("data", {}), document.values.get("model", {})
    wanted: list[tuple[Key, str]] = []
    for split in ("train", "valid", "test") if isinstance(data, dict) else ():
        wanted += [
            (("data", split), name) for name in _names(data.get(split)) if not name.strip().endswith("%")
        ]
    if isinstance(model, dict):
        wanted += [(("model", "from"), name) for name in _names(model.get("from"))]
    problems = []
    for key, name in wanted:
        if name.startswith("shipped:"):
            short, known = name.removeprefix("shipped:"), list(shipped_names())
            if short not in known:
                message = f"nothing shipped is called '{short}'; {suggestion(short, known)}"
                problems.append(document.problem(key, message))
            continue
        path = Path(name).expanduser()
        if not path.exists():
            folder = path.parent if path.parent.is_dir() else Path()
            near = get_close_matches(path.name, [p.name for p in folder.iterdir()], n=1)
            hint = f"; did you mean '{path.parent / near[0]}'?" if near else f" (looked in {Path.cwd()})"
            problems.append(document.problem(key, f"file '{name}' not found{hint}"))
    return problems
