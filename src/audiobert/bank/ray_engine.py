"""Build on a Ray cluster: actors hold the encoder, blocks of clips travel to them as a Ray dataset."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import Any

from audiobert.bank.batches import batched
from audiobert.bank.decode import DecodeSettings
from audiobert.bank.encode import ClipEncoder, encode_block
from audiobert.bank.journal import Record
from audiobert.bank.workers import Block, available_cores, decode_blocks, decode_task
from audiobert.errors import InputError, needs

log = logging.getLogger(__name__)

# Blocks per Ray dataset: the source is read in pieces of this size, so that memory stays flat as it grows.
_BLOCKS_PER_DATASET = 2_048
# Retries of a block whose worker died; after them the rest of the dataset is decoded and encoded on this machine.
_RETRIES = 3


class _BlockEncoder:
    """Decoder and encoder of blocks in an actor."""

    def __init__(self, encoder: list[Any], decoding: DecodeSettings) -> None:
        import ray

        self._encoder: ClipEncoder = ray.get(encoder[0])
        self._decoding = decoding

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        block: Block = row["block"]
        decoded = [decode_task(task, self._decoding) for task in block]
        return {"number": row["number"], "records": encode_block(block, decoded, self._encoder)}


def _retrying() -> dict[str, Any]:
    return {"max_restarts": -1, "max_task_retries": _RETRIES}


def encode_blocks(
    blocks: Iterable[Block], encoder: ClipEncoder, decoding: DecodeSettings, workers: int | None, address: str | None
) -> Iterator[tuple[Block, list[Record]]]:
    """Decode and encode blocks on a cluster; they come back in any order.

    The files must be visible, under the same paths, from every machine of the cluster. The encoder is sent once to each
    actor and must be picklable; by default there is one actor per core. `address` is that of a running cluster (`auto`,
    `ray://HOST:PORT`); by default one is started on this machine and stopped at the end.
    """
    with needs("ray", "scale"):
        import ray
        import ray.data
    started_here = not ray.is_initialized()
    if started_here:
        _connect(ray, address, workers)
    try:
        logging.getLogger("ray.data").setLevel(logging.ERROR)
        ray.data.DataContext.get_current().enable_progress_bars = False
        actors = workers or (int(ray.cluster_resources().get("CPU", 1)) if address else available_cores())
        reference = ray.put(encoder)
        for some in batched(blocks, _BLOCKS_PER_DATASET):
            rows = [{"number": number, "block": block} for number, block in enumerate(some)]
            dataset = ray.data.from_items(rows, override_num_blocks=len(rows)).map(
                _BlockEncoder,  # type: ignore[arg-type]
                fn_constructor_args=([reference], decoding),
                compute=ray.data.ActorPoolStrategy(size=min(actors, len(rows))),
                num_cpus=1,
                ray_remote_args_fn=_retrying,
            )
            left = dict(enumerate(some))
            try:
                for row in dataset.iter_rows():
                    yield left.pop(row["number"]), row["records"]
            except ray.exceptions.RayError as error:
                log.warning("workers died (%s); %d blocks are done here", str(error).splitlines()[0], len(left))
                for block, decoded in decode_blocks(left.values(), decoding, max(workers or available_cores(), 1)):
                    yield block, encode_block(block, decoded, encoder)
    finally:
        if started_here:
            ray.shutdown()


def _connect(ray: Any, address: str | None, workers: int | None) -> None:
    quiet = {"include_dashboard": False, "log_to_driver": False, "logging_level": "ERROR"}
    try:
        if address:
            ray.init(address=address, log_to_driver=False, logging_level="ERROR")
        else:
            ray.init(address="local", num_cpus=max(workers or available_cores(), 1) + 1, **quiet)
    except (ConnectionError, RuntimeError, ValueError) as error:
        reason = str(error).splitlines()[0]
        raise InputError(f"no Ray cluster answers at {address or 'this machine'} ({reason}); check --address") from None
