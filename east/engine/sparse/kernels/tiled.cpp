// Convolutions of tensors with many non-zeros per channel, from packed rows.
#ifdef _OPENMP
#include <omp.h>
#endif

#include <utility>

#include "packing.h"

namespace east {
namespace {

int32_t threads() {
#ifdef _OPENMP
    return omp_get_max_threads();
#else
    return 1;
#endif
}

// Vectors in a line.
template <typename T>
constexpr int32_t parts = strip<T> / Vector<T>::lanes;

// Columns that are summed at once, so that sums and a factor fit the registers.
template <typename T>
constexpr int32_t columns_at_once = EAST_VECTOR_BYTES == 64 ? 16 : 12 / parts<T>;

// Puts streamed numbers where other threads see them.
inline void finish_streams() {
#ifdef __AVX__
    _mm_sfence();
#endif
}

// Where sums go: a line every `step` numbers.
template <typename T>
struct Target {
    T* to;
    int64_t step;
    int32_t images;
    bool accumulate;

    // Whether lines may be stored past the caches, which are full of what is read again.
    bool streams() const {
        return (reinterpret_cast<uintptr_t>(to) | uintptr_t(step * sizeof(T))) % EAST_VECTOR_BYTES == 0;
    }
};

// to = sum over non-zeros, for columns side by side.
template <int columns, typename T>
void sum_columns(const Place* place, const Place* end, const T* value, const T* const* rows, int64_t shift,
                 const Target<T>& target) {
    using V = Vector<T>;
    constexpr int registers = columns * parts<T>;
    typename V::Register sums[registers];
#pragma GCC unroll 16
    for (int r = 0; r < registers; ++r) sums[r] = V::zero();
    for (; place != end; ++place, ++value) {
        const T* from = rows[place->row] + place->at + shift;
        const auto factor = V::all(*value);
#pragma GCC unroll 16
        for (int r = 0; r < registers; ++r) sums[r] += factor * V::load(from + r * V::lanes);
    }
    const auto at = [&target](int r) { return target.to + r / parts<T> * target.step + r % parts<T> * V::lanes; };
    if (target.images < strip<T>) {
        T lines[registers * V::lanes];
#pragma GCC unroll 16
        for (int r = 0; r < registers; ++r) V::store(lines + r * V::lanes, sums[r]);
        for (int c = 0; c < columns; ++c) {
            T* to = target.to + c * target.step;
            for (int32_t k = 0; k < target.images; ++k) to[k] = lines[c * strip<T> + k] + (target.accumulate ? to[k] : T(0));
        }
    } else if (target.accumulate) {
#pragma GCC unroll 16
        for (int r = 0; r < registers; ++r) V::store(at(r), V::load(at(r)) + sums[r]);
    } else if (target.streams()) {
#pragma GCC unroll 16
        for (int r = 0; r < registers; ++r) V::stream(at(r), sums[r]);
    } else {
#pragma GCC unroll 16
        for (int r = 0; r < registers; ++r) V::store(at(r), sums[r]);
    }
}

template <typename T>
using SumColumns = void (*)(const Place*, const Place*, const T*, const T* const*, int64_t, const Target<T>&);

template <typename T, int... before>
SumColumns<T> sum_columns_of(int32_t count, std::integer_sequence<int, before...>) {
    static constexpr SumColumns<T> functions[] = {sum_columns<before + 1, T>...};
    return functions[count - 1];
}

// What a convolution works with, transposed or not.
template <typename T>
struct Pass {
    const Packing<T>& packing;
    const Places<T>& places;
    const T* values;  // in the order of places
    T* to;
    bool accumulate;
    bool leave_empty;  // planes without non-zeros are not written
};

// One row of a task, for the groups [begin, end).
template <typename T>
void sum_row(const Pass<T>& pass, const Task& task, int32_t row, const T* const* found, int32_t begin, int32_t end) {
    const Packing<T>& packing = pass.packing;
    const Axis& axis = packing.columns;
    int32_t low = packing.rows.kernel, high = 0;
    for (int32_t tap = 0; tap < packing.rows.kernel; ++tap) {
        if (found[tap] == nullptr) continue;
        low = std::min(low, pass.places.rank(tap));
        high = std::max(high, pass.places.rank(tap) + 1);
    }
    high = std::max(low, high);
    for (int32_t group = begin; group < end; ++group) {
        if (pass.leave_empty && is_empty(packing.lists, group)) continue;
        for (int32_t of_class = 0; of_class < axis.classes(); ++of_class) {
            const int32_t width = std::min(packing.width, axis.outputs_of(of_class) - task.column);
            const int32_t first = pass.places.start(group, of_class, low), last = pass.places.start(group, of_class, high);
            if (width <= 0 || (first == last && pass.accumulate)) continue;
            const int32_t at_once = ceil_div(width, ceil_div(width, columns_at_once<T>));
            for (int32_t column = 0; column < width; column += at_once) {
                const int32_t of_plane = (task.column + column) * axis.classes() + of_class;
                T* to = pass.to + group * packing.output_plane() + (int64_t(row) * axis.outputs + of_plane) * packing.batch;
                const Target<T> target{to + task.image, axis.classes() * packing.batch, task.images, pass.accumulate};
                const auto sum = sum_columns_of<T>(std::min(at_once, width - column),
                                                   std::make_integer_sequence<int, columns_at_once<T>>());
                sum(pass.places.place(first), pass.places.place(last), pass.values + first, found, column * strip<T>,
                    target);
            }
        }
    }
}

// Where a kernel reads one position only, positions and images alike are columns.
template <typename T>
Geometry flat(const Geometry& geometry) {
    Geometry g = geometry;
    if (g.kernel > 1 || g.stride > 1) return g;
    g.in_width = g.out_width = g.in_height * g.in_width;
    g.in_height = g.out_height = 1;
    if (g.in_plane() % strip<T> == 0) {
        g.in_width = g.out_width = int32_t(g.in_plane() / strip<T>);
        g.batch = strip<T>;
    }
    return g;
}

// How many threads share a part of the work, each for some of the channels, where there are fewer parts than threads.
template <typename T>
int32_t shares(const Packing<T>& packing) {
    return std::clamp(threads() / packing.tasks(), 1, packing.groups);
}

struct Share {
    int32_t part, begin, end;

    Share(int32_t index, int32_t shares, int32_t groups) : part(index / shares) {
        begin = int32_t(int64_t(index % shares) * groups / shares);
        end = int32_t((int64_t(index % shares) + 1) * groups / shares);
    }
};

// Both convolutions: to = what the non-zeros of its channels read, times their values.
template <typename T>
void gather(const Geometry& geometry, const Lists& lists, bool transposed, const T* values, const T* x, T* to,
            bool accumulate, bool leave_empty) {
    // The division into tasks has no influence on the sums.
    const Packing<T> packing(flat<T>(geometry), lists, transposed, 1, threads() > 1 ? 4 * threads() : 1, 4);
    const int32_t parallel = shares(packing);
    Places<T> places(packing);
    T* ordered = scratch<T, 1>(places.count());
    const Pass<T> pass{packing, places, ordered, to, accumulate, leave_empty};
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int32_t group = 0; group < packing.groups; ++group) {
            places.order(group);
            for (int32_t j = lists.start[group]; j < lists.start[group + 1]; ++j) ordered[j] = values[places.value(j)];
        }
        PackedRows<T> packed(packing);
#pragma omp for schedule(dynamic, 1)
        for (int32_t index = 0; index < packing.tasks() * parallel; ++index) {
            const Share share(index, parallel, packing.groups);
            const Task task(packing, share.part);
            packed.begin(task);
            for (int32_t row = task.row_begin; row < task.row_end; ++row) {
                const T* found[most_kernel];
                packed.find(x, row, found);
                sum_row(pass, task, row, found, share.begin, share.end);
            }
            finish_streams();
        }
    }
}

template <typename T>
struct Convolve {
    Geometry geometry;
    Lists by_output;
    const T* values;
    const T* x;
    T* z;  // planes of output channels without non-zeros are left as they are
};

template <typename T>
struct InputGradient {
    Geometry geometry;
    Lists by_input;
    const T* values;
    const T* dz;  // planes of output channels without non-zeros are not read
    T* to;
    int32_t accumulate;  // added to `to`
};

template <typename T>
struct WeightGradient {
    Geometry geometry;
    Lists by_output;
    const T* x;
    const T* dz;  // planes of output channels without non-zeros are not read
    T* gradient;  // in the order of the vector of values
};

// A weight gradient is summed in at most so many parts, whatever the number of threads.
constexpr int32_t most_parts = 16;
// Products are summed over so many columns, from so many rows, before the lanes of a vector are.
constexpr int32_t most_height = 16;

template <typename T, int bytes = EAST_VECTOR_BYTES>
inline T sum_lanes(const T* lanes) {
    typedef T Half __attribute__((vector_size(bytes / 2), aligned(sizeof(T)), may_alias));
    const Half sum = *reinterpret_cast<const Half*>(lanes) + *reinterpret_cast<const Half*>(lanes + bytes / 2 / sizeof(T));
    if constexpr (bytes > 16) {
        T half[bytes / 2 / sizeof(T)];
        std::memcpy(half, &sum, sizeof(sum));
        return sum_lanes<T, bytes / 2>(half);
    } else if constexpr (sizeof(T) == 4) {
        return sum[0] + sum[1];
    } else {
        return sum[0];
    }
}

// Rows of x and of dz whose products are summed.
template <typename T>
struct Pairs {
    const T *x[most_height], *dz[most_height];
    int32_t count = 0;
};

// sums[j] += sum of x, read from where non-zero j reads, times dz
template <typename T>
void add_products(const Place* place, const Pairs<T>& rows, int32_t width, double* sums, int32_t count) {
    using V = Vector<T>;
    const int64_t numbers = width * strip<T>;
    for (int32_t j = 0; j < count; ++j) {
        auto a = V::zero(), b = V::zero(), c = V::zero(), d = V::zero();
        for (int32_t row = 0; row < rows.count; ++row) {
            const T *x = rows.x[row] + place[j].at, *dz = rows.dz[row];
            int64_t k = 0;
            for (; k + 4 * V::lanes <= numbers; k += 4 * V::lanes) {
                a += V::load(x + k) * V::load(dz + k);
                b += V::load(x + k + V::lanes) * V::load(dz + k + V::lanes);
                c += V::load(x + k + 2 * V::lanes) * V::load(dz + k + 2 * V::lanes);
                d += V::load(x + k + 3 * V::lanes) * V::load(dz + k + 3 * V::lanes);
            }
            for (; k < numbers; k += V::lanes) a += V::load(x + k) * V::load(dz + k);
        }
        T lanes[V::lanes];
        V::store(lanes, (a + b) + (c + d));
        sums[j] += sum_lanes(lanes);
    }
}

// A weight gradient, and how its work is divided.
template <typename T>
struct WeightPass {
    const Geometry& geometry;  // with what is alike made columns
    const WeightGradient<T>& call;
    const Packing<T>& packing;
    const Places<T>& places;
    int32_t height;  // rows whose products are summed at once
};

// Adds the products of some rows of a task for one output channel.
template <typename T>
void add_rows(const WeightPass<T>& pass, const T* const (*found)[most_kernel], const T* packed_dz, int32_t height,
              int32_t width, int32_t channel, double* sums) {
    for (int32_t tap = 0; tap < pass.geometry.kernel; ++tap) {
        Pairs<T> rows;
        for (int32_t row = 0; row < height; ++row) {
            if (found[row][tap] == nullptr) continue;
            rows.x[rows.count] = found[row][tap];
            rows.dz[rows.count++] = packed_dz + row * width * strip<T>;
        }
        const int32_t first = pass.places.start(channel, 0, tap), last = pass.places.start(channel, 0, tap + 1);
        if (rows.count > 0) add_products(pass.places.place(first), rows, width, sums + first, last - first);
    }
}

// Adds the products of a task for the output channels [begin, end).
template <typename T>
void add_task(const WeightPass<T>& pass, const Task& task, PackedRows<T>& packed, int32_t begin, int32_t end, double* sums) {
    const Geometry& g = pass.geometry;
    const int32_t width = std::min(pass.packing.width, g.out_width - task.column);
    T* packed_dz = scratch<T, 1>(pass.height * width * strip<T>);
    packed.begin(task);
    for (int32_t row = task.row_begin; row < task.row_end; row += pass.height) {
        const int32_t height = std::min(pass.height, task.row_end - row);
        const T* found[most_height][most_kernel];
        for (int32_t k = 0; k < height; ++k) packed.find(pass.call.x, row + k, found[k]);
        for (int32_t channel = begin; channel < end; ++channel) {
            if (is_empty(pass.call.by_output, channel)) continue;
            const int32_t next = std::min(channel + channels_ahead(height * width), g.out_channels - 1);
            const T* dz = pass.call.dz + channel * g.out_plane() + task.image;
            for (int32_t k = 0; k < height; ++k) {
                pack_lines(packed_dz + k * width * strip<T>, dz + (int64_t(row + k) * g.out_width + task.column) * g.batch,
                           width, g.batch, task.images, (next - channel) * g.out_plane());
            }
            add_rows(pass, found, packed_dz, height, width, channel, sums);
        }
    }
}

template <typename T>
void weight_gradient(const WeightGradient<T>& call) {
    const Geometry g = flat<T>(call.geometry);
    const int32_t height = std::clamp(most_height / g.out_width, 1, g.out_height);
    const Packing<T> packing(g, call.by_output, false, height, most_parts, most_height);
    const int32_t count_of_parts = std::min(most_parts, packing.tasks()), parallel = shares(packing);
    Places<T> places(packing);
    const WeightPass<T> pass{g, call, packing, places, height};
    const int64_t count = places.count();
    double* sums = scratch<double, 2>(count_of_parts * count);
#pragma omp parallel
    {
#pragma omp for schedule(static)
        for (int32_t channel = 0; channel < g.out_channels; ++channel) places.order(channel);
        PackedRows<T> packed(packing);
#pragma omp for schedule(dynamic, 1)
        for (int32_t index = 0; index < count_of_parts * parallel; ++index) {
            const Share share(index, parallel, g.out_channels);
            double* of_part = sums + share.part * count;
            const int32_t first = call.by_output.start[share.begin];
            fill(of_part + first, 0.0, call.by_output.start[share.end] - first);
            const int64_t tasks = packing.tasks();
            const int32_t end = int32_t((share.part + 1) * tasks / count_of_parts);
            for (int32_t task = int32_t(share.part * tasks / count_of_parts); task < end; ++task) {
                add_task(pass, Task(packing, task), packed, share.begin, share.end, of_part);
            }
        }
#pragma omp for schedule(static)
        for (int64_t j = 0; j < count; ++j) {
            double sum = 0;
            for (int32_t part = 0; part < count_of_parts; ++part) sum += sums[part * count + j];
            call.gradient[places.value(int32_t(j))] = T(sum);
        }
    }
}

template <typename T>
void convolve(const Convolve<T>& c) {
    gather(c.geometry, c.by_output, false, c.values, c.x, c.z, false, true);
}

template <typename T>
void input_gradient(const InputGradient<T>& c) {
    gather(c.geometry, c.by_input, true, c.values, c.dz, c.to, c.accumulate != 0, false);
}

}  // namespace
}  // namespace east

extern "C" {
void east_convolve_f32(const east::Convolve<float>* call) { east::convolve(*call); }
void east_convolve_f64(const east::Convolve<double>* call) { east::convolve(*call); }
void east_input_gradient_f32(const east::InputGradient<float>* call) { east::input_gradient(*call); }
void east_input_gradient_f64(const east::InputGradient<double>* call) { east::input_gradient(*call); }
void east_weight_gradient_f32(const east::WeightGradient<float>* call) { east::weight_gradient(*call); }
void east_weight_gradient_f64(const east::WeightGradient<double>* call) { east::weight_gradient(*call); }
}
