"""What the commands share: exit codes, options and the types of their values, a net made of them, progress."""

from __future__ import annotations

import argparse
import math
import shlex
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from caffe_tools import prototxt
from caffe_tools.errors import CaffeToolsError, NetError
from caffe_tools.files import check_writable
from caffe_tools.prototxt.message import Message
from caffe_tools.prototxt.net_spec import read_net

if TYPE_CHECKING:
    from caffe_tools.net.net import Net
    from caffe_tools.prototxt.layer_spec import LayerSpec

DONE = AGREES = 0
DISAGREES, BAD_INPUT, INTERRUPTED = 1, 2, 130
"""The exit codes."""

MOST_ELEMENTS = 2**31 - 1
"""Of a blob: Caffe counts them in an int (standard/limits.py has it too, and brings more)."""
REPEATED: dict[str, Any] = {"action": "append", "default": []}
"""An option that may be given several times."""


def add_net_options(command: argparse.ArgumentParser) -> None:
    """The options that ``load_net`` reads."""
    command.add_argument("net", metavar="NET.prototxt")
    command.add_argument("--weights", metavar="F.caffemodel")
    command.add_argument("--inputs", metavar="F.npz", help="arrays in/BLOB and param/LAYER/i; the rest is drawn")
    command.add_argument("--phase", choices=("TRAIN", "TEST"), help="default: TRAIN if the net has a loss")
    command.add_argument("--level", type=number("level"), default=0)
    command.add_argument("--stage", **REPEATED, metavar="NAME", help="may be given several times")
    command.add_argument("--seed", type=seed, default=0, help="of fillers, drawn inputs and Dropout")
    add_allow_module(command)


def add_allow_module(command: argparse.ArgumentParser) -> None:
    text = "import Python layers from this module too (code from a stranger runs!)"
    command.add_argument("--allow-module", **REPEATED, metavar="NAME", help=text)


# The types of their values --------------------------------------------------------------------------------------------


def number(what: str, kind: type = int, least: float = -math.inf) -> Callable[[str], Any]:
    """The type of an option that takes a finite number, ``least`` at the least; ``what`` names it in the error."""
    right = ("a whole number" if kind is int else "a number") + ("" if least == -math.inf else f" of {least} or more")

    def read(text: str) -> Any:
        try:
            value = kind(text)
        except ValueError:
            value = math.nan
        if not -math.inf < value < math.inf or value < least:
            raise argparse.ArgumentTypeError(f"{shlex.quote(text)} is no {what}: give {right}")
        return value

    return read


seed = number("seed", least=0)
tolerance = number("tolerance", float, least=0)


def shape(text: str) -> tuple[int, ...]:
    """The type of an option that takes the shape of a blob, as 4x5."""
    try:
        dims = tuple(int(dim) for dim in text.replace("×", "x").replace(",", "x").split("x"))
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is no shape: give dims such as 4x5") from None
    if any(dim < 1 for dim in dims):
        raise argparse.ArgumentTypeError(f"{text!r} has a dim below 1")
    if math.prod(dims) > MOST_ELEMENTS:
        raise argparse.ArgumentTypeError(f"{text!r} has more than {MOST_ELEMENTS} elements, the most of a blob")
    return dims


def not_empty(text: str) -> str:
    """The type of every option that has no other, as a file's path: a shell's unset variable is no path."""
    if not text:
        raise argparse.ArgumentTypeError("it is empty: give it a value")
    return text


def output(path: str) -> str:
    """The type of an option that names a file to write: what cannot be written is refused before anything is run."""
    try:
        check_writable(path)
    except CaffeToolsError as error:
        raise argparse.ArgumentTypeError(str(error)) from None
    return path


# A net ----------------------------------------------------------------------------------------------------------------


def load_net(options: argparse.Namespace, default_phase: str | None = None) -> Net:
    """The net with its weights and inputs; without ``--phase`` the phase that the net is made for."""
    from caffe_tools.files import load_arrays
    from caffe_tools.net.draw import draw_inputs
    from caffe_tools.net.inputs import feed
    from caffe_tools.net.keys import IN
    from caffe_tools.net.net import Net

    state = {"level": options.level, "stages": options.stage}
    message = prototxt.load(options.net)
    _refuse_solver(message, options.net)
    arrays = load_arrays(options.inputs) if options.inputs else {}
    net = Net(
        options.net,
        options.phase or default_phase or _natural_phase(message, state),
        weights=options.weights,
        allow_modules=options.allow_module,
        input_shapes={name: array.shape for name, array in IN.of(arrays).items()},
        seed=options.seed,
        **state,
    )
    fed = feed(net, arrays, options.inputs or "")
    draw_inputs(net, fed, options.seed)
    return net


def _refuse_solver(message: Message, path: str) -> None:
    solver_fields = [name for name in ("net", "train_net", "base_lr", "max_iter") if name in message]
    if solver_fields and "layer" not in message and "layers" not in message:
        named = next((message.first(name) for name in ("net", "train_net") if name in message), None)
        hint = f": give {named}, the net that it names" if named else ""
        raise NetError(f"{path} is a solver (it has {', '.join(solver_fields)}), not a net{hint}")


def _natural_phase(message: Message, state: dict) -> str:
    """TRAIN where that phase has a loss, or a loss_weight; else TEST."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what is to be said of the net is said when it is built
            layers = read_net(message, "TRAIN", **state).layers
    except NetError:
        return "TEST"
    return "TRAIN" if any(_is_loss(layer) or any(layer.loss_weights) for layer in layers) else "TEST"


def _is_loss(layer: LayerSpec) -> bool:
    """Of a type that nobody knows yet (an allowed module may teach it) there is nothing but the name."""
    from caffe_tools import standard

    kind = standard.known_type(layer)
    return "Loss" in layer.type if kind is None else kind.is_loss


@contextmanager
def progress(title: str) -> Iterator[Callable[[str], None]]:
    """A line that says what is being done, on a terminal alone."""
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda text: None
        return
    with console.status(Text(title)) as status:
        yield lambda text: status.update(Text(f"{title}: {text}"))
