"""Plain YAML, read by PyYAML, with the line of each value: `pip install "hookware[yaml]"`.

One document of keys, lists and plain values; no tags, no anchors and no key twice, as in App Engine's own reader.
"""

from typing import NoReturn

from hookware.core.yaml_values import Path
from hookware.errors import ConfigurationError

try:
    import yaml
except ImportError as error:
    raise ImportError('YAML files need PyYAML: pip install "hookware[yaml]"', name="yaml") from error

_MOST_DEPTH = 20


def read_yaml(text: str, name: str, lines: dict[Path, int]) -> object:
    """Give what a YAML text says, and put into `lines` where each value stands.

    Raises:
        ConfigurationError: it is not YAML, or more than plain YAML; it says where. `name` is what it calls the text.
    """
    try:
        _check(text, name)
        loader = yaml.SafeLoader(text)
        try:
            return _Reader(loader, name, lines).value(loader.get_single_node(), ())
        finally:
            loader.dispose()
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = f"{name}, line {mark.line + 1}" if mark else name
        problem = getattr(error, "problem", None) or str(error)
        raise ConfigurationError(f"{where}: {problem}: this is not plain YAML") from None


def _check(text: str, name: str) -> None:
    """Refuse what is more than one plain document, before anything is built of it."""
    depth = documents = 0
    for event in yaml.parse(text, Loader=yaml.SafeLoader):
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        documents += isinstance(event, yaml.DocumentStartEvent)
        if documents > 1:
            _refuse(name, event, "a second document begins: use one file for each")
        if depth > _MOST_DEPTH:
            _refuse(name, event, f"this is nested more than {_MOST_DEPTH} deep")
        if getattr(event, "anchor", None) is not None:
            _refuse(name, event, "anchors and aliases are not allowed: write the value out")
        if isinstance(event, yaml.NodeEvent) and getattr(event, "tag", None) is not None:
            _refuse(name, event, f"the tag {event.tag!r} is not allowed: write a plain value")
    if documents == 0:
        raise ConfigurationError(f"{name} is empty: write at least '{{}}'")


class _Reader:
    """Turns nodes into values, and notes their lines."""

    def __init__(self, loader: yaml.SafeLoader, name: str, lines: dict[Path, int]) -> None:
        self._loader = loader
        self._name = name
        self._lines = lines

    def value(self, node: yaml.Node, path: Path) -> object:
        self._lines.setdefault(path, node.start_mark.line + 1)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.value(each, (*path, index)) for index, each in enumerate(node.value)]
        try:
            plain: object = self._loader.construct_object(node)
        except (ValueError, OverflowError) as error:
            _refuse(self._name, node, f"{node.value[:100]!r} is not a value: {error}; put it in quotes")
        return plain

    def _mapping(self, node: yaml.MappingNode, path: Path) -> dict[str, object]:
        values: dict[str, object] = {}
        for key_node, value_node in node.value:
            if not isinstance(key_node, yaml.ScalarNode):
                _refuse(self._name, key_node, "a key must be a word")
            key = str(key_node.value)
            if key in values:
                _refuse(self._name, key_node, f"the key {key!r} is there twice: keep one of them")
            self._lines[*path, key] = key_node.start_mark.line + 1
            values[key] = self.value(value_node, (*path, key))
        return values


def _refuse(name: str, at: yaml.Event | yaml.Node, rule: str) -> NoReturn:
    raise ConfigurationError(f"{name}, line {at.start_mark.line + 1}: {rule}")
