"""The door to published CLAPs: any `transformers.ClapModel`, with its own processor."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional
from transformers import AutoFeatureExtractor, AutoTokenizer, PreTrainedTokenizerBase
from transformers import ClapModel as TransformersClap

from audiobert.backbone import Identity, find_model, load_extractor, load_weights, model_type, weights_checksums
from audiobert.clap import ClapModel, refuse_empty
from audiobert.errors import InputError
from audiobert.features import FeatureMaker
from audiobert.hub_features import ClapFeatures, maker_of


class HubClap:
    """Text and sound to unit vectors of one space, by a published CLAP; the same door as `audiobert.clap.ClapModel`.

    A clip that fits into one window is never marked as longer, which transformers' processor does with one clip of
    every batch: the vector of a clip does not depend on the clips beside it.
    """

    def __init__(
        self, model: TransformersClap, tokenizer: PreTrainedTokenizerBase, features: ClapFeatures, identity: Identity
    ) -> None:
        self.model = model.eval().requires_grad_(False)
        self.tokenizer, self.identity = tokenizer, identity
        self._features = features
        text_config: Any = model.config.text_config
        positions = int(text_config.max_position_embeddings) - 2  # RoBERTa counts from the padding on
        self.max_tokens = min(int(tokenizer.model_max_length), positions)

    @property
    def features(self) -> FeatureMaker:
        """What makes of a waveform what `embed_audio` takes."""
        return self._features

    @property
    def clap_dim(self) -> int:
        """Length of a CLAP vector."""
        return int(self.model.config.projection_dim)

    def to(self, device: torch.device | str) -> HubClap:
        self.model.to(device)  # type: ignore[arg-type]
        return self

    @torch.no_grad()
    def embed_text(self, texts: Sequence[str], *, batch_size: int = 128) -> np.ndarray:
        """CLAP vectors of texts, `(texts, clap_dim)` float32, unit norm.

        Raises
        ------
        InputError
            A text is empty.
        """
        refuse_empty(texts)
        vectors = [np.zeros((0, self.clap_dim), dtype=np.float32)]
        for start in range(0, len(texts), batch_size):
            tokens = self.tokenizer(
                list(texts[start : start + batch_size]),
                padding=True,
                truncation=True,
                max_length=self.max_tokens,
                return_tensors="pt",
            ).to(self.model.device)
            output = self.model.get_text_features(tokens["input_ids"], tokens["attention_mask"])
            vectors.append(_unit(output))
        return np.concatenate(vectors)

    @torch.no_grad()
    def embed_audio(self, features: Sequence[np.ndarray], *, batch_size: int = 16) -> np.ndarray:
        """CLAP vectors of what `features` made of clips: `(clips, clap_dim)` float32, unit norm."""
        vectors = [np.zeros((0, self.clap_dim), dtype=np.float32)]
        for start in range(0, len(features), batch_size):
            inputs, is_longer = self.inputs(features[start : start + batch_size])
            device = self.model.device
            output = self.model.get_audio_features(inputs.to(device), is_longer=is_longer.to(device))
            vectors.append(_unit(output))
        return np.concatenate(vectors)

    def inputs(self, features: Sequence[np.ndarray]) -> tuple[Tensor, Tensor]:
        """What the model is called with: `(clips, 1 or 4, frames, bins)` float32 and `(clips, 1)` bool, is longer."""
        frames = self._features.window_frames
        windows = 4 if self._features.fused else 1
        batch = np.stack(
            [  # a clip of one window is given as all four
                clip.reshape(windows, frames, -1) if len(clip) > frames else np.stack([clip] * windows)
                for clip in features
            ]
        )
        is_longer = torch.tensor([[len(clip) > frames] for clip in features])
        return torch.from_numpy(batch).float(), is_longer


# The door to CLAP, whichever it is: `features`, `clap_dim`, `embed_text`, `embed_audio`.
Clap = ClapModel | HubClap


def load_clap(name: str, *, revision: str | None = None) -> HubClap:
    """Load a published CLAP by hub id or folder.

    Raises
    ------
    ArtefactError
        It cannot be found, or its weights are missing, damaged or of another model.
    RemoteError
        The hub could not be reached or refused.
    InputError
        It is no CLAP.
    """
    folder, origin, commit = find_model(name, revision)
    if (found := model_type(folder, name)) != "clap":
        raise InputError(f"{name} is a model of type '{found}'; a CLAP (such as laion/clap-htsat-fused) is wanted")
    maker = maker_of(load_extractor(AutoFeatureExtractor, folder, name), name)
    assert isinstance(maker, ClapFeatures)
    tokenizer = load_extractor(AutoTokenizer, folder, name)
    model = load_weights(TransformersClap, folder, name, whole=True)
    return HubClap(model, tokenizer, maker, Identity(name, origin, commit, weights_checksums(folder)))


def _unit(output: Any) -> np.ndarray:
    """The vectors of transformers' answer, which is a tensor in one version and an output in another; unit norm."""
    vectors = output if isinstance(output, Tensor) else output.pooler_output
    return functional.normalize(vectors.float(), dim=-1).cpu().numpy()
