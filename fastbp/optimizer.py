"""The update rules of the book's chapter 6: ``optimizer.update(params, grads)``.

Parameters are changed in place; an optimizer's state has one array for each of them and begins at
zero with the first update.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from ._arrays import Array, as_float, as_kernel_array
from ._memory import aligned_zeros
from .kernels import tables
from .kernels import update as kernels

__all__ = ["OPTIMIZERS", "SGD", "AdaGrad", "Adam", "Momentum", "Nesterov", "Optimizer", "RMSprop"]

# The book's guard against division by zero in AdaGrad, RMSprop and Adam.
EPS = 1e-7


def _rate(optimizer: object, value: Any) -> float:
    """Return a learning rate: positive and finite."""
    number = as_float(value)
    if not 0 < number < math.inf:
        name = type(optimizer).__name__
        raise ValueError(f"{name}: lr is {value!r}, expected a positive number")
    return number


def _decay(optimizer: object, name: str, value: Any) -> float:
    """Return the share of the past that a running mean keeps: in [0, 1)."""
    number = as_float(value)
    if not 0 <= number < 1:
        raise ValueError(
            f"{type(optimizer).__name__}: {name} is {value!r}, expected a number in [0, 1)"
        )
    return number


class Optimizer:
    """What the six have in common: the checks, the state, and the walk over the parameters.

    Parameters
    ----------
    lr : float
        Learning rate, positive.  May be changed between updates.
    """

    # Names of the state arrays, as attributes of the instance: dicts like params.
    _slots: tuple[str, ...] = ()
    # What the compiled loop calls the rule.
    _kind = tables.KEEP

    def __init__(self, lr: float) -> None:
        self.lr = _rate(self, lr)
        for slot in self._slots:
            setattr(self, slot, {})

    def __repr__(self) -> str:
        numbers = {k: v for k, v in vars(self).items() if isinstance(v, float)}
        return f"{type(self).__name__}({', '.join(f'{k}={v:g}' for k, v in numbers.items())})"

    def update(self, params: Mapping[str, Any], grads: Mapping[str, Any]) -> None:
        """Change every parameter, in place, by one step along its gradient.

        Parameters
        ----------
        params : dict of float32 or float64 arrays
        grads : dict of arrays
            Of the same keys and shapes; converted to the parameters' types.

        Raises
        ------
        KeyError
            For a parameter without a gradient.
        TypeError
            For a parameter that is not a writable float32 or float64 array.
        ValueError
            When a gradient has another shape than its parameter.

        Notes
        -----
        Everything is checked before the first parameter changes.
        """
        pairs = [(key, *self._pair(key, p, grads)) for key, p in params.items()]
        self._begin_step()
        for key, param, grad in pairs:
            state = [self._state(slot, key, param) for slot in self._slots]
            # A parameter that a kernel cannot take as it lies (a view with gaps, say) is worked on
            # in a copy and written back.
            array = as_kernel_array("update", key, param)
            self._step(array.reshape(-1), *(s.reshape(-1) for s in state), grad.reshape(-1))
            if array is not param:
                param[...] = array

    def _pair(self, key: str, param: Any, grads: Mapping[str, Any]) -> tuple[Array, Array]:
        where = f"{type(self).__name__}.update"
        plain = isinstance(param, np.ndarray) and not isinstance(param, np.ma.MaskedArray)
        if not plain or param.dtype.type not in (np.float32, np.float64):
            kind = f"of type {param.dtype}" if plain else f"a {type(param).__name__}"
            raise TypeError(
                f"{where}: params[{key!r}] is {kind}, expected a float32 or float64 array"
            )
        if not param.flags.writeable:
            raise TypeError(f"{where}: params[{key!r}] is read-only")
        if key not in grads:
            raise KeyError(f"{where}: grads has no {key!r}")
        dtype = np.dtype(param.dtype.type)
        grad = as_kernel_array(where, f"grads[{key!r}]", grads[key], dtype, param.shape)
        return param, grad

    def _state(self, slot: str, key: str, param: Array) -> Array:
        """Return the state array of a parameter: zeros at first, and again if its shape changed."""
        arrays: dict[str, Array] = getattr(self, slot)
        state = arrays.get(key)
        if state is None or state.shape != param.shape or state.dtype.type != param.dtype.type:
            state = aligned_zeros(param.size, np.dtype(param.dtype.type)).reshape(param.shape)
            arrays[key] = state
        elif not state.flags.carray or not state.dtype.isnative:  # somebody else's array
            state = arrays[key] = np.array(state, param.dtype.type, order="C")
        return state

    def _rule(self) -> tables.Rule:
        """Return the rule for the compiled loop, as it is now."""
        return tables.Rule(self._kind, self.lr, *self._numbers(), EPS, 0.0, 0, 0, 0.0)

    def _numbers(self) -> tuple[float, float]:
        """Return the rule's numbers beside the learning rate."""
        return 0.0, 0.0

    def _begin_step(self) -> None:
        """Count the step, where the rule depends on it."""

    def _step(self, param: Array, *state_and_grad: Array) -> None:
        """Call the kernel on flat arrays: parameter, state in the order of _slots, gradient."""
        raise NotImplementedError


class SGD(Optimizer):
    """Stochastic gradient descent, ``p -= lr * g`` (section 6.1.2).

    Parameters
    ----------
    lr : float, default 0.01
    """

    _kind = tables.SGD

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr)

    def _step(self, param: Array, *state_and_grad: Array) -> None:
        (grad,) = state_and_grad
        kernels.sgd_update(param, grad, param.dtype.type(self.lr))


class Momentum(Optimizer):
    """``v = momentum * v - lr * g;  p += v`` (section 6.1.4).

    Parameters
    ----------
    lr : float, default 0.01
    momentum : float, default 0.9

    Attributes
    ----------
    v : dict of arrays
        The velocities.
    """

    _slots = ("v",)
    _kind = tables.MOMENTUM

    def __init__(self, lr: float = 0.01, momentum: float = 0.9) -> None:
        super().__init__(lr)
        self.momentum = _decay(self, "momentum", momentum)

    def _numbers(self) -> tuple[float, float]:
        return self.momentum, 0.0

    def _step(self, param: Array, *state_and_grad: Array) -> None:
        v, grad = state_and_grad
        T = param.dtype.type
        kernels.momentum_update(param, v, grad, T(self.lr), T(self.momentum))


class Nesterov(Momentum):
    """Nesterov's momentum in Bengio's form: ``p += m*m*v - (1 + m)*lr*g;  v = m*v - lr*g``.

    Both use the old v (Bengio et al. 2012, arXiv:1212.0901, equations 6 and 7).

    Parameters
    ----------
    lr : float, default 0.01
    momentum : float, default 0.9

    Attributes
    ----------
    v : dict of arrays
        The velocities.
    """

    _kind = tables.NESTEROV

    def _step(self, param: Array, *state_and_grad: Array) -> None:
        v, grad = state_and_grad
        T = param.dtype.type
        kernels.nesterov_update(param, v, grad, T(self.lr), T(self.momentum))


class AdaGrad(Optimizer):
    """``h += g * g;  p -= lr * g / (sqrt(h) + 1e-7)`` (section 6.1.5).

    Parameters
    ----------
    lr : float, default 0.01

    Attributes
    ----------
    h : dict of arrays
        The sums of squared gradients.
    """

    _slots = ("h",)
    _kind = tables.ADAGRAD

    def __init__(self, lr: float = 0.01) -> None:
        super().__init__(lr)

    def _step(self, param: Array, *state_and_grad: Array) -> None:
        h, grad = state_and_grad
        T = param.dtype.type
        kernels.adagrad_update(param, h, grad, T(self.lr), T(EPS))


class RMSprop(Optimizer):
    """``h = d * h + (1 - d) * g * g;  p -= lr * g / (sqrt(h) + 1e-7)``, d the decay rate.

    Parameters
    ----------
    lr : float, default 0.01
    decay_rate : float, default 0.99

    Attributes
    ----------
    h : dict of arrays
        The running means of squared gradients.
    """

    _slots = ("h",)
    _kind = tables.RMSPROP

    def __init__(self, lr: float = 0.01, decay_rate: float = 0.99) -> None:
        super().__init__(lr)
        self.decay_rate = _decay(self, "decay_rate", decay_rate)

    def _numbers(self) -> tuple[float, float]:
        return self.decay_rate, 0.0

    def _step(self, param: Array, *state_and_grad: Array) -> None:
        h, grad = state_and_grad
        T = param.dtype.type
        kernels.rmsprop_update(param, h, grad, T(self.lr), T(self.decay_rate), T(EPS))


class Adam(Optimizer):
    """Adam as the book writes it (section 6.1.6; Kingma and Ba 2014, arXiv:1412.6980).

    ``m = beta1 m + (1 - beta1) g;  v = beta2 v + (1 - beta2) g*g;  p -= lr_t m / (sqrt(v) + eps)``
    with eps 1e-7 and ``lr_t = lr sqrt(1 - beta2**iter) / (1 - beta1**iter)``: the paper's second
    form, whose eps stands outside the bias correction.

    Parameters
    ----------
    lr : float, default 0.001
    beta1, beta2 : float, default 0.9 and 0.999

    Attributes
    ----------
    iter : int
        Number of updates so far.
    m, v : dict of arrays
        Running means of the gradients and of their squares.
    """

    _slots = ("m", "v")
    _kind = tables.ADAM

    def __init__(self, lr: float = 0.001, beta1: float = 0.9, beta2: float = 0.999) -> None:
        super().__init__(lr)
        self.beta1 = _decay(self, "beta1", beta1)
        self.beta2 = _decay(self, "beta2", beta2)
        self.iter = 0

    def _numbers(self) -> tuple[float, float]:
        return self.beta1, self.beta2

    def _rule(self) -> tables.Rule:
        return super()._rule()._replace(steps=self.iter)

    def _begin_step(self) -> None:
        self.iter += 1

    def _step(self, param: Array, *state_and_grad: Array) -> None:
        m, v, grad = state_and_grad
        T = param.dtype.type
        lr_t = self.lr * math.sqrt(1 - self.beta2**self.iter) / (1 - self.beta1**self.iter)
        kernels.adam_update(param, m, v, grad, T(lr_t), T(self.beta1), T(self.beta2), T(EPS))


# By the names the command line and the book's Trainer use.
OPTIMIZERS: dict[str, Callable[..., Optimizer]] = {
    "sgd": SGD,
    "momentum": Momentum,
    "nesterov": Nesterov,
    "adagrad": AdaGrad,
    "rmsprop": RMSprop,
    "adam": Adam,
}
