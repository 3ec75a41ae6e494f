"""Units whose convolution is executed row by row, bound to memory for the compiled kernels.

Only the output z of such a convolution is stored where it can be: units that read it row by row apply batch norm and
activation as they load it, and on the way back leave what its own batch norm needs of the gradient.
"""

import torch
from torch import Tensor

from east.engine.cpu import bindings as k
from east.engine.cpu.storage import PlaneBuffer
from east.engine.cpu.units import Bindings, Buffers, CpuUnit, take_readers
from east.engine.graph.network import Activation, Unit
from east.engine.graph.program import Pass


class RowsUnit(CpuUnit):
    """A unit whose convolution is executed by itself, row by row."""

    def __init__(self, unit: Unit, to: Bindings) -> None:
        super().__init__(unit, to)
        self.z = to.memory["z", unit.y]
        self.slopes = torch.empty(unit.y.channels, k.SLOPE_NUMBERS, dtype=torch.float64)
        self._sizes = (unit.y.channels, unit.y.height, unit.y.width, to.batch)
        self._is_found_by_readers = to.storage.is_found_by_readers(unit.y)
        self._is_added_unstored = to.storage.is_added_unstored(unit.y)
        self._is_first_reader = bool(unit.x.readers) and unit.x.readers[0] is unit
        self._source = self._make_source(to.buffers)
        self._activate = self._backward_structure(self.z, self.y_buffer.gradient)
        self._activate.slopes = k.address(self.slopes)
        if self._is_found_by_readers or self._is_added_unstored:
            self.y_buffer.source = self._source
        if self._is_found_by_readers:
            self.y_buffer.producer = self._as_producer()
        self._convolve = k.Convolve(
            geometry=self.geometry,
            by_output=self.by_output,
            values=self.values,
            x=self._source_of_x(keep=self._is_first_reader),
            z=self.z,
            norm=self._batch_norm(),
        )

    @property
    def normalized(self) -> k.Normalized:
        """The output of the convolution, as it is read behind its batch norm."""
        return k.Normalized(self.z, self.normalization, self.layer.index.by_output.start)

    def gathers_from(self, readers: list[CpuUnit]) -> None:
        """Have the gradient gathered from what these units leave."""
        take_readers(self._activate, readers)

    def forward(self, this: Pass) -> None:
        """Write z and, in training, update the running statistics; write the output unless its readers do."""
        self._scale_values()
        self._convolve.norm.training = int(this.training and self.unit.norm is not None)
        self._convolve.wanted = wanted = None if this.everything else k.address(self.read)
        self.kernels("convolve", self._convolve)
        if not self._is_found_by_readers and not self._is_added_unstored:
            means = None if self.dynamic is None else self.dynamic.means
            self.kernels("normalize", k.Normalize(*self._sizes, self._source, wanted, means))
        if self.dynamic is not None:
            self.dynamic.forward(self.y_buffer.data)

    def backward(self, this: Pass) -> None:
        """Leave the gradients of the parameters, and what the units before this one need."""
        buffer = self.y_buffer
        if not self._is_found_by_readers:
            if self.dynamic is not None:
                self.dynamic.backward(buffer.gradient_memory)
            self._activate.direct = k.address(buffer.gradient) if buffer.has_gradient else None
            self.kernels("backward", self._activate)
        if self.residual_buffer is not None:
            self.residual_buffer.has_gradient = True  # the gradient after the activation, in the same memory
        signs, products = self._signs(this), None
        if signs is not None:
            shape = (self.unit.x.channels, len(signs), self.unit.window.kernel**2)
            products = torch.empty(*shape, dtype=torch.float64)
        self._add_input_gradient(
            x=self._source_of_x(keep=False),
            gradient=k.AtConvolution(None, buffer.gradient, self.z, self.normalization, self.slopes),
            producer=self.x_buffer.producer if self._is_first_reader else k.Producer(),
            value_gradient=self.value_gradient,
            few=k.FEW,
            probes=0 if signs is None else len(signs),
            signs=signs,
            products=products,
        )
        x, dz = self._whole_planes() if this.request.dense and self.unit.masked is not None else (None, None)
        self._leave_gradients(this, None if x is None else x.planes, dz, products)

    def _whole_planes(self) -> tuple[PlaneBuffer, Tensor]:
        """The input, and the gradient at z, stored for this step alone where they are not stored anyway."""
        dz = self._new_planes(self.unit.y)
        arguments = (self.y_buffer.gradient, self.normalized, self.slopes, dz)
        self.kernels("convolution_gradient", k.ConvolutionGradient(*self._sizes, *arguments))
        if self.x_buffer.stored is not None:
            return self.x_buffer, dz
        x = self.unit.x
        stored, source = self._new_planes(x), self._source_of_x(keep=True)
        source.y, source.keep = k.address(stored), 1
        self.kernels("normalize", k.Normalize(x.channels, x.height, x.width, self.batch, source))
        return PlaneBuffer(x, stored, None, stored.dtype), dz

    def _new_planes(self, of: Activation) -> Tensor:
        return self.z.new_empty(of.channels, k.plane_stride(k.groups_of(self.batch), of.height, of.width))

    def _source_of_x(self, *, keep: bool) -> k.RowSource:
        """How the input is read: found anew as long as it is not stored."""
        source, stored = self.x_buffer.source, self.x_buffer.stored
        if stored is not None and not keep:
            return k.RowSource(stored)
        copy = k.RowSource.from_buffer_copy(source)
        copy.keep = int(keep and source.y is not None)
        return copy

    def _make_source(self, buffers: Buffers) -> k.RowSource:
        """How the output is found from z."""
        unit, source = self.unit, k.RowSource()
        source.y = k.address(self.y_buffer.stored if self.dynamic is None else self.dynamic.u)
        source.of, source.keep = self.normalized, int(source.y is not None)
        source.rectify = int(unit.rectify and self.dynamic is None)
        if unit.residual is None:
            return source
        if self.storage.is_added_unstored(unit.residual):
            source.residual_of = buffers[unit.residual].source.of
        else:
            source.residual = k.address(buffers[unit.residual].data)
        return source

    def _as_producer(self) -> k.Producer:
        return k.Producer(
            self.z,
            self.normalization,
            self.layer.index.by_output.start,
            self.read,
            self.weight_gradient,
            self.bias_gradient,
            self.slopes,
            self._activate.activation,
        )
