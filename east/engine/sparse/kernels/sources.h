// One pass over many planes: where a channel of a convolution of stride 1 reads from, line by line.
//
// Reading all planes of a channel in one loop keeps memory busy all the time; plane after plane, it idles in between.
#pragma once

#include <algorithm>

#include "planes.h"
#include "vector.h"

namespace east {

constexpr int32_t most_sources = 3;  // non-zeros of a channel up to which all are read at once

// A plane, moved by a kernel position, times a weight.
template <typename T>
struct Source {
    const T* plane;     // null for a constant
    const T* constant;  // a line of the constant
    int32_t rows, columns;
    T value;
};

// A line of zeros, and lines of constants, that take the place of a plane where it has nothing.
template <typename T>
class Fillers {
  public:
    Fillers(int64_t line, int32_t constants) : line_(line), memory_(scratch<T, 4>(line * (constants + 1))) {
        fill(memory_, T(0), line);
    }
    const T* zeros() const { return memory_; }
    const T* constant(int32_t place, T value) const {
        T* to = memory_ + (place + 1) * line_;
        fill(to, value, line_);
        return to;
    }

  private:
    int64_t line_;
    T* memory_;
};

// Whether a convolution leaves the size of the image as it is and looks no further than one position to each side.
inline bool is_near(const Geometry& g) { return g.stride == 1 && g.kernel <= 3 && g.kernel == 2 * g.padding + 1; }

// Where the sources of one channel lie; at most `most_sources`.
template <typename T>
struct Sources {
    Source<T> items[most_sources + 1];
    int32_t count = 0;

    void add(const T* plane, const T* constant, int32_t rows, int32_t columns, T value) {
        items[count++] = {plane, constant, rows, columns, value};
    }
    bool is_straight() const {
        bool straight = true;
        for (int32_t j = 0; j < count; ++j) straight = straight && items[j].columns == 0;
        return straight;
    }
    // Where each source is read for a span of columns of one row that lies inside the image as a whole or not at all.
    void locate(const Geometry& g, int32_t row, int32_t begin, int32_t end, const T* zeros, const T** at) const {
        for (int32_t j = 0; j < count; ++j) {
            const Source<T>& s = items[j];
            const int32_t from = row + s.rows, first = begin + s.columns, last = end + s.columns;
            const bool inside = from >= 0 && from < g.out_height && first >= 0 && last <= g.out_width;
            if (!inside) {
                at[j] = zeros;
            } else {
                at[j] = s.plane == nullptr ? s.constant : s.plane + (int64_t(from) * g.out_width + first) * g.batch;
            }
        }
    }
};

// Where the non-zeros of an output channel read; there are at most `most_sources`.
template <typename T>
inline Sources<T> sources_of(const Geometry& g, const Lists& by_output, const T* values, const Planes<T>& x, int64_t channel,
                             const Fillers<T>& fillers) {
    Sources<T> from;
    for (int32_t j = by_output.start[channel]; j < by_output.start[channel + 1]; ++j) {
        const int32_t source = by_output.channel[j], tap = by_output.tap[j];
        const bool is_stored = x.is_stored(source);
        const T* line = is_stored ? nullptr : fillers.constant(from.count, x.constants[source]);
        from.add(is_stored ? x.data + source * g.in_plane() : nullptr, line, tap / g.kernel - g.padding,
                 tap % g.kernel - g.padding, values[by_output.value[j]]);
    }
    return from;
}

// Calls `apply(row, begin, end)` for spans of columns: whole rows if `straight`, else the borders by themselves.
template <typename Apply>
inline void for_each_span(const Geometry& g, bool straight, Apply apply) {
    for (int32_t row = 0; row < g.out_height; ++row) {
        if (straight || g.out_width == 1) {
            apply(row, 0, g.out_width);
            continue;
        }
        apply(row, 0, 1);
        if (g.out_width > 2) apply(row, 1, g.out_width - 1);
        apply(row, g.out_width - 1, g.out_width);
    }
}

// A sum of many numbers: added up in vectors, and from time to time in double precision.
template <typename T>
class Sum {
  public:
    using V = Vector<T>;
    typename V::Register fast = V::zero();
    double rest = 0;

    void flush() {
        for (int64_t lane = 0; lane < V::lanes; ++lane) slow_[lane] += fast[lane];
        fast = V::zero();
    }
    double total() {
        flush();
        double sum = rest;
        for (int64_t lane = 0; lane < V::lanes; ++lane) sum += slow_[lane];
        return sum;
    }

  private:
    double slow_[V::lanes] = {};
};

}  // namespace east
