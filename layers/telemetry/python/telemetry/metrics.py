"""This system's own metrics in CloudWatch."""

from aws_lambda_powertools.metrics import MetricUnit, single_metric

NAMESPACE = "EnergyIngestionEngine"


def report_count(stack: str, name: str, value: int) -> None:
    """Write a metric of a stack that CloudWatch reads from the log."""
    with single_metric(name, MetricUnit.Count, value, namespace=NAMESPACE) as metric:
        metric.add_dimension("Stack", stack)
