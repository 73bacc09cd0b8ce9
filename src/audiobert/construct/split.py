"""Split rows: remove duplicates and contradictions, split 70/10/20 in groups, then balance the answers.

Two sentences are near-duplicates if they have the same words (`content_key`), or differ by a few letters. The latter
are what `audiobert audit` calls near-duplicates, by the same function.
"""

from __future__ import annotations

import random
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from pydantic import Field, model_validator

from audiobert.auditorybench.align import stem
from audiobert.auditorybench.audit import near_duplicate_pairs
from audiobert.auditorybench.questions import swap_spans, with_determiner
from audiobert.construct.records import MASK, AnimalRow, PitchRow, Rejected
from audiobert.construct.rules import BrokenRuleError, locate_span
from audiobert.settings import Settings

STEP = "split"
_BLOCK = 256  # rows compared with all kept ones at once
SPLITS = ("train", "dev", "test")
_OPPOSITE = {"higher": "lower", "lower": "higher"}
# Words that do not change a question. Two sentences with the same other words are near-duplicates.
_FILLERS = frozenset(
    re.findall(
        r"\w+",
        """a an the of is are was be by in to it its that this these which what from for as at on with and or
        sound sounds noise noises call calls make makes made making typically usually often generally normally commonly
        known characteristic distinctive typical produce produces produced has have heard can may one""",
    )
)
_CHUNK = re.compile(r"^(?:an?\s|the (?:sound|noise|tone|ring|note|cry|voice|hum|buzz|pitch) of\s)", re.IGNORECASE)

Row = TypeVar("Row", AnimalRow, PitchRow)


class SplitSettings(Settings):
    """Settings of the splits: shares of train, dev and test."""

    train: float = Field(default=0.7, gt=0)
    dev: float = Field(default=0.1, ge=0)
    test: float = Field(default=0.2, ge=0)
    seed: int = 0

    @model_validator(mode="after")
    def _whole(self) -> SplitSettings:
        if abs(self.train + self.dev + self.test - 1) > 1e-9:
            raise ValueError(
                f"train, dev and test are {self.train} + {self.dev} + {self.test}; together they must be 1"
            )
        return self


@dataclass(frozen=True)
class Splits:
    """Rows of both tasks by split; `wiki` is there when it was made."""

    animal: dict[str, list[AnimalRow]]
    pitch: dict[str, list[PitchRow]]


def content_key(text: str) -> str:
    """Return the words of a text without fillers, endings, case and order: equal for near-duplicates.

    >>> content_key("Chirping is the sound a [MASK] makes.") == content_key("The sound a [MASK] makes is a chirp")
    True
    """
    words = re.findall(r"[\w']+", text.replace(MASK, " ").casefold())
    kept = sorted({stem(word.strip("'")) for word in words if word not in _FILLERS} - {""})
    return " ".join(kept) or " ".join(sorted(words))


def animal_key(row: AnimalRow) -> str:
    """Return a key that is equal for near-duplicates of animal sound recognition."""
    return content_key(row.sentence)


def pitch_key(row: PitchRow) -> str:
    """Return a key that is equal for rows that compare the same two sounds, in either order."""
    return " | ".join(sorted((content_key(row.span1), content_key(row.span2))))


def _pitch_claim(row: PitchRow) -> str:
    """Return the answer as seen from the span whose key comes first, so that a turned pair has the same claim."""
    first, second = content_key(row.span1), content_key(row.span2)
    return row.answer if first <= second else _OPPOSITE[row.answer]


def without_duplicates(
    rows: Sequence[Row], key: Callable[[Row], str], held_out: Iterable[str]
) -> tuple[list[Row], list[Rejected]]:
    """Return rows of which no two have the same key, in their order, and the rejected ones.

    Near-duplicates with the same answer are reduced to the first; a pitch pair with both answers is dropped whole; an
    animal sentence with several answers is reduced to the most frequent one. Rows with a key that is `held_out`, in the
    Wikipedia set, are dropped.
    """
    clusters: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        clusters[key(row)].append(row)
    held_out = set(held_out)
    kept_ids: set[str] = set()
    rejected: dict[str, Rejected] = {}

    def reject(row: Row, reason: str, detail: str) -> None:
        rejected[row.id] = Rejected(step=STEP, item=row.id, reason=reason, detail=detail)

    for name, cluster in clusters.items():
        by_claim: dict[str, list[Row]] = defaultdict(list)
        for row in cluster:
            by_claim[_pitch_claim(row) if isinstance(row, PitchRow) else row.answer].append(row)
        best = max(by_claim.values(), key=len)  # the first of equally frequent answers
        for claim, row in ((claim, row) for claim, same in by_claim.items() for row in same):
            if name in held_out:
                reject(row, "in-wiki-set", row.sentence)
            elif len(by_claim) > 1 and isinstance(row, PitchRow):
                reject(row, "contradictory", row.sentence)
            elif by_claim[claim] is not best:
                reject(row, "several-answers", f"'{row.sentence}': {claim}, kept: {best[0].answer}")
            elif row is not best[0]:
                reject(row, "near-duplicate", f"'{row.sentence}' of '{best[0].sentence}'")
            else:
                kept_ids.add(row.id)
    return [row for row in rows if row.id in kept_ids], [rejected[row.id] for row in rows if row.id in rejected]


def without_near_duplicates(rows: Sequence[Row], held_out: Sequence[str]) -> tuple[list[Row], list[Rejected]]:
    """Remove rows whose sentence is a near-duplicate, by the audit's measure, of another or of a held-out sentence.

    Of near-duplicates the first stays. Equal sentences stay: `without_duplicates` has decided about them.
    """
    rejected: list[Rejected] = []
    kept: list[Row] = []
    held_out = sorted({sentence.casefold() for sentence in held_out})
    for start in range(0, len(rows), _BLOCK):
        block = rows[start : start + _BLOCK]
        sentences = [row.sentence for row in block]
        in_wiki = dict(near_duplicate_pairs(sentences, held_out)) if held_out else {}
        known = [row.sentence.casefold() for row in kept]
        in_kept = dict(near_duplicate_pairs(sentences, known)) if known else {}
        new: list[Row] = []
        for row in block:
            reason, near = "in-wiki-set", in_wiki.get(row.sentence)
            if near is None:
                near = in_kept.get(row.sentence) or _near(row.sentence, [other.sentence for other in new])
                if near is None or near == row.sentence.casefold():
                    new.append(row)
                    continue
                reason = "near-duplicate"
            detail = f"'{row.sentence}' of '{near}'"
            rejected.append(Rejected(step=STEP, item=row.id, reason=reason, detail=detail))
        kept += new
    return kept, rejected


def _near(sentence: str, others: Sequence[str]) -> str | None:
    """Return a near-duplicate of the sentence among the others by the audit's measure, or None."""
    found = near_duplicate_pairs([sentence], [other.casefold() for other in others]) if others else []
    return found[0][1] if found else None


def split_rows(rows: Sequence[Row], key: Callable[[Row], str], settings: SplitSettings) -> dict[str, list[Row]]:
    """Split rows into train, dev and test, near-duplicates together; the same rows and seed give the same splits."""
    groups: dict[str, list[Row]] = defaultdict(list)
    for row in rows:
        groups[key(row)].append(row)
    names = sorted(groups)
    random.Random(f"{settings.seed}-split").shuffle(names)
    targets = {"test": round(settings.test * len(rows)), "dev": round(settings.dev * len(rows))}
    place = {}
    sizes: Counter[str] = Counter()
    for name in names:
        split = next((one for one in targets if sizes[one] + len(groups[name]) <= targets[one]), "train")
        sizes[split] += len(groups[name])
        place[name] = split
    return {split: [row for row in rows if place[key(row)] == split] for split in SPLITS}


def turned(row: PitchRow) -> PitchRow | None:
    """Return the row with its two sounds swapped and the opposite answer, or None if grammar does not allow it.

    >>> row = PitchRow(id="1", sentence="A drum has a [MASK] pitch than the sound of a bell.", answer="lower",
    ...                span1="drum", span2="sound of a bell", pitch1_hz=90, pitch2_hz=900)
    >>> turned(row).sentence
    'The sound of a bell has a [MASK] pitch than a drum.'
    """
    try:
        places = [locate_span(row.sentence, span) for span in (row.span1, row.span2)]
        one, two = (with_determiner(row.sentence, place) for place in places)
        sentence = swap_spans(row.sentence, places) if one < two else None
        if sentence is None or not all(_CHUNK.match(row.sentence[slice(*place)]) for place in (one, two)):
            return None
        if re.search(r"\bhave\b|\bare\b|\btheir\b|\bits\b", row.sentence[one[1] : two[0]]):
            return None
        spans = [sentence[slice(*locate_span(sentence, span))] for span in (row.span2, row.span1)]
    except BrokenRuleError:
        return None
    changes: dict[str, Any] = {
        "sentence": sentence,
        "answer": _OPPOSITE[row.answer],
        "span1": spans[0],
        "span2": spans[1],
        "pitch1_hz": row.pitch2_hz,
        "pitch2_hz": row.pitch1_hz,
        "clip1_id": row.clip2_id,
        "clip2_id": row.clip1_id,
    }
    credits_turned = {name: " | ".join(reversed(value.split(" | "))) for name, value in row.credits().items()}
    return row.model_copy(update=changes | credits_turned)


def balance_answers(rows: Sequence[PitchRow], others: Sequence[str], seed: str) -> list[PitchRow]:
    """Turn as many rows of the more frequent answer as it takes to make both answers equally frequent.

    A row stays as it is when its turned sentence would be a near-duplicate of one of the `others`, of all splits.
    """
    counts = Counter(row.answer for row in rows)
    surplus = abs(counts["higher"] - counts["lower"]) // 2
    more = "higher" if counts["higher"] > counts["lower"] else "lower"
    order = [index for index, row in enumerate(rows) if row.answer == more]
    random.Random(seed).shuffle(order)
    balanced = list(rows)
    for index in order:
        if surplus == 0:
            break
        other = turned(rows[index])
        if other is None or _near(other.sentence, [text for text in others if text != rows[index].sentence]):
            continue
        balanced[index] = other
        surplus -= 1
    return balanced


def make_splits(
    animal: Sequence[AnimalRow],
    pitch: Sequence[PitchRow],
    wiki_animal: Sequence[AnimalRow],
    wiki_pitch: Sequence[PitchRow],
    settings: SplitSettings,
) -> tuple[Splits, list[Rejected]]:
    """Clean, split and balance both tasks; the Wikipedia rows become their own split."""
    animals, rejected_animals = _cleaned(animal, animal_key, wiki_animal)
    pitches, rejected_pitches = _cleaned(pitch, pitch_key, wiki_pitch)
    animal_splits = split_rows(animals, animal_key, settings) | {"wiki": list(wiki_animal)}
    pitch_splits = split_rows(pitches, pitch_key, settings)
    sentences = [row.sentence for row in (*pitches, *wiki_pitch)]
    for split, rows in pitch_splits.items():
        pitch_splits[split] = balance_answers(rows, sentences, f"{settings.seed}-balance-{split}")
        sentences += [row.sentence for row in pitch_splits[split]]
    pitch_splits["wiki"] = list(wiki_pitch)
    splits = Splits(
        {split: rows for split, rows in animal_splits.items() if rows},
        {split: rows for split, rows in pitch_splits.items() if rows},
    )
    return splits, rejected_animals + rejected_pitches


def _cleaned(rows: Sequence[Row], key: Callable[[Row], str], wiki: Sequence[Row]) -> tuple[list[Row], list[Rejected]]:
    distinct, rejected = without_duplicates(rows, key, map(key, wiki))
    kept, near = without_near_duplicates(distinct, [row.sentence for row in wiki])
    return kept, rejected + near
