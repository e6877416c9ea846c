"""What an event source mapping makes of messages and of a handler's answer."""

import pytest

from local.mapping import MOST_EVENT_BYTES, failed_messages, split_records

MESSAGES = {"a", "b", "c"}


@pytest.mark.parametrize(
    "returned",
    [None, {}, {"batchItemFailures": []}, {"batchItemFailures": None}, {"statusCode": 200}],
)
def test_without_failures_all_are_done(returned: object) -> None:
    assert failed_messages(returned, MESSAGES) == set()


def test_what_is_named_comes_again() -> None:
    returned = {"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "c"}]}
    assert failed_messages(returned, MESSAGES) == {"a", "c"}


@pytest.mark.parametrize(
    "returned",
    [
        {"batchItemFailures": [{"itemIdentifier": ""}]},
        {"batchItemFailures": [{"itemIdentifier": None}]},
        {"batchItemFailures": [{"itemIdentifier": "a"}, {"itemIdentifier": "unknown"}]},
        {"batchItemFailures": [{"messageId": "a"}]},
        {"batchItemFailures": [{"itemIdentifier": ["a"]}]},
        {"batchItemFailures": ["a"]},
        {"batchItemFailures": 1},
        "done",
    ],
)
def test_an_answer_that_is_none_means_that_all_failed(returned: object) -> None:
    assert failed_messages(returned, MESSAGES) == MESSAGES


def test_an_event_is_no_larger_than_lambda_takes_it() -> None:
    # Each quote takes two bytes in an event.
    records = [{"messageId": str(number), "body": '"' * 1_000_000} for number in range(7)]
    events = list(split_records(records))
    assert [len(event) for event in events] == [3, 3, 1]
    assert [record for event in events for record in event] == records
    small = [{"messageId": str(number), "body": "x"} for number in range(10)]
    assert list(split_records(small)) == [small]
    assert 3 * 2_000_000 < MOST_EVENT_BYTES < 4 * 2_000_000
