"""The usual implementation, for comparison: padded batches, all layers, the head on each token.

With transformers installed it is transformers' own `BertForMaskedLM`; otherwise the same in torch
alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from vcell.geneformer.checkpoint import to_hugging_face

if TYPE_CHECKING:
    from vcell.nn.bert import Bert


class PaddedReference:
    """Embeds cells in padded batches, like Hugging Face's Geneformer."""

    def __init__(self, bert: Bert) -> None:
        self.bert = bert
        self.name = "transformers" if find_spec("transformers") else "torch, padded"
        self._theirs = _transformers(bert) if find_spec("transformers") else None

    @torch.inference_mode()
    def hidden(self, cells: Sequence[Tensor], n_layers: int) -> list[Tensor]:
        """Return each cell's hidden states after some layers, from one padded batch."""
        longest = max(len(cell) for cell in cells)
        device = self.bert.tokens.weight.device
        tokens = torch.zeros(len(cells), longest, dtype=torch.long, device=device)
        valid = torch.zeros(len(cells), longest, dtype=torch.long, device=device)
        for row, cell in enumerate(cells):
            tokens[row, : len(cell)], valid[row, : len(cell)] = cell, 1
        if self._theirs is not None:
            out = self._theirs(input_ids=tokens, attention_mask=valid, output_hidden_states=True)
            states = out.hidden_states[n_layers]
        else:
            states = self._own(tokens, valid.bool(), n_layers)
        return [states[row, : len(cell)] for row, cell in enumerate(cells)]

    def _own(self, tokens: Tensor, valid: Tensor, n_layers: int) -> Tensor:
        n, length = tokens.shape
        bert, d = self.bert, self.bert.shape.d_model
        x = bert.embed(tokens, torch.arange(length, device=tokens.device).expand(n, length))
        kept = x
        for number in range(bert.shape.n_layers):
            block = bert.block(number)
            q, k, v = block.qkv(x).view(n, length, 3, block.n_heads, -1).permute(2, 0, 3, 1, 4)
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=valid[:, None, None, :])
            x = block.norm_attention(x + block.out(mixed.transpose(1, 2).reshape(n, length, d)))
            x = block.norm_output(x + block.down(F.relu(block.up(x))))
            kept = x if number + 1 == n_layers else kept
        F.linear(x, bert.tokens.weight)  # the head: computed and discarded
        return kept


def _transformers(bert: Bert) -> Any:
    from transformers import BertConfig, BertForMaskedLM

    shape = bert.shape
    config = BertConfig(
        vocab_size=shape.n_tokens, hidden_size=shape.d_model, num_hidden_layers=shape.n_layers,
        num_attention_heads=shape.n_heads, intermediate_size=shape.d_ff, hidden_act="relu",
        max_position_embeddings=shape.n_positions, layer_norm_eps=shape.eps, pad_token_id=0,
    )  # fmt: skip
    model = BertForMaskedLM(config).eval().to(bert.tokens.weight.device)
    model.load_state_dict(to_hugging_face(bert), strict=False)
    return model
