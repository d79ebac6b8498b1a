"""What the commands share: exit codes, options and the types of their values, a net made of them, progress."""

from __future__ import annotations

import argparse
import math
import os
import re
import shlex
import sys
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from caffe_tools import prototxt
from caffe_tools.errors import CaffeToolsError, NetError
from caffe_tools.files import check_writable
from caffe_tools.prototxt.message import Message
from caffe_tools.prototxt.net_spec import read_net

if TYPE_CHECKING:
    from caffe_tools.net.net import Net
    from caffe_tools.net.weights import Loaded
    from caffe_tools.prototxt.layer_spec import LayerSpec

DONE = AGREES = 0
DISAGREES, BAD_INPUT, INTERRUPTED = 1, 2, 130
"""The exit codes."""

MOST_ELEMENTS = 2**31 - 1
"""Of a blob: Caffe counts them in an int (standard/limits.py has it too, and brings more)."""
NO_FILES = ("name", "type", "bottom", "top", "module", "layer", "input", "stage", "not_stage", "snapshot_prefix")
"""The fields of a prototxt whose strings name something else."""
REPEATED: dict[str, Any] = {"action": "append", "default": []}
"""An option that may be given several times."""


def add_net_options(command: argparse.ArgumentParser) -> None:
    """The options that ``load_net`` reads."""
    command.add_argument("net", metavar="NET.prototxt")
    command.add_argument("--weights", **REPEATED, metavar="F.caffemodel", help="may be given several times")
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


def load_net(options: argparse.Namespace, default_phase: str | None = None, draws: bool = False) -> Net:
    """The net with its weights and inputs; without ``--phase`` the phase that the net is made for. With ``draws``,
    where no weights are given, what would be 0 is drawn, so that all numbers say something."""
    from caffe_tools.files import load_arrays
    from caffe_tools.net.draw import draw_inputs
    from caffe_tools.net.draw_weights import draw_weights
    from caffe_tools.net.inputs import feed
    from caffe_tools.net.keys import IN
    from caffe_tools.net.net import Net

    state = {"level": options.level, "stages": options.stage}
    message = prototxt.load(options.net)
    _refuse_solver(message, options.net)
    arrays = load_arrays(options.inputs) if options.inputs else {}
    files = weights_files(options.weights)
    with silent_about_weights():
        net = Net(
            options.net,
            options.phase or default_phase or _natural_phase(message, state),
            weights=files[0] if files else None,
            to=getattr(options, "to", ()),
            allow_modules=options.allow_module,
            input_shapes={name: array.shape for name, array in IN.of(arrays).items()},
            seed=options.seed,
            **state,
        )
        loaded = [*([net.loaded] if net.loaded else []), *(net.copy_from(path) for path in files[1:])]
    fed = feed(net, arrays, options.inputs or "")
    cut_off = [str(layer.first("name")) for layer in message.messages("layer")] if getattr(options, "to", ()) else []
    account_for_weights(net, loaded, cut_off)
    draw_inputs(net, fed, options.seed, zeros=draws)
    if draws and not files:
        draw_weights(net, options.seed)
    return net


# Its weights ----------------------------------------------------------------------------------------------------------


def weights_files(given: Iterable[str]) -> list[str]:
    """The files of ``--weights``, of which each may list several between commas, as in Caffe."""
    files = [[text] if os.path.exists(text) else text.split(",") for text in given]
    return [path for some in files for path in some if path]


@contextmanager
def silent_about_weights() -> Iterator[None]:
    """Without a net's own warnings: ``account_for_weights`` says it all in one line."""
    from caffe_tools.net.weights import WeightsWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", WeightsWarning)
        yield


def account_for_weights(net: Net, loaded: Sequence[Loaded], cut_off: Sequence[str] = ()) -> None:
    """One note on the files of weights; that the layers ``cut_off`` take nothing is as the user wishes.

    NetError where one of the files fits nothing, though layers wait for weights.
    """
    from caffe_tools.net.weights import account

    for each in loaded:
        if each.fits_nothing and net.at_fillers:
            raise NetError(str(each))
    if loaded:
        ignored = [name for each in loaded for name in each.ignored if name not in cut_off]
        text = account([each.source for each in loaded], loaded[0].learnable, net.at_fillers, ignored)
        warnings.warn(text, stacklevel=2)


# Files that must stay -------------------------------------------------------------------------------------------------


def refuse_overwriting(options: argparse.Namespace) -> None:
    """CaffeToolsError where a command's output is one of its inputs, by whatever name, or another of its outputs."""
    outputs = [(option, getattr(options, option, None)) for option in ("output", "save", "json", "report")]
    written = [(option, path) for option, path in outputs if path]
    if len({os.path.abspath(path) for _, path in written}) < len(written):
        raise CaffeToolsError(f"{written[0][1]} is given for two outputs: give each a file of its own")
    existing = [path for _, path in written if os.path.isfile(path)]  # no other can be an input
    if existing:
        refuse_to_write(existing, input_files(options))


def refuse_to_write(
    outputs: Iterable[str | os.PathLike], inputs: Iterable[str], advice: str = "name another file"
) -> None:
    """CaffeToolsError where one of the files ``outputs`` is one of ``inputs``, which name files alone."""
    known = [name for name in inputs if os.path.isfile(name)]
    for path in outputs:
        for name in known:
            if os.path.samefile(path, name):
                which = "an input" if str(path) == name else f"the input {name}"
                raise CaffeToolsError(f"cannot write {path}: it is {which} of this command; {advice}")


def input_files(options: argparse.Namespace) -> list[str]:
    """The files that a command reads: those of its options, the modules it imports and what its prototxts name."""
    names = [getattr(options, option, None) for option in ("net", "solver", "graph", "inputs", "against", "snapshot")]
    names += weights_files(getattr(options, "weights", []))
    names += [f"{options.graph}.data"] if hasattr(options, "graph") else []
    names += [
        os.path.join(folder, module.replace(".", os.sep)) + ending
        for module in _module_names(options)
        for folder in sys.path
        for ending in (".py", os.sep + "__init__.py")
    ]
    for option in ("net", "solver"):
        names += named_files(getattr(options, option, None))
    return list(dict.fromkeys(name for name in names if name and os.path.isfile(name)))


def _module_names(options: argparse.Namespace) -> list[str]:
    layer = str(getattr(options, "layer", ""))  # gradcheck's MODULE:CLASS
    return [*getattr(options, "allow_module", []), *([layer.partition(":")[0]] if ":" in layer else [])]


def named_files(path: str | None) -> list[str]:
    """The files that a prototxt names, and those that they name: a solver's nets and weights, lists, a mean image."""
    found: list[str] = []
    waiting = [path] if path else []
    while waiting:
        prototxt_file = waiting.pop()
        try:
            message = prototxt.load(prototxt_file)
        except CaffeToolsError:
            continue  # no prototxt, or the command itself says what is wrong with it
        for text in _strings(message):
            for name in (text, os.path.join(os.path.dirname(prototxt_file), text)):
                if os.path.isfile(name) and name not in found:
                    found.append(name)
                    waiting += [name] if name.endswith((".prototxt", ".pt", ".txt")) else []
    return found


def _strings(message: Message) -> Iterator[str]:
    """Every quoted string that may name a file, and the words within it that do (a param_str names files too)."""
    for field, value in message:
        if isinstance(value, Message):
            yield from _strings(value)
        elif type(value) is str and field not in NO_FILES and "\0" not in value:
            yield value
            yield from (word for word in re.findall(r"""[^\s,'"{}\[\]]+""", value) if "." in word)


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
