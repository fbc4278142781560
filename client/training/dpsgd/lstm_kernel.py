"""Forward and backward of one LSTM layer over packed rows: one product per step for inputs and state.

All four gates are one sigmoid: ``tanh(z) = 2 sigmoid(2z) - 1``, with the doubling put into the weights;
the state is kept as 2c for the same reason.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from client.training.dpsgd.tape import Tape

Weights = tuple[Tensor, Tensor, Tensor | None, Tensor | None]


@dataclass(frozen=True)
class Saved:
    """What backward needs, ``[P, .]`` each: sigmoids of the gates, 2g, 2c, tanh(c), outputs; ``inputs``
    are the layer's input and the output of the step before, side by side.
    """

    gates: Tensor
    doubled_g: Tensor
    state: Tensor
    tanh: Tensor
    outputs: Tensor
    inputs: Tensor


def steps_of(sizes: Sequence[int], *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Cut packed tensors into their time steps."""
    return list(zip(*(t.split(list(sizes)) for t in tensors), strict=True))


def doubled_rows(weight: Tensor, begin: int, end: int) -> Tensor:
    """A copy with rows ``begin:end`` doubled."""
    out = weight.detach().clone()
    out[begin:end] *= 2
    return out


def forward(x: Tensor, weights: Weights, tape: Tape) -> Saved:
    """Run the layer from the zero state. Shapes: ``x: [P, D]``."""
    w_ih, w_hh, b_ih, b_hh = weights
    (rows, width), hidden, sizes = x.shape, w_hh.shape[1], tape.sizes
    weight = doubled_rows(torch.cat([w_ih, w_hh], dim=1), 2 * hidden, 3 * hidden).t()  # [D + H, 4H]
    shift = x.new_zeros(4 * hidden) if b_ih is None or b_hh is None else b_ih + b_hh
    shift = doubled_rows(shift, 2 * hidden, 3 * hidden)
    gates, inputs = tape.take((rows, 4 * hidden), x), tape.take((rows, width + hidden), x)
    inputs[:, :width] = x
    inputs[: sizes[0], width:] = 0
    doubled_g, state, tanh, outputs = (tape.take((rows, hidden), x) for _ in range(4))
    i, f, s, o = gates.view(rows, 4, hidden).unbind(1)
    steps = steps_of(sizes, gates, inputs, i, f, s, o, doubled_g, state, tanh, outputs)
    into = [*inputs[:, width:].split(sizes)[1:], None]  # where a step's output is the next one's input
    minus_one, minus_two, before = x.new_tensor(-1.0), x.new_tensor(-2.0), None
    for (z, a, i_t, f_t, s_t, o_t, g_t, c_t, t_t, h_t), after in zip(steps, into, strict=True):
        torch.addmm(shift, a, weight, out=z).sigmoid_()
        torch.add(minus_two, s_t, alpha=4, out=g_t)
        if before is None:
            torch.mul(i_t, g_t, out=c_t)
        else:
            torch.mul(f_t, before[: z.shape[0]], out=c_t).addcmul_(i_t, g_t)
        torch.add(minus_one, torch.sigmoid(c_t, out=t_t), alpha=2, out=t_t)
        torch.mul(o_t, t_t, out=h_t)
        if after is not None:
            after.copy_(h_t[: after.shape[0]])
        before = c_t
    return Saved(gates, doubled_g, state, tanh, outputs, inputs)


def backward(grad: Tensor, w_hh: Tensor, saved: Saved, tape: Tape) -> Tensor:
    """Gradient of the loss by the gates before their nonlinearity. Shapes: ``[P, H] -> [P, 4H]``."""
    rows, hidden = grad.shape
    out = tape.take((rows, 4 * hidden), grad)
    by_state = _factors(saved, out, tape)
    dh = tape.take((rows, hidden), grad).copy_(grad)
    carry = tape.take((tape.sizes[0], hidden), grad).zero_()  # half of the gradient by c
    three, last = out[:, : 3 * hidden].view(rows, 3, hidden), out[:, 3 * hidden :]
    forget, after = saved.gates[:, hidden : 2 * hidden], None
    for d_t, dh_t, a_t, k_t, o_t, f_t in reversed(steps_of(tape.sizes, out, dh, by_state, three, last, forget)):
        if after is not None:
            dh_t[: after.shape[0]].addmm_(after, w_hh)
        dc = carry[: dh_t.shape[0]]
        dc.addcmul_(dh_t, a_t, value=0.5)
        torch.mul(k_t, dc[:, None, :], out=k_t)
        o_t.mul_(dh_t)
        dc.mul_(f_t)
        after = d_t
    return out


def _factors(saved: Saved, out: Tensor, tape: Tape) -> Tensor:
    """Fill ``out: [P, 4H]`` with what each gate's gradient is a multiple of; return dc / dh: ``[P, H]``."""
    rows, hidden = saved.outputs.shape
    i, _, _, o = saved.gates.view(rows, 4, hidden).unbind(1)
    ki, kf, kg, ko = out.view(rows, 4, hidden).unbind(1)
    three = saved.gates[:, : 3 * hidden]
    torch.addcmul(three, three, three, value=-1, out=out[:, : 3 * hidden])  # s - s^2
    ki.mul_(saved.doubled_g)
    multiply_by_previous(kf, saved.state, tape.sizes)
    kg.mul_(i).mul_(8)
    torch.addcmul(saved.outputs, saved.outputs, o, value=-1, out=ko)
    by_state = tape.take((rows, hidden), saved.outputs)
    return torch.addcmul(o, saved.outputs, saved.tanh, value=-1, out=by_state)


def multiply_by_previous(rows: Tensor, states: Tensor, sizes: Sequence[int]) -> None:
    """Multiply each packed row by the state of the step before, 0 at the first. Shapes: ``[P, H]`` both."""
    first = sizes[0]
    rows[:first].zero_()
    if first == sizes[-1]:
        rows[first:].mul_(states[: len(states) - first])
        return
    parts = zip(rows.split(list(sizes))[1:], states.split(list(sizes))[:-1], strict=True)
    for now, before in parts:
        now.mul_(before[: now.shape[0]])
