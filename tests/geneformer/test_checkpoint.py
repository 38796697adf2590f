"""A folder as transformers saves it gives its numbers; anything else is one clear line."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.geneformer.brute_force import Float64Bert
from vcell.errors import UserError
from vcell.geneformer import checkpoint
from vcell.geneformer.reference import PaddedReference
from vcell.nn.bert import Bert, Lengths

GOLDEN = Path(__file__).parent / "golden"


@pytest.fixture
def folder(tmp_path):
    copy = tmp_path / "model"
    shutil.copytree(GOLDEN, copy)
    return copy


@pytest.fixture
def table(tmp_path):
    """A vocabulary of the golden model's 40 tokens."""
    path = tmp_path / "own.tsv"
    rows = ["token\tid\tmedian\tsymbol", "<pad>\t0\t\t", "<mask>\t1\t\t"]
    path.write_text("\n".join(rows + [f"ENSG{i:011d}\t{i}\t1.5\tG{i}" for i in range(2, 40)]))
    return path


def golden_cells():
    with np.load(GOLDEN / "hidden.npz") as kept:
        numbers = range(len(kept.files) // 2)
        return [(torch.from_numpy(kept[f"tokens-{i}"]), kept[f"hidden-{i}"]) for i in numbers]


def check_hidden(bert, tolerance=1e-5):
    cells = golden_cells()
    tokens = torch.cat([tokens for tokens, _ in cells])
    lengths = Lengths.of([len(tokens) for tokens, _ in cells])
    for layer in range(4):
        got = bert.encode(tokens, lengths, layer).numpy()
        want = np.concatenate([hidden[layer] for _, hidden in cells])
        np.testing.assert_allclose(got, want, atol=tolerance, rtol=0)


def test_every_layer_equals_transformers(folder, table):
    check_hidden(checkpoint.load(str(folder), table).bert)


@pytest.mark.parametrize("how", ["no prefix", "bin", "gamma and beta", "half"])
def test_other_spellings_of_the_same_weights_are_read(folder, table, how):
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    if how == "no prefix":
        weights = {
            k.removeprefix("bert."): v for k, v in weights.items() if not k.startswith("cls")
        }
    elif how == "gamma and beta":
        for new, old in (("gamma", "weight"), ("beta", "bias")):
            weights = {
                k.replace(f"LayerNorm.{old}", f"LayerNorm.{new}"): v for k, v in weights.items()
            }
    elif how == "half":
        weights = {k: v.half() for k, v in weights.items()}
    (folder / "model.safetensors").unlink()
    if how == "bin":
        torch.save(weights, folder / "pytorch_model.bin")
    else:
        save_file(weights, folder / "model.safetensors")
    check_hidden(checkpoint.load(str(folder), table).bert, 1e-5 if how != "half" else 0.05)


def test_equal_lengths_as_a_batch_equal_one_at_a_time(folder, table):
    bert = checkpoint.load(str(folder), table).bert
    tokens = torch.randint(2, 40, (5, 20))
    batch = bert.encode(tokens.flatten(), Lengths.of([20] * 5), 3).view(5, 20, -1)
    for row in range(5):
        one = bert.encode(tokens[row], Lengths.of([20]), 3)
        torch.testing.assert_close(batch[row], one, atol=2e-6, rtol=0)


def test_float64_by_hand_agrees(folder, table):
    """The same weights in float64 through torch's own encoder layer."""
    bert = checkpoint.load(str(folder), table).bert
    tokens, layers = golden_cells()[2][0], bert.shape.n_layers
    got = bert.encode(tokens, Lengths.of([len(tokens)]), layers).double().numpy()
    want = Float64Bert(bert).hidden(tokens, layers)
    np.testing.assert_allclose(got, want, atol=2e-6, rtol=0)


def test_the_slow_reference_agrees(folder, table):
    bert = checkpoint.load(str(folder), table).bert
    cells = [tokens.long() for tokens, _ in golden_cells()]
    for layer in (2, 3):
        slow = torch.cat(PaddedReference(bert).hidden(cells, layer))
        fast = bert.encode(torch.cat(cells), Lengths.of([len(c) for c in cells]), layer)
        torch.testing.assert_close(fast, slow, atol=1e-5, rtol=0)


@pytest.mark.parametrize(("precision", "low", "high"), [("fp16", 1e-5, 2e-2), ("bf16", 1e-4, 2e-1)])
def test_half_precision_rounds_products_and_nothing_else(folder, table, precision, low, high):
    bert = checkpoint.load(str(folder), table).bert
    tokens = golden_cells()[2][0]
    exact = bert.encode(tokens, Lengths.of([len(tokens)]), 3)
    bert.set_precision(precision)
    rounded = bert.encode(tokens, Lengths.of([len(tokens)]), 3)
    assert rounded.dtype == torch.float32
    assert low < float((rounded - exact).abs().max()) < high
    bert.set_precision("fp32")
    assert torch.equal(bert.encode(tokens, Lengths.of([len(tokens)]), 3), exact)


@pytest.mark.parametrize("name", ["gf-6L-10M-i2048", "gf-12L-38M-i4096"])
def test_made_up_weights_have_the_true_shape_and_come_again(name):
    one, two = (checkpoint.load(f"synthetic:{name}", seed=3) for _ in range(2))
    assert (one.synthetic, one.readout) == (True, "mean" if "6L" in name else "cls")
    assert torch.equal(one.bert.tokens.weight, two.bert.tokens.weight)
    assert len(one.vocabulary) == one.shape.n_tokens


def test_saved_weights_are_read_again(tmp_path, table):
    bert = checkpoint.load(str(GOLDEN), table).bert
    checkpoint.save(bert, tmp_path / "again")
    check_hidden(checkpoint.load(str(tmp_path / "again"), table).bert)


def edit_config(folder, **changes):
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def spoil(folder, how):
    weights = folder / "model.safetensors"
    if how == "no weights":
        weights.unlink()
    elif how == "truncated":
        weights.write_bytes(weights.read_bytes()[:-100])
    elif how == "pointer":
        weights.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 5\n")
    elif how == "other size":
        edit_config(folder, vocab_size=25_429)
    elif how == "lora":
        (folder / "adapter_config.json").write_text("{}")
    elif how == "no config":
        (folder / "config.json").unlink()
    elif how == "wider":
        edit_config(folder, intermediate_size=64)
    elif how == "deeper":
        edit_config(folder, num_hidden_layers=5)
    elif how == "gelu":
        edit_config(folder, hidden_act="gelu")
    elif how == "pickle":
        weights.unlink()
        torch.save({"a": Path("x")}, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("no weights", "holds no weights"),
        ("truncated", "is truncated or damaged"),
        ("pointer", "is a Git LFS pointer"),
        ("other size", "has 25,429 tokens"),
        ("lora", "holds a LoRA adapter"),
        ("no config", "holds no config.json"),
        ("wider", r"is \(48, 32\), config.json says \(64, 32\)"),
        ("deeper", r"lacks encoder.layer.3.attention.self.query.weight \(and 31 more"),
        ("gelu", "has hidden_act 'gelu'"),
        ("pickle", "holds more than weights"),
    ],
)
def test_what_is_no_geneformer_is_refused(folder, table, how, message):
    spoil(folder, how)
    with pytest.raises(UserError, match=message):
        checkpoint.load(str(folder), None if how == "other size" else table)


def test_a_name_that_is_nothing_is_refused(tmp_path):
    with pytest.raises(UserError, match="does not exist"):
        checkpoint.load(str(tmp_path / "nowhere"))
    with pytest.raises(UserError, match=r"did you mean gf-6L-10M-i2048"):
        checkpoint.load("synthetic:gf-6L-10M")


def test_flops_are_those_of_the_products(folder, table):
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.utils.flop_counter import FlopCounterMode

    bert = checkpoint.load(str(folder), table).bert
    tokens = torch.randint(2, 40, (20,))
    with (
        sdpa_kernel(SDPBackend.MATH),
        FlopCounterMode(display=False) as counter,
    ):  # counts no fused one
        bert.encode(tokens, Lengths.of([20]), 3)
    assert counter.get_total_flops() == bert.shape.flops(20)
    assert isinstance(bert, Bert)
