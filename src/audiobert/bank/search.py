"""Find the nearest clips by cosine: exactly over the mapped vectors, or through a FAISS index of a large bank."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from audiobert.errors import ArtefactError, needs

if TYPE_CHECKING:
    import torch

# Rows converted to float32 and scored at once: few enough to stay in the processor's cache.
_BLOCK_ROWS = 1_024
# Rows after which the best so far are picked.
_PICK_ROWS = 64 * _BLOCK_ROWS
# Below this many clips the exact search answers in a few milliseconds and an index gains nothing.
INDEX_FROM_CLIPS = 100_000
# The index is tuned until it finds this share of the ten nearest of queries that are not in the bank.
TARGET_RECALL = 0.985
_TUNING_QUERIES = 256
_TUNING_NEIGHBOURS = 10
_TRAIN_PER_LIST = 40
_KMEANS_ROUNDS = 8


def exact_search(
    vectors: np.ndarray, queries: np.ndarray, top_k: int, mask: np.ndarray | None = None
) -> tuple[np.ndarray, np.ndarray]:
    """Return the highest inner products, float32 in descending order, and their row numbers int64, `(queries, top_k)`.

    `vectors` are `(clips, clap_dim)` float16 or float32, `queries` `(queries, clap_dim)` float32. `mask` is `(clips,)`
    bool, True where a row may be found; where it leaves less than `top_k`, fewer are returned.
    """
    import torch

    wanted = torch.from_numpy(np.ascontiguousarray(queries, np.float32))
    best_scores = torch.zeros((len(queries), 0))
    best_rows = torch.zeros((len(queries), 0), dtype=torch.int64)
    for start in range(0, len(vectors), _PICK_ROWS):
        block = vectors[start : start + _PICK_ROWS]
        rows = np.arange(len(block))
        if mask is not None:
            rows = np.flatnonzero(mask[start : start + _PICK_ROWS])
            block = block[rows]
        scores = _scores(wanted, torch.from_numpy(block))
        top = scores.topk(min(top_k, scores.shape[1]), dim=1)
        best_scores = torch.cat([best_scores, top.values], dim=1)
        best_rows = torch.cat([best_rows, start + torch.from_numpy(rows)[top.indices]], dim=1)
    kept = best_scores.topk(min(top_k, best_scores.shape[1]), dim=1)
    return kept.values.numpy(), best_rows.gather(1, kept.indices).numpy()


def _scores(queries: torch.Tensor, vectors: torch.Tensor) -> torch.Tensor:
    """Compute inner products `(queries, clips)`; float16 vectors are converted block by block into one small buffer."""
    import torch

    if vectors.dtype == torch.float32:
        return queries @ vectors.T
    scores = torch.empty(len(queries), len(vectors))
    buffer = torch.empty(min(_BLOCK_ROWS, len(vectors)), vectors.shape[1])
    for start in range(0, len(vectors), _BLOCK_ROWS):
        block = vectors[start : start + _BLOCK_ROWS]
        converted = buffer[: len(block)]
        converted.copy_(block)
        scores[:, start : start + len(block)] = queries @ converted.T
    return scores


def _faiss() -> Any:
    with needs("faiss", "scale"):
        import faiss
    return faiss


def tuning_queries(vectors: np.ndarray, count: int = _TUNING_QUERIES, seed: int = 0) -> np.ndarray:
    """Return queries near the bank's vectors but not on them, as texts are: half way to a random direction."""
    random = np.random.default_rng(seed)
    near = vectors[np.sort(random.choice(len(vectors), min(count, len(vectors)), replace=False))].astype(np.float32)
    away = random.standard_normal(near.shape).astype(np.float32)
    away /= np.linalg.norm(away, axis=1, keepdims=True)
    queries = near + away
    return queries / np.linalg.norm(queries, axis=1, keepdims=True)


def build_index(vectors: np.ndarray, path: Path) -> dict[str, Any]:
    """Build an inverted-file index with float16 vectors over `(clips, clap_dim)`, tune it, and write it to `path`.

    The number of lists that a query visits (`nprobe`) is the smallest power of two that reaches the target recall.
    Returns kind, lists, nprobe and the measured recall@10, for the manifest.
    """
    faiss = _faiss()
    clips, clap_dim = vectors.shape
    lists = int(min(4_096, max(1, clips // _TRAIN_PER_LIST), 2 ** round(np.log2(4 * np.sqrt(clips)))))
    index = faiss.index_factory(clap_dim, f"IVF{lists},SQfp16", faiss.METRIC_INNER_PRODUCT)
    inverted = faiss.extract_index_ivf(index)
    inverted.cp.niter = _KMEANS_ROUNDS
    random = np.random.default_rng(0)
    sample = np.sort(random.choice(clips, min(clips, lists * _TRAIN_PER_LIST), replace=False))
    index.train(vectors[sample].astype(np.float32))
    for start in range(0, clips, 1 << 15):
        index.add(vectors[start : start + (1 << 15)].astype(np.float32))
    queries = tuning_queries(vectors)
    _, truth = exact_search(vectors, queries, min(_TUNING_NEIGHBOURS, clips))
    recall, probes = 0.0, 1
    while True:
        inverted.nprobe = probes
        _, found = index.search(queries, truth.shape[1])
        recall = float(np.mean([len(set(a) & set(b)) / len(a) for a, b in zip(truth, found, strict=True)]))
        if recall >= TARGET_RECALL or probes >= lists:
            break
        probes *= 2
    faiss.write_index(index, str(path))
    return {"kind": "IVF,SQfp16", "lists": lists, "nprobe": probes, "recall_at_10": round(recall, 4)}


class ApproximateIndex:
    """A FAISS index read from a bank's folder on first use."""

    def __init__(self, path: Path, clips: int) -> None:
        faiss = _faiss()
        try:
            self._index = faiss.read_index(str(path), faiss.IO_FLAG_MMAP | faiss.IO_FLAG_READ_ONLY)
        except RuntimeError as error:
            reason = str(error).splitlines()[0]
            raise ArtefactError(f"{path} is damaged ({reason}); build the bank's index again") from None
        if self._index.ntotal != clips:
            raise ArtefactError(f"{path} has {self._index.ntotal} vectors, the bank {clips}; build the index again")

    def search(self, queries: np.ndarray, top_k: int, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """Like `exact_search`; a row may be missed, and where too few are found the rest has row -1 and score -inf."""
        parameters = None
        if mask is not None:
            faiss = _faiss()
            selector = faiss.IDSelectorBitmap(np.packbits(mask, bitorder="little"))
            nprobe = faiss.extract_index_ivf(self._index).nprobe
            parameters = faiss.SearchParametersIVF(sel=selector, nprobe=nprobe)
        scores, rows = self._index.search(np.ascontiguousarray(queries, np.float32), top_k, params=parameters)
        return np.where(rows < 0, -np.inf, scores).astype(np.float32), rows
