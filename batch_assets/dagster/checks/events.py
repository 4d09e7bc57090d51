"""What a check found, as the event of it, where no step of its own logs it."""

import dagster as dg


def evaluation(result: dg.AssetCheckResult, *, blocking: bool = False) -> dg.AssetCheckEvaluation:
    """The event of a result that names its asset and its check.

    Args:
        blocking: as the check's spec says.
    """
    assert result.asset_key is not None and result.check_name is not None
    return dg.AssetCheckEvaluation(
        result.asset_key,
        result.check_name,
        result.passed,
        metadata=result.metadata,
        severity=result.severity,
        description=result.description,
        blocking=blocking,
    )
