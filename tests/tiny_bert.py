"""A tiny BERT with random weights, and AudioBERT's language model around it."""

import torch
from transformers import BertConfig, BertForMaskedLM

from audiobert.injection import InjectionSettings, new_injection
from audiobert.modeling import AudioBertForMaskedLM


def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32,
        max_position_embeddings=32,
    )  # fmt: skip
    return BertForMaskedLM(config).eval()


def model(*, relatives=False, **settings):
    given = InjectionSettings(**({"gate": False} | settings))
    injection = new_injection(given, hidden_size=16, relatives=relatives)
    return AudioBertForMaskedLM(bert(), injection).eval()


def batch():
    ids = torch.tensor([[2, 10, 11, 4, 3], [2, 12, 4, 3, 0]])
    return ids, (ids != 0).long(), ids == 4
