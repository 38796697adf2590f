"""Make tests/geneformer/golden with transformers: a tiny BERT as it saves it, and what it computes.

Run: python tests/geneformer/make_golden.py (transformers and torch installed)
"""

from pathlib import Path

import numpy as np
import torch
from transformers import BertConfig, BertForMaskedLM

FOLDER = Path(__file__).parent / "golden"
LENGTHS = (1, 7, 30, 12, 30)


def main() -> None:
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=40, hidden_size=32, num_hidden_layers=3, num_attention_heads=4,
        intermediate_size=48, hidden_act="relu", max_position_embeddings=32, layer_norm_eps=1e-12,
        pad_token_id=0, initializer_range=0.3,
    )  # fmt: skip
    model = BertForMaskedLM(config).eval()
    for name, value in model.named_parameters():
        if name.endswith("bias") or "LayerNorm" in name:
            value.data += 0.1 * torch.randn_like(value)
    model.save_pretrained(FOLDER)
    generator = torch.Generator().manual_seed(1)
    kept = {}
    with torch.inference_mode():
        for number, length in enumerate(LENGTHS):
            tokens = torch.randint(2, 40, (length,), generator=generator)
            out = model(input_ids=tokens[None], output_hidden_states=True)
            kept[f"tokens-{number}"] = tokens.numpy().astype(np.int32)
            kept[f"hidden-{number}"] = torch.cat(out.hidden_states).numpy()
    np.savez_compressed(FOLDER / "hidden.npz", **kept)


main()
