import numpy as np
import pytest
import torch

from audiobert.auditorybench.data import Row
from audiobert.clap import ClapProjections
from audiobert.encoders import AudioTowerConfig
from audiobert.training.clap import ClapConfig
from audiobert.training.clap_spans import align_spans, alignment_loss, span_hits, spans_by_label
from audiobert.training.clips import label_of

TOWER = AudioTowerConfig(window_frames=64, hidden_size=24, layers=1, heads=2)
ALIGNMENT = ClapConfig(span_steps=200, spans=16, span_rate=1e-2, span_temperature=0.05, span_anchor=0.0)


def row(answer, text, *spans):
    offsets = tuple((text.index(span), text.index(span) + len(span)) if span in text else None for span in spans)
    return Row("animal", "train", 0, text, answer, spans, offsets)


def unit(*shape):
    return torch.nn.functional.normalize(torch.randn(*shape), dim=-1)


@pytest.fixture
def world():
    """Three classes of eight clips each, and four spans a class that lie together."""
    torch.manual_seed(0)
    projections = ClapProjections(TOWER, 12, 16)
    labels = [label for label in ("cat", "cow", "dog") for _ in range(8)]
    centres = unit(3, 16).repeat_interleave(8, dim=0)
    clips = torch.nn.functional.normalize(centres + 0.1 * torch.randn(24, 16), dim=-1)
    kinds = unit(3, 12)
    spans = {label: [f"{label} {i}" for i in range(4)] for label in ("cat", "cow", "dog")}
    vectors = {
        text: torch.nn.functional.normalize(kind + 0.05 * torch.randn(12), dim=-1)
        for kind, texts in zip(kinds, spans.values(), strict=True)
        for text in texts
    }
    captions = {f"caption {i}": unit(12) for i in range(3)}
    return projections, labels, clips, spans, vectors | captions, [list(captions)]


def test_spans_of_animals_that_there_are_clips_of():
    rows = [
        row("Cows", "A deep Bellow comes from a [MASK].", "deep Bellow"),
        row("heron", "A croak comes from a [MASK].", "croak"),
        row("cow", "A [MASK] lows.", "moo"),  # a span that is not in the sentence
    ]
    assert spans_by_label(rows, ["cow", "cat", "cow"]) == {"cow": ["deep bellow"]}
    assert [label_of(name, {"cow"}) for name in ("Cow", "COWS", "cowss", "bull")] == ["cow", "cow", None, None]


def test_spans_find_the_clips_of_their_animal_afterwards(world):
    projections, labels, clips, spans, vectors, anchors = world
    before = span_hits(projections, spans, clips, labels, vectors)
    tower = [p.detach().clone() for p in projections.audio_tower.parameters()]
    align_spans(projections, spans, clips, labels, vectors, anchors, ALIGNMENT)
    after = span_hits(projections, spans, clips, labels, vectors)
    assert before["R@1"] < 0.7 and after == {"R@1": 1.0, "R@4": 1.0, "spans": 12.0}
    assert all(torch.equal(a, b) for a, b in zip(tower, projections.audio_tower.parameters(), strict=True))


def test_the_clips_own_texts_stay_where_they_are_held(world):
    projections, labels, clips, spans, vectors, anchors = world
    held = torch.stack([vectors[text] for text in anchors[0]])
    first = projections.text_projection.weight.detach().clone()
    moved = []
    for anchor in (0.0, 50.0):
        projections.text_projection.weight.data.copy_(first)
        before = projections.text_vectors(held).detach()
        alignment = ALIGNMENT.model_copy(update={"span_anchor": anchor})
        align_spans(projections, spans, clips, labels, vectors, anchors, alignment)
        moved.append(float((1 - (before * projections.text_vectors(held)).sum(dim=-1)).mean().detach()))
    assert moved[1] < 0.02 < moved[0]


def test_nothing_to_learn_from_changes_nothing(world):
    projections, labels, clips, spans, vectors, anchors = world
    first = projections.text_projection.weight.detach().clone()
    align_spans(projections, {"heron": ["cat 0"]}, clips, labels, vectors, anchors, ALIGNMENT)
    none = ALIGNMENT.model_copy(update={"span_steps": 0})
    align_spans(projections, spans, clips, labels, vectors, anchors, none)
    assert torch.equal(projections.text_projection.weight, first)
    assert span_hits(projections, {}, clips, labels, vectors) == {}


def test_every_class_weighs_the_same_however_many_clips_it_has():
    torch.manual_seed(0)
    text, cat, dog = unit(1, 6), unit(1, 6), unit(1, 6)
    losses = []
    for dogs in (1, 50):
        clips = torch.cat([cat, dog.expand(dogs, -1)])
        same = torch.tensor([[True] + [False] * dogs])
        counts = torch.tensor([1.0] + [float(dogs)] * dogs)
        losses.append(float(alignment_loss(text, clips, same, counts, 0.1)))
    cosines = np.array([float(text @ cat.T), float(text @ dog.T)]) / 0.1
    assert losses == pytest.approx([float(np.log(np.exp(cosines).sum()) - cosines[0])] * 2, abs=1e-5)
