"""CloudFormation's functions in a template, resolved from one table of values.

Conditions are evaluated, and of an `!If` only the branch that holds is looked at: what the other
refers to need not exist here.
"""

import re
from collections.abc import Mapping
from typing import Any

from local import LocalError

# `${Name}` and `${Name.Attribute}`, but not `${!Literal}`.
_VARIABLE = re.compile(r"\$\{([^!}]+)\}")
_NO_VALUE = object()


class Resolver:
    """Resolves what a template says by what its references mean."""

    def __init__(
        self, file: str, conditions: Mapping[str, Any], values: Mapping[str, str | list[str]]
    ) -> None:
        """values: `Name` for `!Ref Name`, `Name.Attribute` for `!GetAtt Name.Attribute`."""
        self._file = file
        self._conditions = conditions
        self._values = values

    def resolve(self, value: Any, where: str) -> Any:
        """Return a value without functions.

        Raises LocalError, naming what is referred to from where and has no value.
        """
        if isinstance(value, list):
            resolved = (self.resolve(entry, where) for entry in value)
            return [entry for entry in resolved if entry is not _NO_VALUE]
        if not isinstance(value, dict):
            return value
        if len(value) == 1:
            [(kind, argument)] = value.items()
            if kind in {"Ref", "Condition"} or kind.startswith("Fn::"):
                return self._call(kind, argument, where)
        entries = {key: self.resolve(entry, where) for key, entry in value.items()}
        return {key: entry for key, entry in entries.items() if entry is not _NO_VALUE}

    def _call(self, kind: str, argument: Any, where: str) -> Any:  # noqa: PLR0911 - one a function
        match kind:
            case "Ref" | "Fn::GetAtt":
                name = ".".join(argument) if isinstance(argument, list) else argument
                return self._value(name, f"{kind} {name}", where)
            case "Fn::Sub" if isinstance(argument, str):
                return _VARIABLE.sub(
                    lambda found: str(self._value(found[1], f"Fn::Sub {argument}", where)), argument
                )
            case "Fn::If":
                condition, then, otherwise = argument
                return self.resolve(then if self._holds(condition, where) else otherwise, where)
            case "Condition":
                return self._holds(argument, where)
            case "Fn::Equals":
                left, right = self.resolve(argument, where)
                return left == right
            case "Fn::Not":
                return not self.resolve(argument, where)[0]
            case "Fn::And":
                return all(self.resolve(argument, where))
            case "Fn::Or":
                return any(self.resolve(argument, where))
            case "Fn::Join":
                separator, parts = argument
                return separator.join(self.resolve(parts, where))
        raise LocalError(f"{self._file}: {where} refers to {kind} {argument}, unknown here")

    def _holds(self, condition: str, where: str) -> bool:
        if condition not in self._conditions:
            raise LocalError(f"{self._file}: {where} names the condition {condition}, unknown here")
        return bool(self.resolve(self._conditions[condition], condition))

    def _value(self, name: str, said: str, where: str) -> Any:
        if name == "AWS::NoValue":
            return _NO_VALUE
        if name not in self._values:
            raise LocalError(f"{self._file}: {where} refers to {said}, unknown here")
        return self._values[name]
