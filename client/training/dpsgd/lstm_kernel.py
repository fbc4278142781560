"""Forward and backward of one LSTM layer over packed rows: one product for all inputs, then one per step.

All four gates are one sigmoid: ``tanh(z) = 2 sigmoid(2z) - 1``, with the doubling put into the weights.
Between the steps the state is kept as 2c and the output as h / 2, which saves passes over memory.
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
    """What backward needs, ``[P, .]`` each: sigmoids of the gates, 2g, the state before the step doubled,
    tanh(c) / 2, outputs, and outputs of the step before.
    """

    gates: Tensor
    doubled_g: Tensor
    before: Tensor
    half_tanh: Tensor
    outputs: Tensor
    previous: Tensor


def steps_of(sizes: Sequence[int], *tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Cut packed tensors into their time steps."""
    return list(zip(*(t.split(list(sizes)) for t in tensors), strict=True))


def previous_rows(states: Tensor, sizes: Sequence[int], tape: Tape) -> Tensor:
    """For each packed row the state of the step before, zeros at the first. Shapes: ``[P, H] -> [P, H]``."""
    out = tape.take(tuple(states.shape), states)
    parts, into = states.split(list(sizes)), out.split(list(sizes))
    into[0].zero_()
    if sizes[0] == sizes[-1]:
        out[sizes[0] :] = states[: -sizes[0]] if len(sizes) > 1 else out[sizes[0] :]
        return out
    for before, now in zip(parts[:-1], into[1:], strict=True):
        now.copy_(before[: now.shape[0]])
    return out


def doubled_rows(weight: Tensor, begin: int, end: int) -> Tensor:
    """A copy with rows ``begin:end`` doubled."""
    out = weight.detach().clone()
    out[begin:end] *= 2
    return out


def forward(x: Tensor, weights: Weights, tape: Tape) -> Saved:
    """Run the layer from the zero state. Shapes: ``x: [P, D]``."""
    w_ih, w_hh, b_ih, b_hh = weights
    rows, hidden, sizes = x.shape[0], w_hh.shape[1], tape.sizes
    w_in = doubled_rows(w_ih, 2 * hidden, 3 * hidden)
    w_back = doubled_rows(w_hh, 2 * hidden, 3 * hidden).mul_(2).t()  # h is kept halved
    gates = tape.take((rows, 4 * hidden), x)
    if b_ih is None or b_hh is None:
        torch.mm(x, w_in.t(), out=gates)
    else:
        torch.addmm(doubled_rows(b_ih + b_hh, 2 * hidden, 3 * hidden), x, w_in.t(), out=gates)
    doubled_g, state, half_tanh, outputs = (tape.take((rows, hidden), x) for _ in range(4))
    i, f, s, o = gates.view(rows, 4, hidden).unbind(1)
    minus_two, last_h, last_c = x.new_tensor(-2.0), None, None
    for z, i_t, f_t, s_t, o_t, g_t, c_t, t_t, h_t in steps_of(
        sizes, gates, i, f, s, o, doubled_g, state, half_tanh, outputs
    ):
        n = z.shape[0]
        if last_h is not None:
            z.addmm_(last_h[:n], w_back)
        z.sigmoid_()
        torch.add(minus_two, s_t, alpha=4, out=g_t)
        if last_c is None:
            torch.mul(i_t, g_t, out=c_t)
        else:
            torch.mul(f_t, last_c[:n], out=c_t).addcmul_(i_t, g_t)
        torch.sigmoid(c_t, out=t_t).sub_(0.5)
        torch.mul(o_t, t_t, out=h_t)
        last_h, last_c = h_t, c_t
    outputs.mul_(2)
    return Saved(
        gates,
        doubled_g,
        previous_rows(state, sizes, tape),
        half_tanh,
        outputs,
        previous_rows(outputs, sizes, tape),
    )


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
        k_t.mul_(dc[:, None, :])
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
    kf.mul_(saved.before)
    kg.mul_(i).mul_(8)
    torch.addcmul(saved.outputs, saved.outputs, o, value=-1, out=ko)
    by_state = tape.take((rows, hidden), saved.outputs)
    return torch.addcmul(o, saved.outputs, saved.half_tanh, value=-2, out=by_state)
