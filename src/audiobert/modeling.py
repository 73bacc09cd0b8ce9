"""`AudioBertForMaskedLM`: language model + LoRA + injection; forward and loss (section II-B3)."""

from __future__ import annotations

from peft import PeftModel
from torch import Tensor, nn

# LoRA adapters by what they are for; all of them live on one backbone and are switched, never merged.
LANGUAGE_ADAPTER = "language"  # with the masked-LM head it makes the plain language model of `mini`
AUDIO_ADAPTER = "audio"  # on only where a span was found
DETECTOR_ADAPTER = "detector"

# Module names of BERT's layers, as regular expressions that peft matches against the whole dotted name.
ALL_LINEAR = r".*encoder\.layer\.\d+\..*(query|key|value|dense)"
QUERY_KEY_VALUE = r".*encoder\.layer\.\d+\..*(query|key|value)"


def adapter_state(model: PeftModel, adapter: str) -> dict[str, Tensor]:
    """LoRA matrices of one adapter, named without peft's prefixes, as float16 tensors ready to be saved."""
    marker = f".{adapter}.weight"
    return {
        name.removeprefix("base_model.model.").replace(marker, ".weight"): parameter.detach().half().contiguous()
        for name, parameter in model.named_parameters()
        if "lora_" in name and name.endswith(marker)
    }


def head_state(language_model: nn.Module) -> dict[str, Tensor]:
    """The masked-LM head without the decoder, which is tied to the word embeddings."""
    return {
        f"cls.predictions.{name}": parameter.detach().half().contiguous()
        for name, parameter in language_model.cls.predictions.named_parameters()  # type: ignore[union-attr, operator]
        if not name.startswith("decoder.weight") and not name.startswith("decoder.bias")
    }
