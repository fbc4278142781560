"""Forward and backward of one LSTM layer over packed rows: one product per step for inputs and state.

All four gates are one sigmoid: ``tanh(z) = 2 sigmoid(2z) - 1``, with the doubling put into the weights;
the state is kept as 2c for the same reason.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from client.training.dpsgd.tape import Tape

Weights = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Saved:
    """What backward needs, ``[P, .]`` each: gates i, f, g, o after their nonlinearity, 2c, tanh(c),
    outputs; ``inputs`` are the layer's input and the output of the step before, side by side.
    """

    gates: Tensor
    state: Tensor
    tanh: Tensor
    outputs: Tensor
    inputs: Tensor


def steps_of(sizes: list[int], *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Cut packed tensors into their time steps."""
    return list(zip(*(t.split(sizes) for t in tensors), strict=True))


def doubled_rows(weight: Tensor, begin: int, end: int) -> Tensor:
    """A copy with rows ``begin:end`` doubled."""
    out = weight.detach().clone()
    out[begin:end] *= 2
    return out


def forward(x: Tensor, weights: Weights, tape: Tape) -> Saved:
    """Run the layer from the zero state. Shapes: ``x: [P, D]``."""
    w_ih, w_hh, b_ih, b_hh = weights
    (rows, width), hidden, sizes = x.shape, w_hh.shape[1], tape.sizes
    weight = doubled_rows(torch.cat([w_ih, w_hh], dim=1), 2 * hidden, 3 * hidden).t().contiguous()  # [D + H, 4H]
    shift = x.new_zeros(4 * hidden) if b_ih is None or b_hh is None else b_ih + b_hh
    shift = doubled_rows(shift, 2 * hidden, 3 * hidden)
    gates, inputs = tape.take((rows, 4 * hidden), x), tape.take((rows, width + hidden), x)
    inputs[:, :width] = x
    inputs[: sizes[0], width:] = 0
    state, tanh, outputs = (tape.take((rows, hidden), x) for _ in range(3))
    i, f, g, o = gates.view(rows, 4, hidden).unbind(1)
    steps = steps_of(sizes, gates, inputs, i, f, g, o, state, tanh, outputs)
    into = [*inputs[:, width:].split(sizes)[1:], None]  # where a step's output is the next one's input
    _run(steps, into, sizes, (shift, weight))
    return Saved(gates, state, tanh, outputs, inputs)


@torch.inference_mode()  # without autograd's part of every call; nothing is allocated here
def _run(
    steps: list[tuple[Tensor, ...]], into: list[Tensor | None], sizes: list[int], affine: tuple[Tensor, Tensor]
) -> None:
    shift, weight = affine
    minus_one, before, count = torch.full_like(shift[0], -1.0), None, 0
    # the sizes are at hand: asking a tensor for its length is a call through Python
    for (z, a, i_t, f_t, g_t, o_t, c_t, t_t, h_t), after, n, more in zip(
        steps, into, sizes, [*sizes[1:], 0], strict=True
    ):
        torch.addmm(shift, a, weight, out=z).sigmoid_()
        torch.add(minus_one, g_t, alpha=2, out=g_t)
        if before is None:
            torch.mul(i_t, g_t, out=c_t).mul_(2)
        else:
            torch.mul(f_t, before if count == n else before[:n], out=c_t).addcmul_(i_t, g_t, value=2)
        torch.add(minus_one, torch.sigmoid(c_t, out=t_t), alpha=2, out=t_t)
        torch.mul(o_t, t_t, out=h_t)
        if after is not None:
            after.copy_(h_t if n == more else h_t[:more])
        before, count = c_t, n


def backward(grad: Tensor, w_hh: Tensor, saved: Saved, tape: Tape) -> Tensor:
    """Gradient of the loss by the gates before their nonlinearity, written over ``saved.gates``: ``[P, 4H]``.

    Shapes: ``grad: [P, H]``.
    """
    sizes, (rows, hidden), gates = tape.sizes, grad.shape, saved.gates
    forget, by_state = _factors(saved, tape)
    carry = tape.take((sizes[0], hidden), grad).zero_()  # gradient by c
    room = tape.take((sizes[0], hidden), grad)
    three, last = gates[:, : 3 * hidden].view(rows, 3, hidden), gates[:, 3 * hidden :]
    _run_back(steps_of(sizes, gates, grad, by_state, three, last, forget), sizes, w_hh, (carry, room))
    return gates


@torch.inference_mode()
def _run_back(
    steps: list[tuple[Tensor, ...]], sizes: list[int], w_hh: Tensor, rooms: tuple[Tensor, Tensor]
) -> None:
    carry, room = rooms
    after, later = None, 0
    for (d_t, g_t, a_t, k_t, o_t, f_t), n in zip(reversed(steps), reversed(sizes), strict=True):
        dh = output_grad(g_t, after, w_hh, (room, sizes[0], n, later))
        dc = carry if n == sizes[0] else carry[:n]
        dc.addcmul_(dh, a_t)
        k_t.mul_(dc[:, None, :])
        o_t.mul_(dh)
        dc.mul_(f_t)
        after, later = d_t, n


def output_grad(grad: Tensor, after: Tensor | None, w_hh: Tensor, room: tuple[Tensor, int, int, int]) -> Tensor:
    """Gradient by a step's output: from above, and from the gates of the step after, which has fewer rows.

    ``room``: memory for it, and the rows of that, of ``grad`` and of ``after``.
    """
    if after is None:
        return grad
    place, most, n, m = room
    if m == n == most:
        return torch.addmm(grad, after, w_hh, out=place)
    torch.addmm(grad[:m], after, w_hh, out=place[:m])
    place[m:n] = grad[m:]
    return place[:n]


def _factors(saved: Saved, tape: Tape) -> tuple[Tensor, Tensor]:
    """Overwrite the gates with what their gradients are multiples of: of dc for i, f, g, of dh for o.

    Returns: f, and dc / dh, both ``[P, H]``.
    """
    (rows, hidden), h, t = saved.outputs.shape, saved.outputs, saved.tanh
    i, f, g, o = saved.gates.view(rows, 4, hidden).unbind(1)
    forget, by_state, product = (tape.take((rows, hidden), h) for _ in range(3))
    forget.copy_(f)
    torch.mul(i, g, out=product)
    torch.addcmul(i, g, product, value=-1, out=g)  # i (1 - g^2)
    torch.addcmul(product, i, product, value=-1, out=i)  # g i (1 - i)
    torch.addcmul(f, f, f, value=-1, out=f)  # f (1 - f), and now times the state before
    f[: tape.sizes[0]] = 0
    zero = h.new_zeros(())
    for now, before in before_and_now(f, saved.state, tape.sizes):
        torch.addcmul(zero, now, before, value=0.5, out=now)
    torch.addcmul(o, h, t, value=-1, out=by_state)  # o (1 - tanh(c)^2)
    torch.addcmul(h, h, o, value=-1, out=o)  # tanh(c) o (1 - o)
    return forget, by_state


def before_and_now(rows: Tensor, states: Tensor, sizes: list[int]) -> list[tuple[Tensor, Tensor]]:
    """Pairs of row blocks: from the second step on, and the states of the same consumers one step before."""
    first = sizes[0]
    if first == sizes[-1]:
        return [(rows[first:], states[: len(states) - first])]
    parts = zip(rows.split(sizes)[1:], states.split(sizes)[:-1], strict=True)
    return [(now, before[: len(now)]) for now, before in parts]
