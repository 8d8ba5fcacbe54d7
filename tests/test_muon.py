"""Claims about Muon: orthogonalised steps for kernels, Adam's for the rest."""

import pytest
import torch
from torch import nn

from deepfovea.training.muon import Muon, orthogonalized

torch_muon = getattr(torch.optim, "Muon", None)


@pytest.mark.parametrize("shape", [(8, 40), (40, 8), (16, 16)])
def test_singular_values_become_about_one_and_vectors_stay(shape):
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    before = torch.linalg.svd(matrix, full_matrices=False)
    result = orthogonalized(matrix)
    inside = before.U.T @ result @ before.Vh.T
    values = inside.diagonal()
    assert values.min() > 0.6 and values.max() < 1.25
    assert (inside - values.diag()).abs().max() < 1e-4
    assert not orthogonalized(torch.zeros(shape)).any()


def trained(optimizer, kernel, steps=4):
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        optimizer.zero_grad()
        kernel.grad = torch.randn(kernel.shape, generator=generator)
        optimizer.step()
    return kernel.detach()


def ready(optimizer):
    for group in optimizer.param_groups:
        kept = ("exp_avg",) if group.get("orthogonal") else ("exp_avg", "exp_avg_sq")
        for p in group["params"]:
            moments = {key: torch.zeros_like(p) for key in kept}
            optimizer.state[p] = {"step": torch.zeros(()), **moments}
    return optimizer


@pytest.mark.skipif(torch_muon is None, reason="this torch has no Muon of its own")
@pytest.mark.parametrize("shape", [(8, 40), (40, 8)])
def test_steps_of_kernels_are_those_of_torch(shape):
    ours = nn.Parameter(torch.zeros(*shape, 1, 1))
    theirs = nn.Parameter(torch.zeros(shape))
    mine = trained(ready(Muon([ours], [], 0.1, (0.9, 0.99))), ours).flatten(1)
    settings = {"weight_decay": 0.0, "adjust_lr_fn": "match_rms_adamw"}
    reference = trained(torch_muon([theirs], 0.1, **settings), theirs)  # in bfloat16
    assert (mine - reference).norm() < 0.02 * reference.norm()


def test_steps_of_the_rest_are_those_of_adam():
    ours, theirs = nn.Parameter(torch.ones(5)), nn.Parameter(torch.ones(5))
    mine = trained(ready(Muon([], [ours], 0.1, (0.8, 0.9))), ours)
    reference = trained(torch.optim.Adam([theirs], 0.1, betas=(0.8, 0.9)), theirs)
    assert torch.equal(mine, reference)
