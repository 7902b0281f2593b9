"""YAML text to plain data with the place of every key and value: YAML 1.2 scalars, surprises refused."""

import bisect
import re
from dataclasses import dataclass, field
from typing import Any

import yaml

from rlhf_cli.config.problems import ConfigProblems, KeyPath, Problem, Spot, in_order, problem

MAX_BYTES = 1_000_000
MAX_ALIASES = 100
MAX_DEPTH = 50
MAX_NODES = 50_000

UNSTORABLE = re.compile("[\0\ud800-\udfff]")
_NULLS = {"", "~", "null", "Null", "NULL"}
_BOOLS = {word: word.lower() == "true" for word in ("true", "True", "TRUE", "false", "False", "FALSE")}
_INT = re.compile(r"[-+]?[0-9]+")
_BASED = re.compile(r"0o[0-7]+|0x[0-9a-fA-F]+")
_FLOAT = re.compile(r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?")
_SPECIAL = re.compile(r"[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)")
_LEADING_ZERO = re.compile(r"[-+]?0[0-9]+")
_SEXAGESIMAL = re.compile(r"[-+]?[0-9]+(?::[0-5]?[0-9])+(?:\.[0-9]*)?")

_HELP = {
    "mapping values are not allowed here": "quote a value that contains `: `, and check the indentation",
    "could not find expected ':'": "every line of a map is `key: value`, with a space after the colon",
    "expected <block end>": "the indentation does not match the lines above",
    "found undefined alias": "an alias `*name` needs an anchor `&name` above it",
}


class AmbiguousScalar(ValueError):
    """A scalar that YAML 1.1 and 1.2 read as different things; the arguments are the message and the help."""


@dataclass
class Document:
    """Plain data, and for each path the spot of its key, of its value, and the text of an unquoted scalar.

    `problems` are the mistakes that leave the rest of the data usable.
    """

    data: Any = None
    keys: dict[KeyPath, Spot] = field(default_factory=dict)
    values: dict[KeyPath, Spot] = field(default_factory=dict)
    plain: dict[KeyPath, str] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)


class Text:
    """YAML text that knows how its offsets are shown: in a file by line, in a `--set` behind its key."""

    def __init__(self, name: str, text: str, *, prefix: str | None = None) -> None:
        self.name = name
        self.text = text
        self.prefix = prefix
        self.lines = [line.rstrip("\r") for line in text.split("\n")] if prefix is None else [prefix + text]
        self.starts = [0, *(match.end() for match in re.finditer("\n", text))]

    def spot(self, offset: int) -> Spot:
        offset = min(offset, len(self.text))
        if self.prefix is not None:
            return Spot(self.name, 0, len(self.prefix) + offset + 1, self.lines[0])
        line = bisect.bisect_right(self.starts, offset)
        return Spot(self.name, line, offset - self.starts[line - 1] + 1, self.lines[line - 1])

    def error(self, offset: int, message: str, help: str = "", key: KeyPath = ()) -> ConfigProblems:
        return ConfigProblems([problem(self.spot(offset), message, key=key, help=help)])


def resolve_scalar(text: str) -> str | int | float | bool | None:
    """Read an unquoted scalar by the YAML 1.2 core schema.

    Raises AmbiguousScalar for 012 and 12:30:45, which YAML 1.1 reads as 10 and 45045.
    """
    if text in _NULLS:
        return None
    if text in _BOOLS:
        return _BOOLS[text]
    if _LEADING_ZERO.fullmatch(text):
        message = f"{text} is octal to some readers of YAML and decimal to others"
        raise AmbiguousScalar(message, f'quote it, "{text}", or write {int(text[:300])}')
    if _SEXAGESIMAL.fullmatch(text):
        message = f"{text} is a number in base 60 to some readers of YAML and text to others"
        raise AmbiguousScalar(message, f'quote it: "{text}"')
    if _BASED.fullmatch(text) or _INT.fullmatch(text):
        if len(text) > 300:
            raise AmbiguousScalar(f"a number of {len(text)} digits is too large", "write a smaller one")
        return int(text, 0)
    if _FLOAT.fullmatch(text):
        return float(text)
    if _SPECIAL.fullmatch(text):
        return float(text.replace(".", ""))
    return text


def decode(content: bytes, name: str) -> Text:
    """Decode a file's bytes. Raises ConfigProblems when they are too many or not UTF-8."""
    if len(content) > MAX_BYTES:
        raise ConfigProblems(
            [problem(Spot(name), f"{len(content)} bytes; a configuration has at most {MAX_BYTES}")]
        )
    content = content.removeprefix(b"\xef\xbb\xbf")
    try:
        return Text(name, content.decode("utf-8"))
    except UnicodeDecodeError as error:
        if content[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise ConfigProblems(
                [problem(Spot(name), "this is UTF-16", help="save the file as UTF-8")]
            ) from None
        readable = Text(name, content.decode("utf-8", "replace"))
        offset = len(content[: error.start].decode("utf-8"))
        message = f"byte 0x{content[error.start]:02x} is not UTF-8"
        raise readable.error(offset, message, "save the file as UTF-8") from None


def parse(source: Text) -> Document:
    """Parse one YAML document; mistakes that leave it readable are in its `problems`.

    Raises ConfigProblems for the others.
    """
    try:
        loader = _Loader(source)
        node = loader.get_single_node()
    except yaml.MarkedYAMLError as error:
        raise _syntax_error(source, error) from None
    except yaml.reader.ReaderError as error:
        char = f"U+{ord(source.text[error.position]):04X}"
        raise source.error(error.position, f"character {char} is not allowed in YAML", "remove it") from None
    except (ValueError, OverflowError):
        match = re.search(r"\\U[0-9a-fA-F]{8}", source.text)
        message = "an escape in this text is not a character"
        raise source.error(
            match.start() if match else 0, message, "write text with \\ in single quotes"
        ) from None
    builder = _Builder(source)
    document = builder.document
    if node is not None:
        document.data = builder.build(node, (), 1)
    document.problems = in_order([*loader.problems, *builder.problems])
    return document


class _Loader(yaml.SafeLoader):
    """Composes nodes; refuses tags, and stops at the limits while the tree is still small."""

    def __init__(self, source: Text) -> None:
        self.source = source
        self.problems: list[Problem] = []
        self.num_aliases = 0
        self.num_nodes = 0
        self.depth = 0
        super().__init__(source.text)

    def compose_node(self, parent: Any, index: Any) -> Any:
        event: Any = self.peek_event()  # type: ignore[no-untyped-call]
        offset = event.start_mark.index
        if isinstance(event, yaml.AliasEvent):
            self.num_aliases += 1
            if self.num_aliases > MAX_ALIASES:
                raise self.source.error(offset, f"more than {MAX_ALIASES} aliases", "write the values out")
        elif event.tag is not None:
            message = f"tags such as {event.tag} are not allowed"
            self.problems.append(problem(self.source.spot(offset), message, help="remove the tag"))
        self.depth += 1
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES:
            raise self.source.error(offset, f"more than {MAX_NODES} keys and values")
        if self.depth > MAX_DEPTH:
            raise self.source.error(offset, f"nested more than {MAX_DEPTH} levels deep")
        node = super().compose_node(parent, index)
        self.depth -= 1
        return node


def _is_plain(node: yaml.Node) -> bool:
    return isinstance(node, yaml.ScalarNode) and node.style is None


class _Builder:
    """Turns nodes into plain data and remembers where everything is."""

    def __init__(self, source: Text) -> None:
        self.source = source
        self.document = Document()
        self.problems: list[Problem] = []
        self.num_nodes = 0

    def build(self, node: yaml.Node, path: KeyPath, depth: int) -> Any:
        offset = node.start_mark.index
        self.num_nodes += 1
        if self.num_nodes > MAX_NODES or depth > MAX_DEPTH:
            message = f"aliases expand to more than {MAX_NODES} keys and values or {MAX_DEPTH} levels"
            raise self.source.error(offset, message, "write the values out")
        self.document.values[path] = self.source.spot(offset)
        if isinstance(node, yaml.ScalarNode):
            return self._scalar(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index), depth + 1) for index, item in enumerate(node.value)]
        data = {}
        for key, (key_node, value_node) in self._pairs(node, path, depth).items():
            self.document.keys[(*path, key)] = self.source.spot(key_node.start_mark.index)
            data[key] = self.build(value_node, (*path, key), depth + 1)
        return data

    def _scalar(self, node: yaml.ScalarNode, path: KeyPath) -> Any:
        if node.style is not None:
            return self._stored(node, path)
        self.document.plain[path] = node.value
        try:
            return resolve_scalar(node.value)
        except AmbiguousScalar as error:
            self._note(node, path, *error.args)
            return node.value

    def _pairs(self, node: yaml.Node, path: KeyPath, depth: int) -> dict[str, tuple[yaml.Node, yaml.Node]]:
        """Collect a map's own pairs, and behind them what `<<` merges in: earlier maps win over later ones."""
        own: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        merged: dict[str, tuple[yaml.Node, yaml.Node]] = {}
        for key_node, value_node in node.value:
            key = self._key(key_node, path)
            if key is None:
                continue
            if key in own:
                first = self.source.spot(own[key][0].start_mark.index)
                where = f" at line {first.line}" if first.line else ""
                self._note(
                    key_node, (*path, key), f"duplicate key; the first one is{where}", "keep one of them"
                )
            own[key] = (key_node, value_node)
        if "<<" in own and _is_plain(own["<<"][0]):
            value = own.pop("<<")[1]
            for item in value.value if isinstance(value, yaml.SequenceNode) else [value]:
                if not isinstance(item, yaml.MappingNode):
                    self._note(item, path, "`<<` merges maps, and this is none", "give it an alias of a map")
                elif depth > MAX_DEPTH:
                    raise self.source.error(
                        item.start_mark.index, f"merged more than {MAX_DEPTH} levels deep"
                    )
                else:
                    merged = self._pairs(item, path, depth + 1) | merged
        return merged | own

    def _key(self, node: yaml.Node, path: KeyPath) -> str | None:
        if not isinstance(node, yaml.ScalarNode):
            self._note(node, path, "a key must be text, not a list or a map", "quote it if it is text")
            return None
        if node.style is None and node.value != "<<":
            try:
                is_text = isinstance(resolve_scalar(node.value), str)
            except AmbiguousScalar:
                is_text = False
            if not is_text:
                self._note(
                    node, path, f"the key {node.value or 'null'} is not text", f'quote it: "{node.value}"'
                )
        return self._stored(node, path)

    def _stored(self, node: yaml.ScalarNode, path: KeyPath) -> str:
        """Join the surrogate pairs that JSON writes; refuse what no UTF-8 file can hold."""
        text = str(node.value)
        try:
            text = text.encode("utf-16", "surrogatepass").decode("utf-16")
        except UnicodeDecodeError:
            text = UNSTORABLE.sub("\0", text)
        if "\0" in text:
            self._note(node, path, "this text has a character that cannot be stored", "remove the escape")
        return text.replace("\0", "")

    def _note(self, node: yaml.Node, path: KeyPath, message: str, help: str) -> None:
        spot = self.source.spot(node.start_mark.index)
        self.problems.append(problem(spot, message, key=path, help=help))


def _syntax_error(source: Text, error: yaml.MarkedYAMLError) -> ConfigProblems:
    mark = error.problem_mark or error.context_mark
    offset = mark.index if mark else 0
    message = str(error.problem or error.context)
    if error.context_mark and "<stream end>" in message.replace("end of stream", "<stream end>"):
        return source.error(
            error.context_mark.index, "not YAML: this is never closed", "close the quote or bracket"
        )
    if source.text[offset : offset + 1] == "\t":
        return source.error(offset, "a tab cannot indent YAML", "use spaces")
    if message.startswith("but found another document"):
        return source.error(offset, "a second document starts here", "keep one document in a file")
    help = next((text for start, text in _HELP.items() if message.startswith(start)), "")
    return source.error(offset, f"not YAML: {message}", help)
