"""Operations of whole networks, by the implementations that have them."""

from __future__ import annotations

from typing import Any

from .frameworks import Jax, JaxScan, Torch, TorchCompile
from .machine import Disagreement
from .peers import Fastbp, Peer, Reference, Sklearn
from .with_numpy import Call
from .workloads import Workload

PEERS: dict[str, type[Peer]] = {
    "reference": Reference,
    "fastbp": Fastbp,
    "torch": Torch,
    "torch.compile": TorchCompile,
    "jax": Jax,
    "sklearn": Sklearn,
}

# Many steps are one compiled loop in JAX.
LOOPS = {**PEERS, "jax": JaxScan}

# scikit-learn shows nobody its gradients.
WITH_GRADIENT = [name for name in PEERS if name != "sklearn"]

# The accuracy that a whole training reaches, and how many epochs it may take: the book's network
# and step take about 36 for the digits, and do not come to 97 % there in 300.
GOALS = {"digits": 0.95, "mnist": 0.97}
MOST_EPOCHS = 60


def predict(name: str, workload: Workload, threads: int) -> Call:
    """Return a call that evaluates the network for all rows."""
    return PEERS[name](workload, threads).predict


def gradient(name: str, workload: Workload, threads: int) -> Call:
    """Return a call of backpropagation for all rows; 'numerical' is the book's differences."""
    if name == "numerical":
        return Reference(workload, threads).numerical_gradient
    return PEERS[name](workload, threads).gradient


def numerical_gradient(name: str, workload: Workload, threads: int) -> Call:
    """Return a call of the numerical gradient for all rows, of NumPy's or of fastbp's."""
    peers: dict[str, type[Reference | Fastbp]] = {"reference": Reference, "fastbp": Fastbp}
    return peers[name](workload, threads).numerical_gradient


def step(name: str, workload: Workload, threads: int) -> Call:
    """Return a call that takes one more step with all rows; it returns the parameters."""
    peer = PEERS[name](workload, threads)

    def call() -> Any:
        peer.step()
        return peer.parameters()

    return call


def steps(name: str, workload: Workload, threads: int, number: int) -> Call:
    """Return a call that takes so many steps from the start; it returns the parameters."""
    peer = LOOPS[name](workload, threads)
    return lambda: peer.take(number)


def whole(name: str, workload: Workload, threads: int) -> Call:
    """Return a call that trains until as many of the others are right as is the goal.

    It returns True, and raises ``Disagreement`` where so many never are: the seconds of a training
    that failed mean nothing, whoever else failed with it.
    """
    peer = LOOPS[name](workload, threads)
    goal = GOALS[workload.data]

    def call() -> bool:
        if not peer.reach(goal, MOST_EPOCHS):
            raise Disagreement(
                f"{name} does not reach {goal:.0%} in {MOST_EPOCHS} epochs of {workload.data}"
            )
        return True

    return call
