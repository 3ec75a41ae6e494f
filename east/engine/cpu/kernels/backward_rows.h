// What the backward pass through a convolution, row by row of its input, is told.
#pragma once

#include "rows.h"

namespace east {

// The gradient at a convolution's output: it is stored, or found from the gradient g before the activation.
template <typename T>
struct AtConvolution {
    const T* dz;
    const T* g;
    const T* z;
    const Normalization<Value<T>>* norm;
    const Slope* slopes;
};

// The unit that wrote the input, where nothing else leaves a gradient at its output after this.
template <typename T>
struct Producer {
    const T* z;  // null where there is no such unit
    const Normalization<Value<T>>* norm;
    const int32_t* start;  // of its non-zeros by output channel
    const uint8_t* read;   // whether any gradient reaches a channel; null for all
    Value<T>* weight_gradient;
    Value<T>* bias_gradient;
    Slope* slopes;
    int32_t activation;
};

template <typename T>
struct BackwardRows {
    Geometry geometry;
    Lists by_output;
    Lists by_input;  // without the non-zeros of output channels that no gradient reaches
    const Value<T>* values;
    RowSource<T> x;
    AtConvolution<T> gradient;
    T* to;  // [in_channels, plane]: the gradient at the input; null for not wanted
    int32_t accumulate;  // added to `to`
    Producer<T> producer;
    Value<T>* value_gradient;  // null for not wanted
    int32_t few;  // non-zeros of an output channel up to which they are found from sums of x, x * g and x * hat
    int32_t probes;
    const Value<T>* signs;  // [probes, out_channels]
    double* products;       // [in_channels, probes, kernel * kernel]: sums of x and of the sums of signs * dz over channels
};

}  // namespace east
