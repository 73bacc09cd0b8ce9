"""Columns of the clip table from whatever a source says."""

from __future__ import annotations

import json
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from audiobert.bank.clips import SCHEMA, TEXT_COLUMNS, Clip, given_columns, list_in

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
NAMES = st.sampled_from([*TEXT_COLUMNS, "tags", "extra", "duration_s", "id", "mood"])


@settings(max_examples=300)
@given(st.dictionaries(NAMES, VALUES))
def test_any_json_becomes_a_row_of_the_table(row: dict[str, Any]) -> None:
    given_row = {"id": "a", **json.loads(json.dumps(given_columns(row)))}  # as the journal stores it
    (stored,) = pa.Table.from_pylist([given_row], schema=SCHEMA).to_pylist()
    clip = Clip.from_row(stored)
    assert all(isinstance(tag, str) and tag.strip() for tag in clip.tags)
    for name in TEXT_COLUMNS:
        if isinstance(row.get(name), str) and row[name]:
            assert getattr(clip, name) == row[name]
    if row.get("mood") and row["mood"] == row["mood"]:
        assert "mood" in clip.extra


@settings(max_examples=300)
@given(st.lists(st.text(st.characters(exclude_characters="\0", codec="utf-8"), max_size=8)))
def test_a_printed_list_is_read_as_that_list(items: list[str]) -> None:
    assert list_in(json.dumps(items)) == items
    if not any("'" in item or '"' in item for item in items):
        assert list_in(str(items)) == items
        if items:
            assert list_in("[" + " ".join(map(repr, items)) + "]") == items


@pytest.mark.parametrize(
    "text", ["[", "[a]", "[] []", "[1, 2", "['a', b]", "[" * 100_000, "['a'] dog", "[()]x", "[f'x']"]
)
def test_a_text_that_begins_like_a_list_is_a_text(text: str) -> None:
    assert list_in(text) is None
    assert given_columns({"tags": text})["tags"] == [one.strip() for one in text.split(",")]
