"""The detector of the paper: a model of its own, fine-tuned as a whole."""

import json
import shutil

import pytest
from transformers import AutoModelForMaskedLM

from audiobert.auditorybench.data import load_split
from audiobert.cli import run
from audiobert.errors import ArtefactError
from audiobert.model_folder import PRETRAINED, write_model_folder
from audiobert.parts import load_detector, load_parts
from audiobert.training.detector import examples_of, span_scores
from auditorybench_toys import bert
from training_toys import write_data

SETTINGS = {
    "tune": "all", "layers": 1, "epochs": 15, "batch_size": 4, "learning_rate": 5e-3, "negatives": 0, "carriers": 0,
    "answer_share": 0.0,
    "average_from": 1.0, "keep": "best",
}  # fmt: skip


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("detector")
    bert(folder / "bert", whole=("higher", "lower", "woof", "meow", "bell", "dog", "cat"))
    data = folder / "data"
    data.mkdir()
    shutil.rmtree(write_data(data) / "text")  # it is learnt from the rows alone
    (folder / "config.yaml").write_text(json.dumps(SETTINGS | {"language_model": str(folder / "bert")}))
    arguments = ["--data", str(data), "--out", str(folder / "out"), "--config", str(folder / "config.yaml")]
    assert run(["train", "detector", *arguments]) == 0
    return folder


def test_all_of_the_encoder_is_trained_and_kept(trained):
    detector, _ = load_detector(trained / "out")
    record = json.loads((trained / "out" / "detector.json").read_text())
    after = detector.encoder.state_dict()
    backbone = AutoModelForMaskedLM.from_pretrained(trained / "bert").base_model
    fresh = backbone.state_dict()
    still = [key for key in after if key.endswith("weight") and bool((after[key] == fresh[key]).all())]
    assert still == []
    assert len(detector.encoder.encoder.layer) == 1 < len(backbone.encoder.layer)
    assert record["lora"] is None
    assert record["false_alarms_general_eval"] is None
    assert record["backbone"]["name"] == str(trained / "bert")


def test_it_learns_and_the_saved_one_scores_as_the_trained_one(trained):
    detector, _ = load_detector(trained / "out")
    record = json.loads((trained / "out" / "detector.json").read_text())
    detector.encoder.eval()
    for task in ("animal", "pitch"):
        examples = examples_of(load_split(trained / "data" / "auditorybench", task, "dev"))
        assert span_scores(detector, examples) == pytest.approx(record["scores"][f"{task}.dev"], abs=0.01)
    assert record["scores"]["combined.dev"]["token_f1"] > 0.8
    assert record["scores"]["combined.dev"]["token_f1"] == pytest.approx(
        max(epoch["token_f1"] for epoch in record["log"]), abs=1e-4
    )


def test_it_takes_its_place_beside_the_other_parts_of_a_model(trained):
    folder = trained / "model"
    mini = PRETRAINED / "mini"
    write_model_folder(folder, {"language_model": mini, "clap": mini, "detector": trained / "out"})
    parts = load_parts(folder)
    assert parts.detector.encoder is not parts.language_model.base_model
    assert parts.detector.tokenizer.vocab_size != parts.tokenizer.vocab_size
    texts = [row.text for row in load_split(trained / "data" / "auditorybench", "pitch", "dev")]
    assert all(
        span.text in text for text, spans in zip(texts, parts.detector.detect(texts), strict=True) for span in spans
    )
    assert any(parts.detector.detect(texts))


def test_another_backbone_of_the_same_name_is_refused(trained, tmp_path):
    record = json.loads((trained / "out" / "detector.json").read_text())
    record["backbone"]["sha256"] = {"model.safetensors": "0" * 64}
    shutil.copytree(trained / "out", tmp_path / "out")
    (tmp_path / "out" / "detector.json").write_text(json.dumps(record))
    with pytest.raises(ArtefactError, match="backbone"):
        load_detector(tmp_path / "out")
