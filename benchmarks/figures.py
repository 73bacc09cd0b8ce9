"""Write the figures of the documents from the files in `results/`: `python -m benchmarks.figures`.

A block between `<!-- figures: NAME -->` and `<!-- end of figures -->` is generated; nothing in it is typed by hand.
`SOURCES` says which command makes each file. A file that is missing leaves a line with its command.
"""

from __future__ import annotations

import argparse
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from audiobert.artefacts import read_json, write_text
from audiobert.auditorybench.models import UNHEARD
from audiobert.auditorybench.stats import Difference
from audiobert.auditorybench.table_writers import to_markdown
from audiobert.auditorybench.tables import (
    COMBINED,
    TableRow,
    accuracy_table,
    detector_table,
    pairwise,
)
from audiobert.errors import ArtefactError, AudioBertError
from audiobert.training.ablations import as_markdown
from audiobert.web.findings import sound_adds
from benchmarks.everyday import right_of

ROOT = Path(__file__).parents[1]
SHIPPED = "src/audiobert/pretrained/mini"
DOCUMENTS = ("README.md", f"{SHIPPED}/README.md", "docs/figures.md", "docs/ablations.md")
MODEL = "mini"
WITHOUT = "the same training without recordings"
CONTROLS = "control:majority control:bag-of-words control:bag-of-words-told control:text-scorers"
# Answers of the shipped model with other clips or another retrieval than it was trained with.
OTHER_CLIPS = {
    ":unheard": "no clips",
    ":random-clips": "clips drawn at random, relatives of another span",
    ":shuffled-clips": "clips and relatives of another span",
    ":answer-clips": "clips of the animal that is the answer, where the bank has it",
    ":one-clip": "the best clip alone",
    ":by-caption": "clips found by their names alone",
    ":by-sound": "clips found by CLAP alone",
    ":no-relatives": "nothing of the nearest names",
}
# File in `results/`, and the command that makes it.
SOURCES = {
    "auditorybench.json": f"audiobert evaluate mini mini:unheard mini:off {CONTROLS}"
    " --data ../shared/auditorybench --out results/auditorybench.json",
    "without-recordings.json": "audiobert evaluate runs/averaged-without-recordings/model:unheard"
    " --data ../shared/auditorybench --out results/without-recordings.json",
    "unread.json": "audiobert evaluate mini --data ../shared/auditorybench --tasks unread --out results/unread.json",
    "detector.json": "audiobert evaluate mini --detector --data ../shared/auditorybench --out results/detector.json",
    "everyday.json": "python -m benchmarks.everyday --out results/everyday.json",
    "teach.json": "python -m benchmarks.teach ../shared/audio/FluidR3_GM/timpani --out results/teach.json",
    "other-clips.json": f"audiobert evaluate mini {' '.join(MODEL + state for state in OTHER_CLIPS)}"
    " --data ../shared/auditorybench --out results/other-clips.json",
    "ablations.json": "audiobert ablate --data ../shared --parts runs/mini --config mini/audiobert"
    " --out runs/ablations --seeds 0-2 --summary results/ablations.json",
    "short-ablations.json": "audiobert ablate --data ../shared --parts runs/mini --config mini/short"
    " --out runs/short-ablations --only audio,no-grounding,no-unread --seeds 0 --summary results/short-ablations.json",
}
# Of other weights than those that ship.
OPTIONAL = ("without-recordings.json", "ablations.json", "short-ablations.json")
_BLOCK = re.compile(r"(<!-- figures: ([\w-]+) -->\n).*?(<!-- end of figures -->)", re.DOTALL)
_COLUMNS = [(task, split) for split in ("dev", "wiki") for task in ("animal", "pitch", COMBINED)]

Results = Mapping[str, Any]
"""Content of the files in `results/` by file name, and of the shipped parts' records by `shipped/NAME.json`."""


def read_parts(root: Path = ROOT) -> dict[str, Any]:
    """Return the records of the shipped parts."""
    return {path.stem: read_json(path) for path in sorted((root / SHIPPED).glob("*.json"))}


def is_of(content: Any, parts: Mapping[str, Any]) -> bool:
    """Return whether results were measured with these parts; controls have none."""
    shipped = {name: record["sha256"] for name, record in parts.items() if "sha256" in record}
    reports = content if isinstance(content, list) else [content]
    made_of = [report.get("artefacts", {}).get("model", {}).get("parts", shipped) for report in reports]
    return all(digests == shipped for digests in made_of)


def stale(root: Path = ROOT) -> list[str]:
    """Return the files that are missing or of other weights than those that ship."""
    parts, paths = read_parts(root), {name: root / "results" / name for name in SOURCES if name not in OPTIONAL}
    return [name for name, path in paths.items() if not path.exists() or not is_of(read_json(path), parts)]


def measure(data: str, root: Path = ROOT) -> None:
    """Run the commands of the files that are stale, on `data` in the place of `../shared`."""
    for name in stale(root):
        program, *arguments = shlex.split(SOURCES[name].replace("../shared", data))
        module = ["-m", "audiobert"] if program == "audiobert" else []
        print(SOURCES[name], file=sys.stderr)
        subprocess.run([sys.executable, *module, *arguments], cwd=root, check=True)


def read_all(root: Path = ROOT) -> dict[str, Any]:
    """Read all results that are there, and the records of the shipped parts.

    Raises
    ------
    ArtefactError
        A file has figures of other weights than those that ship.
    """
    parts = read_parts(root)
    found = {name: read_json(root / "results" / name) for name in SOURCES if (root / "results" / name).exists()}
    for name, content in found.items():
        if name not in OPTIONAL and not is_of(content, parts):
            raise ArtefactError(f"results/{name} has figures of other weights than those that ship: {SOURCES[name]}")
    return found | {f"shipped/{name}.json": record for name, record in parts.items()}


def rewrite(text: str, results: Results) -> str:
    """Return a document with its generated blocks made anew.

    Raises
    ------
    ArtefactError
        A block has an unknown name.
    """

    def block(found: re.Match[str]) -> str:
        name = found[2]
        if name not in BLOCKS:
            raise ArtefactError(f"no figures are called {name!r}; there are: {', '.join(BLOCKS)}")
        make, needed = BLOCKS[name]
        missing = [source for source in needed if source not in results]
        made = "\n\n".join(f"Not measured yet: `{SOURCES[source]}`" for source in missing) or make(results)
        return f"{found[1]}{made.strip()}\n{found[3]}"

    return _BLOCK.sub(block, text)


def _reports(results: Results) -> list[dict[str, Any]]:
    """Return the reports on AuditoryBench, the shipped model under its own name."""
    content = results["auditorybench.json"]
    reports = [dict(report) for report in (content if isinstance(content, list) else [content])]
    first = next(r["model"] for r in reports if not r["model"].startswith("control:") and ":" not in r["model"])
    for report in reports:
        report["model"] = re.sub(rf"^{re.escape(first)}(?=:|$)", MODEL, report["model"])
    other = results.get("without-recordings.json")
    if other:
        reports.append({**(other[0] if isinstance(other, list) else other), "model": WITHOUT})
    return reports


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join([f"| {' | '.join(head)} |", f"| --- |{' ---: |' * (len(head) - 1)}", *lines])


def _name(row: TableRow) -> str:
    if row.section == "published":
        return f"published {row.name.removesuffix(' (paper)')}"
    return row.name if row.name == WITHOUT else f"`{row.name}`"


def auditorybench(results: Results) -> str:
    """Return Table III in short: the controls, the paper's smaller AudioBERT, the model in its states."""
    table = accuracy_table(_reports(results))
    rows = [r for r in table.rows if r.section != "published" or r.name.startswith("AudioBERT (BERT-base)")]
    rows.sort(key=lambda row: ("control", "published", "model").index(row.section))
    columns = [column for column in _COLUMNS if column in table.columns]
    head = ["accuracy, %", *(" ".join(column) for column in columns)]
    return _table(head, [[_name(row), *_percentages(row, columns)] for row in rows])


def table_3(results: Results) -> str:
    """Return Table III with every published row, intervals, and marks against the controls."""
    return to_markdown(accuracy_table(_reports(results)))


def hearing_adds(results: Results) -> str:
    """Return what hearing adds: with sound minus unheard, and minus the same training without recordings."""
    reports = [report for report in _reports(results) if report["model"] in (MODEL, MODEL + UNHEARD, WITHOUT)]
    without = WITHOUT if any(report["model"] == WITHOUT for report in reports) else None
    by_minus: dict[str, dict[tuple[str, str], str]] = {}
    for one in sound_adds(reports, MODEL, without):
        by_minus.setdefault(one.minus, {})[one.column] = _points(one.difference)
    columns = [column for column in _COLUMNS if any(column in cells for cells in by_minus.values())]
    head = ["points", *(" ".join(column) for column in columns)]
    rows = [[f"with sound minus {minus}", *(cells.get(c, "") for c in columns)] for minus, cells in by_minus.items()]
    return _table(head, rows)


def unread(results: Results) -> str:
    """Return the answers about kinds of sound that no training contained."""
    content = results["unread.json"]
    report = content[0] if isinstance(content, list) else content
    found = {(entry["task"], entry["split"]): entry for entry in report["results"]}
    splits = ("bank-added", "bank-not-added", "unheard")
    rows = []
    for task, asked in (
        ("unread-made-up", "two withheld kinds, under made-up names"),
        ("unread-own", "two withheld kinds, under their own names"),
        ("unread-made-up-known", "a withheld and a known kind, under made-up names"),
        ("unread-own-known", "a withheld and a known kind, under their own names"),
    ):
        entries = [found.get((task, split)) for split in splits]
        if entries[0]:
            accuracies = [f"{100 * entry['accuracy']:.1f}" if entry else "" for entry in entries]
            rows.append([asked, str(entries[0]["n"]), *accuracies])
    head = ["which is higher in pitch, % right", "questions", "their clips in the bank", "not in the bank", "unheard"]
    said = []
    for split, what in (("held-out", "a known kind, held out of training"), ("withheld-kinds", "a withheld kind")):
        if entry := found.get(("unread-naming", split)):
            top5 = f", among the first five in {100 * entry['top5']:.1f}%" if "top5" in entry else ""
            said.append(f"a recording of {what}: {100 * entry['accuracy']:.1f}% of {entry['n']}{top5}")
    naming = f'\n\nNamed right ("This is the sound of a [MASK]."): {"; ".join(said)}.' if said else ""
    return _table(head, rows) + naming


def everyday(results: Results) -> str:
    """Return how many everyday questions are answered right."""
    answers = results["everyday.json"]["answers"]
    kinds = {kind: len(words) for kind, words in answers["on"].items()}
    right = {state: right_of(said) for state, said in answers.items()}
    total = sum(kinds.values())
    states = {"on": "with sound", "unheard": "unheard", "off": "switched off"}
    head = ["everyday questions answered right", "all", *(kind.replace("_", " ") for kind in kinds)]
    rows = [
        [name, f"{sum(right[s].values())} of {total}", *(f"{right[s][kind]} of {n}" for kind, n in kinds.items())]
        for s, name in states.items()
    ]
    return _table(head, rows)


def teach(results: Results) -> str:
    """Return the transcript in which an unknown word is taught."""
    found = results["teach.json"]
    sentence = found["before"][0]
    files = ", ".join(f"blick-{n}{found['suffix']}" for n in range(1, found["recordings"] + 1))
    ask = "audiobert fill-mask --top-k 2 --no-base"
    lines = [f'$ {ask} "{sentence}"', *found["before"], f"$ audiobert bank build recordings/ --out my-bank   # {files}"]
    lines += [f'$ {ask} --bank my-bank "{sentence}"', *found["after"]]
    never = f", a kind that no part of `{MODEL}` was trained on" if found["withheld"] else ""
    return "\n".join(["```", *lines, "```", "", f"The recordings were of {found['kind']}{never}."])


def parts(results: Results) -> str:
    """Return the figures of the parts, each measured apart."""
    language_model, detector, clap = (
        results[f"shipped/{name}.json"] for name in ("language_model", "detector", "clap")
    )
    perplexity = language_model["perplexity_general_eval"]
    rows = [["plain language model", "perplexity of masked tokens, `general_eval`", f"{perplexity:.1f}"]]
    detection = results["detector.json"]
    for entry in (detection[0] if isinstance(detection, list) else detection)["detection"]:
        what = f"F1 as in Table II / of all tokens / spans found to the letter, {entry['task']} {entry['split']}"
        rows.append(["span detector", what, _percent(entry, ("f1", "f1_micro", "exact"))])
    if (alarms := detector.get("false_alarms_general_eval")) is not None:
        rows.append(["span detector", "sentences of `general_eval` in which it finds a span", f"{100 * alarms:.2f}%"])
    for name, figures in clap["held_out"].items():
        which = {"all": "held-out clips", "withheld": "clips of withheld kinds"}.get(name, f"held-out clips of {name}")
        what = f"R@1 / R@5 / mAP / zero-shot, {figures['clips']:.0f} {which}, {figures['classes']:.0f} classes"
        kinds = ("R@1", "R@5", "mAP", "zero_shot")
        chance = _percent(figures, [f"chance_{kind}" for kind in kinds])
        rows.append(["CLAP", what, f"{_percent(figures, kinds)} (chance {chance})"])
    return _table(["part", "what", "figure"], rows)


def _percent(figures: Mapping[str, float], names: Iterable[str]) -> str:
    return " / ".join(f"{100 * figures[name]:.1f}" for name in names)


def table_2(results: Results) -> str:
    """Return Table II: the paper's span detectors and the shipped one."""
    content = results["detector.json"]
    return to_markdown(detector_table(content if isinstance(content, list) else [content]))


def ablations(results: Results, file: str = "ablations.json") -> str:
    """Return the trainings with one thing changed."""
    return as_markdown(results[file])


def other_clips(results: Results) -> str:
    """Return the accuracies of the shipped weights with other clips, and what theirs add to them on the same rows."""
    by_name = {report["model"]: report for report in results["other-clips.json"]}
    found = {row.name: row for row in accuracy_table(list(by_name.values()), published=False).rows}
    rows = [["as it ships", *_percentages(found[MODEL], _COLUMNS), "", ""]]
    for state, what in OTHER_CLIPS.items():
        tests = {(one.task, one.split): one.difference for one in pairwise([by_name[MODEL], by_name[MODEL + state]])}
        added = [_points(tests[column]) for column in ((COMBINED, "dev"), ("pitch", "wiki"))]
        rows.append([f"`{state}`: {what}", *_percentages(found[MODEL + state], _COLUMNS), *added])
    columns = [" ".join(column) for column in _COLUMNS]
    return _table(["clips", *columns, "as it ships minus this, combined dev", "the same, pitch wiki"], rows)


def _percentages(row: TableRow, columns: Iterable[tuple[str, str]]) -> list[str]:
    return [f"{row.cells[column].value:.1f}" if column in row.cells else "" for column in columns]


def _points(difference: Difference) -> str:
    return f"{100 * difference.mean:+.1f} [{100 * difference.low:+.1f}, {100 * difference.high:+.1f}]"


def commands(_results: Results) -> str:
    """Return the commands that make the results."""
    return "\n".join(["```", *SOURCES.values(), "python -m benchmarks.figures", "```"])


BLOCKS: dict[str, tuple[Callable[[Results], str], tuple[str, ...]]] = {
    "auditorybench": (auditorybench, ("auditorybench.json",)),
    "table-3": (table_3, ("auditorybench.json",)),
    "hearing-adds": (hearing_adds, ("auditorybench.json",)),
    "unread": (unread, ("unread.json",)),
    "everyday": (everyday, ("everyday.json",)),
    "teach": (teach, ("teach.json",)),
    "parts": (parts, ("detector.json",)),
    "table-2": (table_2, ("detector.json",)),
    "other-clips": (other_clips, ("other-clips.json",)),
    "ablations": (ablations, ("ablations.json",)),
    "short-ablations": (partial(ablations, file="short-ablations.json"), ("short-ablations.json",)),
    "commands": (commands, ()),
}


def main() -> None:
    """Rewrite the blocks of all documents."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.figures", description=__doc__)
    parser.add_argument("--measure", metavar="DATA", help="first run the commands whose files are missing or stale")
    given = parser.parse_args()
    if given.measure:
        measure(given.measure)
    try:
        results = read_all()
        for name in DOCUMENTS:
            path = ROOT / name
            text = path.read_text(encoding="utf-8")
            if (new := rewrite(text, results)) != text:
                write_text(path, new)
                print(f"{name} rewritten")
    except AudioBertError as error:
        sys.exit(str(error))


if __name__ == "__main__":
    main()
