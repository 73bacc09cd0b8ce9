"""Exact search over very many vectors for many queries at once: a pass in 8 bits, and float32 only where it can matter.

Every vector is rounded to 8-bit integers, whose products a processor with VNNI or AMX forms four times as fast as those
of float32. How far rounding can move an inner product is known from Cauchy and Schwarz, so whatever the 8 bits cannot
rule out is scored again in float32: the result is that of scoring everything.
"""

from __future__ import annotations

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch

# Rows that share one scale and of which only the best score is kept.
_GROUP_ROWS = 16
# Scores of one block, queries x rows: few enough to stay in the processor's cache.
_BLOCK_SCORES = 1 << 18
_MIN_BLOCK_ROWS, _MAX_BLOCK_ROWS = 512, 4_096
# Queries of one pass: bounds the memory that the groups' best scores take.
_QUERIES_AT_ONCE = 256
_ROWS_AT_ONCE = 1_024
_LARGEST_CODE = 127
# Rounding of float32 sums, as a share of the product of the norms.
_FLOAT32_SLACK = 1e-5


@cache
def codes_are_fast() -> bool:
    """Whether this processor multiplies 8-bit integers exactly and faster than float32 (AVX-512 VNNI or AMX)."""
    import torch

    has = torch.cpu.get_capabilities()
    return bool(has.get("avx512_vnni") or has.get("amx_int8"))


class Codes:
    """Vectors as 8-bit integers with what is needed to bound their error.

    Parameters
    ----------
    vectors
        `(clips, clap_dim)` float16 or float32; kept, to score again what the codes cannot rule out.

    Notes
    -----
    Takes one byte a number: 323 MB for 630,000 vectors of 512.
    """

    def __init__(self, vectors: np.ndarray) -> None:
        import torch

        clips, clap_dim = vectors.shape
        groups = -(-clips // _GROUP_ROWS)
        self._vectors = torch.from_numpy(vectors)
        self._codes = torch.zeros(groups * _GROUP_ROWS, clap_dim, dtype=torch.int8)
        self._scales = torch.zeros(groups)
        self._norms = torch.zeros(groups)  # of the longest vector of each group
        self._errors = torch.zeros(groups)  # norm of the largest rounding error of each group
        for start in range(0, clips, _ROWS_AT_ONCE):
            block = self._vectors[start : start + _ROWS_AT_ONCE].float()
            count = len(block)
            if count % _GROUP_ROWS:
                block = torch.cat([block, block.new_zeros(-count % _GROUP_ROWS, clap_dim)])
            grouped = block.view(-1, _GROUP_ROWS, clap_dim)
            largest = grouped.abs().amax(dim=(1, 2))
            scales = torch.where(largest > 0, largest / _LARGEST_CODE, 1.0)
            rounded = (grouped / scales[:, None, None]).round_()
            at = slice(start // _GROUP_ROWS, start // _GROUP_ROWS + len(grouped))
            self._codes[start : start + len(block)] = rounded.view(-1, clap_dim).to(torch.int8)
            self._scales[at] = scales
            self._norms[at] = grouped.norm(dim=2).amax(dim=1)
            self._errors[at] = grouped.sub_(rounded.mul_(scales[:, None, None])).norm(dim=2).amax(dim=1)

    def search(self, queries: np.ndarray, top_k: int, mask: np.ndarray | None = None) -> tuple[np.ndarray, np.ndarray]:
        """As `audiobert.bank.search.exact_search`, whose scores and rows it gives up to the rounding of float32."""
        parts = [
            self._search(queries[start : start + _QUERIES_AT_ONCE], top_k, mask)
            for start in range(0, len(queries), _QUERIES_AT_ONCE)
        ]
        scores, rows = zip(*parts, strict=True)
        return np.concatenate(scores), np.concatenate(rows)

    def _search(self, queries: np.ndarray, top_k: int, mask: np.ndarray | None) -> tuple[np.ndarray, np.ndarray]:
        import torch

        wanted = torch.from_numpy(np.ascontiguousarray(queries, np.float32))
        largest = wanted.abs().amax(dim=1)
        scales = torch.where(largest > 0, largest / _LARGEST_CODE, 1.0)
        rounded = (wanted / scales[:, None]).round_()
        best = self._best_of_groups(rounded.to(torch.int8), mask)  # (queries, groups), in steps of the scales
        approximate = rounded * scales[:, None]
        query_errors, query_norms = (wanted - approximate).norm(dim=1), approximate.norm(dim=1)
        allowed = None if mask is None else torch.from_numpy(mask)
        found = [
            self._rescored(
                wanted[number],
                best[number] * (self._scales * scales[number]),
                query_errors[number] * self._norms
                + query_norms[number] * (self._errors + _FLOAT32_SLACK * self._norms),
                top_k,
                allowed,
            )
            for number in range(len(wanted))
        ]
        scores, rows = zip(*found, strict=True)
        return torch.stack(scores).numpy(), torch.stack(rows).numpy()

    def _best_of_groups(self, queries: torch.Tensor, mask: np.ndarray | None) -> torch.Tensor:
        """The best integer score in each group, `(queries, groups)`; the least integer where no row is allowed."""
        import torch

        least = torch.iinfo(torch.int32).min
        forbidden = None
        if mask is not None:
            forbidden = torch.ones(len(self._codes), 1, dtype=torch.bool)
            forbidden[: len(mask), 0] = torch.from_numpy(~mask)
        columns = queries.T.contiguous()
        groups = len(self._scales)
        best = torch.empty(groups, len(queries), dtype=torch.int32)
        rows = min(max(_BLOCK_SCORES // len(queries), _MIN_BLOCK_ROWS), _MAX_BLOCK_ROWS) // _GROUP_ROWS * _GROUP_ROWS
        buffer = torch.empty(rows, len(queries), dtype=torch.int32)
        for start in range(0, len(self._codes), rows):
            codes = self._codes[start : start + rows]
            scores = torch._int_mm(codes, columns, out=buffer[: len(codes)])
            if forbidden is not None:
                scores.masked_fill_(forbidden[start : start + rows], least)
            at = start // _GROUP_ROWS
            grouped = scores.view(-1, _GROUP_ROWS, len(queries))
            torch.amax(grouped, dim=1, out=best[at : at + len(grouped)])
        if mask is None and len(self._vectors) % _GROUP_ROWS:
            # The last group is filled up with zeros, which must not hide that its vectors are further away.
            scores = torch._int_mm(self._codes[-_GROUP_ROWS:], columns)
            best[-1] = scores[: len(self._vectors) % _GROUP_ROWS].amax(dim=0)
        return best.T.contiguous()

    def _rescored(
        self, query: torch.Tensor, best: torch.Tensor, error: torch.Tensor, top_k: int, allowed: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The nearest rows of one query, from the groups' best scores and how far these can be wrong.

        As many groups as rows are wanted are scored first. A group that cannot reach the last of what they hold is out.
        """
        import torch

        first = best.topk(min(top_k, len(best))).indices
        scores, rows = self._scored(query, first, allowed)
        least = scores.topk(min(top_k, len(scores))).values[-1]
        possible = best + error >= least
        possible[first] = False
        more_scores, more_rows = self._scored(query, possible.nonzero()[:, 0], allowed)
        scores, rows = torch.cat([scores, more_scores]), torch.cat([rows, more_rows])
        top = scores.topk(top_k)
        return top.values, rows[top.indices]

    def _scored(
        self, query: torch.Tensor, groups: torch.Tensor, allowed: torch.Tensor | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Scores in float32 of the allowed rows of some groups, and their row numbers."""
        import torch

        rows = (groups[:, None] * _GROUP_ROWS + torch.arange(_GROUP_ROWS)).flatten()
        rows = rows[rows < len(self._vectors)]
        if allowed is not None:
            rows = rows[allowed[rows]]
        scores = torch.empty(len(rows))
        for start in range(0, len(rows), _ROWS_AT_ONCE):
            some = rows[start : start + _ROWS_AT_ONCE]
            scores[start : start + len(some)] = self._vectors[some].float() @ query
        return scores, rows
