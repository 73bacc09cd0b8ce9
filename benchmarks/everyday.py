"""Share of everyday questions about sound that a model answers right: `python -m benchmarks.everyday [MODEL]`."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from audiobert.artefacts import provenance, write_json

QUESTIONS = Path(__file__).with_name("everyday.yaml")
STATES = ("on", "unheard", "off")


def read_questions(path: Path = QUESTIONS) -> dict[str, list[tuple[str, set[str]]]]:
    """Return the questions by kind, each with all acceptable answers."""
    kinds = yaml.safe_load(path.read_text(encoding="utf-8"))
    return {kind: [(text, set(answers)) for text, answers in rows] for kind, rows in kinds.items()}


def everyday(
    model: Any, questions: Mapping[str, list[tuple[str, set[str]]]], *, sound: str = "on"
) -> dict[str, list[str]]:
    """Return the first words by kind, those that are right marked with a plus."""
    said: dict[str, list[str]] = {}
    for kind, rows in questions.items():
        scores = model.score_masks([text for text, _ in rows], sound=sound)
        words = [model.tokenizer.decode(one.log_probs[0].argmax().reshape(1).tolist()).strip() for one in scores]
        said[kind] = [f"{'+' if word in right else ''}{word}" for word, (_, right) in zip(words, rows, strict=True)]
    return said


def right_of(said: Mapping[str, list[str]]) -> dict[str, int]:
    """Return the number of right answers by kind."""
    return {kind: sum(word.startswith("+") for word in words) for kind, words in said.items()}


def main() -> None:
    """Print the answers, and write them to `--out`."""
    from audiobert import AudioBert

    parser = argparse.ArgumentParser(prog="python -m benchmarks.everyday", description=__doc__)
    parser.add_argument("model", nargs="?", default="mini", help="mini or a model's folder")
    parser.add_argument("--out", type=Path, help="write the answers to this JSON file")
    given = parser.parse_args()
    model = AudioBert.from_pretrained(given.model)
    questions = read_questions()
    answers = {sound: everyday(model, questions, sound=sound) for sound in STATES}
    for sound, said in answers.items():
        right, total = right_of(said), sum(map(len, said.values()))
        print(f"{sound}: {sum(right.values())} of {total} right ({sum(right.values()) / total:.0%})")
        for kind, words in said.items():
            print(f"  {kind}: {right[kind]} of {len(words)}: {' '.join(words)}")
    if given.out:
        made = provenance(artefacts={"model": model.describe()})
        write_json(given.out, {"model": given.model, **made, "answers": answers})


if __name__ == "__main__":
    main()
