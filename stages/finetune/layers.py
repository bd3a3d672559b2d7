"""Which of a model's weights lie in which layer, from the head down to the embeddings."""

from collections.abc import Iterator
from itertools import takewhile

from torch import nn
from transformers import PreTrainedModel

from stages.common.errors import AttuneError


def encoder_layers(model: nn.Module) -> nn.ModuleList:
    """Return the model's layers, lowest first, whatever they are called and whatever wraps the model.

    They are the one list of modules with weights that lies in no other list: `bert.encoder.layer`,
    `distilbert.transformer.layer`, `model.layers` and so on.

    Raises:
        AttuneError: if there is no such list, or several (an encoder and a decoder, say).
    """
    lists = list(_outermost_lists(model))
    if len(lists) != 1:
        raise AttuneError(
            f"cannot tell the layers of this model ({type(model).__name__}): it has {len(lists)} lists of modules",
            "use finetune.strategy full or head, with layerwise_lr_decay: 1.0",
        )
    return lists[0]


def depths(model: nn.Module) -> dict[str, int]:
    """Return the depth of each weight by name: 0 after the layers (the head), 1 in the top one, n + 1 below all n."""
    layers = encoder_layers(model)
    of_layer = {id(weights): len(layers) - at for at, layer in enumerate(layers) for weights in layer.parameters()}
    encoder = next((module.base_model for module in model.modules() if isinstance(module, PreTrainedModel)), model)
    ordered = [id(weights) for weights in encoder.parameters()]  # as the encoder's parts were written down
    below = set(takewhile(lambda weights: weights not in of_layer, ordered))
    # Some models hold embeddings of relative positions behind their layers.
    embeddings = [module for module in encoder.modules() if isinstance(module, nn.Embedding)]
    below |= {id(weights) for module in embeddings for weights in module.parameters()}
    return {
        name: of_layer.get(id(weights), len(layers) + 1 if id(weights) in below else 0)
        for name, weights in model.named_parameters()
    }


def _outermost_lists(module: nn.Module) -> Iterator[nn.ModuleList]:
    for child in module.children():
        if not isinstance(child, nn.ModuleList):
            yield from _outermost_lists(child)
        elif any(True for _ in child.parameters()):
            yield child
