"""The text of a prototxt, written layer by layer."""

from __future__ import annotations

from collections.abc import Sequence


class Prototxt:
    """A net's text. Every method that adds a layer returns the name of its top, the next layer's bottom.

    Fillers keep the activations of deep nets near 1: ``msra`` ahead of a ReLU, and biases that are not all alike.
    """

    def __init__(self, name: str, divisor: int = 1) -> None:
        self.divisor = divisor
        self._text = [f'name: "{name}"\n']

    def __str__(self) -> str:
        return "".join(self._text)

    def channels(self, published: int) -> int:
        """The number of channels of a thin net."""
        return published // self.divisor

    def net_input(self, name: str, *shape: int) -> str:
        """An input as most deploy nets have it: fields of the net itself."""
        self._text.append(f'input: "{name}"\ninput_shape {{ {_dims(shape)} }}\n')
        return name

    def layer(self, name: str, type_: str, bottoms: str | Sequence[str], top: str | None = None, text: str = "") -> str:
        """Any layer with one top; ``text`` is what its message holds besides name, type, bottoms and top."""
        top = name if top is None else top
        bottoms = [bottoms] if isinstance(bottoms, str) else bottoms
        ends = "".join(f'  bottom: "{bottom}"\n' for bottom in bottoms) + f'  top: "{top}"\n'
        body = f"  {text}\n" if text else ""
        self._text.append(f'layer {{\n  name: "{name}"\n  type: "{type_}"\n{ends}{body}}}\n')
        return top

    def input(self, name: str, *shape: int, layer: str | None = None, text: str = "") -> str:
        """An Input layer, called as its top where ``layer`` is silent."""
        return self.layer(layer or name, "Input", [], name, f"input_param {{ shape {{ {_dims(shape)} }} }} {text}")

    def conv(
        self,
        name: str,
        bottom: str,
        num_output: int,
        kernel: int,
        *,
        top: str | None = None,
        pad: int = 0,
        stride: int = 1,
        group: int = 1,
        dilation: int = 1,
        bias: bool = True,
        filler: str = "msra",
    ) -> str:
        options = {"pad": (pad, 0), "stride": (stride, 1), "group": (group, 1), "dilation": (dilation, 1)}
        given = "".join(f" {field}: {value}" for field, (value, default) in options.items() if value != default)
        weights = _fillers(filler) if bias else f'bias_term: false weight_filler {{ type: "{filler}" }}'
        return self.layer(
            name,
            "Convolution",
            bottom,
            top,
            f"convolution_param {{ num_output: {num_output} kernel_size: {kernel}{given} {weights} }}",
        )

    def deconv(self, name: str, bottom: str, num_output: int, kernel: int, stride: int) -> str:
        """Upsampling without bias that is not trained."""
        return self.layer(
            name,
            "Deconvolution",
            bottom,
            text=f"param {{ lr_mult: 0 }} convolution_param {{ num_output: {num_output} bias_term: false"
            f' kernel_size: {kernel} stride: {stride} weight_filler {{ type: "bilinear" }} }}',
        )

    def inner_product(self, name: str, bottom: str, num_output: int, filler: str = "msra") -> str:
        text = f"inner_product_param {{ num_output: {num_output} {_fillers(filler)} }}"
        return self.layer(name, "InnerProduct", bottom, text=text)

    def relu(self, name: str, blob: str) -> str:
        return self.layer(name, "ReLU", blob, blob)

    def dropout(self, name: str, blob: str, ratio: float = 0.5) -> str:
        return self.layer(name, "Dropout", blob, blob, f"dropout_param {{ dropout_ratio: {ratio} }}")

    def pool(self, name: str, bottom: str, pool: str, kernel: int, stride: int, pad: int = 0) -> str:
        padding = f" pad: {pad}" if pad else ""
        text = f"pooling_param {{ pool: {pool} kernel_size: {kernel} stride: {stride}{padding} }}"
        return self.layer(name, "Pooling", bottom, text=text)

    def lrn(self, name: str, bottom: str) -> str:
        """Across five channels, as AlexNet and GoogLeNet do."""
        return self.layer(name, "LRN", bottom, text="lrn_param { local_size: 5 alpha: 0.0001 beta: 0.75 }")

    def concat(self, name: str, bottoms: Sequence[str], axis: int = 1) -> str:
        return self.layer(name, "Concat", bottoms, text=f"concat_param {{ axis: {axis} }}")

    def add(self, name: str, bottoms: Sequence[str]) -> str:
        return self.layer(name, "Eltwise", bottoms, text="eltwise_param { operation: SUM }")

    def crop(self, name: str, bottom: str, like: str, offset: int) -> str:
        """The image of ``bottom`` from ``offset`` on, in the size of ``like``."""
        return self.layer(name, "Crop", [bottom, like], text=f"crop_param {{ axis: 2 offset: {offset} }}")

    def reshape(self, name: str, bottom: str, *dims: int) -> str:
        return self.layer(name, "Reshape", bottom, text=f"reshape_param {{ shape {{ {_dims(dims)} }} }}")

    def softmax(self, name: str, bottom: str, axis: int = 1) -> str:
        return self.layer(name, "Softmax", bottom, text=f"softmax_param {{ axis: {axis} }}" if axis != 1 else "")


def _dims(shape: Sequence[int]) -> str:
    return " ".join(f"dim: {dim}" for dim in shape)


def _fillers(weights: str) -> str:
    return f'weight_filler {{ type: "{weights}" }} bias_filler {{ type: "gaussian" std: 0.1 }}'
