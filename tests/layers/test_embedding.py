"""equitorch/layers/embedding.py"""

import copy

import pytest
import torch

from equitorch.layers import ElementEmbedding


def test_looks_up_one_vector_an_element():
    layer, z = ElementEmbedding(5, species=[8, 1, 6]), torch.tensor([[1, 6], [8, 1]])
    assert torch.equal(layer(z), layer.weight[torch.tensor([[1, 2], [0, 1]])])
    assert torch.equal(layer.species_index(z), torch.tensor([[1, 2], [0, 1]]))
    plain = ElementEmbedding(5)
    assert torch.equal(plain(z), plain.weight[z])
    assert plain.weight.shape == (119, 5)


def test_holds_weights_only_in_its_checkpoint():
    layer = ElementEmbedding(5, species=[1, 8])
    assert set(layer.state_dict()) == {"weight"}
    twin = copy.deepcopy(layer)
    assert torch.equal(twin(torch.tensor([8])), layer(torch.tensor([8])))


@pytest.mark.parametrize("species", [None, [1, 8]])
def test_compiles_and_differentiates(species):
    layer, z = ElementEmbedding(3, species=species), torch.tensor([1, 8, 8])
    y = torch.compile(layer, fullgraph=True, backend="aot_eager")(z)
    y[1:].sum().backward()
    assert layer.weight.grad.sum().item() == 6.0
    assert layer(z[:0]).shape == (0, 3)


@pytest.mark.parametrize("z", [2, 9])
def test_never_takes_one_element_for_another(z):
    with pytest.raises(IndexError):
        ElementEmbedding(3, species=[1, 8])(torch.tensor([z]))


def test_says_what_it_expected():
    with pytest.raises(ValueError, match=r"distinct atomic numbers, one or more, got \[1, 1\]"):
        ElementEmbedding(3, species=[1, 1])


def test_refuses_negative_numbers():
    with pytest.raises(ValueError, match=r"expects atomic numbers of \[1, 8\], got -1"):
        ElementEmbedding(3, species=[1, 8])(torch.tensor([1, -1]))
