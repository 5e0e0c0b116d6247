"""YAML as lcprobe reads and writes it: one dialect, so that what is written is read back as it was.

Keys are texts, as written: labels such as `on`, `no`, `1e3` and `007` stay what they are. Of values, `true` and
`false` are booleans (`on`, `off`, `yes`, `no` are texts), 1e3 and 1.5 are numbers, and dates are texts. Whole numbers
are those of YAML 1.2, with _ between digits: 017 is 17, 0o17 is 15, and 1:30 is a text. No tags: nothing is
constructed but texts, numbers, booleans, null, lists and mappings.
"""

import re
from collections.abc import Callable
from typing import Any, ClassVar

import yaml

PLAIN = "tag:yaml.org,2002:"
TRUE_OR_FALSE = re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$")
FLOAT = re.compile(
    r"""^(?:[-+]?[0-9][0-9_]*\.[0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?[0-9][0-9_]*[eE][-+]?[0-9]+
    |[-+]?\.[0-9][0-9_]*(?:[eE][-+]?[0-9]+)?
    |[-+]?\.(?:inf|Inf|INF)
    |\.(?:nan|NaN|NAN))$""",
    re.X,
)
"""Numbers with a fraction or an exponent. YAML 1.1 asks for both, so that its 1e3 is a text; YAML 1.2 does not."""
INT = re.compile(r"[-+]?[0-9][0-9_]*\Z|0o[0-7]+\Z|0x[0-9a-fA-F]+\Z")
"""Whole numbers. In YAML 1.1, 017 is 15 and 1:30 is 90."""
KNOWN = {f"{PLAIN}{name}" for name in ("null", "bool", "int", "float", "str", "seq", "map", "merge")}


class _Reader(yaml.SafeLoader):
    """SafeLoader without tags and dates, with texts as keys and each key once."""

    yaml_implicit_resolvers: ClassVar[dict[str, Any]] = {
        first: [(tag, pattern) for tag, pattern in pairs if tag in {f"{PLAIN}{n}" for n in ("null", "merge")}]
        for first, pairs in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }

    def construct_object(self, node: yaml.Node, deep: bool = False) -> Any:
        """Raises ConstructorError for a tag, such as !!binary or !!python/object."""
        if node.tag not in KNOWN:
            raise yaml.constructor.ConstructorError(None, None, f"the tag {node.tag}", node.start_mark)
        return super().construct_object(node, deep)

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[str, Any]:
        """A mapping whose keys are the texts that were written. Raises ConstructorError for one that is there
        twice."""
        own = [key.value for key, _ in node.value if key.tag != f"{PLAIN}merge" and isinstance(key, yaml.ScalarNode)]
        twice = next((key for key in own if own.count(key) > 1), None)
        if twice is not None:
            raise yaml.constructor.ConstructorError(None, None, f"the key {twice} is there twice", node.start_mark)
        self.flatten_mapping(node)
        mapping: dict[str, Any] = {}
        for key, value in node.value:
            if not isinstance(key, yaml.ScalarNode):
                raise yaml.constructor.ConstructorError(None, None, "a key that is no text", key.start_mark)
            mapping[key.value] = self.construct_object(value, deep=True)
        return mapping

    def construct_whole_number(self, node: yaml.ScalarNode) -> int:
        """A number that INT matches. Raises ValueError for one of thousands of digits."""
        text = str(self.construct_scalar(node)).replace("_", "")
        return int(text, {"0o": 8, "0x": 16}.get(text[:2], 10))

    def construct_yaml_map(self, node: yaml.MappingNode) -> Any:
        """See construct_mapping."""
        data: dict[str, Any] = {}
        yield data
        data.update(self.construct_mapping(node))


_Reader.add_constructor(f"{PLAIN}map", _Reader.construct_yaml_map)
_Reader.add_constructor(f"{PLAIN}int", _Reader.construct_whole_number)
_Reader.add_implicit_resolver(f"{PLAIN}int", INT, list("-+0123456789"))
_Reader.add_implicit_resolver(f"{PLAIN}bool", TRUE_OR_FALSE, list("tTfF"))
_Reader.add_implicit_resolver(f"{PLAIN}float", FLOAT, list("-+0123456789."))


class _Writer(yaml.SafeDumper):
    """SafeDumper that puts quotes around every text that YAML 1.1 or this dialect would read as something else."""


_Writer.add_implicit_resolver(f"{PLAIN}float", FLOAT, list("-+0123456789."))
_Writer.add_implicit_resolver(f"{PLAIN}int", INT, list("-+0123456789"))


def read_yaml(text: str, check: Callable[[yaml.Node], None] | None = None) -> Any:
    """The value of a YAML document; None for an empty one. check: is given the document before its value is made.
    Raises yaml.YAMLError, ValueError for a number that is none, and what `check` raises."""
    reader = _Reader(text)
    try:
        root = reader.get_single_node()
        if root is None:
            return None
        if check is not None:
            check(root)
        return reader.construct_document(root)
    finally:
        reader.dispose()


def write_yaml(value: Any, **style: Any) -> str:
    """Plain values as a YAML document that `read_yaml`, and other readers, read as they are. style: of yaml.dump."""
    return yaml.dump(value, Dumper=_Writer, sort_keys=False, allow_unicode=True, **style)
