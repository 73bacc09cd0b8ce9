"""The two Wikipedia sets: the pages' structure, in small pages of our own wording, and the rule for "higher"."""

from __future__ import annotations

import csv
import itertools
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from audiobert.construct.wiki import WikiSettings, animal_rows, fetch_page, is_higher, make_wiki_rows, pitch_rows
from audiobert.construct.wiki_pages import PitchRange, parse_animal_sounds, parse_ranges
from audiobert.errors import InputError, RemoteError

ANIMALS_WIKITEXT = """{{Short description|none}}
Some words about the list.<ref>A book.</ref>
{| class="wikitable sortable"
! Animal !! Description !! Sounds
|-
| [[Lion]]s || [[roar (utterance)|roar]], ''growl''<ref name="x">Here</ref> || {{Audio|lion.ogg|play}}
|-
| [[Cattle]] || moo (op), low{{citation needed|date=May 2020}} || [[File:Cow.ogg|thumb]]
|-
| rowspan="2" | [[Owl]] || hoot / twit twoo<br />hiss ||
|-
| "screech" and [[wail]] ||
|-
| [[Guinea pig]] || {{hlist|wheek|rumble strutting loudly indeed today}} ||
|-
! colspan="3" | Made of nothing
|}
{| class="wikitable"
! Language !! Word
|-
| French || miaou
|}
"""
ANIMALS_HTML = """<!DOCTYPE html><html><head><style>td {}</style></head><body>
<table class="wikitable"><tbody><tr><th>Animal</th><th>Description</th><th>Sounds</th></tr>
<tr><td><a href="/wiki/Lion">Lions</a></td><td><a>roar</a>, <i>growl</i><sup class="reference">[1]</sup></td>
<td><audio>file</audio></td></tr>
<tr><td>Cattle</td><td>moo (op), low</td><td></td></tr>
<tr><td rowspan="2">Owl</td><td>hoot / twit twoo<br>hiss</td><td></td></tr>
<tr><td>"screech" and wail</td><td></td></tr>
<tr><td>Guinea pig</td><td><ul><li>wheek</li></ul></td><td></td></tr>
</tbody></table></body></html>"""
ANIMALS = [
    ("Lion", ["roar", "growl"]),
    ("Cattle", ["moo", "low"]),
    ("Owl", ["hoot", "twit twoo", "hiss", "screech", "wail"]),
    ("Guinea pig", ["wheek"]),
]

RANGES_TIMELINE = """Text before.
<timeline>
ImageSize = width:700 height:300
Period = from:0 till:651
Define $cc1 = 74 Define $cc = 146 Define $c = 218
Define $c1 = 290 Define $c2 = 362 Define $ee = 170 Define $g1 = 332
Define $h4 = 572 Define $gg1 = 116
PlotData=
 color:heading from:$cc till:$c2 text:voices
 color:b from:$ee till:$g1 text:"[[Bass (voice type)|low voice]]"
 color:b from:$c1 till:$h4 text:tin pipe
 color:b from:74 till:146 text:great drum
</timeline>
"""
RANGES_TABLE = """{| class="wikitable"
! Instrument !! Range !! Family
|-
| [[Tin pipe]] || C<sub>4</sub>–B{{music|flat}}7 || wind
|-
| great drum || C{{sub|1}} to C{{sub|2}} || drums
|}
"""
RANGES_HTML = """<html><body><table><tr><th>Voice</th><th>Lowest note</th><th>Highest note</th></tr>
<tr><td>low voice</td><td>E<sub>2</sub></td><td>G4</td></tr><tr><td>shouting</td><td>?</td><td>?</td></tr>
</table></body></html>"""


@pytest.mark.parametrize("page", [ANIMALS_WIKITEXT, ANIMALS_HTML], ids=["wikitext", "html"])
def test_animals_and_their_sounds(page: str) -> None:
    assert parse_animal_sounds(page) == ANIMALS


def test_animal_rows_have_the_published_form() -> None:
    rows = animal_rows(ANIMALS_WIKITEXT)
    assert len(rows) == sum(len(sounds) for _, sounds in ANIMALS)
    first = rows[0]
    assert (first.sentence, first.answer, first.span) == ("roar is the sound a [MASK] makes.", "Lion", "roar")
    assert all(row.span in row.sentence and row.license == "CC BY-SA 4.0" for row in rows)


def test_ranges_of_the_timeline() -> None:
    # E2-G4, C4-B7 and C1-C2: 72 places an octave, notes in Helmholtz's names
    assert parse_ranges(RANGES_TIMELINE) == [
        PitchRange("low voice", 40, 67),
        PitchRange("tin pipe", 60, 107),
        PitchRange("great drum", 24, 36),
    ]


def test_ranges_of_tables() -> None:
    assert parse_ranges(RANGES_TABLE) == [PitchRange("Tin pipe", 60, 106), PitchRange("great drum", 24, 36)]
    assert parse_ranges(RANGES_HTML) == [PitchRange("low voice", 40, 67)]


def test_pages_without_what_is_wanted_are_named() -> None:
    with pytest.raises(InputError, match=r"no ranges .*action=raw"):
        parse_ranges('<html><body><img usemap="#timeline"/></body></html>')
    with pytest.raises(InputError, match="no table with a column 'Animal'"):
        parse_animal_sounds("Nothing here.")
    with pytest.raises(InputError, match="defines no notes"):
        parse_ranges("<timeline>\n color:b from:1 till:2 text:x\n</timeline>")
    with pytest.raises(InputError, match="not evenly spaced"):
        parse_ranges(RANGES_TIMELINE.replace("$c2 = 362", "$c2 = 500"))


def test_every_pair_once_with_the_right_answer() -> None:
    ranges = [PitchRange(name, low, low + 12) for name, low in zip("abcdefgh", range(30, 110, 10), strict=True)]
    rows, rejected = pitch_rows([*ranges, PitchRange("i", 30.2, 42.2)], WikiSettings())
    assert len(rows) == 9 * 8 // 2 - 1 and [one.reason for one in rejected] == ["pitch-too-close"]
    assert len({frozenset((row.span1, row.span2)) for row in rows}) == len(rows)
    for row in rows:
        assert row.answer == ("higher" if row.pitch1_hz > row.pitch2_hz else "lower")
        assert row.sentence == f"The sound of {row.span1} is [MASK] than the sound of {row.span2}"
    higher = sum(row.answer == "higher" for row in rows)
    assert abs(2 * higher - len(rows)) <= 1


def test_offline_says_what_to_do() -> None:
    settings = WikiSettings(api="http://127.0.0.1:9/w/api.php", timeout_s=2)
    with pytest.raises(RemoteError, match=r"cannot be reached \(ConnectError\): offline\? Then save the page"):
        fetch_page("List of animal sounds", settings)


def test_api_is_asked_once_and_the_page_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[str] = []

    def get(_: httpx.Client, url: str, params: dict[str, str]) -> httpx.Response:
        asked.append(params["page"])
        text = {
            "List of animal sounds": ANIMALS_WIKITEXT,
            "Range (music)": "{{Vocal and instrumental pitch ranges}}",
            "Template:Vocal and instrumental pitch ranges": RANGES_TIMELINE,
        }[params["page"]]
        request = httpx.Request("GET", url)
        return httpx.Response(200, json={"parse": {"title": params["page"], "wikitext": text}}, request=request)

    monkeypatch.setattr(httpx.Client, "get", get)
    settings = WikiSettings(animals="api", ranges="api")
    for _ in range(2):
        animals, pitches, _rejected = make_wiki_rows(settings, tmp_path)
        assert len(animals) == 10 and len(pitches) == 3
    assert asked == ["List of animal sounds", "Range (music)", "Template:Vocal and instrumental pitch ranges"]


# Sounding ranges as handbooks of instrumentation give them, by the names of the published set.
_RANGES = """
Bass E2 E4, Baritone A2 A4, tenor C3 C5, alto F3 F5, mezzo-soprano A3 A5, Soprano C4 C6, Violin G3 A7, viola C3 E6,
Cello C2 C6, Double bass C1 C5, octobass C0 G2, Harp C1 G#7, harpsichord F1 F6, piano A0 C8, mandolin G3 E6, guitar
E2 E6, baritone guitar B1 B4, bass guitar E1 G4, Ukulele C4 A5, 5-string banjo C3 A5, hammered dulcimer G3 D6,
cymbalum C2 A6, piccolo D5 C8, flute C4 D7, alto flute G3 G6, bass flute C3 C6, contra-alto flute G2 G5, contrabass
flute C2 C5, subcontrabass flute G1 G4, double contrabass flute C1 C4, hyperbass flute C0 C3, garklein recorder C6
A7, sopranino recorder F5 G7, soprano recorder C5 D7, alto recorder F4 G6, tenor recorder C4 D6, bass recorder F3
G5, great bass recorder C3 D5, contrabass recorder F2 G4, sub-great bass recorder C2 D4, sub-contrabass recorder F1
G3, oboe A#3 A6, oboe d'amore G#3 E6, cor anglais E3 C6, heckelphone A2 G5, bassoon A#1 E5, contrabassoon A#0 A#3,
soprano clarinet D3 A#6, sopranino clarinet G3 E7, alto clarinet G2 D#6, bass clarinet A#1 G5, contra-alto clarinet
G1 D#5, contrabass clarinet A#0 A#4, octocontra-alto clarinet G0 D#4, octocontrabass ciarinet A#-1 A#3,
sopranissimo saxophone A#4 E7, sopranino saxophone C#4 A6, soprano saxophone G#3 E6, alto saxophone C#3 A5, tenor
saxophone G#2 E5, baritone saxophone C2 A4, bass saxophone G#1 E4, contrabass saxophone C#1 A3, subcontrabass
saxophone G#0 E3, accordion E1 C#8, harmonium F1 F6, typical C harmonica C4 C7, 16-hole harmonica C3 D7, piccolo
trumpet F#4 D7, trumpet E3 C6, cornet E3 C6, flugelhorn E3 A#5, bass trumpet C2 A#4, alto horn A2 D#5, baritone
horn E2 A#4, euphonium A#1 A#4, french horn B1 F5, tenor wagner tuba E2 F5, bass wagner tuba B1 C5, piccolo
trombone E4 A#6, sopranino trombone A#3 F6, soprano trombone E3 A#5, alto trombone A2 D#5, tenor trombone E2 F5,
bass trombone A#1 A#4, contrabass trombone A0 C4, cimbasso C1 C4, bass tuba F1 F4, contrabass tuba D1 F4,
subcontrabass tuba C0 C3, timpani 32inch C2 A2, timpani 29inch F2 C3, timpani 26inch A#2 F3, timpani 23inch D3 A3,
timpani 20inch F3 C4, marimba C2 C7, vibraphone F3 F6, xylophone F4 C8, celesta C4 C8, glockenspiel G5 C8, crotales
C6 C8, tubular bells C4 F5, gong A#3 F5
"""


def test_the_rule_agrees_best_with_the_published_answers(shared: Path) -> None:
    librosa = pytest.importorskip("librosa")
    ranges = {}
    for entry in _RANGES.replace("\n", " ").split(","):
        name, low, high = entry.strip().rsplit(" ", 2)
        ranges[name] = PitchRange(name, *librosa.note_to_midi([low, high]))
    with (shared / "auditorybench" / "sound_pitch_comparsion_wiki.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    higher = [
        (row["span1"], row["span2"]) if row["answer"] == "higher" else (row["span2"], row["span1"]) for row in rows
    ]

    def agreement(rule: Callable[[PitchRange, PitchRange], bool]) -> float:
        return sum(rule(ranges[above], ranges[below]) for above, below in higher) / len(higher)

    found = {
        "mean in Hz": agreement(is_higher),
        "highest note": agreement(lambda a, b: a.high > b.high),
        "middle in semitones": agreement(lambda a, b: a.low + a.high > b.low + b.high),
        "lowest note": agreement(lambda a, b: a.low > b.low),
    }
    assert max(found, key=lambda name: found[name]) == "mean in Hz", found
    assert found["mean in Hz"] > 0.995 and found["lowest note"] < 0.85, found


def test_published_answers_are_an_order_without_circles(shared: Path) -> None:
    with (shared / "auditorybench" / "sound_pitch_comparsion_wiki.csv").open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    above = {
        (row["span1"], row["span2"]) if row["answer"] == "higher" else (row["span2"], row["span1"]) for row in rows
    }
    names = {name for pair in above for name in pair}
    assert len(names) == 103 and len(above) == len(rows) == 3625
    assert not any((b, a) in above for a, b in above)
    below = {name: {b for a, b in above if a == name} for name in names}
    assert all(below[b] <= below[a] for a, b in above)  # transitive: what is below b is below a
    assert len(above) < len(list(itertools.combinations(names, 2)))  # pairs that lie too close are not published
