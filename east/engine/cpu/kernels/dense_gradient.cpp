// The gradient of all weights of a convolution, off ones included: tiles of output and input channels, lanes over images.

#include "convolution.h"

namespace east {
namespace {

template <typename T>
struct DenseGradient {
    Geometry geometry;
    Planes<T> x;
    const T* dz;
    Value<T>* gradient;  // [out_channels, in_channels, kernel, kernel]
};

// Channels whose products are summed at once, so that the sums fit the registers; where a kernel is 3x3 of stride 1, with all
// columns of a kernel row at once: what is loaded then serves three of them.
#if EAST_VECTOR_BYTES == 64 || defined(__aarch64__)
constexpr int outputs = 6, inputs = 4, near_outputs = 4, near_inputs = 2;
#else
constexpr int outputs = 3, inputs = 4, near_outputs = 3, near_inputs = 1;
#endif
constexpr int outputs_together = 12;  // of a block, a multiple of both
static_assert(outputs_together % outputs == 0 && outputs_together % near_outputs == 0 && inputs % near_inputs == 0);

// Sums that a thread keeps, in numbers; the rest of a second-level cache is for what is read.
constexpr int64_t most_sums = 32 << 10;

// The rows of a tile: of dz within a segment, of x where one kernel position meets them.
template <typename T>
struct TileRows {
    const T* dz[outputs];
    const T* x[inputs];
    int64_t dz_stride, x_stride[inputs];  // numbers from one row to the next
    int32_t rows, width;
    int64_t step;                         // numbers of x from one column to the next
};

template <typename T>
void tile_products(const TileRows<T>& tile, LaneSums<Value<T>> (*sums)[inputs]) {
    using V = Vector<T>;
    for (int r = 0; r < V::count; ++r) {
        typename V::Register products[outputs][inputs];
        for (int o = 0; o < outputs; ++o) {
            for (int i = 0; i < inputs; ++i) products[o][i] = V::zero();
        }
        for (int32_t row = 0; row < tile.rows; ++row) {
            const T *dz[outputs], *x[inputs];
            for (int o = 0; o < outputs; ++o) dz[o] = tile.dz[o] + row * tile.dz_stride + r * V::width;
            for (int i = 0; i < inputs; ++i) x[i] = tile.x[i] + row * tile.x_stride[i] + r * V::width;
            for (int32_t column = 0; column < tile.width; ++column) {
                const int64_t at = int64_t(column) * lanes, from = column * tile.step;
                typename V::Register left[outputs];
                for (int o = 0; o < outputs; ++o) left[o] = V::load(dz[o] + at);
                for (int i = 0; i < inputs; ++i) {
                    const auto right = V::load(x[i] + from);
                    for (int o = 0; o < outputs; ++o) products[o][i] = fma(right, left[o], products[o][i]);
                }
            }
        }
        for (int o = 0; o < outputs; ++o) {
            for (int i = 0; i < inputs; ++i) sums[o][i].part[r] = products[o][i];
        }
    }
}

// The same for the three columns of a kernel row: x stays in registers from one column to the next.
template <typename T>
void near_products(const TileRows<T>& tile, LaneSums<Value<T>> (*sums)[near_inputs][3]) {
    using V = Vector<T>;
    for (int r = 0; r < V::count; ++r) {
        typename V::Register products[near_outputs][near_inputs][3];
        for (auto& of_output : products) {
            for (auto& of_input : of_output) {
                for (auto& product : of_input) product = V::zero();
            }
        }
        for (int32_t row = 0; row < tile.rows; ++row) {
            const T *dz[near_outputs], *x[near_inputs];
            for (int o = 0; o < near_outputs; ++o) dz[o] = tile.dz[o] + row * tile.dz_stride + r * V::width;
            for (int i = 0; i < near_inputs; ++i) x[i] = tile.x[i] + row * tile.x_stride[i] + r * V::width;
            typename V::Register before[near_inputs], here[near_inputs], after[near_inputs];
            for (int i = 0; i < near_inputs; ++i) {
                before[i] = after[i] = V::zero();
                here[i] = V::load(x[i]);
            }
            const auto add_column = [&](int32_t column, bool is_first, bool is_last) __attribute__((always_inline)) {
                const int64_t at = int64_t(column) * lanes;
                for (int i = 0; i < near_inputs && !is_last; ++i) after[i] = V::load(x[i] + at + lanes);
                for (int o = 0; o < near_outputs; ++o) {
                    auto left = V::load(dz[o] + at);
                    hold(left);
                    for (int i = 0; i < near_inputs; ++i) {
                        if (!is_first) products[o][i][0] = fma(before[i], left, products[o][i][0]);
                        products[o][i][1] = fma(here[i], left, products[o][i][1]);
                        if (!is_last) products[o][i][2] = fma(after[i], left, products[o][i][2]);
                    }
                }
                for (int i = 0; i < near_inputs; ++i) {
                    before[i] = here[i];
                    here[i] = after[i];
                }
            };
            add_column(0, true, tile.width == 1);
            for (int32_t column = 1; column < tile.width - 1; ++column) add_column(column, false, false);
            if (tile.width > 1) add_column(tile.width - 1, false, true);
        }
        for (int o = 0; o < near_outputs; ++o) {
            for (int i = 0; i < near_inputs; ++i) {
                for (int k = 0; k < 3; ++k) sums[o][i][k].part[r] = products[o][i][k];
            }
        }
    }
}

// The gradients of some of the output channels that have any. What is computed is between channels that are not zero.
template <typename T>
class Block {
  public:
    Block(const DenseGradient<T>& call, const NonzeroChannels& of_x, const NonzeroChannels& of_dz, int32_t begin, int32_t end)
        : c_(call),
          of_x_(of_x),
          of_dz_(of_dz),
          begin_(begin),
          end_(end),
          taps_(call.geometry.kernel * call.geometry.kernel),
          is_near_(call.geometry.kernel == 3 && call.geometry.stride == 1 && call.geometry.padding == 1),
          sums_(scratch<double, 0>(int64_t(end - begin) * of_x.count() * taps_)),
          lines_(scratch<T, 1>(inputs * call.geometry.in_row())) {
        fill(sums_, 0.0, int64_t(end - begin) * of_x.count() * taps_);
    }

    void add(const Segment& segment) {
        for (int32_t input = 0; input < of_x_.count(); input += inputs) {
            find_inputs(segment, input);
            if (is_near_) {
                for (int32_t i = 0; i < inputs && input + i < of_x_.count(); i += near_inputs) {
                    for (int32_t output = begin_; output < end_; output += near_outputs) {
                        for (int32_t row = 0; row < 3; ++row) add_kernel_row(segment, output, input, i, row);
                    }
                }
                continue;
            }
            for (int32_t output = begin_; output < end_; output += outputs) {
                for (int32_t tap = 0; tap < taps_; ++tap) add_tile(segment, output, input, tap);
            }
        }
    }

    void write() const {
        for (int32_t output = begin_; output < end_; ++output) {
            Value<T>* to = c_.gradient + int64_t(of_dz_[output]) * c_.geometry.in_channels * taps_;
            for (int32_t channel = 0; channel < c_.geometry.in_channels; ++channel) {
                const int64_t input = of_x_.place_of(channel), row = int64_t(output - begin_) * of_x_.count();
                for (int32_t tap = 0; tap < taps_; ++tap) {
                    *to++ = input < 0 ? Value<T>(0) : Value<T>(sums_[(row + input) * taps_ + tap]);
                }
            }
        }
    }

  private:
    // Where rows of the image planes of some input channels are; a constant channel has one row for all of them.
    void find_inputs(const Segment& segment, int32_t input) {
        const Geometry& g = c_.geometry;
        for (int32_t i = 0; i < inputs; ++i) {
            const int32_t channel = of_x_[std::min(input + i, of_x_.count() - 1)];
            if (c_.x.is_stored(channel)) {
                x_[i] = c_.x.data + channel * g.in_plane() + segment.group * g.in_image();
                x_stride_[i] = g.in_row();
            } else {
                T* line = lines_ + i * g.in_row();
                fill(line, kept_as<T>(c_.x.constants[channel]), g.in_row());
                x_[i] = line;
                x_stride_[i] = 0;
            }
        }
    }

    void add_tile(const Segment& segment, int32_t output, int32_t input, int32_t tap) {
        const Geometry& g = c_.geometry;
        const int32_t row_offset = tap / g.kernel - g.padding, column_offset = tap % g.kernel - g.padding;
        const Span columns = valid_outputs(g.out_width, g.in_width, g.stride, column_offset);
        const Span valid = valid_outputs(g.out_height, g.in_height, g.stride, row_offset);
        const int32_t begin = std::max(valid.begin, segment.row_begin), end = std::min(valid.end, segment.row_end);
        if (begin >= end || columns.begin >= columns.end) return;
        TileRows<T> tile;
        tile.rows = end - begin;
        tile.width = columns.end - columns.begin;
        tile.step = g.stride * lanes;
        tile.dz_stride = g.out_row();
        for (int32_t o = 0; o < outputs; ++o) {
            const int32_t channel = of_dz_[std::min(output + o, end_ - 1)];
            tile.dz[o] = c_.dz + channel * g.out_plane() + segment.group * g.out_image() + begin * g.out_row() +
                         columns.begin * lanes;
        }
        for (int32_t i = 0; i < inputs; ++i) {
            tile.x[i] = x_[i] + (begin * g.stride + row_offset) * x_stride_[i] +
                        (columns.begin * g.stride + column_offset) * lanes;
            tile.x_stride[i] = g.stride * x_stride_[i];
        }
        LaneSums<Value<T>> products[outputs][inputs];
        tile_products(tile, products);
        const int32_t images = g.images(segment.group);
        for (int32_t o = 0; o < std::min(outputs, end_ - output); ++o) {
            double* to = sums_ + (int64_t(output - begin_ + o) * of_x_.count() + input) * taps_ + tap;
            for (int32_t i = 0; i < std::min(inputs, of_x_.count() - input); ++i) to[i * taps_] += products[o][i].total(images);
        }
    }

    // Of the input channels that have been found, those from the place `first` on.
    void add_kernel_row(const Segment& segment, int32_t output, int32_t input, int32_t first, int32_t kernel_row) {
        const Geometry& g = c_.geometry;
        const int32_t offset = kernel_row - 1;
        const int32_t begin = std::max(segment.row_begin, -offset), end = std::min(segment.row_end, g.in_height - offset);
        if (begin >= end) return;
        TileRows<T> tile;
        tile.rows = end - begin;
        tile.width = g.out_width;
        tile.dz_stride = g.out_row();
        for (int32_t o = 0; o < near_outputs; ++o) {
            const int32_t channel = of_dz_[std::min(output + o, end_ - 1)];
            tile.dz[o] = c_.dz + channel * g.out_plane() + segment.group * g.out_image() + begin * g.out_row();
        }
        for (int32_t i = 0; i < near_inputs; ++i) {
            tile.x[i] = x_[first + i] + (begin + offset) * x_stride_[first + i];
            tile.x_stride[i] = x_stride_[first + i];
        }
        LaneSums<Value<T>> products[near_outputs][near_inputs][3];
        near_products(tile, products);
        const int32_t images = g.images(segment.group), found = of_x_.count() - input - first;
        for (int32_t o = 0; o < std::min(near_outputs, end_ - output); ++o) {
            double* to = sums_ + (int64_t(output - begin_ + o) * of_x_.count() + input + first) * taps_ + 3 * kernel_row;
            for (int32_t i = 0; i < std::min(near_inputs, found); ++i) {
                for (int32_t k = 0; k < 3; ++k) to[i * taps_ + k] += products[o][i][k].total(images);
            }
        }
    }

    const DenseGradient<T>& c_;
    const NonzeroChannels &of_x_, &of_dz_;
    const int32_t begin_, end_, taps_;  // places of output channels
    const bool is_near_;
    double* sums_;  // [outputs of the block, inputs, taps]
    T* lines_;
    const T* x_[inputs];
    int64_t x_stride_[inputs];
};

template <typename T>
void dense_gradient(const DenseGradient<T>& c) {
    const Geometry& g = c.geometry;
    const Segments segments = out_segments(g);
    const NonzeroChannels of_x(g.in_channels, [&](int64_t channel) {
        return c.x.is_stored(channel) ? are_zero(c.x.data + channel * g.in_plane(), g.in_numbers()) : c.x.constants[channel] == 0;
    });
    const NonzeroChannels of_dz(
        g.out_channels, [&](int64_t channel) { return are_zero(c.dz + channel * g.out_plane(), g.out_numbers()); });
    const int64_t row = int64_t(g.in_channels) * g.kernel * g.kernel;
    // What the sums of a block take, and at least two blocks for each of some threads.
    const int64_t fitting = most_sums / std::max<int64_t>(int64_t(of_x.count()) * g.kernel * g.kernel, 1);
    const int32_t size = int32_t(std::clamp<int64_t>(fitting / outputs_together, 1, 2)) * outputs_together;
    const int32_t blocks = (of_dz.count() + size - 1) / size;
    in_parallel([&](const Thread& thread) {
        thread.share(blocks, [&](int64_t task) {
            const int32_t index = int32_t(task);
            Block<T> block(c, of_x, of_dz, index * size, std::min((index + 1) * size, of_dz.count()));
            for (int32_t k = 0; k < segments.count(); ++k) block.add(segments[k]);
            block.write();
        });
        thread.share(g.out_channels, [&](int64_t channel) {
            if (of_dz.place_of(int32_t(channel)) < 0) fill(c.gradient + channel * row, Value<T>(0), row);
        });
    });
}

}  // namespace
}  // namespace east

EAST_KERNEL(dense_gradient, DenseGradient, dense_gradient)
