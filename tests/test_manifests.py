"""Manifests of published collections, from toy folders in the layout that their archives unpack to."""

import importlib.util
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile

from audiobert.bank.sources import open_source

CC0 = "http://creativecommons.org/publicdomain/zero/1.0/"
SCRIPT = Path(__file__).resolve().parents[1] / "examples" / "manifests.py"
spec = importlib.util.spec_from_file_location("manifests", SCRIPT)
manifests = importlib.util.module_from_spec(spec)
spec.loader.exec_module(manifests)


def write(path: Path, text: str, encoding: str = "utf-8") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding=encoding)


def sound(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    soundfile.write(path, 0.1 * np.sin(np.arange(8000) / 5), 16_000)


def esc_50(folder: Path) -> None:
    head = "filename,fold,target,category,esc10,src_file,take\n"
    write(folder / "meta" / "esc50.csv", head + "1-1-A-0.wav,2,0,dog_bark,True,1,A\n")
    sound(folder / "audio" / "1-1-A-0.wav")


def fsd50k(folder: Path) -> None:
    about = {"title": "Dog, far", "description": "a\nb", "tags": ["dog", "far"], "license": CC0, "uploader": "me"}
    for part, name in (("dev", "7"), ("eval", "8")):
        row = f'{name},"Domestic_dog,Animal","/m/1,/m/2"\n'
        write(folder / "FSD50K.ground_truth" / f"{part}.csv", "fname,labels,mids\n" + row)
        write(folder / "FSD50K.metadata" / f"{part}_clips_info_FSD50K.json", json.dumps({name: about}))
        sound(folder / f"FSD50K.{part}_audio" / f"{name}.wav")


def clotho(folder: Path) -> None:
    for part in ("development", "validation", "evaluation"):
        write(folder / f"clotho_captions_{part}.csv", "file_name,caption_1,caption_2\na café.wav,A dog barks,A bark\n")
        head = "file_name,keywords,sound_id,sound_link,start_end_samples,manufacturer,license\n"
        row = f'a café.wav,dog;café,5,https://freesound.org/s/5,"[1, 2]",me,{CC0}\n'
        write(folder / f"clotho_metadata_{part}.csv", head + row, encoding="latin-1")
        sound(folder / part / "a café.wav")


@pytest.mark.parametrize(
    ("kind", "make", "expected"),
    [
        ("esc-50", esc_50, [{"label": "dog bark", "source": "ESC-50"}]),
        ("fsd50k", fsd50k, [{"label": "domestic dog", "title": "Dog, far", "tags": ["dog", "far"]}] * 2),
        ("clotho", clotho, [{"caption": "A dog barks", "tags": ["dog", "café"], "source": "Clotho"}] * 3),
    ],
)
def test_a_bank_takes_every_clip_of_a_collection(kind, make, expected, tmp_path, capsys):
    make(tmp_path)
    manifests.main([kind, str(tmp_path)])
    assert f"{len(expected)} clips" in capsys.readouterr().out
    entries = list(open_source(tmp_path / "clips.csv"))
    assert [entry.problem for entry in entries] == [None] * len(expected)
    for entry, wanted in zip(entries, expected, strict=True):
        assert {name: entry.given[name] for name in wanted} == wanted
        assert entry.open().read(4)


def test_a_folder_in_another_layout_is_one_line(tmp_path):
    with pytest.raises(SystemExit, match=r"esc50.csv does not exist; .* is not ESC-50"):
        manifests.main(["esc-50", str(tmp_path)])
    with pytest.raises(SystemExit, match="KIND is one of esc-50, fsd50k, clotho"):
        manifests.main(["audioset", str(tmp_path)])
