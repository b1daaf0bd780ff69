"""YAML 1.2 as scientists write it, with the line of every key: 1e-3 is a number, No is nobelium."""

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import yaml

Key = tuple[str, ...]

_INT = re.compile(r"[-+]?[0-9]+|0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_PLAIN_TAGS = {"!", "str", "int", "float", "bool", "null", "timestamp", "merge", "value"}
_WORDS = {
    **dict.fromkeys(("", "~", "null", "Null", "NULL")),
    **dict.fromkeys(("true", "True", "TRUE"), True),
    **dict.fromkeys(("false", "False", "FALSE"), False),
    **dict.fromkeys((".inf", "+.inf", ".Inf", ".INF"), float("inf")),
    "-.inf": float("-inf"),
    ".nan": float("nan"),
    ".NaN": float("nan"),
}


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong in a config: where it stands, its dotted key and a sentence."""

    key: str
    message: str
    line: int | None = None
    source: str = ""

    def __str__(self) -> str:
        where = f"{self.source}:{self.line}" if self.line else self.source
        return "  ".join(
            part for part in (where, f"{self.key}: {self.message}" if self.key else self.message) if part
        )


class ConfigError(ValueError):
    """Every problem of one config, found before anything runs."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = tuple(problems)
        noun = "1 problem" if len(self.problems) == 1 else f"{len(self.problems)} problems"
        super().__init__(f"Config has {noun}:\n" + "\n".join(f"  {problem}" for problem in self.problems))


@dataclass
class Document:
    """What a text says: plain values, the line of every key, and what is wrong with it."""

    values: dict[str, Any] = field(default_factory=dict)
    lines: dict[Key, int] = field(default_factory=dict)
    sources: dict[Key, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def problem(self, key: Key, message: str) -> Problem:
        """Name the line of the key, or of the nearest section around it that the text has."""
        known = next((key[:end] for end in range(len(key), 0, -1) if key[:end] in self.sources), ())
        return Problem(".".join(key), message, self.lines.get(known), self.sources.get(known, ""))


class _Loader(yaml.SafeLoader):
    """PyYAML's parser without aliases, so that a short text cannot grow into a huge one."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.composer.ComposerError(None, None, "aliases (*name) are not allowed here", mark)
        return super().compose_node(parent, index)


def suggestion(word: str, allowed: Sequence[str]) -> str:
    """Name the nearest allowed word, or list them all.

    >>> suggestion("cutof", ["cutoff", "layers"])
    "did you mean 'cutoff'?"
    >>> suggestion("x", ["cutoff", "layers"])
    'allowed: cutoff, layers'
    """
    lower = {name.lower(): name for name in allowed}
    near = get_close_matches(word.lower(), list(lower), n=1, cutoff=0.6)
    return f"did you mean '{lower[near[0]]}'?" if near else f"allowed: {', '.join(allowed)}"


def scalar(text: str) -> Any:
    """Read one plain scalar by the core schema of YAML 1.2.

    >>> [scalar(text) for text in ("1e-3", "No", "on", "012", "true", "~")]
    [0.001, 'No', 'on', 12, True, None]
    """
    if text in _WORDS:
        return _WORDS[text]
    if _INT.fullmatch(text):
        return int(text, 0) if text[:2] in ("0o", "0x") else int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def parse(text: str, source: str = "") -> Document:
    r"""Read YAML text into plain values with line numbers; problems are collected, never raised.

    >>> parse("train:\n  lr: 1e-3").values
    {'train': {'lr': 0.001}}
    """
    document = Document(sources={(): source})
    try:
        root = yaml.compose(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        document.problems.append(Problem("", f"not readable as YAML: {error.problem}", line, source))
        return document
    except yaml.YAMLError as error:
        document.problems.append(Problem("", f"not readable as YAML: {error}".split("\n")[0], None, source))
        return document
    if root is None:
        return document
    if not isinstance(root, yaml.MappingNode):
        message = "expected sections such as 'data:', 'model:' and 'train:'"
        document.problems.append(Problem("", message, root.start_mark.line + 1, source))
        return document
    document.values = _values(root, (), document, source)
    return document


def _values(node: yaml.Node, key: Key, document: Document, source: str) -> Any:
    if isinstance(node, yaml.SequenceNode):
        return [_values(item, (*key, str(i)), document, source) for i, item in enumerate(node.value)]
    if isinstance(node, yaml.ScalarNode):
        if node.tag.removeprefix("tag:yaml.org,2002:") in _PLAIN_TAGS:
            return scalar(node.value) if node.style is None else node.value
        line = node.start_mark.line + 1
        document.problems.append(
            Problem(".".join(key), f"the tag {node.tag} is not allowed here", line, source)
        )
        return None
    values: dict[str, Any] = {}
    for name_node, value_node in node.value:
        name = str(getattr(name_node, "value", "")) if isinstance(name_node, yaml.ScalarNode) else "?"
        here, line = (*key, name), name_node.start_mark.line + 1
        if name in values:
            first = document.lines[here]
            document.problems.append(
                Problem(".".join(here), f"is set twice (first in line {first})", line, source)
            )
        document.lines.setdefault(here, line)
        document.sources[here] = source
        values[name] = _values(value_node, here, document, source)
    return values


def read(path: str | Path) -> Document:
    """Read a YAML file; a file that cannot be read is a problem like any other."""
    path = Path(path)
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        near = get_close_matches(path.name, [p.name for p in path.parent.glob("*.y*ml")], n=1)
        hint = f"; did you mean '{path.parent / near[0]}'?" if near else ""
        return Document(problems=[Problem("", f"config file '{path}' not found{hint}")])
    except (OSError, UnicodeDecodeError) as error:
        return Document(problems=[Problem("", f"config file '{path}' cannot be read: {error}")])
    return parse(text, path.name)


def override(document: Document, assignments: Sequence[str]) -> None:
    """Apply ``section.key=value`` from the command line, in order, on top of a document."""
    for text in assignments:
        name, equals, value = text.partition("=")
        key = tuple(name.strip().split("."))
        if not equals or not all(key):
            problem = Problem(text, "expected key=value, such as train.epochs=100", None, "command line")
            document.problems.append(problem)
            continue
        parsed = parse(f"value: {value}" if value.strip() else "value:", "command line")
        document.problems += [Problem(name, p.message, None, "command line") for p in parsed.problems]
        section = document.values
        for part in key[:-1]:
            inner = section.get(part)
            section[part] = section = inner if isinstance(inner, dict) else {}
        section[key[-1]] = parsed.values.get("value")
        for end in range(1, len(key)):
            document.sources.setdefault(key[:end], "command line")
        document.sources[key] = "command line"
        document.lines.pop(key, None)
