"""What a name sounds like that no clip has: weights of the nearest names, and their knowledge."""

from pathlib import Path

import numpy as np
import pytest

from audiobert.bank import AudioBank
from audiobert.bank.store import write_bank
from audiobert.relatives import find_relatives, name_weights, nearest_names

PLACES = {"flute": (1.0, 0.0, 0.0), "piccolo": (0.8, 0.6, 0.0), "drum": (0.0, 0.0, 1.0)}


def bank(folder: Path, names=("flute", "flute", "drum"), value=1.0, named=True) -> AudioBank:
    """One clip per name, of knowledge (value, 2 value, ...) in the place of the name."""
    folder.mkdir()
    knowledge = value * np.arange(1, len(names) + 1)[:, None] * np.array([PLACES[name] for name in names])
    write_bank(
        folder,
        clips=len(names),
        rows=(
            ({"id": f"{name}{row}", "label": name}, np.eye(3, dtype=np.float32)[0], knowledge[row].astype(np.float32))
            for row, name in enumerate(names)
        ),
        rejected=[],
        clap_dim=3,
        hidden_size=3,
        text_dim=3,
        name_vectors=(lambda texts: np.array([PLACES[text] for text in texts], np.float32)) if named else None,
        manifest={"identity": {}, "settings": {}, "audio_root": None},
    )
    return AudioBank.open(folder)


def test_a_name_that_is_there_counts_almost_alone_and_what_is_far_away_not_at_all():
    vectors = np.array(list(PLACES.values()))
    weights = name_weights(vectors @ vectors.T, np.broadcast_to(vectors @ vectors.T, (3, 3, 3)))
    assert (np.diag(weights) > 0.85).all()
    assert np.abs(weights[:2, 2]).max() < 1e-6 and np.abs(weights[2, :2]).max() < 1e-6
    kernel = (vectors @ vectors.T) ** 3  # the solution of kernel ridge regression, by its definition
    np.testing.assert_allclose(weights, kernel @ np.linalg.inv(kernel + 0.1 * np.eye(3)), atol=1e-6)


def test_names_that_do_not_count_have_no_weight_and_leave_that_of_the_others():
    vectors = np.array(list(PLACES.values()))
    cosines = vectors @ vectors.T
    there = np.array([1.0, 0.0, 1.0])
    weights = name_weights(cosines[1] * there, cosines * there * there[:, None])
    alone = name_weights(cosines[1, [0, 2]], cosines[np.ix_([0, 2], [0, 2])])
    np.testing.assert_allclose(weights[[0, 2]], alone)
    assert weights[1] == 0


def test_what_is_opposite_counts_as_what_is_unrelated():
    weights = name_weights(np.array([0.5, -0.9]), np.array([[1.0, -0.8], [-0.8, 1.0]]))
    np.testing.assert_allclose(weights, [0.125 / 1.1, 0.0], atol=1e-12)
    several = name_weights(np.array([[0.5, -0.9]] * 3), np.array([[[1.0, -0.8], [-0.8, 1.0]]] * 3))
    np.testing.assert_allclose(several, [weights] * 3)


def test_the_nearest_names_are_those_of_clips_that_may_be_found(tmp_path):
    opened = bank(tmp_path / "a")
    asked = np.array([PLACES["piccolo"]], np.float32)
    names, cosines = nearest_names(opened, asked, 2)
    assert [opened.names[name] for name in names[0]] == ["flute", "drum"]
    assert cosines[0] == pytest.approx([0.8, 0.0], abs=1e-3)
    names, _ = nearest_names(opened, asked, 2, np.array([False, False, True]))
    assert [opened.names[name] for name in names[0]] == ["drum"]
    assert nearest_names(opened, asked, 2, np.zeros(3, bool))[0].shape == (1, 0)
    for nothing in (nearest_names(opened, asked, 0), nearest_names(bank(tmp_path / "b", named=False), asked, 2)):
        assert [values.shape for values in nothing] == [(1, 0), (1, 0)]


def test_an_unknown_name_sounds_like_the_mean_clip_of_its_relatives(tmp_path, monkeypatch):
    opened = bank(tmp_path / "a")
    asked = np.array([PLACES["piccolo"]], np.float32)
    found = find_relatives([(opened, None)], asked, 2)[0]
    weight = 0.8**3 / 1.1
    np.testing.assert_allclose(found.vector, [1.5 * weight, 0.0, 0.0], atol=2e-3)  # the mean of 1 and 2
    assert found.weight == pytest.approx(weight, abs=2e-3)
    one = find_relatives([(opened, np.array([False, True, True]))], asked, 2)[0]
    np.testing.assert_allclose(one.vector, [2.0 * weight, 0.0, 0.0], atol=2e-3)
    monkeypatch.setattr("audiobert.relatives._CLIPS_PER_NAME", 1)
    first = find_relatives([(opened, None)], asked, 2)[0]
    np.testing.assert_allclose(first.vector, [1.0 * weight, 0.0, 0.0], atol=2e-3)


def test_each_query_has_relatives_of_its_own(tmp_path):
    opened = bank(tmp_path / "a", ("flute", "drum"))
    asked = np.array([PLACES["drum"], PLACES["piccolo"]], np.float32)
    drum, piccolo = find_relatives([(opened, None)], asked, 1)
    np.testing.assert_allclose(drum.vector, [0.0, 0.0, 2 / 1.1], atol=2e-3)
    np.testing.assert_allclose(piccolo.vector, [0.8**3 / 1.1, 0.0, 0.0], atol=2e-3)


def test_relatives_come_from_all_banks_and_nearest_first(tmp_path):
    banks = [(bank(tmp_path / "a", ("drum", "flute")), None), (bank(tmp_path / "b", ("piccolo",), value=5.0), None)]
    asked = np.array([PLACES["piccolo"]], np.float32)
    one = find_relatives(banks, asked, 1)[0]
    np.testing.assert_allclose(one.vector, np.array(PLACES["piccolo"]) * 5 / 1.1, atol=1e-2)
    both = find_relatives(banks, asked, 8)[0]
    assert both.weight == pytest.approx(
        float(
            name_weights(np.array([1.0, 0.8, 0.0]), np.array([[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 1.0]])).sum()
        ),
        abs=2e-3,
    )
    assert find_relatives([], asked, 3) == [None]
