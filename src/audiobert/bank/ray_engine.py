"""The same build on a Ray cluster: actors hold the encoder, blocks of clips travel to them as a Ray dataset."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from audiobert.bank.batches import batched
from audiobert.bank.decode import Hearing, hear
from audiobert.bank.journal import Record
from audiobert.bank.workers import Block, available_cores
from audiobert.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from audiobert.bank.build import ClipEncoder

# Blocks in one Ray dataset: the source is read in so large pieces, so that memory stays flat as it grows.
_BLOCKS_PER_DATASET = 2_048
# How often a block is tried again when its worker died; a clip that kills every decoder ends the build, which resumes.
_RETRIES = 3


class _BlockEncoder:
    """Lives in an actor: hears and encodes blocks."""

    def __init__(self, encoder: list[Any], hearing: Hearing) -> None:
        import ray

        self._encoder: ClipEncoder = ray.get(encoder[0])
        self._hearing = hearing

    def __call__(self, row: dict[str, Any]) -> dict[str, Any]:
        from audiobert.bank.build import encode_heard

        block: Block = row["block"]
        heard = [hear(task.entry, self._hearing, task.known_sha256) for task in block]
        return {"number": row["number"], "records": encode_heard(block, heard, self._encoder)}


def _retrying() -> dict[str, Any]:
    return {"max_restarts": -1, "max_task_retries": _RETRIES}


def encode_blocks(
    blocks: Iterable[Block], encoder: ClipEncoder, hearing: Hearing, workers: int | None, address: str | None
) -> Iterator[tuple[Block, list[Record]]]:
    """Hear and encode blocks on a cluster; they come back in any order.

    Parameters
    ----------
    blocks
        Entries to be heard. Their files must be visible, under the same paths, from every machine of the cluster.
    encoder
        Sent to each actor once; must be picklable.
    hearing
        How clips are heard.
    workers
        Actors; by default one a core of this machine, or of the cluster when an address is given.
    address
        Of a running cluster (`auto`, `ray://HOST:PORT`); without it one is started on this machine and stopped at the
        end.

    Raises
    ------
    MissingExtraError
        When Ray is not installed.
    InputError
        When no cluster answers at the address.
    """
    try:
        import ray
        import ray.data
    except ImportError:
        raise MissingExtraError("ray", "scale") from None
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
                fn_constructor_args=([reference], hearing),
                compute=ray.data.ActorPoolStrategy(size=min(actors, len(rows))),
                num_cpus=1,
                ray_remote_args_fn=_retrying,
            )
            for row in dataset.iter_rows():
                yield some[row["number"]], row["records"]
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
