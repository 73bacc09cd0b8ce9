"""Write an audit as a page of text."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any


def _percent(value: float) -> str:
    return f"{100 * value:.1f}%"


def to_text(report: Mapping[str, Any]) -> str:
    """Return an audit as a page of text."""
    lines = [f"Audit of {report['folder']}"]
    for name, task in report["tasks"].items():
        lines += ["", f"{name} ({task['kind']})", "=" * (len(name) + len(task["kind"]) + 3), ""]
        lines += _page(task)
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def _page(task: Mapping[str, Any]) -> list[str]:
    lines = ["Rows"]
    for split, size in task["splits"].items():
        lines.append(
            f"  {split:6} {size['rows']:6,} rows, {size['words']:7,} words ({size['words_per_caption']:.2f} per "
            f"caption), {size['answers']} answers, {size['duplicate_rows']} duplicate rows"
        )
        if several := size["rows_without_exactly_one_mask"]:
            lines.append(f"         not exactly one [MASK]: rows {', '.join(map(str, several[:10]))}")
    lines += ["", "Leaks (sentences of one split that are also in another)"]
    for entry in task["leaks"]:
        near = f", {entry['sentence_near_duplicate']} nearly" if "sentence_near_duplicate" in entry else ""
        lines.append(
            f"  {entry['from']} -> {entry['into']}: of {entry['rows']:,} rows {entry['sentence_exact']} word for word, "
            f"{entry['sentence_case_folded']} but for case{near}; {entry['sentence_and_answer']} with the same answer"
        )
    for split, seen in task.get("train_answer_where_seen", {}).items():
        if seen["rows"]:
            not_given = f"{seen['answer_not_given_by_train']} ({_percent(seen['share_not_given_by_train'])})"
            most = _percent(seen["share_most_frequent_right"])
            lines.append(
                f"  {split}: of the {seen['rows']} rows whose sentence is in train, {not_given} have an answer that "
                f"train does not give for it; its most frequent answer is right in {most}"
            )
    lines += ["", "Sentences with several answers"]
    for split, found in task["ambiguity"].items():
        lines.append(
            f"  {split:6} {found['sentences_with_several_answers']} of {found['sentences']:,} sentences, "
            f"{found['rows_with_such_sentences']} rows; accuracy ceiling {_percent(found['accuracy_ceiling'])}"
        )
    lines += ["", "Spans"]
    for split, spans in task["spans"].items():
        aligned = spans["alignment"]
        lines.append(
            f"  {split:6} {spans['rows_not_in_sentence']} rows ({_percent(spans['share_of_rows_not_in_sentence'])}) "
            f"with a span that is not in the sentence ({spans['rows_not_as_written']} with case), "
            f"{spans['empty']} empty spans; aligned {aligned['exact']} exactly, {aligned['case']} but for case, "
            f"{aligned['tolerant']} tolerantly, {aligned['none']} not"
        )
    lines += ["", "Most frequent answers"]
    for split, priors in task["priors"].items():
        lines.append(f"  {split:6} " + ", ".join(f"{answer} {_percent(value)}" for answer, value in priors.items()))
    if "unseen_answers" in task:
        lines += ["", "Answers that no train row has"]
        for split, unseen in task["unseen_answers"].items():
            examples = f": {', '.join(unseen['examples'])}" if unseen["examples"] else ""
            share = _percent(unseen["share"])
            lines.append(f"  {split:6} {unseen['rows']} rows ({share}), {unseen['answers']} answers{examples}")
    if "wordpieces" in task:
        lines += ["", "Wordpieces of the answers (rows)"]
        for split, sizes in task["wordpieces"].items():
            lines.append(f"  {split:6} " + ", ".join(f"{size}: {count}" for size, count in sizes.items()))
    return lines
