"""Settings of the Celery workers, which dagster-celery imports by this name."""

import os

broker_url = os.environ["DAGSTER_CELERY_BROKER"]
result_backend = os.environ["DAGSTER_CELERY_BACKEND"]
worker_prefetch_multiplier = 1
