"""Settings of the Celery workers, which dagster-celery imports by this name."""

import os

broker_url = os.environ["DAGSTER_CELERY_BROKER"]
result_backend = os.environ["DAGSTER_CELERY_BACKEND"]
# A worker takes a run when it has a process for it. Otherwise it keeps one more, while another worker is idle.
worker_prefetch_multiplier = 1
worker_disable_prefetch = True
