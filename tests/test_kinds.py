"""Which kinds are withheld from training: the same ones in every run, whatever stands beside them."""

import subprocess
import sys

import numpy as np
import pytest

from audiobert.auditorybench.kinds import Recorded, family, held_out, is_withheld, names_withheld, withheld_clips

WITHHELD = ["bell", "owl", "tuba", "frog"]
KNOWN = ["dog", "cat", "flute", "drum", "cow", "crow", "violin", "rain", "duck"]


@pytest.mark.parametrize(("labels", "expected"), [(WITHHELD, True), (KNOWN, False)])
def test_the_withheld_kinds_stay_the_same(labels, expected):
    """A change of the rule makes banks and weights that are out there disagree."""
    assert [is_withheld(label) for label in labels] == [expected] * len(labels)


def test_another_process_withholds_the_same():
    code = "from audiobert.auditorybench.kinds import is_withheld; import sys"
    code += "; print([is_withheld(name) for name in sys.argv[1:]])"
    arguments = [sys.executable, "-c", code, *WITHHELD, *KNOWN]
    found = subprocess.run(arguments, capture_output=True, text=True, check=True).stdout
    assert found.strip() == str([True] * len(WITHHELD) + [False] * len(KNOWN))


def test_about_a_fifth_is_withheld():
    names = [f"kind{number}q" for number in range(2000)]
    assert np.mean([is_withheld(name) for name in names]) == pytest.approx(0.2, abs=0.03)


@pytest.mark.parametrize(
    ("one", "other"),
    [("church_bells", "bell"), ("snowy owl", "Owl"), ("bull", "cow"), ("violin section", "violin"), ("owls", "owl")],
)
def test_kinds_that_are_nearly_the_same_are_withheld_together(one, other):
    assert family(one) == family(other)
    assert is_withheld(one) == is_withheld(other)


def test_texts_that_name_a_withheld_kind_are_found_and_no_others():
    named = names_withheld(["church_bells", "owl", "dog", ""])
    assert named(["the sound of a dog", "a hooting Owl"])
    assert named(["two church bells ringing"])
    assert named(["a doorbell and a bell"])
    assert named(["the owls"])
    assert not named(["a dog", "a doorbell", "knowledge", "an owl-like cry"])
    assert not names_withheld(["dog"])(["a bell"])  # of the labels that there are clips of
    assert not names_withheld([])(["an owl"])


def test_clips_without_a_label_are_not_withheld():
    assert withheld_clips(["owl", "", "dog"]).tolist() == [True, False, False]


def test_all_clips_of_a_recording_are_held_out_together_whatever_their_order():
    clips = [Recorded("dog", "made", f"r{number // 2}", 0) for number in range(20)]
    clips += [Recorded("cat", "ESC-10", f"e{number}", number % 5 + 1) for number in range(10)]
    chosen = held_out(clips)
    assert len({clip.recording for clip, out in zip(clips, chosen, strict=True) if out and clip.label == "dog"}) == 2
    assert (chosen[:20:2] == chosen[1:20:2]).all()
    assert [clip.fold for clip, out in zip(clips, chosen, strict=True) if out and clip.label == "cat"] == [4, 4]
    assert (held_out(clips[::-1])[::-1] == chosen).all()
