// What a unit that is executed row by row leaves to be found, as whole planes: its output, and the gradient at its convolution.

#include "rows.h"

namespace east {
namespace {

template <typename T>
struct Normalize {
    int64_t channels, height, width, batch;
    RowSource<T> source;  // to be stored in its `y`
    const uint8_t* wanted;  // [channels]: which of them; null for all
    Value<T>* means;  // [channels, groups, 32]: over positions; null for none
};

template <typename T>
struct ConvolutionGradient {
    int64_t channels, height, width, batch;
    const T* g;  // the gradient before the activation
    Normalized<T> of;
    const Slope* slopes;
    T* dz;
};

template <typename T>
void normalize(const Normalize<T>& n) {
    const int64_t row = n.width * lanes, groups = groups_of(int32_t(n.batch)), plane = plane_stride(groups, n.height, n.width);
    in_parallel([&](const Thread& thread) {
        const SourceRows<T> rows(n.source, plane, row);
        Value<T>* found = scratch<Value<T>, 1>(row);
        thread.divide(n.channels * groups, [&](int64_t task) {
            const int64_t channel = task / groups, image = task % groups * n.height * row;
            if (n.wanted != nullptr && !n.wanted[channel]) return;
            PositionMeans<Value<T>> means(int32_t(n.height), int32_t(n.width));
            for (int64_t k = 0; k < n.height; ++k) {
                rows.load(channel, image + k * row, found, true);
                if (n.means != nullptr) means.add_row(found);
            }
            if (n.means == nullptr) return;
            means.write(n.means + task * lanes, std::min(lanes, int32_t(n.batch - task % groups * lanes)));
        });
        finish_streaming();
    });
}

template <typename T>
void find_convolution_gradient(const ConvolutionGradient<T>& c) {
    const int64_t groups = groups_of(int32_t(c.batch)), plane = plane_stride(groups, c.height, c.width);
    const int64_t count = groups * c.height * c.width * lanes;
    in_parallel([&](const Thread& thread) {
        thread.divide(c.channels, [&](int64_t channel) {
            const int64_t at = channel * plane;
            if (c.slopes[channel].reached == 0) {
                fill(c.dz + at, kept_as<T>(0), count);
            } else if (c.of.is_stored(channel)) {
                find_gradient<true>(c.g + at, c.of.z + at, c.of.norm[channel], c.slopes[channel], c.dz + at, count);
            } else {
                find_gradient<false>(c.g + at, c.of.z, c.of.norm[channel], c.slopes[channel], c.dz + at, count);
            }
        });
    });
}

}  // namespace
}  // namespace east

EAST_KERNEL(normalize, Normalize, normalize)
EAST_KERNEL(convolution_gradient, ConvolutionGradient, find_convolution_gradient)
