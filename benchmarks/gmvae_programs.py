"""The programs that gmvae.py runs in processes of their own, vcell's and the peers'."""

# ruff: noqa: E501  # programs of their own
from __future__ import annotations

KERNELS_OURS = """
import json, sys, time
import numpy as np, scipy.sparse as sp
from vcell.kernels import counting, likelihood, sparse_layer, zero_inflated
rng = np.random.default_rng(0)
B, G, H = 128, 24_000, 512
x = sp.random(B, G, density=0.055, random_state=0, format="csr"); x.sort_indices()
x.data = rng.geometric(0.6, x.nnz).astype(np.float32)
l = rng.normal(0, 1.5, (B, G)).astype(np.float32); pi = rng.normal(0, 1, (B, G)).astype(np.float32)
theta = np.exp(rng.normal(0, 1.5, G)).astype(np.float32)
library, w = np.asarray(x.sum(1)).ravel().astype(float), np.ones(B)
out, out_pi, loss = np.empty_like(l), np.empty_like(l), np.empty(B)
weight = rng.normal(0, .02, (G, H)).astype(np.float32); dy = rng.normal(0, 1, (B, H)).astype(np.float32)
hidden, dw = np.zeros((B, H), np.float32), np.empty_like(weight)
def tables(): return counting.tables(theta, counting.table_size(x.data, G))
def nb():
    likelihood.nb_rows(l, x.indptr, x.indices, x.data, library, w, theta, 1 / theta, *tables(), loss,
                       out, np.zeros(G, np.float32))
def zinb():
    zero_inflated.zinb_rows(l, pi, x.indptr, x.indices, x.data, library, w, theta, 1 / theta,
                            *tables(), loss, out, out_pi, np.zeros(G, np.float32))
def encoder():
    hidden[:] = 0
    sparse_layer.forward(x.indptr, x.indices, x.data, weight, hidden)
    sparse_layer.backward(*sparse_layer.by_gene(x.indptr, x.indices, x.data, G), dy, 0, G, dw)
"""
KERNELS_PEER = """
import json, sys, time
import numpy as np, scipy.sparse as sp, torch
from scvi.distributions._negative_binomial import log_nb_positive, log_zinb_positive
torch.set_num_threads(1)
rng = np.random.default_rng(0)
B, G, H = 128, 24_000, 512
x = sp.random(B, G, density=0.055, random_state=0, format="csr")
x.data = rng.geometric(0.6, x.nnz).astype(np.float32)
x = torch.from_numpy(x.toarray()); library = x.sum(1, keepdim=True)
l, pi = (torch.randn(B, G).mul(1.5).requires_grad_() for _ in range(2))
t = torch.randn(G).mul(1.5).requires_grad_()
weight, dy = torch.randn(H, G).mul(.02).requires_grad_(), torch.randn(B, H)
def clear():
    for leaf in (l, pi, t, weight): leaf.grad = None
def nb():
    clear(); (-log_nb_positive(x, library * torch.softmax(l, -1), t.exp()).sum()).backward()
def zinb():
    clear(); (-log_zinb_positive(x, library * torch.softmax(l, -1), t.exp(), pi).sum()).backward()
def mse():  # the shortcut of the original: two log1p, no softmax
    clear(); ((torch.log1p(torch.relu(l)) - torch.log1p(x)) ** 2).sum().backward()
def encoder():
    clear(); torch.nn.functional.linear(x, weight).backward(dy)
"""
TIMES = """
found = {}
for name in sys.argv[1].split(","):
    one = globals()[name]; one(); least = 1e9
    for _ in range(int(sys.argv[2])):
        begun = time.process_time(); one(); least = min(least, time.process_time() - begun)
    found[name] = least
print(json.dumps(found))
"""
DATA = """
import json, sys, time, warnings; warnings.filterwarnings("ignore")
import numpy as np, scipy.sparse as sp
rng = np.random.default_rng(0)
n, G = 1024, 24_000
x = sp.random(n, G, density=0.055, random_state=0, format="csr", dtype=np.float32); x.sort_indices()
x.data = rng.geometric(0.6, x.nnz).astype(np.float32)
widths, latent, decoder, B, kind, steps = json.loads(sys.argv[1])
def timed(step):
    step(); least = 1e9
    for _ in range(steps):
        begun = time.process_time(); step(); least = min(least, time.process_time() - begun)
    print(json.dumps(B / least))
"""
STEPS_OURS = (
    DATA
    + """
import torch; torch.set_num_threads(1)
from vcell.gmvae.cells import ResidentCells
from vcell.gmvae.network import Gmvae, Shape
cells = ResidentCells(x.indices.astype(np.uint16), x.data.astype(np.uint8), x.indptr.astype(np.int64), G, 2000.0)
network = Gmvae(Shape(genes=G, components=8, labelled=True, latent=latent, encoder=tuple(widths),
                      decoder=tuple(decoder), likelihood=kind))
optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, fused=True)  # as vcell.train does
label = torch.from_numpy(rng.integers(0, 8, B))
def step():
    batch = cells.fetch(rng.permutation(n)[:B], label=label, noise=torch.randn(B, latent))
    optimizer.zero_grad(); network(batch)["total"].backward(); optimizer.step()
timed(step)
"""
)
STEPS_SCVI = (
    DATA
    + """
import torch; torch.set_num_threads(1)
from scvi.module import VAE
from scvi import REGISTRY_KEYS as K
module = VAE(n_input=G, n_batch=1, n_hidden=widths[0], n_latent=latent, n_layers=len(widths),
             gene_likelihood=kind)
optimizer = torch.optim.Adam(module.parameters(), lr=1e-3)
zero = torch.zeros(B, 1)
def step():
    dense = torch.from_numpy(x[rng.permutation(n)[:B]].toarray())
    batch = {K.X_KEY: dense, K.BATCH_KEY: zero, K.LABELS_KEY: zero}
    optimizer.zero_grad(); _, _, loss = module(batch); loss.loss.backward(); optimizer.step()
timed(step)
"""
)
STEPS_MSE = (
    DATA
    + """
import torch; torch.set_num_threads(1)
from torch import nn
def net(*w):
    layers = []
    for a, b in zip(w, w[1:]): layers += [nn.Linear(a, b), nn.BatchNorm1d(b), nn.ReLU()]
    return layers
encoder = nn.Sequential(*net(G, *widths)); mean, spread = (nn.Linear(widths[-1], latent) for _ in "mv")
classify = nn.Sequential(*net(G, *widths), nn.Linear(widths[-1], 8))
decoder = nn.Sequential(*net(latent, *decoder), nn.Linear(decoder[-1], G))
every = nn.ModuleList([encoder, mean, spread, classify, decoder])
optimizer = torch.optim.Adam(every.parameters(), lr=1e-3); label = torch.from_numpy(rng.integers(0, 8, B))
def step():
    dense = torch.from_numpy(x[rng.permutation(n)[:B]].toarray())
    h = encoder(dense); m, v = mean(h), spread(h)
    out = decoder(m + (v / 2).exp() * torch.randn_like(m))
    loss = ((torch.log1p(torch.relu(out)) - torch.log1p(dense)) ** 2).sum(1).mean()
    loss = loss + 0.05 * (m ** 2 + v.exp() - v - 1).sum(1).mean()
    loss = loss + nn.functional.cross_entropy(classify(dense), label)
    optimizer.zero_grad(); loss.backward(); optimizer.step()
timed(step)
"""
)
SCANVI = """
import json, sys, time, warnings; warnings.filterwarnings("ignore")
import numpy as np, anndata, torch, scvi
torch.set_num_threads(1); scvi.settings.verbosity = 40; scvi.settings.seed = int(sys.argv[3])
import logging; logging.disable(logging.WARNING)
data, cells = anndata.read_h5ad(sys.argv[1]), dict(np.load(sys.argv[2]))
labels, epochs = json.loads(sys.argv[4]), int(sys.argv[5])
data = data[cells["row"]].copy()
data.obs["shown"] = np.array([*labels, "none"])[cells["shown"]]
held = cells["held_out"] & (cells["label"] >= 0)
train = data[~cells["held_out"]].copy()
begun = time.process_time()
scvi.model.SCVI.setup_anndata(train, labels_key="shown")
vae = scvi.model.SCVI(train); vae.train(epochs, enable_progress_bar=False, logger=False)
both = scvi.model.SCANVI.from_scvi_model(vae, unlabeled_category="none", labels_key="shown")
both.train(max(epochs // 5, 20), enable_progress_bar=False, logger=False)
test = data[held].copy(); test.obs["shown"] = "none"
given = both.predict(test)
truth = np.array(labels)[cells["label"][held]]
def f1(k):
    right = ((given == k) & (truth == k)).sum(); both = (given == k).sum() + (truth == k).sum()
    return 2 * right / both if both else np.nan
print(json.dumps({"accuracy": float((given == truth).mean()), "cpu": time.process_time() - begun,
                  "macro_f1": float(np.nanmean([f1(k) for k in labels]))}))
"""
