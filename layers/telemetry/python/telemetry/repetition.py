"""Names that a JSON object has more than once.

Readers of JSON take the last of such values and say nothing of the others. Of two values for one
field nobody knows which the device meant.
"""

import json
from collections import Counter
from typing import Any, NoReturn

from pydantic import ValidationError
from pydantic_core import InitErrorDetails, PydanticCustomError

MOST_NAMES = 50


class Repetition:
    """A JSON object in which names are repeated."""

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        names = Counter(name for name, _ in pairs)
        self._repeated = [name for name, count in names.items() if count > 1]

    @property
    def error(self) -> ValidationError:
        """What is wrong with it, as of any other object that is refused."""
        once = PydanticCustomError("repeated", "Field should be given once")
        return ValidationError.from_exception_data(
            "object",
            [
                InitErrorDetails(type=once, loc=(name,), input=None)
                for name in self._repeated[:MOST_NAMES]
            ],
        )


def read_json(text: str | bytes) -> Any:
    """Return what a text says, numbers as floats; raise ValueError where it is no JSON.

    What repeats names is a Repetition in the place of a dict.
    """
    return json.loads(
        text, object_pairs_hook=_object, parse_int=float, parse_constant=_refuse_constant
    )


def _object(pairs: list[tuple[str, Any]]) -> "dict[str, Any] | Repetition":
    read = dict(pairs)
    return read if len(read) == len(pairs) else Repetition(pairs)


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is no JSON")
