"""CloudFormation's functions as the local stack resolves them."""

from typing import Any

import pytest

from local import LocalError
from local.intrinsics import Resolver

CONDITIONS = {
    "Yes": {"Fn::Equals": [{"Ref": "Stage"}, "local"]},
    "No": {"Fn::Not": [{"Condition": "Yes"}]},
    "Both": {"Fn::And": [{"Condition": "Yes"}, {"Condition": "No"}]},
    "Either": {"Fn::Or": [{"Condition": "Yes"}, {"Condition": "No"}]},
}
VALUES = {"Stage": "local", "Queue.Arn": "arn:queue"}
MISSING = {"Ref": "Missing"}


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ({"Fn::If": ["Yes", 1, MISSING]}, 1),
        ({"Fn::If": ["No", MISSING, 2]}, 2),
        ({"Fn::If": ["Both", MISSING, {"Ref": "Stage"}]}, "local"),
        ({"Fn::If": ["Either", "x", MISSING]}, "x"),
        ({"Fn::Sub": "${Stage}/${Queue.Arn}/${!Kept}"}, "local/arn:queue/${!Kept}"),
        ({"Fn::GetAtt": ["Queue", "Arn"]}, "arn:queue"),
        ([{"Ref": "AWS::NoValue"}, "kept"], ["kept"]),
        ({"gone": {"Fn::If": ["No", 1, {"Ref": "AWS::NoValue"}]}, "kept": 1}, {"kept": 1}),
    ],
)
def test_functions_are_resolved(value: Any, expected: Any) -> None:
    assert Resolver("template.yaml", CONDITIONS, VALUES).resolve(value, "Here") == expected


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (MISSING, "Here refers to Ref Missing, unknown here"),
        ({"Fn::Sub": "x${Missing.Arn}"}, "Here refers to Fn::Sub x"),
        ({"Fn::If": ["Maybe", 1, 2]}, "Here names the condition Maybe, unknown here"),
        ({"Fn::ImportValue": "x"}, "Here refers to Fn::ImportValue x, unknown here"),
    ],
)
def test_what_cannot_be_resolved_is_named(value: Any, named: str) -> None:
    with pytest.raises(LocalError, match=f"template.yaml: {named}"):
        Resolver("template.yaml", CONDITIONS, VALUES).resolve(value, "Here")
