"""Replace a response file by one with the same rows, some of which are changed."""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa

from batch_assets.core.io.names import ResponseName
from batch_assets.core.io.parquet import TableWriter
from batch_assets.core.ledger import batches, leases
from batch_assets.core.root import Root
from batch_assets.core.store.responses import RESPONSE_ENCODING, open_responses, reading_responses


def rewrite_file(
    root: Root,
    pipeline: str,
    name: ResponseName,
    change: Callable[[pa.Table], pa.Table],
    check: Callable[[], None],
) -> None:
    """Rewrite a response file, row group by row group. A killed process leaves the old file or the new one.

    Args:
        root: The root.
        pipeline: The name of the pipeline.
        name: The file.
        change: Returns a row group as it is to be written. It gets all of them, in their order.
        check: Called before the file is replaced. It may raise.

    Raises:
        BusyError: When another process collects the same batch.
        DamagedFileError: When the file cannot be read.
    """
    batch = name.batch_id or str(name.refused or name.stem)
    lease_name, work = batches.lease_name(batch), f"the results of {batch}"
    target = root.storage.path(pipeline, "responses", str(name))
    with leases.hold(root.ledger, lease_name, work=work, pipeline=pipeline) as lease:
        root.storage.remove_leftovers(pipeline, "responses", name=str(name))
        with root.storage.scratch_file(target) as scratch:
            with (
                open_responses(root.storage, pipeline, name) as file,
                TableWriter(scratch, file.schema_arrow, **RESPONSE_ENCODING) as writer,
            ):
                for group in range(file.num_row_groups):
                    with reading_responses(root.storage, pipeline, name):
                        rows = file.read_row_group(group, use_threads=False)
                    writer.write(change(rows))
            check()
            lease.check()
            root.storage.publish(scratch, target)
