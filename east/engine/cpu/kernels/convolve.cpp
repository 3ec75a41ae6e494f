// The convolution of a unit with many non-zeros a channel, row by row, and batch norm's statistics of it.

#include "rows.h"

namespace east {
namespace {

template <typename T>
struct Convolve {
    Geometry geometry;
    Lists by_output;
    const Value<T>* values;
    RowSource<T> x;
    T* z;                   // planes of output channels without non-zeros are left as they are
    const uint8_t* wanted;  // [out_channels]: whether anything reads z of the channel; null for all
    BatchNorm<Value<T>> norm;  // without a place for how channels are normalized, z is all that is wanted
};

// A non-zero, and where its channel begins in the ring.
template <typename F>
struct Entry {
    int32_t from, tap;
    F value;
};

// One row of a channel: the sum over its non-zeros, for columns side by side.
template <typename F>
struct Tile {
    const Entry<F>* entries;
    int64_t count;
    const F* ring;
    const int64_t* taps;  // where in a channel's ring each kernel position reads
    int64_t step;         // numbers from what one column reads to what the next does
    F* to;
};

template <typename F>
struct SumColumns {
    template <int columns>
    struct Of {
        static void run(const Tile<F>& tile) {
            using V = Vector<F>;
            typename V::Register sums[columns][V::count];
            for (int c = 0; c < columns; ++c) {
                for (int r = 0; r < V::count; ++r) sums[c][r] = V::zero();
            }
            for (int64_t j = 0; j < tile.count; ++j) {
                const Entry<F>& entry = tile.entries[j];
                const F* from = tile.ring + entry.from + tile.taps[entry.tap];
                const auto factor = V::all(entry.value);
                for (int c = 0; c < columns; ++c) {
                    for (int r = 0; r < V::count; ++r) {
                        sums[c][r] = fma(factor, V::load(from + c * tile.step + r * V::width), sums[c][r]);
                    }
                }
            }
            for (int c = 0; c < columns; ++c) {
                for (int r = 0; r < V::count; ++r) V::store(tile.to + c * lanes + r * V::width, sums[c][r]);
            }
        }
    };
};

constexpr int32_t no_others = 0;

// Sums of a channel's z, for batch norm: of a segment.
template <typename F>
struct SegmentMoments {
    F first, second;
};

template <typename T>
class Convolution {
    using F = Value<T>;

  public:
    explicit Convolution(const Convolve<T>& call)
        : c_(call),
          g_(call.geometry),
          segments_(out_segments(g_)),
          tasks_(g_.groups(), g_.out_height, segments_.most_rows(), 1, g_.out_channels),
          right_(std::max(0, (g_.out_width - 1) * g_.stride + g_.kernel - g_.padding - g_.in_width)),
          has_moments_(call.norm.normalization != nullptr && call.norm.training) {
        find_entries();
        if (has_moments_) moments_ = scratch<SegmentMoments<F>, 0>(int64_t(segments_.count()) * g_.out_channels);
    }

    void run() {
        in_parallel([&](const Thread& thread) {
            if (has_moments_) thread.share(g_.out_channels, [&](int64_t channel) { find_pivot(int32_t(channel)); });
            Worker worker(*this);
            thread.share(tasks_.count(), [&](int64_t task) { worker.run(int32_t(task)); });
            finish_streaming();
            if (c_.norm.normalization == nullptr) return;
            thread.share(g_.out_channels, [&](int64_t channel) { normalize(int32_t(channel)); });
        });
    }

  private:
    int32_t ring_columns() const { return g_.padding + g_.in_width + right_; }

    void find_entries() {
        const Lists& lists = c_.by_output;
        is_read_.assign(g_.in_channels, 0);
        entries_.resize(lists.start[g_.out_channels]);
        const int64_t stride = Ring<F>::numbers(1, g_.kernel, ring_columns());
        for (size_t j = 0; j < entries_.size(); ++j) {
            is_read_[lists.channel[j]] = 1;
            entries_[j] = {int32_t(lists.channel[j] * stride), lists.tap[j], c_.values[lists.value[j]]};
        }
        for (int32_t channel = 0; channel < g_.out_channels; ++channel) most_ = std::max(most_, lists.count(channel));
        pivots_.assign(g_.out_channels, 0);
    }

    // z at the first position of the first image, from which batch norm's sums are taken.
    void find_pivot(int32_t channel) {
        F pivot = 0;
        for (int32_t j = c_.by_output.start[channel]; j < c_.by_output.start[channel + 1]; ++j) {
            const int32_t tap = c_.by_output.tap[j];
            const int32_t row = tap / g_.kernel - g_.padding, column = tap % g_.kernel - g_.padding;
            if (row < 0 || row >= g_.in_height || column < 0 || column >= g_.in_width) continue;
            const int64_t at = row * g_.in_row() + column * lanes;
            pivot = fma(entries_[j].value, number_of(c_.x, c_.by_output.channel[j], g_.in_plane(), at), pivot);
        }
        pivots_[channel] = rounded<T>(pivot);
    }

    void normalize(int32_t channel) {
        double first = 0, second = 0;
        if (has_moments_ && c_.by_output.count(channel) > 0) {
            for (int32_t index = 0; index < segments_.count(); ++index) {
                const SegmentMoments<F>& sums = moments_[int64_t(index) * g_.out_channels + channel];
                first += sums.first;
                second += sums.second;
            }
        }
        const double numbers = double(g_.batch) * g_.out_height * g_.out_width;
        c_.norm.find(channel, numbers, pivots_[channel], first, second);
    }

    class Worker {
      public:
        explicit Worker(const Convolution& of)
            : of_(of),
              c_(of.c_),
              g_(of.g_),
              memory_(scratch<F, 1>(Ring<F>::numbers(g_.in_channels, g_.kernel, of.ring_columns()))),
              ring_(memory_, g_.in_channels, g_.kernel, g_.padding, g_.in_width, of.right_),
              source_(c_.x, g_.in_plane(), g_.in_row()),
              line_(scratch<F, 2>(std::max(g_.in_row(), g_.out_row()))),
              sums_(scratch<MomentSums<F>, 0>(g_.out_channels)),
              met_(scratch<Entry<F>, 0>(of.most_)) {}

        void run(int32_t task) {
            const RowTask part = of_.tasks_[task];
            const int32_t begin = part.row_begin, end = part.row_end;
            group_ = part.group;
            block_ = part.block;
            // Rows of the input that belong to the chunk, each to one.
            own_ = begin * g_.stride;
            own_end_ = end == g_.out_height ? g_.in_height : end * g_.stride;
            int32_t loaded = std::max(0, own_ - g_.padding);
            for (int32_t row = begin; row < end; ++row) {
                const int32_t first = row * g_.stride - g_.padding, last = std::min(first + g_.kernel, g_.in_height);
                for (; loaded < last; ++loaded) load(loaded, loaded >= first);
                sum_row(row, part.channel_begin, part.channel_end);
            }
            for (; loaded < own_end_; ++loaded) load(loaded, false);
        }

      private:
        // A row of the input, whose channels are read here or are to be stored.
        void load(int32_t row, bool is_read) {
            const bool keep = c_.x.keep && block_ == 0 && row >= own_ && row < own_end_;
            const int64_t at = group_ * g_.in_image() + row * g_.in_row();
            for (int32_t channel = 0; channel < g_.in_channels; ++channel) {
                const bool is_here = is_read && of_.is_read_[channel];
                if (is_here || keep) source_.load(channel, at, is_here ? ring_.at(channel, row) : line_, keep);
            }
        }

        void sum_row(int32_t row, int32_t channel_begin, int32_t channel_end) {
            int64_t taps[most_taps];
            bool is_inside[most_taps], is_whole = true;
            for (int32_t tap = 0; tap < g_.kernel * g_.kernel; ++tap) {
                const int32_t from = row * g_.stride - g_.padding + tap / g_.kernel;
                is_inside[tap] = from >= 0 && from < g_.in_height;
                is_whole = is_whole && is_inside[tap];
                taps[tap] = is_inside[tap] ? ring_.row(from) + (tap % g_.kernel - g_.padding) * lanes : 0;
            }
            for (int32_t channel = channel_begin; channel < channel_end; ++channel) {
                const int32_t begin = c_.by_output.start[channel];
                const int64_t count = c_.by_output.count(channel);
                if (count == 0) continue;
                Tile<F> tile = {of_.entries_.data() + begin, count, nullptr, taps, g_.stride * lanes, nullptr};
                if (!is_whole) {
                    tile.count = 0;
                    for (int64_t j = 0; j < count; ++j) {
                        met_[tile.count] = of_.entries_[begin + j];
                        tile.count += is_inside[met_[tile.count].tap];
                    }
                    tile.entries = met_;
                }
                constexpr int most = columns_at_once<F>(no_others);
                for_each_tile(g_.out_width, most, [&](int32_t first, int32_t columns) {
                    tile.ring = memory_ + first * tile.step;
                    tile.to = line_ + first * lanes;
                    using Function = void (*)(const Tile<F>&);
                    function_of<Function, SumColumns<F>::template Of>(columns, std::make_integer_sequence<int, most>())(tile);
                });
                finish_row(channel, row);
            }
        }

        // What is to be done with a row of a channel's z.
        void finish_row(int32_t channel, int32_t row) {
            round_all<T>(line_, g_.out_row());
            if (of_.has_moments_) add_moments(channel, row);
            if (c_.wanted != nullptr && !c_.wanted[channel]) return;
            stream_row(c_.z + channel * g_.out_plane() + group_ * g_.out_image() + row * g_.out_row(), line_, g_.out_row());
        }

        void add_moments(int32_t channel, int32_t row) {
            const int32_t rows = of_.segments_.most_rows();
            MomentSums<F>& sums = sums_[channel];
            if (row % rows == 0) sums = MomentSums<F>();
            sums.add(line_, g_.out_row(), of_.pivots_[channel]);
            if ((row + 1) % rows != 0 && row + 1 < g_.out_height) return;
            const int32_t segment = group_ * (of_.segments_.count() / g_.groups()) + row / rows;
            const int32_t images = g_.images(group_);
            of_.moments_[int64_t(segment) * g_.out_channels + channel] = {sums.first.total(images), sums.second.total(images)};
        }

        const Convolution& of_;
        const Convolve<T>& c_;
        const Geometry& g_;
        F* memory_;
        Ring<F> ring_;
        SourceRows<T> source_;
        F* line_;  // a row that is found
        MomentSums<F>* sums_;  // of the segment that a channel is in
        Entry<F>* met_;  // the entries of a channel whose kernel positions lie within the image
        int32_t group_ = 0, block_ = 0;
        int32_t own_ = 0, own_end_ = 0;  // the rows of the input that are stored in this task
    };

    const Convolve<T>& c_;
    const Geometry& g_;
    const Segments segments_;
    const RowTasks tasks_;
    const int32_t right_;
    const bool has_moments_;
    std::vector<uint8_t> is_read_;
    std::vector<Entry<F>> entries_;
    std::vector<F> pivots_;
    int32_t most_ = 0;
    SegmentMoments<F>* moments_ = nullptr;  // [segments, out_channels]
};

template <typename T>
void convolve(const Convolve<T>& c) {
    Convolution<T>(c).run();
}

}  // namespace
}  // namespace east

EAST_KERNEL(convolve, Convolve, convolve)
