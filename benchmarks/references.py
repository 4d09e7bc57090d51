"""Two ways to answer a dataset through Message Batches without this project, as references for measurements.

`typed_sdk` is what most scripts look like: pandas at both ends and the SDK's own objects between them.
`bare_loop` does about as little work as the task allows in Python: it streams bytes and records nothing.
Both read the columns `id` and `text`, send the same requests, and find the endpoint and the key like the SDK,
in `ANTHROPIC_BASE_URL` and `ANTHROPIC_API_KEY`.
"""

from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import anthropic
import httpx2
import numpy as np
import orjson
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from anthropic.types.messages import MessageBatch
from anthropic.types.messages.batch_create_params import Request

from benchmarks import bare_loop as bare
from benchmarks.workload import MAX_TOKENS, MODEL, SYSTEM, USER_TEMPLATE


def typed_sdk(dataset: Path, out: Path, work: Path) -> None:
    """Answer `dataset` with pandas and the SDK's typed methods, and write the joined table to `out`.

    Everything is held in memory. `work` is not used; it is there so that both references are called alike.
    """
    del work
    client = anthropic.Anthropic()
    rows = pd.read_parquet(dataset)

    batch_ids = []
    for requests in _typed_requests(rows):
        batch_ids.append(client.messages.batches.create(requests=requests).id)

    answers: list[dict[str, Any]] = []
    for batch_id in batch_ids:
        bare.wait_until(partial(_has_ended, client, batch_id))
        for response in client.messages.batches.results(batch_id):
            answer: dict[str, Any] = {"id": response.custom_id, "result_type": response.result.type}
            if response.result.type == "succeeded":
                message = response.result.message
                answer["response_text"] = "".join(block.text for block in message.content if block.type == "text")
                answer["stop_reason"] = message.stop_reason
                answer["model"] = message.model
                answer["message_id"] = message.id
                answer["input_tokens"] = message.usage.input_tokens
                answer["output_tokens"] = message.usage.output_tokens
            answers.append(answer)

    results = pd.DataFrame(answers, columns=bare.RESULT_SCHEMA.names)
    results = results.astype({"input_tokens": "Int64", "output_tokens": "Int64"})
    rows.merge(results, on="id", how="left", validate="one_to_one").to_parquet(out, index=False)


def _has_ended(client: anthropic.Anthropic, batch_id: str) -> bool:
    return client.messages.batches.retrieve(batch_id).processing_status == "ended"


def bare_loop(dataset: Path, out: Path, work: Path) -> None:
    """Answer `dataset` with the loop of `benchmarks.bare_loop`, through the SDK's client."""
    bare.answer(_SdkTransport(), dataset, out, work)


def make_dataset(path: Path, rows: int, seed: int = 0) -> None:
    """Write a Parquet file of `rows` distinct texts of about 500 bytes, in the columns `id` and `text`.

    The same `rows` and `seed` give the same file. Memory does not grow with `rows`.
    """
    chunk = 20_000
    schema = pa.schema([("id", pa.string()), ("text", pa.string())])
    random = np.random.default_rng(seed)
    with pq.ParquetWriter(path, schema) as writer:
        for start in range(0, rows, chunk):
            size = min(chunk, rows - start)
            picks = random.integers(len(_REMARKS), size=(size, 8)).tolist()
            orders = random.integers(16**8, size=size).tolist()
            ids = [f"row-{start + offset:09d}" for offset in range(size)]
            texts = [
                f"Order {start + offset}-{order:08x}. " + " ".join([_REMARKS[pick] for pick in picked])
                for offset, (order, picked) in enumerate(zip(orders, picks, strict=True))
            ]
            writer.write_batch(pa.record_batch([ids, texts], schema=schema))


def _typed_requests(rows: pd.DataFrame) -> Iterator[list[Request]]:
    """Lists of requests, each within the limits of one batch."""
    requests: list[Request] = []
    size = 0
    for row_id, text in zip(rows["id"], rows["text"], strict=True):
        request: Request = {
            "custom_id": row_id,
            "params": {
                "model": MODEL,
                "max_tokens": MAX_TOKENS,
                "system": SYSTEM,
                "messages": [{"role": "user", "content": USER_TEMPLATE.replace("{{ text }}", text)}],
            },
        }
        length = len(orjson.dumps(request)) + 1  # cheap compared with create(), and the true size
        if requests and (len(requests) == bare.MAX_REQUESTS or size + length > bare.MAX_BYTES):
            yield requests
            requests, size = [], 0
        requests.append(request)
        size += length
    if requests:
        yield requests


class _SdkTransport:
    """The SDK's client without its objects."""

    def __init__(self) -> None:
        self._client = anthropic.Anthropic(max_retries=0)

    def create(self, body: Path) -> str:
        headers = {"Content-Length": str(body.stat().st_size)}
        content = bare.FileBody(body)
        batch = self._client.post(
            bare.BATCHES, cast_to=MessageBatch, content=content, options={"headers": headers}
        )
        return batch.id

    def has_ended(self, batch_id: str) -> bool:
        return self._client.messages.batches.retrieve(batch_id).processing_status == "ended"

    def download(self, batch_id: str, path: Path) -> None:
        response = self._client.get(
            f"{bare.BATCHES}/{batch_id}/results", cast_to=httpx2.Response, stream=True, stream_cls=None
        )
        try:
            bare.save(response, path)
        finally:
            response.close()


# Sentences of the invented customers. Eight of them, drawn at random, make one text.
# codespell:ignore-begin
_REMARKS = (
    "The parcel sat at the depot for four days and nobody could tell me why.",
    "I ordered two pairs of gaiters and got one, and it was the wrong colour.",
    'The courier wrote "left with neighbour" although I have no neighbours.',
    "Your chat opened at once and the person in it knew the product well.",
    "The zip of the inner tent jams whenever the fabric gets damp.",
    "My discount code was accepted, then vanished on the payment page.",
    "I would buy this stove again tomorrow, it boils a litre in three minutes.",
    "The sole came loose on the second walk, about nine kilometres in.",
    "Size 42 fits like a 41, so please say that on the page.",
    "After the update the app signs me out each time I turn the phone.",
    "We camped at 2,100 metres in sleet and stayed dry all night.",
    "The invoice shows the old address, and accounting sends it back to me.",
    "Could you tell me whether the pole set of the older model fits?",
    "A strap tore at the seam while I was lifting the pack into the car.",
    "The return label had the wrong postcode and the post office refused it.",
    "Honestly the best rucksack I have carried in thirty years 🏔️.",
    "The jacket smells of glue, even after three washes.",
    "You charged my card twice on the same evening; I see 84.90 both times.",
    "The colour is nothing like the photo: moss green is really mustard.",
    "My daughter wears the headlamp as a crown and refuses to take it off.",
    "Delivery to the island cost more than the socks I had ordered.",
    "The manual is in six languages and none of them makes sense.",
    "I have written three e-mails since Monday and had no answer.",
    "Everything came in paper, no plastic at all, thank you for that.",
    "The mat loses air overnight; I looked for a hole in the bath, found none.",
    "Your shop in Zürich measured my feet properly, which nobody ever did.",
    "The tracking page says delivered, my doorstep says otherwise.",
    "One buckle was missing, you sent it within two days, all good.",
    "The down leaks through the seams and I look like a plucked goose.",
    "Search finds nothing when I type the article number with a dash.",
    "I cancelled within ten minutes and it was shipped all the same.",
    "The trekking poles collapse under load, which scared me on a scree slope.",
    "Great value, though the cord locks feel cheap compared with the rest.",
    "The gift card balance is wrong by exactly the amount of the postage.",
    "Please bring back the old lacing, the new one slips on every descent.",
    "The filter clogged after twelve litres of clear mountain water.",
    "I like that spare parts are listed next to the product.",
    "The boots needed no breaking in, I walked 18 km on the first day.",
    "Your size chart mixes inches and centimetres in the same column.",
    "The rain cover is so bright that the cows ran away from me.",
    "Customs asked me for a paper that was not in the box.",
    "The second tent arrived without pegs, like the first one.",
    "I was told the refund takes five days; today is day nineteen.",
    "The thermos keeps tea hot until the afternoon, exactly as promised.",
    "Voice-over reads every button in the basket as 'button, button, button'.",
    "We ordered for a school trip, 24 pieces, and the batch prices were fair.",
    "There is a stain on the lining and the tag had already been cut off.",
    "Die Beratung am Telefon war freundlich, aber die Warteschleife sehr lang.",
    "Le colis était ouvert et il manquait la sangle ventrale.",
    "La talla es correcta, pero las mangas me quedan cortísimas.",
    "I read the care label twice and still melted the membrane, my own fault.",
    "The compass points south, which is funny for about a minute.",
    "Your newsletter comes daily although I ticked weekly.",
    "The lid of the pot does not fit the pot it is sold with.",
    "It survived two winters, a flood in the cellar and my brother-in-law.",
    "The hip belt is too long for me even when pulled tight.",
    "Paying by bank transfer failed with an error that only said undefined.",
    "I asked for a repair and got a new one, I did not expect that.",
    "The gloves work on a touch screen, just not when they are wet.",
    "There is no way to change the delivery address after ordering.",
    "The rope is two metres shorter than stated, I measured it twice.",
    "The picture of the hammock hides that the straps are sold separately.",
    "Three stars because the product is fine and the wait was not.",
    "I will recommend you to my hiking club all the same.",
)
# codespell:ignore-end
