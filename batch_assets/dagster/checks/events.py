"""Turn the result of a check into its event, to log it outside of the check's own step."""

import dagster as dg


def evaluation(result: dg.AssetCheckResult, *, blocking: bool = False) -> dg.AssetCheckEvaluation:
    """Return the event of a check result.

    Args:
        result: A result that names its asset and its check.
        blocking: Whether the check is blocking, as in its spec.
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
