"""How many readings a device may send."""

from hypothesis import given
from hypothesis import strategies as st

from telemetry import limits
from telemetry.limits import DeviceLimit

# 60 a minute is one a second: seconds and readings are the same number.
PER_MINUTE, BURST = 60, 10


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(1, 40)), max_size=60))
def test_a_device_is_taken_at_its_rate_and_no_faster(sent: list[tuple[float, int]]) -> None:
    limit = DeviceLimit(PER_MINUTE, BURST)
    now, level = 0.0, float(BURST)  # the bucket as one would draw it
    for pause, count in sent:
        now += pause
        level = min(BURST, level + pause)
        refused = limit.charge({"A": count}, now)
        if abs(level - 1) > 1e-6:  # at the edge floats decide
            assert bool(refused) == (level < 1)
        if not refused:
            level -= count


@given(st.integers(1, 10_000))
def test_a_device_that_rested_may_send_one_request_of_any_size(count: int) -> None:
    limit = DeviceLimit(PER_MINUTE, BURST)
    assert limit.charge({"A": count}, 100.0) == {}
    waits = limit.charge({"A": 1}, 100.0)
    assert (waits == {}) == (count < BURST)
    if waits:
        assert limit.charge({"A": 1}, 100.0 + waits["A"] - 0.01) != {}
        assert limit.charge({"A": 1}, 100.0 + waits["A"] + 0.01) == {}


def test_one_device_does_not_use_up_what_another_may_send() -> None:
    limit = DeviceLimit(PER_MINUTE, BURST)
    limit.charge({"A": 1_000}, 0.0)
    refused = limit.charge({"A": 1, "B": 5}, 1.0)
    assert set(refused) == {"A"}
    assert limit.charge({"B": 5}, 1.0) == {}


def test_what_was_refused_is_not_charged() -> None:
    limit = DeviceLimit(PER_MINUTE, BURST)
    limit.charge({"A": BURST + 5}, 0.0)
    for _ in range(1_000):
        assert limit.charge({"A": 100}, 1.0)
    assert limit.charge({"A": 1}, 6.1) == {}


def test_without_a_rate_there_is_no_limit() -> None:
    limit = DeviceLimit(0, 1)
    assert all(limit.charge({"A": 10_000}, 0.0) == {} for _ in range(100))


def test_devices_whose_bucket_is_full_again_are_forgotten() -> None:
    limit = DeviceLimit(PER_MINUTE, BURST)
    limit.charge({"DEBTOR": 10**9}, 0.0)
    for second in range(40):
        limit.charge({f"{second}-{number}": 1 for number in range(1_000)}, second * 10.0)
        assert len(limit._paid) <= limits._MOST_KEPT + 1_001
    assert limit.charge({"DEBTOR": 1}, 400.0)
