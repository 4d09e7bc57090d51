"""Keys of metadata and tags: every name that this project writes into Dagster."""

from __future__ import annotations

# Of asset definitions.
PIPELINE = "batch_assets/pipeline"  # metadata: the pipeline's file; see pipelines.py
STAGE = "batch_assets/stage"  # tag: requests | batches | results

# Of runs that the sensor requests.
SUBMISSION = "batch_assets/submission"
ROUND = "batch_assets/round"
MAX_RUNTIME = "dagster/max_runtime"
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
MAX_RETRIES = "dagster/max_retries"

# Of runs of a backfill that have `results`: how many of their partitions are not materialized; see backfills.py.
LEFT = "batch_assets/left_to_sensor"
STOPPED = "batch_assets/stopped"

# Metadata of events. Numbers are numbers, so that Dagster plots them. Its page shows 34 characters of a key.
SUBMISSION_ID = "batch_assets/submission_id"
ROWS = "batch_assets/rows"
REJECTED = "batch_assets/rejected"
REQUESTS = "batch_assets/requests"
NEW = "batch_assets/new"
REUSED = "batch_assets/reused"
IN_FLIGHT = "batch_assets/in_flight"
LEFT_OUT = "batch_assets/left_out"
ESTIMATED_REQUESTS = "batch_assets/estimated_requests"
ESTIMATED_COST = "batch_assets/estimated_cost"
ESTIMATED_COST_USD = "batch_assets/estimated_cost_usd"
ESTIMATED_LOW_USD = "batch_assets/estimated_low_usd"
ESTIMATED_HIGH_USD = "batch_assets/estimated_high_usd"
ESTIMATE_OFF_PERCENT = "batch_assets/estimate_off_percent"
REST_COST = "batch_assets/rest_cost"
WARNINGS = "batch_assets/warnings"
HELD = "batch_assets/held"
PILOT = "batch_assets/pilot"
PREVIEW = "batch_assets/preview"
WITHOUT_PARTITION = "batch_assets/without_partition"
MIXED_COLUMNS = "batch_assets/mixed_columns"
FILES = "batch_assets/files"
BYTES = "batch_assets/bytes"
REJECTED_ROWS = "batch_assets/rejected_rows"
BATCHES = "batch_assets/batches"
BATCHES_OPEN = "batch_assets/batches_open"
PAID_TWICE = "batch_assets/paid_twice"
BATCH_IDS = "batch_assets/batch_ids"
BATCH_TABLE = "batch_assets/batch_table"
CONSOLE = "batch_assets/console"
SUBMITTED = "batch_assets/submitted"
ASKED_AGAIN = "batch_assets/asked_again"
WAITING = "batch_assets/waiting"
REFUSED = "batch_assets/refused"
PROBLEMS = "batch_assets/problems"
INVALID_OUTPUTS = "batch_assets/invalid_outputs"
KEPT = "batch_assets/kept"
REFUSED_ANSWERS = "batch_assets/refused_answers"
TRUNCATED_ANSWERS = "batch_assets/truncated_answers"
ATTEMPTS = "batch_assets/attempts"
INPUT_TOKENS = "batch_assets/input_tokens"
OUTPUT_TOKENS = "batch_assets/output_tokens"
CACHE_WRITE_TOKENS = "batch_assets/cache_write_tokens"
CACHE_READ_TOKENS = "batch_assets/cache_read_tokens"
CACHE_HIT_RATE = "batch_assets/cache_hit_rate"
CACHE_PROBLEM = "batch_assets/cache_problem"
SAVED_CACHE_USD = "batch_assets/saved_cache_usd"
COST_USD = "batch_assets/cost_usd"
NEW_COST_USD = "batch_assets/new_cost_usd"
REUSED_COST_USD = "batch_assets/reused_cost_usd"
LIVE_COST_USD = "batch_assets/live_cost_usd"
RESCUED = "batch_assets/rescued"
RESCUE_COST_USD = "batch_assets/rescue_cost_usd"
LIVE_CALLS = "batch_assets/live_calls"
SPENT_USD = "batch_assets/spent_usd"
SPEND_NOT_LOGGED_USD = "batch_assets/spend_not_logged_usd"
SPEND_UNKNOWN = "batch_assets/spend_unknown_answers"
SPEND_BATCHES = "batch_assets/spend_batches"
SPEND_TOTAL_USD = "batch_assets/spend_total_usd"
SPEND_MOST_USD = "batch_assets/spend_most_usd"
SPEND_UNANSWERED = "batch_assets/spend_unanswered"
SPEND_UNPRICED = "batch_assets/spend_unpriced"
SPEND_BY_DAY = "batch_assets/spend_by_day"
SPEND_BY_PIPELINE = "batch_assets/spend_by_pipeline"
SPEND_BY_MODEL = "batch_assets/spend_by_model"
COST_EXCLUDES = "batch_assets/cost_excludes"
COST_UNKNOWN = "batch_assets/cost_unknown"
QUEUE_SECONDS = "batch_assets/queue_seconds"
PROCESSING_SECONDS = "batch_assets/processing_seconds"
COLLECTION_SECONDS = "batch_assets/collection_seconds"
ERRORS = "batch_assets/errors"
TABLE = "batch_assets/table"
WAITING_TABLE = "batch_assets/waiting_table"
SINK = "batch_assets/sink"
SAMPLE = "batch_assets/sample"
FAILED_ROWS = "batch_assets/failed_rows"
UNUSABLE_ANSWERS = "batch_assets/unusable_answers"

NOT_OF_USERS = ("batch_assets/", "dagster/")
"""How the names of tags begin that Dagster or this project sets."""

# Dagster's own keys, which its UI shows in a special way.
ROW_COUNT = "dagster/row_count"
PARTITION_ROW_COUNT = "dagster/partition_row_count"
URI = "dagster/uri"
TABLE_NAME = "dagster/table_name"
COLUMN_SCHEMA = "dagster/column_schema"
COLUMN_LINEAGE = "dagster/column_lineage"


def count_key(kind: str) -> str:
    """Return the key of a count: of rows by `result_type`, or of requests by the API's `request_counts`."""
    return f"batch_assets/{kind}"


def values_key(column: str) -> str:
    """Return the key of the answers by the value of a column. No other key has a colon."""
    return f"batch_assets/values:{column}"


def share_key(column: str, value: str) -> str:
    """Return the key of the share of the answers that have a value in a column."""
    return f"batch_assets/{column}:{value}"


def total_key(column: str) -> str:
    """Return the key of the sum of a column of the table of what was spent."""
    return f"batch_assets/spend_{column}"
