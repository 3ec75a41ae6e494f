// Convolutions of tensors with many non-zeros per channel, row by row: the rows that one output row needs stay in the cache
// while all channels are summed from them.

#include <utility>
#include <vector>

#include "shifted.h"

namespace east {
namespace {

// Columns that are summed at once, so that the sums fit the registers.
template <typename T>
constexpr int32_t columns_at_once = (EAST_VECTOR_BYTES == 64 ? 16 : 12) / Vector<T>::count < 1
                                        ? 1
                                        : (EAST_VECTOR_BYTES == 64 ? 16 : 12) / Vector<T>::count;

constexpr int32_t most_taps = 49;
constexpr int32_t channels_of_task = 64, rows_of_task = 8;

// A convolution seen from its outputs, or transposed from its inputs, which are the outputs then.
struct Axes {
    int32_t source_height, source_width, height, width, kernel, stride, padding;
    bool transposed;

    Axes(const Geometry& g, bool transposed)
        : source_height(transposed ? g.out_height : g.in_height),
          source_width(transposed ? g.out_width : g.in_width),
          height(transposed ? g.in_height : g.out_height),
          width(transposed ? g.in_width : g.out_width),
          kernel(g.kernel),
          stride(g.stride),
          padding(g.padding),
          transposed(transposed) {}

    // Columns of a class have the same remainder, so that the same kernel columns reach them.
    int32_t classes() const { return transposed ? stride : 1; }
    int32_t columns_of(int32_t of_class) const { return (width - of_class + classes() - 1) / classes(); }
    int32_t step() const { return transposed ? 1 : stride; }

    // The source row of an output row, negative where there is none.
    int32_t source_row(int32_t row, int32_t kernel_row) const {
        const int32_t at = transposed ? row + padding - kernel_row : row * stride + kernel_row - padding;
        if (transposed && (at < 0 || at % stride != 0)) return -1;
        const int32_t found = transposed ? at / stride : at;
        return found < source_height ? found : -1;
    }
    // Whether a kernel column reaches a class, and the source column of its column `index`, which may lie outside.
    bool reaches(int32_t of_class, int32_t kernel_column) const {
        return !transposed || (of_class + padding - kernel_column + kernel * stride) % stride == 0;
    }
    int32_t source_column(int32_t of_class, int32_t index, int32_t kernel_column) const {
        return transposed ? index + (of_class + padding - kernel_column) / stride : index * stride + kernel_column - padding;
    }
};

// Where a kernel position reads for some neighbouring columns of one row.
struct Tap {
    int64_t offset;      // of the first of them in the image plane, in numbers; it may lie outside
    int32_t begin, end;  // the columns among them that lie inside
    bool nearly_whole;   // no more than one at either end does not
};

template <typename T>
struct Tile {
    Tap taps[most_taps];
    const T* zeros;       // a group of zeros
    const T* image;       // sources of a group, of channel 0
    int64_t plane;        // numbers from one channel to the next
    int64_t step;         // numbers from the source of one column to the next
    T* to;
    int64_t to_step;
    bool accumulate, streamed;
};

// One channel: to = sum over its non-zeros in ascending order, for columns side by side.
template <int columns, typename T>
void sum_columns(const Lists& lists, const Value<T>* values, int32_t channel, const Tile<T>& tile, T* to) {
    using V = Vector<T>;
    typename V::Register sums[columns][V::count];
    for (int c = 0; c < columns; ++c) {
        for (int r = 0; r < V::count; ++r) {
            sums[c][r] = tile.accumulate ? V::load(to + c * tile.to_step + r * V::width) : V::zero();
        }
    }
    for (int32_t j = lists.start[channel]; j < lists.start[channel + 1]; ++j) {
        const Tap& tap = tile.taps[lists.tap[j]];
        if (tap.begin >= tap.end) continue;
        const T* from = tile.image + lists.channel[j] * tile.plane + tap.offset;
        const auto factor = V::all(values[lists.value[j]]);
        if (tap.nearly_whole) {
            const T* first = tap.begin == 0 ? from : tile.zeros;
            const T* last = tap.end == columns ? from + (columns - 1) * tile.step : tile.zeros;
            for (int c = 0; c < columns; ++c) {
                const T* at = c == 0 ? first : (c == columns - 1 ? last : from + c * tile.step);
                for (int r = 0; r < V::count; ++r) sums[c][r] = fma(factor, V::load(at + r * V::width), sums[c][r]);
            }
            continue;
        }
        for (int c = 0; c < columns; ++c) {
            const bool inside = c >= tap.begin && c < tap.end;
            const T* at = inside ? from + c * tile.step : tile.zeros;
            for (int r = 0; r < V::count; ++r) sums[c][r] = fma(factor, V::load(at + r * V::width), sums[c][r]);
        }
    }
    for (int c = 0; c < columns; ++c) {
        for (int r = 0; r < V::count; ++r) {
            T* at = to + c * tile.to_step + r * V::width;
            tile.streamed ? V::stream(at, sums[c][r]) : V::store(at, sums[c][r]);
        }
    }
}

template <typename T>
using SumColumns = void (*)(const Lists&, const Value<T>*, int32_t, const Tile<T>&, T*);

template <typename T, int... before>
SumColumns<T> sum_columns_of(int32_t count, std::integer_sequence<int, before...>) {
    static constexpr SumColumns<T> functions[] = {sum_columns<before + 1, T>...};
    return functions[count - 1];
}

// What a convolution works with, transposed or not.
template <typename T>
struct Pass {
    Axes axes;
    Lists lists;
    const Value<T>* values;
    const T* x;
    T* to;
    int32_t channels, source_channels, groups;
    bool accumulate;
    bool leave_empty;  // planes without non-zeros are not written
};

// Asks for the source rows that the next row needs and this one does not, a few lines at a time.
template <typename T>
class Ahead {
  public:
    Ahead(const Pass<T>& pass, int32_t group, int32_t row, int32_t steps) {
        const Axes& axes = pass.axes;
        const int64_t line = 64 / sizeof(T), source_row = int64_t(axes.source_width) * lanes;
        const int32_t have = last_row(axes, row), want = row + 1 < axes.height ? last_row(axes, row + 1) : -1;
        lines_ = want > have ? int32_t(source_row / line) : 0;
        plane_ = plane_stride(pass.groups, axes.source_height, axes.source_width);
        at_ = pass.x + (int64_t(group) * axes.source_height + std::max(want, 0)) * source_row;
        left_ = int64_t(lines_) * pass.source_channels;
        at_once_ = (left_ + steps - 1) / std::max(steps, 1);
    }
    void step() {
        for (int64_t k = std::min(at_once_, left_); k > 0; --k, --left_) {
            __builtin_prefetch(at_ + line_ * int64_t(64 / sizeof(T)), 0, 2);
            if (++line_ < lines_) continue;
            line_ = 0;
            at_ += plane_;
        }
    }

  private:
    static int32_t last_row(const Axes& axes, int32_t row) {
        int32_t last = -1;
        for (int32_t k = 0; k < axes.kernel; ++k) last = std::max(last, axes.source_row(row, k));
        return last;
    }
    const T* at_;
    int64_t plane_, left_, at_once_;
    int32_t lines_, line_ = 0;
};

// One row of one group, for the channels [begin, end).
template <typename T>
void sum_row(const Pass<T>& pass, int32_t group, int32_t row, int32_t begin, int32_t end, const T* zeros) {
    const Axes& axes = pass.axes;
    const int64_t source_image = int64_t(axes.source_height) * axes.source_width * lanes;
    const int64_t image = int64_t(axes.height) * axes.width * lanes;
    const int64_t plane = plane_stride(pass.groups, axes.height, axes.width);
    Tile<T> tile;
    tile.zeros = zeros;
    tile.image = pass.x + group * source_image;
    tile.plane = plane_stride(pass.groups, axes.source_height, axes.source_width);
    tile.step = axes.step() * lanes;
    tile.to_step = axes.classes() * lanes;
    tile.accumulate = pass.accumulate;
    tile.streamed = !pass.accumulate && is_aligned(pass.to);
    Ahead<T> ahead(pass, group, row, (end - begin) * ((axes.width + columns_at_once<T> - 1) / columns_at_once<T>));
    for (int32_t of_class = 0; of_class < axes.classes(); ++of_class) {
        const int32_t all = axes.columns_of(of_class);
        if (all <= 0) continue;
        const int32_t tiles = (all + columns_at_once<T> - 1) / columns_at_once<T>, most = (all + tiles - 1) / tiles;
        for (int32_t first = 0; first < all; first += most) {
            const int32_t columns = std::min(most, all - first);
            for (int32_t tap = 0; tap < axes.kernel * axes.kernel; ++tap) {
                const int32_t source_row = axes.source_row(row, tap / axes.kernel), kernel_column = tap % axes.kernel;
                Tap& found = tile.taps[tap];
                found = {0, 0, 0, false};
                if (source_row < 0 || !axes.reaches(of_class, kernel_column)) continue;
                const int32_t column = axes.source_column(of_class, first, kernel_column), step = axes.step();
                found.offset = (int64_t(source_row) * axes.source_width + column) * lanes;
                found.begin = column >= 0 ? 0 : (-column + step - 1) / step;
                const int32_t last = axes.source_width - 1 - column;
                found.end = last < 0 ? 0 : std::min(columns, last / step + 1);
                found.nearly_whole = columns > 1 && found.begin <= 1 && found.end >= columns - 1;
            }
            T* to = pass.to + group * image + (int64_t(row) * axes.width + first * axes.classes() + of_class) * lanes;
            const auto sum = sum_columns_of<T>(columns, std::make_integer_sequence<int, columns_at_once<T>>());
            for (int32_t channel = begin; channel < end; ++channel) {
                ahead.step();
                if (pass.lists.count(channel) == 0 && (pass.leave_empty || pass.accumulate)) continue;
                sum(pass.lists, pass.values, channel, tile, to + channel * plane);
            }
        }
    }
}

template <typename T>
void sum_rows(const Pass<T>& pass) {
    const int32_t blocks = (pass.channels + channels_of_task - 1) / channels_of_task;
    const int32_t chunks = (pass.axes.height + rows_of_task - 1) / rows_of_task;
    const int32_t tasks = pass.groups * chunks * blocks;
    in_parallel([&](const Thread& thread) {
        alignas(64) const T zeros[lanes] = {};
        thread.share(tasks, [&](int64_t index) {
            const int32_t task = int32_t(index);
            const int32_t begin = task % blocks * channels_of_task, chunk = task / blocks;
            const int32_t end = std::min(begin + channels_of_task, pass.channels);
            const int32_t first = chunk % chunks * rows_of_task, last = std::min(first + rows_of_task, pass.axes.height);
            for (int32_t row = first; row < last; ++row) sum_row(pass, chunk / chunks, row, begin, end, zeros);
        });
        finish_streaming();
    });
}

template <typename T>
struct Convolve {
    Geometry geometry;
    Lists by_output;
    const Value<T>* values;
    const T* x;
    T* z;  // planes of output channels without non-zeros are left as they are
};

template <typename T>
struct InputGradient {
    Geometry geometry;
    Lists by_input;
    const Value<T>* values;
    const T* dz;  // planes of output channels without non-zeros are not read
    T* to;
    int32_t accumulate;  // added to `to`
};

template <typename T>
struct WeightGradient {
    Geometry geometry;
    Lists by_output;
    Planes<T> x;
    const T* dz;  // planes of output channels without non-zeros are not read
    Value<T>* gradient;  // in the order of the vector of values
    int32_t least;  // channels with fewer non-zeros are left out
    const uint8_t* read;  // output channels that a gradient reaches, the others are left out; null for all
};

template <typename T>
void convolve(const Convolve<T>& c) {
    const Geometry& g = c.geometry;
    sum_rows<T>({Axes(g, false), c.by_output, c.values, c.x, c.z, g.out_channels, g.in_channels, g.groups(), false, true});
}

template <typename T>
void input_gradient(const InputGradient<T>& c) {
    const Geometry& g = c.geometry;
    sum_rows<T>({Axes(g, true), c.by_input, c.values, c.dz, c.to, g.in_channels, g.out_channels, g.groups(), c.accumulate != 0, false});
}

template <typename T>
bool is_left_out(const WeightGradient<T>& c, int32_t channel) {
    return c.by_output.count(channel) < c.least || (c.read != nullptr && !c.read[channel]);
}

template <typename T>
void weight_gradient(const WeightGradient<T>& c) {
    using F = Value<T>;
    const Geometry& g = c.geometry;
    const Segments segments = out_segments(g);
    const int32_t count = c.by_output.start[g.out_channels];
    const int32_t blocks = (g.out_channels + channels_of_task - 1) / channels_of_task;
    F* parts = scratch<F, 0>(int64_t(segments.count()) * count);
    in_parallel([&](const Thread& thread) {
        const Fillers<T> fillers(g.out_row(), at_once);
        thread.share(segments.count() * blocks, [&](int64_t task) {
            const int32_t index = int32_t(task) / blocks, begin = int32_t(task) % blocks * channels_of_task;
            const Segment segment = segments[index];
            const int64_t at = segment.group * g.out_image() + segment.row_begin * g.out_row();
            F* of_segment = parts + int64_t(index) * count;
            for (int32_t channel = begin; channel < std::min(begin + channels_of_task, g.out_channels); ++channel) {
                if (is_left_out(c, channel)) continue;
                const T* dz = c.dz + channel * g.out_plane() + at;
                dot_channel<T>(g, c.by_output, c.x, channel, segment, dz, fillers, [=](int32_t j, F sum) { of_segment[j] = sum; });
            }
        });
        thread.share(g.out_channels, [&](int64_t channel) {
            if (is_left_out(c, int32_t(channel))) return;
            for (int32_t j = c.by_output.start[channel]; j < c.by_output.start[channel + 1]; ++j) {
                double sum = 0;
                for (int32_t index = 0; index < segments.count(); ++index) sum += parts[int64_t(index) * count + j];
                c.gradient[c.by_output.value[j]] = F(sum);
            }
        });
    });
}

}  // namespace
}  // namespace east

EAST_KERNEL(convolve, Convolve, convolve)
EAST_KERNEL(input_gradient, InputGradient, input_gradient)
EAST_KERNEL(weight_gradient, WeightGradient, weight_gradient)
