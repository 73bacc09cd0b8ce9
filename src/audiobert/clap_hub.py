"""Load published CLAPs: any `transformers.ClapModel`, with its own processor."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoFeatureExtractor, AutoTokenizer, PreTrainedTokenizerBase
from transformers import ClapModel as TransformersClap

from audiobert.backbone import Identity, find_model, load_extractor, load_weights, model_type, weights_checksums
from audiobert.clap import ClapModel, QueryVectors, check_queries
from audiobert.encoders.family import ExtractorFeatures
from audiobert.errors import InputError
from audiobert.hub import HubAccess
from audiobert.sentence import query_tokens

FUSED_SECONDS = 60.0  # a fused CLAP uses a clip as a whole; what lies behind this is not decoded
_RANDOM_WINDOWS = Lock()  # held while numpy's global random state is set for the extractor


@dataclass(frozen=True)
class ClapFeatures(ExtractorFeatures):
    """CLAP's mel energies: `(frames, bins)`, or, of a clip longer than a window for a fused CLAP, `(4 frames, bins)`.

    The four windows are the whole clip shrunk and one window each of its beginning, middle and end. The extractor draws
    windows at random; here the draw is the same for every clip and every run. A CLAP that is not fused uses the
    beginning of a clip, where the extractor would draw any window.
    """

    @staticmethod
    def max_seconds(extractor: Any) -> float:
        """Return the longest clip that the extractor uses, in seconds."""
        return FUSED_SECONDS if extractor.truncation == "fusion" else float(extractor.max_length_s)

    @property
    def fused(self) -> bool:
        """Whether the model fuses four windows of a long clip."""
        return bool(self.extractor.truncation == "fusion")

    @property
    def window_frames(self) -> int:
        """Frames of one window."""
        return int(self.extractor.nb_max_samples // self.extractor.hop_length + 1)

    def __call__(self, waveform: np.ndarray) -> np.ndarray:
        """Compute the mel energies of a waveform; the windows of a long clip do not depend on chance."""
        with _RANDOM_WINDOWS:
            before = np.random.get_state()
            np.random.seed(0)
            try:
                _, extracted = self.extract(waveform)
            finally:
                np.random.set_state(before)
        windows = np.asarray(extracted["input_features"][0], dtype=np.float32)  # (1 or 4, frames, bins)
        alike = len(windows) > 1 and all(np.array_equal(windows[0], other) for other in windows[1:])
        return windows[0] if alike else windows.reshape(-1, windows.shape[-1])


class HubClap:
    """A published CLAP: texts and clips to unit vectors of one space, with the interface of `audiobert.clap.ClapModel`.

    A clip that fits into one window is never marked as longer, which transformers' processor does with one clip of
    every batch: the vector of a clip does not depend on the clips beside it.
    """

    def __init__(
        self, model: TransformersClap, tokenizer: PreTrainedTokenizerBase, features: ClapFeatures, identity: Identity
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.identity = tokenizer, identity
        self.features = features
        self.text_dim = self.clap_dim = int(model.config.projection_dim)  # the CLAP vector is the sentence vector, too
        text_config: Any = model.config.text_config
        positions = int(text_config.max_position_embeddings) - 2  # RoBERTa counts from the padding on
        self.max_tokens = min(int(tokenizer.model_max_length), positions)

    @torch.no_grad()
    def embed_query(self, texts: Sequence[str], *, batch_size: int = 128) -> QueryVectors:
        """Embed texts as queries; the CLAP vectors serve as sentence vectors, too."""
        check_queries(texts)
        vectors = [np.zeros((0, self.clap_dim), dtype=np.float32)]
        for start in range(0, len(texts), batch_size):
            tokens = query_tokens(self.tokenizer, texts[start : start + batch_size], self.max_tokens)
            vectors.append(_unit(self.model.get_text_features(*(part.to(self.model.device) for part in tokens))))
        joined = np.concatenate(vectors)
        return QueryVectors(sentence=joined, clap=joined)

    @torch.no_grad()
    def embed_audio(self, features: Sequence[np.ndarray], *, batch_size: int = 16) -> np.ndarray:
        """Embed the features of clips as CLAP vectors, `(clips, clap_dim)` float32, unit norm."""
        vectors = [np.zeros((0, self.clap_dim), dtype=np.float32)]
        for start in range(0, len(features), batch_size):
            inputs, is_longer = self.inputs(features[start : start + batch_size])
            device = self.model.device
            vectors.append(_unit(self.model.get_audio_features(inputs.to(device), is_longer=is_longer.to(device))))
        return np.concatenate(vectors)

    def inputs(self, features: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """Return the model's inputs: windows `(clips, 1 or 4, frames, bins)` float32, is-longer `(clips, 1)` bool."""
        frames = self.features.window_frames
        windows = 4 if self.features.fused else 1
        batch = np.stack(
            [  # a clip of one window is given as all four
                clip.reshape(windows, frames, -1) if len(clip) > frames else np.stack([clip] * windows)
                for clip in features
            ]
        )
        is_longer = torch.tensor([[len(clip) > frames] for clip in features])
        return torch.from_numpy(batch).float(), is_longer


# Both have `features`, `text_dim`, `clap_dim`, `embed_query` and `embed_audio`.
Clap = ClapModel | HubClap


def load_clap(name: str, *, revision: str | None = None, hub: HubAccess | None = None) -> HubClap:
    """Load a published CLAP by hub id or folder."""
    folder, origin, commit = find_model(name, revision, hub=hub)
    if (found := model_type(folder, name)) != "clap":
        raise InputError(f"{name} is a model of type '{found}'; a CLAP (such as laion/clap-htsat-fused) is wanted")
    features = ClapFeatures.of(load_extractor(AutoFeatureExtractor, folder, name), name)
    tokenizer = load_extractor(AutoTokenizer, folder, name)
    model = load_weights(TransformersClap, folder, name, whole=True)
    return HubClap(model, tokenizer, features, Identity(name, origin, commit, weights_checksums(folder)))


def _unit(output: Any) -> np.ndarray:
    """Return the vectors of transformers' output (a tensor in one version, a model output in another) at unit norm."""
    vectors = output if isinstance(output, Tensor) else output.pooler_output
    return functional.normalize(vectors.float(), dim=-1).cpu().numpy()
