// Packed rows: what a tile of a convolution reads, put side by side.
//
// The rows of all channels that one output row needs are packed for a strip of the batch as wide as a cache line, so that
// they stay in the second-level cache while all output channels are summed. Packed rows have zeros where a kernel reaches
// past the image, and columns that a strided kernel reads together lie together: to every non-zero, neighbouring outputs are
// neighbouring numbers. A task goes down the rows of a strip and packs each row once, in place of one that is done with.
//
// A transposed convolution with stride s is s * s convolutions, one for each class of outputs: those with the same
// remainders of row and column by s.
#pragma once

#include <algorithm>
#include <vector>

#include "planes.h"
#include "vector.h"

namespace east {

constexpr int64_t line_bytes = 64;
// Most that is packed at once. The rest of a second-level cache of 1 MB is for what is read and written meanwhile.
constexpr int64_t packed_bytes = 640 << 10;
constexpr int32_t least_columns = 4, most_columns = 128;
constexpr int32_t most_kernel = 7;

// Images in a strip.
template <typename T>
constexpr int64_t strip = line_bytes / sizeof(T);

inline int32_t ceil_div(int32_t a, int32_t b) { return (a + b - 1) / b; }

// Rows or columns of a convolution, seen from its outputs. Transposed, inputs and outputs exchange their roles.
struct Axis {
    int32_t sources, outputs, kernel, stride, padding;
    bool transposed;

    int32_t classes() const { return transposed ? stride : 1; }
    int32_t class_of_output(int32_t output) const { return output % classes(); }
    int32_t class_of_tap(int32_t tap) const { return (tap - padding + kernel * classes()) % classes(); }
    int32_t outputs_of(int32_t of_class) const { return ceil_div(outputs - of_class, classes()); }

    // What a tap reads for an output of its class; negative where that lies past the image, on either side.
    int32_t source(int32_t output, int32_t tap) const {
        if (transposed && output + padding < tap) return -1;
        const int32_t at = transposed ? (output + padding - tap) / stride : output * stride + tap - padding;
        return at < sources ? at : -1;
    }

    // For `n` outputs of a class in a row, each phase holds entries 0 to n + reach() - 1. For the outputs that begin at `b`
    // in their class, entry t of phase q is source (b + t) * step() + q + origin(); a tap reads from entry shift(tap) on.
    int32_t phases() const { return transposed ? 1 : std::min(stride, kernel); }
    int32_t step() const { return transposed ? 1 : stride; }
    int32_t origin() const { return transposed ? -((kernel - 1 - padding) / stride) : -padding; }
    int32_t reach() const { return transposed ? (stride - 1 + padding) / stride - origin() : (kernel - 1) / stride; }
    int32_t phase(int32_t tap) const { return transposed ? 0 : tap % stride; }
    int32_t shift(int32_t tap) const {
        return transposed ? (class_of_tap(tap) + padding - tap) / stride - origin() : tap / stride;
    }
};

// A convolution and its division into tasks.
template <typename T>
class Packing {
  public:
    // Packed rows serve `height` output rows at once. There are at least `tasks` tasks, unless that would leave a task fewer
    // than `least_rows` rows.
    Packing(const Geometry& g, const Lists& lists, bool transposed, int32_t height, int32_t tasks, int32_t least_rows)
        : lists(lists),
          groups(transposed ? g.in_channels : g.out_channels),
          batch(g.batch),
          rows{transposed ? g.out_height : g.in_height, transposed ? g.in_height : g.out_height,
               g.kernel, g.stride, g.padding, transposed},
          columns{transposed ? g.out_width : g.in_width, transposed ? g.in_width : g.out_width,
                  g.kernel, g.stride, g.padding, transposed},
          slot(transposed ? g.out_channels : g.in_channels, -1) {
        for (int32_t j = lists.start[0]; j < lists.start[groups]; ++j) slot[lists.channel[j]] = 0;
        for (size_t channel = 0; channel < slot.size(); ++channel) {
            if (slot[channel] < 0) continue;
            slot[channel] = int32_t(used.size());
            used.push_back(int32_t(channel));
        }
        depth = std::min(rows.sources, transposed ? (g.kernel - 1) / g.stride + 1 : (height - 1) * g.stride + g.kernel);
        const int32_t all = columns.outputs_of(0);
        for (across = ceil_div(all, most_columns);; ++across) {
            width = ceil_div(all, across);
            divide_row();
            if (width <= least_columns || packed_numbers() * int64_t(sizeof(T)) <= packed_bytes) break;
        }
        across = ceil_div(all, width);
        strips = int32_t((batch + strip<T> - 1) / strip<T>);
        const int32_t most = std::max(1, rows.outputs / least_rows);
        segment = ceil_div(rows.outputs, std::clamp(ceil_div(tasks, strips * across), 1, most));
        segments = ceil_div(rows.outputs, segment);
    }

    int32_t tasks() const { return strips * across * segments; }
    int64_t source_plane() const { return int64_t(rows.sources) * columns.sources * batch; }
    int64_t output_plane() const { return int64_t(rows.outputs) * columns.outputs * batch; }
    int64_t row_numbers() const { return (int64_t(used.size()) * columns.phases() * (length + gap) + gap) * strip<T>; }
    int64_t packed_numbers() const { return row_numbers() * depth; }

    // Where a tap begins to read within its channel.
    int32_t offset(int32_t tap) const {
        const int32_t phase = columns.phase(tap);
        return int32_t((phase * (length + gap) + gap + columns.shift(tap) - lead[phase]) * strip<T>);
    }
    int32_t channel_numbers() const { return int32_t(columns.phases() * (length + gap) * strip<T>); }

    const Lists lists;
    const int32_t groups;
    const int64_t batch;
    const Axis rows, columns;
    std::vector<int32_t> slot, used;  // channel -> its place among those that are read, or -1; and back
    int32_t depth;                    // packed rows
    int32_t width, across;            // columns of a class in a tile; tiles that make a row
    int32_t strips;
    int32_t segment, segments;        // rows of a task; tasks that make a plane
    // A phase is packed as `length` entries. A tile of whole rows leaves out entries past the image, but for a gap of zeros
    // between one phase and the next; `lead` are those that it leaves out in front.
    int32_t length, gap;
    int32_t lead[most_kernel];

  private:
    void divide_row() {
        const int32_t entries = width + columns.reach();
        std::fill(lead, lead + most_kernel, 0);
        length = entries;
        gap = 0;
        if (across > 1) return;
        length = 0;
        for (int32_t phase = 0; phase < columns.phases(); ++phase) {
            const int32_t first = columns.origin() + phase;
            lead[phase] = std::min(entries, first < 0 ? ceil_div(-first, columns.step()) : 0);
            const int32_t end = std::clamp(ceil_div(columns.sources - first, columns.step()), lead[phase], entries);
            length = std::max(length, end - lead[phase]);
        }
        for (int32_t phase = 0; phase < columns.phases(); ++phase) {
            gap = std::max({gap, lead[phase], entries - lead[phase] - length});
        }
    }
};

// The part of a convolution that one thread works on at once.
struct Task {
    int32_t column;  // the first of its columns, counted in its class
    int32_t row_begin, row_end;
    int64_t image;   // the first of its strip
    int32_t images;

    template <typename T>
    Task(const Packing<T>& packing, int32_t index) {
        const int32_t of_strip = index % packing.strips, rest = index / packing.strips;
        column = rest % packing.across * packing.width;
        row_begin = rest / packing.across * packing.segment;
        row_end = std::min(row_begin + packing.segment, packing.rows.outputs);
        image = of_strip * strip<T>;
        images = int32_t(std::min(strip<T>, packing.batch - image));
    }
};

template <typename T>
inline void clear_lines(T* to, int32_t count) {
    for (int64_t k = 0; k < count * strip<T>; k += Vector<T>::lanes) Vector<T>::store(to + k, Vector<T>::zero());
}

// Packs `count` lines of a strip from positions `step` numbers apart. `ahead` is asked for meanwhile.
template <typename T>
inline void pack_lines(T* to, const T* from, int32_t count, int64_t step, int32_t images, int64_t ahead) {
    using V = Vector<T>;
    for (int32_t line = 0; line < count; ++line, to += strip<T>, from += step) {
        __builtin_prefetch(from + ahead, 0, 2);
        if (images == strip<T>) {
            for (int64_t k = 0; k < strip<T>; k += V::lanes) V::store(to + k, V::load(from + k));
        } else {
            for (int32_t k = 0; k < images; ++k) to[k] = from[k];
            for (int32_t k = images; k < strip<T>; ++k) to[k] = 0;
        }
    }
}

// How many channels before their use lines are asked for, if a channel has `count`.
inline int32_t channels_ahead(int32_t count) { return std::max(1, 64 / std::max(1, count)); }

// The rows packed for a task.
template <typename T>
class PackedRows {
  public:
    explicit PackedRows(const Packing<T>& packing) : packing_(packing), data_(scratch<T, 0>(packing.packed_numbers())) {}

    void begin(const Task& task) {
        task_ = &task;
        next_ = 0;
    }

    // Kernel row -> the packed row that it reads for an output row, packed now if it is not yet; null where it reads none.
    // Within a task output rows come in ascending order.
    void find(const T* x, int32_t output, const T** found) {
        const Axis& axis = packing_.rows;
        for (int32_t k = 0; k < axis.kernel; ++k) {
            // Source rows in ascending order.
            const int32_t tap = axis.transposed ? axis.kernel - 1 - k : k;
            const int32_t row = axis.class_of_tap(tap) == axis.class_of_output(output) ? axis.source(output, tap) : -1;
            found[tap] = nullptr;
            if (row < 0) continue;
            T* to = data_ + row % packing_.depth * packing_.row_numbers();
            if (row >= next_) {
                pack(x + int64_t(row) * packing_.columns.sources * packing_.batch + task_->image, to);
                next_ = row + 1;
            }
            found[tap] = to;
        }
    }

  private:
    void pack(const T* row, T* to) const {
        const Axis& axis = packing_.columns;
        const int32_t count = int32_t(packing_.used.size());
        const int32_t distance = channels_ahead(axis.phases() * packing_.length);
        clear_lines(to, packing_.gap);
        to += packing_.gap * strip<T>;
        for (int32_t k = 0; k < count; ++k) {
            const int32_t next = packing_.used[std::min(k + distance, count - 1)];
            const T* from = row + packing_.used[k] * packing_.source_plane();
            const int64_t ahead = (next - packing_.used[k]) * packing_.source_plane();
            for (int32_t phase = 0; phase < axis.phases(); ++phase) {
                const int32_t origin = (task_->column + packing_.lead[phase]) * axis.step() + axis.origin() + phase;
                // Entries [first, last) lie within the image.
                const int32_t first = std::min(packing_.length, origin < 0 ? ceil_div(-origin, axis.step()) : 0);
                const int32_t last = std::clamp(ceil_div(axis.sources - origin, axis.step()), first, packing_.length);
                clear_lines(to, first);
                const T* lines = from + (int64_t(first) * axis.step() + origin) * packing_.batch;
                pack_lines(to + first * strip<T>, lines, last - first, axis.step() * packing_.batch, task_->images, ahead);
                clear_lines(to + last * strip<T>, packing_.length + packing_.gap - last);
                to += (packing_.length + packing_.gap) * strip<T>;
            }
        }
    }

    const Packing<T>& packing_;
    T* data_;
    const Task* task_ = nullptr;
    int32_t next_ = 0;  // the first row that is not packed
};

// Where a non-zero reads.
struct Place {
    int32_t at;   // in a packed row, in numbers
    int32_t row;  // of the kernel
};

// The non-zeros of each group, ordered by class of column, class of row, and row of the kernel.
template <typename T>
class Places {
  public:
    explicit Places(const Packing<T>& packing) : packing_(packing), keys_(packing.columns.classes() * packing.rows.kernel) {
        const Axis &rows = packing.rows, &columns = packing.columns;
        int32_t rank = 0;
        for (int32_t of_class = 0; of_class < rows.classes(); ++of_class) {
            for (int32_t tap = 0; tap < rows.kernel; ++tap) {
                if (rows.class_of_tap(tap) == of_class) rank_[tap] = rank++;
            }
        }
        for (int32_t tap = 0; tap < rows.kernel * rows.kernel; ++tap) {
            const int32_t row = tap / rows.kernel, column = tap % rows.kernel;
            key_[tap] = columns.class_of_tap(column) * rows.kernel + rank_[row];
            place_[tap] = {packing.offset(column), row};
        }
        const int32_t count = packing.lists.start[packing.groups];
        start_.resize(int64_t(packing.groups) * keys_ + 1);
        start_.back() = count;
        places_ = scratch<Place, 0>(count);
        values_ = scratch<int32_t, 0>(count);
    }

    // Orders one group; `place(j)` and `value(j)`, for which `start` gives j, are then known.
    void order(int32_t group) {
        const Lists& lists = packing_.lists;
        const int32_t begin = lists.start[group], end = lists.start[group + 1];
        int32_t next[most_kernel * most_kernel + 1] = {};
        for (int32_t j = begin; j < end; ++j) ++next[key_[lists.tap[j]] + 1];
        next[0] = begin;
        for (int32_t key = 0; key < keys_; ++key) {
            start_[int64_t(group) * keys_ + key] = next[key];
            next[key + 1] += next[key];
        }
        for (int32_t j = begin; j < end; ++j) {
            const int32_t to = next[key_[lists.tap[j]]]++;
            places_[to] = place_[lists.tap[j]];
            places_[to].at += packing_.slot[lists.channel[j]] * packing_.channel_numbers();
            values_[to] = lists.value[j];
        }
    }

    // The first non-zero of a class of columns whose kernel row has at least a rank; up to the number of kernel rows.
    int32_t start(int32_t group, int32_t of_class, int32_t rank) const {
        return start_[int64_t(group) * keys_ + of_class * packing_.rows.kernel + rank];
    }
    int32_t rank(int32_t kernel_row) const { return rank_[kernel_row]; }
    int32_t count() const { return start_.back(); }
    const Place* place(int32_t j) const { return places_ + j; }
    int32_t value(int32_t j) const { return values_[j]; }

  private:
    const Packing<T>& packing_;
    const int32_t keys_;
    int32_t rank_[most_kernel], key_[most_kernel * most_kernel];
    Place place_[most_kernel * most_kernel];
    std::vector<int32_t> start_;
    Place* places_;
    int32_t* values_;
};

}  // namespace east
