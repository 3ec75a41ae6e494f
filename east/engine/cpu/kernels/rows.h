// Row by row: what a convolution with many non-zeros a channel is executed with.
//
// The rows that one row of sums needs lie in a ring that stays in the second-level cache, each made once: read from memory,
// normalized, and converted to what is computed with. Sums over non-zeros stay in registers for some columns of a row, while
// the non-zeros of a channel read from the ring.
#pragma once

#include <utility>
#include <vector>

#include "normalization.h"

namespace east {

constexpr int32_t most_taps = 49;

// Batch norm of a convolution's output, which is stored by itself.
template <typename T>
struct Normalized {
    const T* z;  // null where there is none
    const Normalization<Value<T>>* norm;
    const int32_t* start;  // of the non-zeros by output channel: z of one without any is zero, and not stored

    bool is_stored(int64_t channel) const { return start[channel + 1] > start[channel]; }
};

// An activation of which rows are read: it is stored, or found from the convolution whose output is.
template <typename T>
struct RowSource {
    T* y;
    Normalized<T> of;  // without it, `y` is read
    // What is added before the activation: an activation, or a convolution's output behind its batch norm, or nothing.
    const T* residual;
    Normalized<T> residual_of;
    int32_t rectify;
    int32_t keep;  // what is found is to be stored in `y`
};

// Rows of planes of a source.
template <typename T>
class SourceRows {
    using F = Value<T>;

  public:
    // `numbers` of a row.
    SourceRows(const RowSource<T>& source, int64_t plane, int64_t numbers)
        : source_(source), plane_(plane), numbers_(numbers), zeros_(scratch<T, 6>(numbers)) {
        fill(zeros_, kept_as<T>(0), numbers);
    }

    // The row of a channel that begins at `at` in its plane; `keep` stores it, where it is to be stored.
    void load(int64_t channel, int64_t at, F* to, bool keep) const {
        T* y = source_.y + channel * plane_ + at;
        if (source_.of.z == nullptr) {
            take(to, y, numbers_);
            return;
        }
        if (!keep || !source_.keep) {
            find<not_kept>(channel, at, to, nullptr);
        } else {
            is_aligned(y) ? find<streamed>(channel, at, to, y) : find<kept>(channel, at, to, y);
        }
    }

  private:
    enum Residual { no_residual, stored_residual, normalized_residual };
    enum Keep { not_kept, kept, streamed };

    template <Keep how>
    void find(int64_t channel, int64_t at, F* to, T* y) const {
        if (source_.residual != nullptr) {
            find<how, stored_residual>(channel, at, to, y);
        } else if (source_.residual_of.z != nullptr) {
            find<how, normalized_residual>(channel, at, to, y);
        } else {
            find<how, no_residual>(channel, at, to, y);
        }
    }

    const T* row_of(const Normalized<T>& of, int64_t channel, int64_t at) const {
        return of.is_stored(channel) ? of.z + channel * plane_ + at : zeros_;
    }

    template <Keep how, Residual residual>
    void find(int64_t channel, int64_t at, F* to, T* y) const {
        using V = Vector<T>;
        const Normalization<F>& norm = source_.of.norm[channel];
        const T* z = row_of(source_.of, channel, at);
        const auto f = V::all(norm.factor), h = V::all(norm.shift), zero = V::zero();
        const T* added = nullptr;
        auto added_f = zero, added_h = zero;
        if (residual == stored_residual) added = source_.residual + channel * plane_ + at;
        if (residual == normalized_residual) {
            const Normalization<F>& of_residual = source_.residual_of.norm[channel];
            added = row_of(source_.residual_of, channel, at);
            added_f = V::all(of_residual.factor);
            added_h = V::all(of_residual.shift);
        }
        const bool rectify = source_.rectify;
        for (int64_t k = 0; k < numbers_; k += V::width) {
            auto v = fma(f, V::load(z + k), h);
            if (residual == stored_residual) v += V::load(added + k);
            if (residual == normalized_residual) v += V::rounded(fma(added_f, V::load(added + k), added_h));
            if (rectify) v = v <= zero ? zero : v;  // a NaN stays one
            v = V::rounded(v);
            Vector<F>::store(to + k, v);
            if (how == kept) V::store_rounded(y + k, v);
            if (how == streamed) V::stream_rounded(y + k, v);
        }
    }

    const RowSource<T>& source_;
    int64_t plane_, numbers_;
    T* zeros_;
};

// One number of a source.
template <typename T>
inline Value<T> number_of(const RowSource<T>& source, int64_t channel, int64_t plane, int64_t at) {
    using F = Value<T>;
    if (source.of.z == nullptr) return value_of(source.y[channel * plane + at]);
    const auto normalized = [=](const Normalized<T>& of) {
        const F z = of.is_stored(channel) ? value_of(of.z[channel * plane + at]) : F(0);
        return fma(of.norm[channel].factor, z, of.norm[channel].shift);
    };
    F v = normalized(source.of);
    if (source.residual != nullptr) v += value_of(source.residual[channel * plane + at]);
    if (source.residual_of.z != nullptr) v += rounded<T>(normalized(source.residual_of));
    if (source.rectify) v = v <= 0 ? F(0) : v;
    return rounded<T>(v);
}

// Keeps a row that has been rounded, past the caches: much else passes through them before it is read.
template <typename T>
inline void stream_row(T* to, const Value<T>* from, int64_t count) {
    using V = Vector<T>;
    if (is_aligned(to)) {
        for (int64_t k = 0; k < count; k += V::width) V::stream_rounded(to + k, Vector<Value<T>>::load(from + k));
    } else {
        for (int64_t k = 0; k < count; k += V::width) V::store_rounded(to + k, Vector<Value<T>>::load(from + k));
    }
}

// The gradient at a convolution's output, rounded as it is kept, from that before the activation; `of_z` where z is not zero.
template <bool of_z, typename T, typename To>
inline void find_gradient(const T* g, const T* z, const Normalization<Value<T>>& norm, const Slope& slope, To* to, int64_t count) {
    using V = Vector<T>;
    using F = Value<T>;
    const auto a = V::all(norm.factor), b = V::all(F(slope.of_hat)), c = V::all(F(slope.shared));
    const auto m = V::all(norm.mean), i = V::all(norm.inverse);
    for (int64_t k = 0; k < count; k += V::width) {
        const auto rest = of_z ? fma(b, (V::load(z + k) - m) * i, c) : c;
        Vector<To>::store(to + k, V::rounded(fma(a, V::load(g + k), rest)));
    }
}

// The last rows of some planes, in a ring of slots. At either end of a row lie zeros for what is outside the image.
template <typename F>
class Ring {
  public:
    Ring() = default;
    Ring(F* memory, int32_t channels, int32_t slots, int32_t left, int32_t width, int32_t right)
        : memory_(memory), slots_(slots), left_(int64_t(left) * lanes), row_(int64_t(left + width + right) * lanes) {
        for (int64_t k = 0; k < int64_t(channels) * slots; ++k) {
            fill(memory + k * row_, F(0), left_);
            fill(memory + k * row_ + left_ + int64_t(width) * lanes, F(0), int64_t(right) * lanes);
        }
    }
    static int64_t numbers(int32_t channels, int32_t slots, int32_t columns) {
        return int64_t(channels) * slots * columns * lanes;
    }

    // From one channel to the next.
    int64_t stride() const { return slots_ * row_; }
    // Of a row within a channel; column 0 of the image.
    int64_t row(int32_t row) const { return row % slots_ * row_ + left_; }
    F* at(int32_t channel, int32_t row) const { return memory_ + channel * stride() + this->row(row); }

  private:
    F* memory_;
    int32_t slots_;
    int64_t left_, row_;
};

// Columns that are summed at once, so that their sums and `others` more for each register of a group fit the registers.
template <typename F>
constexpr int32_t columns_at_once(int32_t others) {
#if EAST_VECTOR_BYTES == 64 || defined(__aarch64__)
    constexpr int32_t registers = 32;
#else
    constexpr int32_t registers = 16;
#endif
    const int32_t fitting = (registers - 4) / Vector<F>::count - others;
    return fitting < 1 ? 1 : (fitting > 8 ? 8 : fitting);
}

// Calls `apply(first, count)` for the tiles of about equal size, of at most `most`, that `columns` are divided into.
template <typename Apply>
inline void for_each_tile(int32_t columns, int32_t most, Apply apply) {
    const int32_t tiles = (columns + most - 1) / most, size = (columns + tiles - 1) / tiles;
    for (int32_t first = 0; first < columns; first += size) apply(first, std::min(size, columns - first));
}

// A function for each number of columns, from 1 to as many as there are.
template <typename Function, template <int> class Of, int... before>
inline Function function_of(int32_t columns, std::integer_sequence<int, before...>) {
    static constexpr Function functions[] = {Of<before + 1>::run...};
    return functions[columns - 1];
}

// A block of channels, in some rows of a group.
struct RowTask {
    int32_t block, channel_begin, channel_end, group, row_begin, row_end;
};

// How the work on rows is divided: by groups, by chunks of whole segments, and by blocks of channels.
class RowTasks {
  public:
    RowTasks() = default;
    // `step` rows belong together, and there are `least` blocks. The first rows of a chunk are read in the one before as well,
    // and each block reads all rows, so that there are no more of them than threads need.
    RowTasks(int32_t groups, int32_t height, int32_t step, int32_t least, int32_t channels)
        : height_(height), channels_(channels) {
        const int32_t threads = thread_count(), tasks = least * groups, steps = (height + step - 1) / step;
        // Three tasks a thread are shared well enough, and so are those that come out even.
        const int32_t wanted = tasks % threads == 0 ? 1 : (3 * threads + tasks - 1) / tasks;
        rows_ = (steps + std::min(wanted, steps) - 1) / std::min(wanted, steps) * step;
        chunks_ = (height + rows_ - 1) / rows_;
        const int32_t blocks = std::min(channels, least * ((wanted + chunks_ - 1) / chunks_));
        size_ = (channels + blocks - 1) / blocks;
        blocks_ = (channels + size_ - 1) / size_;
        count_ = blocks_ * chunks_ * groups;
    }
    int32_t count() const { return count_; }
    RowTask operator[](int32_t task) const {
        const int32_t block = task % blocks_, chunk = task / blocks_ % chunks_, group = task / blocks_ / chunks_;
        return {block, block * size_, std::min((block + 1) * size_, channels_),
                group, chunk * rows_, std::min((chunk + 1) * rows_, height_)};
    }

  private:
    int32_t height_, channels_, rows_, chunks_, size_, blocks_, count_;
};

}  // namespace east
