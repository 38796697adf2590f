"""Perturbed copies written out one by one, encoded in float64 by torch's own layers."""

from __future__ import annotations

import numpy as np
import torch
import torch.nn.functional as F


class Float64Bert:
    """The same weights in float64, through torch's TransformerEncoderLayer."""

    def __init__(self, bert):
        self.bert, self.layers = bert, []
        shape = bert.shape
        for number in range(shape.n_layers):
            block = bert.block(number)
            layer = torch.nn.TransformerEncoderLayer(
                shape.d_model, shape.n_heads, shape.d_ff, 0.0, "relu", shape.eps, batch_first=True
            ).double()
            pairs = {
                "self_attn.in_proj_": block.qkv, "self_attn.out_proj.": block.out,
                "linear1.": block.up, "linear2.": block.down,
                "norm1.": block.norm_attention, "norm2.": block.norm_output,
            }  # fmt: skip
            layer.load_state_dict(
                {
                    name + kind: getattr(part, kind)
                    for name, part in pairs.items()
                    for kind in ("weight", "bias")
                }
            )
            self.layers.append(layer.train())

    @torch.no_grad()
    def hidden(self, tokens, n_layers):
        bert, shape = self.bert, self.bert.shape
        ids = torch.as_tensor(np.asarray(tokens, np.int64))
        x = bert.tokens.weight.double()[ids] + bert.positions.weight.double()[: len(ids)]
        norm = bert.norm
        x = F.layer_norm(x, (shape.d_model,), norm.weight.double(), norm.bias.double(), shape.eps)
        for layer in self.layers[:n_layers]:
            x = layer(x[None])[0]
        return x.numpy()


def unit(x):
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def pooled(hidden, readout, framed):
    if readout == "cls":
        return hidden[0]
    return hidden[1:-1].mean(0) if framed else hidden.mean(0)


def shift(model, original, copy, touched, n_layers, readout, framed, states):
    """Return 1 - cosine and the shift to each state of one copy, as upstream defines them."""
    a, b = model.hidden(original, n_layers), model.hidden(copy, n_layers)
    cell_a, cell_b = (unit(pooled(x, readout, framed)) for x in (a, b))
    to = {name: float(cell_b @ unit(v) - cell_a @ unit(v)) for name, v in states.items()}
    if readout == "cls":
        return 1 - float(cell_a @ cell_b), to
    place = {int(t): i for i, t in enumerate(original)}
    inner = range(1, len(copy) - 1) if framed else range(len(copy))
    cosines = [
        float(unit(b[i]) @ unit(a[place[int(copy[i])]])) for i in inner if copy[i] not in touched
    ]
    return 1 - float(np.mean(cosines)), to


def perturb(tokens, genes, operation, framed, longest, quarters=1):
    """Return the perturbed copy and the original to compare it with, gene by gene."""
    head = [tokens[0]] if framed else []
    tail = [tokens[-1]] if framed else []
    body = [int(t) for t in (tokens[1:-1] if framed else tokens)]
    if operation == "delete":
        return head + [t for t in body if t not in genes] + tail, list(tokens)
    if operation == "overexpress":
        new = list(genes) + [t for t in body if t not in genes]
        fallen = max(len(new) + len(head + tail) - longest, 0)
        copy = head + new[: longest - len(head + tail)] + tail
        return copy, head + body[: len(body) - fallen] + tail
    step = round(quarters * len(body) / 4)
    new = list(body)
    for gene in genes:
        at = new.index(gene)
        new.pop(at)
        to = at + step if operation == "inhibit" else at - step
        new.insert(min(max(to, 0), len(body) - 1), gene)
    return head + new + tail, list(tokens)
