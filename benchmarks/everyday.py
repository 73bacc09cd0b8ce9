"""Share of everyday questions about sound that a model answers right: `python -m benchmarks.everyday [MODEL]`."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

QUESTIONS = Path(__file__).with_name("everyday.yaml")


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


def main() -> None:
    from audiobert import AudioBert

    model = AudioBert.from_pretrained(sys.argv[1] if len(sys.argv) > 1 else "mini")
    questions = read_questions()
    for sound in ("on", "unheard", "off"):
        said = everyday(model, questions, sound=sound)
        right = {kind: sum(word.startswith("+") for word in words) for kind, words in said.items()}
        total = sum(map(len, said.values()))
        print(f"{sound}: {sum(right.values())} of {total} right ({sum(right.values()) / total:.0%})")
        for kind, words in said.items():
            print(f"  {kind}: {right[kind]} of {len(words)}: {' '.join(words)}")


if __name__ == "__main__":
    main()
