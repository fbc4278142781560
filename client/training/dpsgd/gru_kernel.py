"""Forward and backward of one GRU layer over packed rows; see ``lstm_kernel`` for the conventions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from client.training.dpsgd.lstm_kernel import Weights, before_and_now, steps_of
from client.training.dpsgd.tape import Tape


def previous_rows(states: Tensor, sizes: list[int], tape: Tape) -> Tensor:
    """For each packed row the state of the step before, zeros at the first. Shapes: ``[P, H] -> [P, H]``."""
    out, first = tape.take(tuple(states.shape), states), sizes[0]
    out[:first].zero_()
    for now, before in before_and_now(out, states, sizes):
        now.copy_(before)
    return out


@dataclass(frozen=True)
class Saved:
    """What backward needs, ``[P, .]`` each: reset and update gate, candidate, the candidate's recurrent
    part, outputs, and outputs of the step before.
    """

    gates: Tensor
    candidate: Tensor
    recurrent: Tensor
    outputs: Tensor
    previous: Tensor


def forward(x: Tensor, weights: Weights, tape: Tape) -> Saved:
    """Run the layer from the zero state. Shapes: ``x: [P, D]``."""
    w_ih, w_hh, b_ih, b_hh = weights
    rows, hidden, sizes = x.shape[0], w_hh.shape[1], tape.sizes
    inputs = tape.take((rows, 3 * hidden), x)
    shift = x.new_zeros(hidden) if b_hh is None else b_hh[2 * hidden :].detach()
    if b_ih is None or b_hh is None:
        torch.mm(x, w_ih.t(), out=inputs)
    else:
        bias = b_ih.detach().clone()
        bias[: 2 * hidden] += b_hh[: 2 * hidden]
        torch.addmm(bias, x, w_ih.t(), out=inputs)
    candidate, recurrent, outputs = (tape.take((rows, hidden), x) for _ in range(3))
    recurrent.copy_(shift.expand_as(recurrent))
    _loop(inputs, (candidate, recurrent, outputs), w_hh.detach(), sizes)
    return Saved(inputs, candidate, recurrent, outputs, previous_rows(outputs, sizes, tape))


@torch.inference_mode()
def _loop(gates: Tensor, out: tuple[Tensor, Tensor, Tensor], w_hh: Tensor, sizes: list[int]) -> None:
    hidden = out[0].shape[1]
    both, inner = gates[:, : 2 * hidden], gates[:, 2 * hidden :]
    reset, update = gates[:, :hidden], gates[:, hidden : 2 * hidden]
    w_both, w_inner = w_hh[: 2 * hidden].t(), w_hh[2 * hidden :].t()
    zero = gates.new_zeros(sizes[0], hidden)
    last, room = zero, torch.empty_like(zero)
    minus_one = gates.new_tensor(-1.0)
    for b_t, x_t, r_t, z_t, n_t, q_t, h_t in steps_of(sizes, both, inner, reset, update, *out):
        n = b_t.shape[0]
        before = last[:n]
        if last is not zero:
            b_t.addmm_(before, w_both)
            q_t.addmm_(before, w_inner)
        b_t.sigmoid_()
        torch.addcmul(x_t, r_t, q_t, out=n_t).mul_(2).sigmoid_()
        torch.add(minus_one, n_t, alpha=2, out=n_t)
        difference = torch.sub(before, n_t, out=room[:n])
        torch.addcmul(n_t, z_t, difference, out=h_t)
        last = h_t


def backward(grad: Tensor, w_hh: Tensor, saved: Saved, tape: Tape) -> tuple[Tensor, Tensor]:
    """Gradients by the input part (over ``saved.gates``) and the recurrent part of the gates: ``[P, 3H]`` each."""
    rows, hidden = grad.shape
    outer, inner = tape.take((rows, 3 * hidden), grad), saved.gates
    with tape.arena.scratch():
        by_candidate = _factors(saved, outer, tape)
        dh = tape.take((rows, hidden), grad).copy_(grad)
        update = saved.gates[:, hidden : 2 * hidden]
        _run_back(steps_of(tape.sizes, outer, outer.view(rows, 3, hidden), dh, update), w_hh)
        inner[:, : 2 * hidden] = outer[:, : 2 * hidden]
        torch.mul(dh, by_candidate, out=inner[:, 2 * hidden :])
    return inner, outer


@torch.inference_mode()
def _run_back(steps: list[tuple[Tensor, ...]], w_hh: Tensor) -> None:
    later = None
    for d_t, k_t, dh_t, z_t in reversed(steps):
        if later is not None:
            after, dh_after, z_after = later
            dh_t[: len(after)].addmm_(after, w_hh).addcmul_(dh_after, z_after)
        k_t.mul_(dh_t[:, None, :])
        later = d_t, dh_t, z_t


def _factors(saved: Saved, outer: Tensor, tape: Tape) -> Tensor:
    """Fill ``outer: [P, 3H]`` with what each gradient is a multiple of; return d candidate / dh: ``[P, H]``."""
    rows, hidden = saved.outputs.shape
    r, z, n = saved.gates[:, :hidden], saved.gates[:, hidden : 2 * hidden], saved.candidate
    kr, kz, kq = outer.view(rows, 3, hidden).unbind(1)
    by_candidate = tape.take((rows, hidden), n)
    torch.mul(n, n, out=by_candidate).neg_().add_(1).mul_(1 - z)
    torch.mul(by_candidate, r, out=kq)
    torch.mul(kq, 1 - r, out=kr).mul_(saved.recurrent)
    torch.mul(z, 1 - z, out=kz).mul_(saved.previous - n)
    return by_candidate
