"""A Gaussian-mixture variational autoencoder of counts: model, task, label head, predictions.

`vcell train-gmvae` trains it, `vcell embed` uses the trained model. `docs/gmvae.md` has the
objectives. Import the modules themselves: `network` and `task` need torch.
"""
