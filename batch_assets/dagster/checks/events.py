"""Turn the result of a check into its event, to log it outside of the check's own step."""

import dagster as dg
from dagster._core.definitions.asset_checks.asset_check_evaluation import (
    AssetCheckEvaluationTargetMaterializationData as Target,
)


def evaluation(
    result: dg.AssetCheckResult,
    *,
    blocking: bool = False,
    partition: str | None = None,
    target: Target | None = None,
) -> dg.AssetCheckEvaluation:
    """Return the event of a check result.

    Args:
        result: A result that names its asset and its check.
        blocking: Whether the check is blocking, as in its spec.
        partition: The partition that the result is about; None for a check without partitions.
        target: The materialization that the result is about, if it is known.
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
        partition=partition,
        target_materialization_data=target,
    )
