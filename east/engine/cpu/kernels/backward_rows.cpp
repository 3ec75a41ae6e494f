// The backward pass through a convolution with many non-zeros a channel, row by row of its input: the gradients of its weights,
// the gradient at its input, and the sums that the batch norm of the unit before it needs of that.

#include "rows.h"

namespace east {
namespace {

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

// A non-zero, where its output channel begins in the ring, and where the sum for its gradient is. Others have a sum alone.
template <typename F>
struct Entry {
    int32_t from, tap;
    F value;
    int32_t sum;
};

// What one kernel position meets for the first column of a tile.
template <typename F>
struct Met {
    int64_t from;  // in a channel's ring
    const F* x;
};

// Some columns of a row of an input channel.
template <typename F>
struct Tile {
    const Entry<F>* entries;
    int64_t count;
    const F* ring;
    const Met<F>* taps;
    int64_t step;  // numbers from one column to the next, of x and of g
    F* g;
    F* sums;  // 32 for each entry
};

// g += value * dz, and the sum of an entry += x * dz.
template <typename F, bool gradient, bool sums>
struct AddColumns {
    template <int columns>
    struct Of {
        static void run(const Tile<F>& tile) {
            using V = Vector<F>;
            typename V::Register g[columns][V::count];
            for (int c = 0; c < columns; ++c) {
                for (int r = 0; r < V::count; ++r) {
                    g[c][r] = gradient ? V::load(tile.g + c * tile.step + r * V::width) : V::zero();
                }
            }
            for (int64_t j = 0; j < tile.count; ++j) {
                const Entry<F>& entry = tile.entries[j];
                const Met<F>& met = tile.taps[entry.tap];
                const F *from = tile.ring + entry.from + met.from, *x = met.x;
                F* sum = tile.sums + int64_t(entry.sum) * lanes;
                const auto value = V::all(entry.value);
                typename V::Register s[V::count];
                for (int r = 0; r < V::count; ++r) s[r] = sums ? V::load(sum + r * V::width) : V::zero();
                for (int c = 0; c < columns; ++c) {
                    for (int r = 0; r < V::count; ++r) {
                        auto dz = V::load(from + c * lanes + r * V::width);
                        if (gradient && sums) hold(dz);
                        if (gradient) g[c][r] = fma(value, dz, g[c][r]);
                        if (sums) s[r] = fma(V::load(x + c * tile.step + r * V::width), dz, s[r]);
                    }
                }
                for (int r = 0; r < V::count && sums; ++r) V::store(sum + r * V::width, s[r]);
            }
            for (int c = 0; c < columns && gradient; ++c) {
                for (int r = 0; r < V::count; ++r) V::store(tile.g + c * tile.step + r * V::width, g[c][r]);
            }
        }
    };
};

constexpr int32_t one_other = 1;  // for each register of a group, the sum of an entry beside those of columns

template <typename F>
using AddTile = void (*)(const Tile<F>&);

template <typename F, bool gradient, bool sums>
AddTile<F> add_tile(int32_t columns) {
    constexpr int most = columns_at_once<F>(one_other);
    return function_of<AddTile<F>, AddColumns<F, gradient, sums>::template Of>(columns, std::make_integer_sequence<int, most>());
}

// Sums of a row of the gradient before an activation, and of its products with normalized z.
template <typename F>
struct GradientSums {
    LaneSums<F> g, product;
};

// In place: the gradient before the activation; its sums.
template <int32_t activation, bool normalized, typename F, typename T>
void activate_row(F* g, const F* x, const T* z, const Normalization<F>& norm, int64_t count, GradientSums<F>& sums) {
    using V = Vector<F>;
    const auto f = V::all(norm.factor), h = V::all(norm.shift), m = V::all(norm.mean), i = V::all(norm.inverse);
    const auto zero = V::zero();
    GradientSums<F> found = sums;
    for (int64_t k = 0; k < count; k += lanes) {
        for (int r = 0; r < V::count; ++r) {
            const int64_t n = k + r * V::width;
            auto v = V::load(g + n);
            const auto of_z = normalized ? Vector<T>::load(z + n) : zero;
            if (activation == rectify_by_output) v = V::load(x + n) <= zero ? zero : v;
            if (activation == rectify_by_input) v = fma(f, of_z, h) <= zero ? zero : v;
            if (activation != none) V::store(g + n, v);
            found.g.part[r] += v;
            if (normalized) found.product.part[r] = fma(v, (of_z - m) * i, found.product.part[r]);
        }
    }
    sums = found;
}

// For a 3x3 kernel of stride 1, some kernel rows of it: sums of a row of x times the rows of a sketch that they meet. What is
// loaded of the sketch stays in registers from one column to the next.
template <int rows, typename F>
inline void add_sketch_rows(const F* x, const F* const* sketch, F* const* sums, int32_t width) {
    using V = Vector<F>;
    for (int32_t lane = 0; lane < lanes; lane += V::width) {
        typename V::Register s[rows][3], before[rows], here[rows], after[rows];
        for (int k = 0; k < rows; ++k) {
            for (int column = 0; column < 3; ++column) s[k][column] = V::load(sums[k] + column * lanes + lane);
            before[k] = after[k] = V::zero();
            here[k] = V::load(sketch[k] + lane);
        }
        const auto add_column = [&](int32_t column, bool is_first, bool is_last) __attribute__((always_inline)) {
            auto value = V::load(x + column * lanes + lane);
            hold(value);
            for (int k = 0; k < rows; ++k) {
                if (!is_last) after[k] = V::load(sketch[k] + (column + 1) * lanes + lane);
                if (!is_last) s[k][0] = fma(value, after[k], s[k][0]);
                s[k][1] = fma(value, here[k], s[k][1]);
                if (!is_first) s[k][2] = fma(value, before[k], s[k][2]);
                before[k] = here[k];
                here[k] = after[k];
            }
        };
        add_column(0, true, width == 1);
        for (int32_t column = 1; column < width - 1; ++column) add_column(column, false, false);
        if (width > 1) add_column(width - 1, false, true);
        for (int k = 0; k < rows; ++k) {
            for (int column = 0; column < 3; ++column) V::store(sums[k] + column * lanes + lane, s[k][column]);
        }
    }
}

// Kernel rows that are summed at once, so that their sums fit the registers.
#if EAST_VECTOR_BYTES == 64 || defined(__aarch64__)
constexpr int sketch_rows = 3;
#else
constexpr int sketch_rows = 1;
#endif

// Bytes of sums that a block of channels may take. Beyond the second-level cache they are as slow as the rows that each block
// would have to read again.
constexpr int64_t most_sum_bytes = 1 << 20;

// An output channel with few non-zeros: where the sums for one of them are.
struct FewSums {
    int32_t value, output, sum;  // of x * g, of x * hat, and of x, one behind the other
};

template <typename T>
class BackwardPass {
    using F = Value<T>;

  public:
    explicit BackwardPass(const BackwardRows<T>& call)
        : c_(call),
          g_(call.geometry),
          taps_(g_.kernel * g_.kernel),
          slots_((g_.kernel + g_.stride - 1) / g_.stride),
          is_near_(g_.kernel == 3 && g_.stride == 1 && g_.padding == 1),
          out_segments_(out_segments(g_)),
          in_segments_(g_.groups(), g_.in_height, g_.in_width) {
        find_margins();
        find_channels();
        find_entries();
        const int64_t bytes = int64_t(sum_count_) * lanes * sizeof(F);
        const int32_t least = int32_t(std::min<int64_t>(g_.in_channels, (bytes + most_sum_bytes - 1) / most_sum_bytes));
        tasks_ = RowTasks(g_.groups(), g_.out_height, rows_together(), std::max(least, 1), g_.in_channels);
        parts_ = scratch<F, 0>(int64_t(out_segments_.count()) * sum_count_);
        totals_ = scratch<double, 8>(sum_count_);
        if (has_producer()) arrived_ = scratch<F, 7>(int64_t(in_segments_.count()) * g_.in_channels * 2);
    }

    void run() {
        if (c_.value_gradient != nullptr) fill(c_.value_gradient, F(0), c_.by_output.start[g_.out_channels]);
        in_parallel([&](const Thread& thread) {
            Worker worker(*this);
            thread.share(tasks_.count(), [&](int64_t task) { worker.run(int32_t(task)); });
            finish_streaming();
            thread.share((sum_count_ + sums_of_task - 1) / sums_of_task, [&](int64_t task) { find_totals(int32_t(task)); });
            thread.share(g_.in_channels, [&](int64_t channel) { finish_channel(int32_t(channel)); });
        });
        if (c_.value_gradient == nullptr) return;
        for (const FewSums& one : few_) {
            const Slope& slope = c_.gradient.slopes[one.output];
            const double* sums = totals_ + one.sum;
            const double found = c_.gradient.norm[one.output].factor * sums[0] + slope.of_hat * sums[1] + slope.shared * sums[2];
            c_.value_gradient[one.value] = F(found);
        }
    }

  private:
    static constexpr int32_t sums_of_task = 512;

    bool has_producer() const { return c_.producer.z != nullptr; }

    // Columns of the input of one class have the same remainder, so that the same kernel columns reach them.
    int32_t class_of(int32_t kernel_column) const {
        return ((kernel_column - g_.padding) % g_.stride + g_.stride) % g_.stride;
    }
    int32_t columns_of(int32_t of_class) const { return (g_.in_width - of_class + g_.stride - 1) / g_.stride; }
    // From the place of a column in its class to the output's column that a kernel column connects it with.
    int32_t shift_of(int32_t kernel_column) const {
        return (class_of(kernel_column) + g_.padding - kernel_column) / g_.stride;
    }

    void find_margins() {
        for (int32_t column = 0; column < g_.kernel; ++column) {
            left_ = std::max(left_, -shift_of(column));
            right_ = std::max(right_, columns_of(class_of(column)) - 1 + shift_of(column) - (g_.out_width - 1));
        }
    }

    // The rows of the ring: of dz; of g and hat where a channel has few non-zeros, and of ones; of sketches.
    void find_channels() {
        places_.assign(g_.out_channels, -1);
        few_places_.assign(g_.out_channels, -1);
        for (int32_t j = 0; j < c_.by_input.start[g_.in_channels]; ++j) places_[c_.by_input.channel[j]] = 0;
        for (int32_t channel = 0; channel < g_.out_channels; ++channel) {
            if (places_[channel] == 0) places_[channel] = ring_channels_++;
        }
        if (c_.value_gradient != nullptr) {
            for (int32_t channel = 0; channel < g_.out_channels; ++channel) {
                if (places_[channel] < 0 || c_.by_output.count(channel) > c_.few) continue;
                few_places_[channel] = ring_channels_;
                ring_channels_ += 2;
                has_few_ = true;
            }
        }
        ones_ = ring_channels_;
        if (has_few_) ++ring_channels_;
        sketches_ = ring_channels_;
        ring_channels_ += c_.probes;
    }

    // Whether no gradient reaches an input channel: nothing reads it, or it is constant and the activation passes nothing.
    bool is_unreached(int32_t channel) const {
        const Producer<T>& p = c_.producer;
        if (!has_producer()) return false;
        if (p.read != nullptr && !p.read[channel]) return true;
        return p.start[channel + 1] == p.start[channel] && p.activation == rectify_by_input && p.norm[channel].shift <= 0;
    }

    void find_entries() {
        const int32_t classes = g_.stride * g_.stride, stride = int32_t(Ring<F>::numbers(1, slots_, ring_columns()));
        const auto class_of_tap = [&](int32_t tap) {
            return tap / g_.kernel % g_.stride * g_.stride + class_of(tap % g_.kernel);
        };
        by_class_.resize(classes);
        sums_by_class_.resize(classes);
        for (auto* lists : {&by_class_, &sums_by_class_}) {
            for (ChannelEntries& list : *lists) list.start.assign(g_.in_channels + 1, 0);
        }
        by_kernel_row_.resize(g_.kernel);
        first_sum_.assign(g_.in_channels + 1, 0);
        const auto new_sum = [&](int32_t tap) {
            by_kernel_row_[tap / g_.kernel].push_back(sum_count_);
            values_.push_back(-1);
            return sum_count_++;
        };
        for (int32_t channel = 0; channel < g_.in_channels; ++channel) {
            for (int32_t j = c_.by_input.start[channel]; j < c_.by_input.start[channel + 1]; ++j) {
                const int32_t output = c_.by_input.channel[j], tap = c_.by_input.tap[j], value = c_.by_input.value[j];
                Entry<F> entry = {places_[output] * stride, tap, c_.values[value], 0};
                const int32_t few = few_places_[output];
                if (c_.value_gradient != nullptr) {
                    entry.sum = new_sum(tap);
                    if (few < 0) values_.back() = value;
                }
                by_class_[class_of_tap(tap)].entries.push_back(entry);
                if (few < 0) continue;
                few_.push_back({value, output, sum_count_});
                for (const int32_t place : {few, few + 1, ones_}) {
                    sums_by_class_[class_of_tap(tap)].entries.push_back({place * stride, tap, F(0), new_sum(tap)});
                }
            }
            sketch_sums_.push_back(sum_count_);
            for (int32_t k = 0; k < c_.probes * taps_; ++k) {
                const int32_t tap = k % taps_, sum = new_sum(tap);
                if (is_near_) continue;
                sums_by_class_[class_of_tap(tap)].entries.push_back({(sketches_ + k / taps_) * stride, tap, F(0), sum});
            }
            for (auto* lists : {&by_class_, &sums_by_class_}) {
                for (ChannelEntries& list : *lists) {
                    list.start[channel + 1] = int32_t(list.entries.size());
                    most_ = std::max(most_, list.count(channel));
                }
            }
            first_sum_[channel + 1] = sum_count_;
        }
    }

    int32_t ring_columns() const { return left_ + g_.out_width + right_; }

    // Rows of the output that make whole segments of it, and of the input.
    int32_t rows_together() const {
        const int32_t rows = out_segments_.most_rows();
        int32_t step = rows;
        while (step < g_.out_height && step * g_.stride % in_segments_.most_rows() != 0) step += rows;
        return step;
    }

    void find_totals(int32_t task) {
        const int32_t begin = task * sums_of_task, end = std::min(begin + sums_of_task, sum_count_);
        for (int32_t k = begin; k < end; ++k) totals_[k] = 0;
        for (int32_t index = 0; index < out_segments_.count(); ++index) {
            const F* parts = parts_ + int64_t(index) * sum_count_;
            for (int32_t k = begin; k < end; ++k) totals_[k] += parts[k];
        }
        for (int32_t k = begin; k < end; ++k) {
            if (values_[k] >= 0) c_.value_gradient[values_[k]] = F(totals_[k]);
        }
    }

    void finish_channel(int32_t channel) {
        for (int32_t k = 0; k < c_.probes * taps_; ++k) {
            c_.products[int64_t(channel) * c_.probes * taps_ + k] = totals_[sketch_sums_[channel] + k];
        }
        if (!has_producer()) return;
        const Producer<T>& p = c_.producer;
        double g = 0, product = 0;
        const bool is_reached = !is_unreached(channel);
        for (int32_t index = 0; index < (is_reached ? in_segments_.count() : 0); ++index) {
            const F* arrived = arrived_ + (int64_t(index) * g_.in_channels + channel) * 2;
            g += arrived[0];
            product += arrived[1];
        }
        p.weight_gradient[channel] = F(product);
        p.bias_gradient[channel] = F(g);
        const double numbers = double(g_.batch) * g_.in_height * g_.in_width;
        p.slopes[channel] = is_reached ? Slope(p.norm[channel], g, product, numbers) : Slope{};
    }

    // Entries channel by channel.
    struct ChannelEntries {
        std::vector<Entry<F>> entries;
        std::vector<int32_t> start;

        int32_t count(int32_t channel) const { return start[channel + 1] - start[channel]; }
    };

    class Worker {
      public:
        explicit Worker(const BackwardPass& of)
            : of_(of),
              c_(of.c_),
              g_(of.g_),
              memory_(scratch<F, 1>(Ring<F>::numbers(of.ring_channels_, of.slots_, of.ring_columns()))),
              ring_(memory_, of.ring_channels_, of.slots_, of.left_, g_.out_width, of.right_),
              source_(c_.x, g_.in_plane(), g_.in_row()),
              x_(scratch<F, 2>((3 + g_.kernel) * g_.in_row())),
              at_input_(x_ + g_.in_row()),
              zeros_(at_input_ + g_.in_row()),
              at_margins_(zeros_ + g_.in_row()),
              line_(scratch<F, 3>((1 + c_.probes) * g_.out_row())),
              arriving_(scratch<GradientSums<F>, 0>(g_.in_channels)),
              met_(scratch<Entry<F>, 0>(of.most_)) {
            fill(zeros_, F(0), g_.in_row());
            for (int32_t slot = 0; slot < (of.has_few_ ? of.slots_ : 0); ++slot) {
                fill(ring_.at(of.ones_, slot), F(1), g_.out_row());
            }
        }

        void run(int32_t task) {
            part_ = of_.tasks_[task];
            const int32_t first_sum = of_.first_sum_[part_.channel_begin], end_sum = of_.first_sum_[part_.channel_end];
            F* sums = scratch<F, 5>(int64_t(end_sum - first_sum) * lanes);
            fill(sums, F(0), int64_t(end_sum - first_sum) * lanes);
            sums_ = sums - int64_t(first_sum) * lanes;
            const int32_t first = segment_of(part_.row_begin), end = segment_of(part_.row_end - 1) + 1;
            for (int32_t segment = first; segment < end; ++segment) {
                fill(of_.parts_ + int64_t(segment) * of_.sum_count_ + first_sum, F(0), end_sum - first_sum);
            }
            for (int32_t kernel_row = 0; kernel_row < g_.kernel; ++kernel_row) segments_[kernel_row] = first;

            // Rows of the input that belong to the chunk, each to one, and those that meet a row of the output that does.
            own_ = part_.row_begin * g_.stride;
            own_end_ = part_.row_end == g_.out_height ? g_.in_height : part_.row_end * g_.stride;
            const int32_t begin = std::max(0, std::min(own_, own_ - g_.padding));
            const int32_t reach = (part_.row_end - 1) * g_.stride + g_.kernel - g_.padding;
            const int32_t last = std::min(g_.in_height, std::max(own_end_, reach));
            loaded_ = std::max(0, (begin + g_.padding - g_.kernel + g_.stride) / g_.stride);
            for (int32_t row = begin; row < last; ++row) add_row(row);
            for (int32_t kernel_row = 0; kernel_row < g_.kernel; ++kernel_row) flush(kernel_row, segments_[kernel_row]);
        }

      private:
        // Of all segments, the one that a row of the output in this group is in.
        int32_t segment_of(int32_t row) const {
            return part_.group * (of_.out_segments_.count() / g_.groups()) + row / of_.out_segments_.most_rows();
        }

        // Hands over the sums of a segment, and begins those of another.
        void flush(int32_t kernel_row, int32_t segment) {
            const std::vector<int32_t>& all = of_.by_kernel_row_[kernel_row];
            const int32_t end = of_.first_sum_[part_.channel_end], images = g_.images(part_.group);
            F* parts = of_.parts_ + int64_t(segment) * of_.sum_count_;
            for (auto at = std::lower_bound(all.begin(), all.end(), of_.first_sum_[part_.channel_begin]);
                 at != all.end() && *at < end; ++at) {
                F* sums = sums_ + int64_t(*at) * lanes;
                LaneSums<F> found;
                for (int r = 0; r < Vector<F>::count; ++r) found.part[r] = Vector<F>::load(sums + r * Vector<F>::width);
                parts[*at] = found.total(images);
                LaneSums<F>().store(sums);
            }
        }

        // What a row of the input meets.
        void add_row(int32_t row) {
            const bool is_own = row >= own_ && row < own_end_;
            MetRow met[most_taps];  // by kernel row
            is_whole_ = true;
            for (int32_t kernel_row = 0; kernel_row < g_.kernel; ++kernel_row) {
                const int32_t at = row + g_.padding - kernel_row, output = at / g_.stride;
                const bool is_of_class = (row + g_.padding) % g_.stride == kernel_row % g_.stride;
                const bool is_inside = is_of_class && at >= 0 && output < g_.out_height;
                const bool is_counted = is_inside && output >= part_.row_begin && output < part_.row_end;
                counted_rows_[kernel_row] = is_counted ? output : -1;
                met[kernel_row] = {output, is_inside && (is_own || is_counted), is_counted};
                if (is_of_class && !met[kernel_row].is_met) is_whole_ = false;
                if (!met[kernel_row].is_met) continue;
                for (; loaded_ <= output; ++loaded_) load(loaded_);
                if (!is_counted || segment_of(output) == segments_[kernel_row]) continue;
                flush(kernel_row, segments_[kernel_row]);
                segments_[kernel_row] = segment_of(output);
            }
            find_tiles(row, met);
            for (int32_t channel = part_.channel_begin; channel < part_.channel_end; ++channel) add_channel(row, channel, is_own);
        }

        // The row of the output that a kernel row meets: whether there is one for it here, and whether it is of this chunk.
        struct MetRow {
            int32_t row;
            bool is_met, is_counted;
        };

        // Some columns of a row of the input, all of one class.
        struct RowTile {
            int32_t of_class, columns;
            int64_t begin;
            Met<F> taps[most_taps];
        };

        // Columns of a tile of which some lie beyond the output for a kernel column: x is zero there, whatever it is.
        struct Variant {
            int64_t begin;
            int32_t kernel_column, first, columns;  // the first of the output's columns
        };

        void find_tiles(int32_t row, const MetRow* met) {
            const int32_t of_row = (row + g_.padding) % g_.stride;
            tiles_.clear();
            variants_.clear();
            for (int32_t of_column = 0; of_column < g_.stride; ++of_column) {
                const int32_t columns = of_.columns_of(of_column);
                if (columns <= 0) continue;
                for_each_tile(columns, columns_at_once<F>(one_other), [&](int32_t first, int32_t count) {
                    tiles_.push_back({of_row * g_.stride + of_column, count, int64_t(of_column + first * g_.stride) * lanes, {}});
                    for (int32_t kernel_column = 0; kernel_column < g_.kernel; ++kernel_column) {
                        if (of_.class_of(kernel_column) == of_column) find_taps(met, kernel_column, first, tiles_.back());
                    }
                });
            }
            for (int32_t tap = 0; tap < of_.taps_; ++tap) is_met_[tap] = met[tap / g_.kernel].is_met;
        }

        void find_taps(const MetRow* met, int32_t kernel_column, int32_t first, RowTile& tile) {
            const int32_t column = first + of_.shift_of(kernel_column);
            const F* x = x_;
            if (column < 0 || column + tile.columns > g_.out_width) {
                variants_.push_back({tile.begin, kernel_column, column, tile.columns});
                x = at_margins_ + kernel_column * g_.in_row();
            }
            for (int32_t kernel_row = 0; kernel_row < g_.kernel; ++kernel_row) {
                if (!met[kernel_row].is_met) continue;
                tile.taps[kernel_row * g_.kernel + kernel_column] = {
                    ring_.row(met[kernel_row].row) + int64_t(column) * lanes, met[kernel_row].is_counted ? x + tile.begin : zeros_};
            }
        }

        // A row of an input channel.
        void add_channel(int32_t row, int32_t channel, bool is_own) {
            const bool wants_gradient = is_own && c_.to != nullptr && !of_.is_unreached(channel);
            const bool has_sums = of_.first_sum_[channel + 1] > of_.first_sum_[channel];
            if (!wants_gradient && !has_sums) return;
            const int64_t at = part_.group * g_.in_image() + row * g_.in_row();
            if (has_sums || (wants_gradient && c_.producer.activation == rectify_by_output)) source_.load(channel, at, x_, false);
            for (const Variant& variant : variants_) find_variant(variant);
            T* to = wants_gradient ? c_.to + channel * g_.in_plane() + at : nullptr;
            if (wants_gradient) {
                c_.accumulate ? take(at_input_, to, g_.in_row()) : fill(at_input_, F(0), g_.in_row());
            }
            const bool with_sums = c_.value_gradient != nullptr;
            for (const RowTile& tile : tiles_) {
                const ChannelEntries &all = of_.by_class_[tile.of_class], &alone = of_.sums_by_class_[tile.of_class];
                if (wants_gradient) {
                    with_sums ? add<true, true>(tile, all, channel) : add<true, false>(tile, all, channel);
                } else if (with_sums) {
                    add<false, true>(tile, all, channel);
                }
                add<false, true>(tile, alone, channel);
            }
            if (of_.is_near_ && c_.probes > 0) add_near_sketches(channel);
            if (wants_gradient) finish_row(channel, row, to);
        }

        void add_near_sketches(int32_t channel) {
            for (int32_t probe = 0; probe < c_.probes; ++probe) {
                const F* sketch[3];
                F* sums[3];
                int32_t count = 0;
                for (int32_t kernel_row = 0; kernel_row < 3; ++kernel_row) {
                    if (counted_rows_[kernel_row] < 0) continue;
                    const int32_t first = of_.sketch_sums_[channel] + (probe * 3 + kernel_row) * 3;
                    sketch[count] = ring_.at(of_.sketches_ + probe, counted_rows_[kernel_row]);
                    sums[count++] = sums_ + int64_t(first) * lanes;
                }
                if (count == sketch_rows) {
                    add_sketch_rows<sketch_rows>(x_, sketch, sums, g_.in_width);
                    continue;
                }
                for (int32_t k = 0; k < count; ++k) add_sketch_rows<1>(x_, sketch + k, sums + k, g_.in_width);
            }
        }

        void find_variant(const Variant& variant) {
            F* to = at_margins_ + variant.kernel_column * g_.in_row();
            for (int32_t c = 0; c < variant.columns; ++c) {
                const int32_t column = variant.first + c;
                const int64_t at = variant.begin + c * g_.stride * lanes;
                if (column >= 0 && column < g_.out_width) {
                    std::copy_n(x_ + at, lanes, to + at);
                } else {
                    fill(to + at, F(0), lanes);
                }
            }
        }

        template <bool gradient, bool sums>
        void add(const RowTile& tile, const ChannelEntries& list, int32_t channel) {
            const Entry<F>* entries = list.entries.data() + list.start[channel];
            int64_t count = list.count(channel);
            if (!is_whole_) {
                int64_t met = 0;
                for (int64_t j = 0; j < count; ++j) {
                    met_[met] = entries[j];
                    met += is_met_[entries[j].tap];
                }
                entries = met_;
                count = met;
            }
            if (count == 0) return;
            add_tile<F, gradient, sums>(tile.columns)(
                {entries, count, memory_, tile.taps, g_.stride * lanes, at_input_ + tile.begin, sums_});
        }

        // What is to be done with a row of the gradient at the input, when all has been added to it.
        void finish_row(int32_t channel, int32_t row, T* to) {
            round_all<T>(at_input_, g_.in_row());
            if (of_.has_producer()) activate(channel, row);
            stream_row(to, at_input_, g_.in_row());
        }

        // Takes the gradient back behind the activation, and adds to what batch norm needs of it.
        void activate(int32_t channel, int32_t row) {
            const Producer<T>& p = c_.producer;
            const int32_t rows = of_.in_segments_.most_rows();
            GradientSums<F>& sums = arriving_[channel];
            if (row % rows == 0) sums = GradientSums<F>();
            const Normalization<F>& norm = p.norm[channel];
            const int64_t count = g_.in_row();
            if (p.start[channel + 1] > p.start[channel]) {
                const T* z = p.z + channel * g_.in_plane() + part_.group * g_.in_image() + row * count;
                switch (p.activation) {
                    case rectify_by_output:
                        activate_row<rectify_by_output, true>(at_input_, x_, z, norm, count, sums);
                        break;
                    case rectify_by_input:
                        activate_row<rectify_by_input, true>(at_input_, x_, z, norm, count, sums);
                        break;
                    default:
                        activate_row<none, true>(at_input_, x_, z, norm, count, sums);
                }
            } else if (p.activation == rectify_by_output) {
                activate_row<rectify_by_output, false, F, T>(at_input_, x_, nullptr, norm, count, sums);
            } else {
                // z is zero everywhere, and the activation passes everything: else the channel is unreached.
                activate_row<none, false, F, T>(at_input_, x_, nullptr, norm, count, sums);
            }
            if ((row + 1) % rows != 0 && row + 1 < g_.in_height) return;
            const int32_t segment = part_.group * (of_.in_segments_.count() / g_.groups()) + row / rows;
            F* arrived = of_.arrived_ + (int64_t(segment) * g_.in_channels + channel) * 2;
            arrived[0] = sums.g.total(g_.images(part_.group));
            arrived[1] = sums.product.total(g_.images(part_.group));
        }

        // A row of the gradient at the output, of all channels that are read here.
        void load(int32_t row) {
            const int64_t at = part_.group * g_.out_image() + row * g_.out_row();
            for (int32_t channel = 0; channel < g_.out_channels; ++channel) {
                const int32_t place = of_.places_[channel];
                F* to = place < 0 ? line_ : ring_.at(place, row);
                const bool is_reached = c_.gradient.dz != nullptr || c_.gradient.slopes[channel].reached != 0;
                if (is_reached && (place >= 0 || c_.probes > 0)) load_channel(channel, channel * g_.out_plane() + at, row, to);
                if (c_.probes > 0) add_to_sketches(channel, row, is_reached ? to : nullptr);
            }
        }

        void load_channel(int32_t channel, int64_t at, int32_t row, F* to) {
            using V = Vector<T>;
            using W = Vector<F>;
            const AtConvolution<T>& gradient = c_.gradient;
            const int64_t count = g_.out_row();
            if (gradient.dz != nullptr) {
                take(to, gradient.dz + at, count);
                return;
            }
            const Normalization<F>& norm = gradient.norm[channel];
            const Slope& slope = gradient.slopes[channel];
            const T *g = gradient.g + at, *z = gradient.z + at;
            if (c_.by_output.count(channel) == 0) {
                find_gradient<false>(g, z, norm, slope, to, count);
                return;
            }
            find_gradient<true>(g, z, norm, slope, to, count);
            const int32_t few = of_.few_places_[channel];
            if (few < 0) return;
            take(ring_.at(few, row), g, count);
            F* hats = ring_.at(few + 1, row);
            const auto m = W::all(norm.mean), i = W::all(norm.inverse);
            for (int64_t k = 0; k < count; k += V::width) W::store(hats + k, (V::load(z + k) - m) * i);
        }

        // Adds a channel to the sums of signs * dz over some channels, and these to the sketches where they are done. No gradient
        // reaches a channel without `dz`.
        void add_to_sketches(int32_t channel, int32_t row, const F* dz) {
            const int64_t count = g_.out_row();
            const bool is_first = channel % sketch_channels == 0;
            const bool is_last = (channel + 1) % sketch_channels == 0 || channel + 1 == g_.out_channels;
            for (int32_t probe = 0; probe < c_.probes; ++probe) {
                F *sums = line_ + (1 + probe) * count, *sketch = ring_.at(of_.sketches_ + probe, row);
                if (is_first) fill(sums, F(0), count);
                if (dz != nullptr) add_scaled<F>(sums, dz, c_.signs[int64_t(probe) * g_.out_channels + channel], count);
                if (!is_last) continue;
                if (channel < sketch_channels) {
                    std::copy_n(sums, count, sketch);
                } else {
                    add_scaled<F>(sketch, sums, F(1), count);
                }
            }
        }

        const BackwardPass& of_;
        const BackwardRows<T>& c_;
        const Geometry& g_;
        F* memory_;
        Ring<F> ring_;
        SourceRows<T> source_;
        F *x_, *at_input_, *zeros_, *at_margins_;  // rows of the input, the last one for each kernel column
        F* line_;  // a row of the output, and one for each sketch
        GradientSums<F>* arriving_;  // of the segment that an input channel is in
        Entry<F>* met_;
        F* sums_ = nullptr;  // of entries, 32 each, from the first of all blocks on
        std::vector<RowTile> tiles_;
        std::vector<Variant> variants_;
        bool is_met_[most_taps], is_whole_ = true;  // by kernel position
        int32_t segments_[most_taps];  // by kernel row, the segment whose sums are being taken
        int32_t counted_rows_[most_taps];  // by kernel row, the row of the output that is counted; negative for none
        RowTask part_;
        int32_t own_ = 0, own_end_ = 0, loaded_ = 0;
    };

    const BackwardRows<T>& c_;
    const Geometry& g_;
    const int32_t taps_, slots_;
    const bool is_near_;
    const Segments out_segments_, in_segments_;
    int32_t left_ = 0, right_ = 0;  // zeros at either end of a row of the ring
    std::vector<int32_t> places_, few_places_;  // in the ring, of output channels; negative for none
    int32_t ring_channels_ = 0, ones_ = 0, sketches_ = 0;
    bool has_few_ = false;
    std::vector<ChannelEntries> by_class_, sums_by_class_;  // by row class and column class
    std::vector<std::vector<int32_t>> by_kernel_row_;       // its sums, in order
    std::vector<int32_t> first_sum_, sketch_sums_, values_;  // by input channel; the value whose gradient a sum is, or -1
    std::vector<FewSums> few_;
    int32_t sum_count_ = 0, most_ = 0;
    RowTasks tasks_;
    F* parts_ = nullptr;        // [segments of the output, sums]
    double* totals_ = nullptr;  // [sums]
    F* arrived_ = nullptr;      // [segments of the input, in_channels, 2]
};

template <typename T>
void backward_rows(const BackwardRows<T>& c) {
    BackwardPass<T>(c).run();
}

}  // namespace
}  // namespace east

EAST_KERNEL(backward_rows, BackwardRows, backward_rows)
