"""``make_taped``: turn a model's layers into taped ones in place, or say which layer has no rule."""

from __future__ import annotations

from torch import nn

from client.training.dpsgd.arena import Arena
from client.training.dpsgd.leaves import TapedEmbedding, TapedLayerNorm, TapedLeaf, TapedLinear
from client.training.dpsgd.recurrent import TapedGRU, TapedLSTM
from client.training.dpsgd.softmax import TapedItemHead
from client.training.dpsgd.tape import Tape
from common.errors import BadInputError
from common.model import ItemHead

_TAPED: dict[type[nn.Module], type[nn.Module]] = {
    nn.Linear: TapedLinear,
    nn.Embedding: TapedEmbedding,
    nn.LayerNorm: TapedLayerNorm,
    nn.LSTM: TapedLSTM,
    nn.GRU: TapedGRU,
    ItemHead: TapedItemHead,
}


def make_taped(model: nn.Module, arena: Arena | None = None) -> Tape:
    """Change the class of every trainable layer to its taped one and return the tape that they share.

    Parameters, their names and the ``state_dict`` stay as they are; outside of training the layers
    compute what torch's own do.
    Raises: BadInputError naming the layer that mixes consumers or holds parameters without a rule.
    """
    for name, module in model.named_modules():
        _check(name, module)
    tape = Tape(arena or Arena())
    for name, module in model.named_modules():
        taped = _TAPED.get(type(module))
        if taped is not None:
            module.__class__ = taped
        if isinstance(module, TapedLeaf):
            module.tape, module.layer = tape, name
    return tape


def _check(name: str, module: nn.Module) -> None:
    kind = type(module).__name__
    if isinstance(module, nn.modules.batchnorm._NormBase):
        raise BadInputError(
            f"layer {name!r} ({kind}) mixes the consumers of a batch, so no consumer can be clipped",
            hint="use LayerNorm",
        )
    known = type(module) in _TAPED or isinstance(module, TapedLeaf)
    own = [p for p, _ in module.named_parameters(recurse=False) if _.requires_grad]
    if own and not known:
        raise BadInputError(
            f"layer {name!r} ({kind}) holds parameter {own[0]!r} without a clipping rule",
            hint="use Embedding, LSTM, GRU, Linear or LayerNorm, or add a rule to client/training/dpsgd",
        )
    unsupported = _unsupported(module)
    if unsupported:
        raise BadInputError(
            f"layer {name!r} ({kind}) uses {unsupported}, which has no clipping rule", hint="turn it off"
        )


def _unsupported(module: nn.Module) -> str:
    if isinstance(module, nn.Embedding):
        options = {"max_norm": module.max_norm is not None, "scale_grad_by_freq": module.scale_grad_by_freq}
        options["sparse gradients"] = module.sparse
    elif isinstance(module, nn.LSTM | nn.GRU):
        options = {"bidirectional": module.bidirectional, "proj_size": module.proj_size > 0}
    elif isinstance(module, nn.LayerNorm):
        options = {"several normalized dimensions": len(module.normalized_shape) != 1}
    else:
        options = {}
    return next((name for name, used in options.items() if used), "")
