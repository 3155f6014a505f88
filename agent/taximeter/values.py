"""Frozen values: what facts, states and records are made of. The one door to the library that makes them.

For every fact of every journal some dozen are made and as many read, so what they cost is what the agent costs: a
Struct of msgspec is made in a third of the time that a named tuple takes, and `replace` takes a third of the time, too.
In what is kept it is a row of its fields: a new field goes last and has a default. Refuses to know what a value means.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import Field, replace
    from typing import Any, ClassVar, dataclass_transform

    @dataclass_transform(frozen_default=True)
    class Value:
        """A frozen value, made of its fields, equal to whatever of its kind has the same."""

        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]

    @dataclass_transform(frozen_default=True)
    class Part:
        """The same, for what is a part of a record: written as an object of its fields, by name."""

        __dataclass_fields__: ClassVar[dict[str, Field[Any]]]
else:
    from msgspec import Struct
    from msgspec.structs import replace

    class Value(Struct, frozen=True, array_like=True, gc=False):
        """A frozen value, made of its fields, equal to whatever of its kind has the same."""

    class Part(Struct, frozen=True, gc=False):
        """The same, for what is a part of a record: written as an object of its fields, by name."""


__all__ = ["Part", "Value", "replace"]
