// One sweep over the rows of a convolution's input, for a block of its channels: makes rows of the gradient at its output, and
// takes from them the gradient at the input and all sums.
#pragma once

#include <algorithm>
#include <vector>

#include "activate_rows.h"
#include "backward_plan.h"
#include "sketch_rows.h"

namespace east {

template <typename T>
class BackwardSweep {
    using F = Value<T>;

  public:
    // `parts` has a place for the sums of each segment of the output, and `arrived` for those of the input.
    BackwardSweep(const BackwardPlan<T>& plan, F* parts, F* arrived)
        : plan_(plan),
          c_(plan.call),
          g_(plan.geometry),
          parts_(parts),
          arrived_(arrived),
          memory_(scratch<F, 1>(Ring<F>::numbers(plan.ring_channels, plan.slots, plan.ring_columns()))),
          ring_(memory_, plan.ring_channels, plan.slots, plan.left, g_.out_width, plan.right),
          source_(c_.x, g_.in_plane(), g_.in_row()),
          x_(scratch<F, 2>((3 + g_.kernel) * g_.in_row())),
          at_input_(x_ + g_.in_row()),
          zeros_(at_input_ + g_.in_row()),
          at_margins_(zeros_ + g_.in_row()),
          line_(scratch<F, 3>((1 + c_.probes) * g_.out_row())),
          arriving_(scratch<GradientSums<F>, 0>(g_.in_channels)),
          met_(scratch<Entry<F>, 0>(plan.most)) {
        fill(zeros_, F(0), g_.in_row());
        for (int32_t slot = 0; slot < (plan.has_few ? plan.slots : 0); ++slot) {
            fill(ring_.at(plan.ones, slot), F(1), g_.out_row());
        }
    }

    void run(const RowTask& task) {
        part_ = task;
        const int32_t first_sum = plan_.first_sum[part_.channel_begin], end_sum = plan_.first_sum[part_.channel_end];
        F* sums = scratch<F, 5>(int64_t(end_sum - first_sum) * lanes);
        fill(sums, F(0), int64_t(end_sum - first_sum) * lanes);
        sums_ = sums - int64_t(first_sum) * lanes;
        const int32_t first = segment_of(part_.row_begin), end = segment_of(part_.row_end - 1) + 1;
        for (int32_t segment = first; segment < end; ++segment) {
            fill(parts_ + int64_t(segment) * plan_.sum_count + first_sum, F(0), end_sum - first_sum);
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
        return part_.group * (plan_.out_segments.count() / g_.groups()) + row / plan_.out_segments.most_rows();
    }

    // Hands over the sums of a segment, and begins those of another.
    void flush(int32_t kernel_row, int32_t segment) {
        const std::vector<int32_t>& all = plan_.by_kernel_row[kernel_row];
        const int32_t end = plan_.first_sum[part_.channel_end], images = g_.images(part_.group);
        F* parts = parts_ + int64_t(segment) * plan_.sum_count;
        for (auto at = std::lower_bound(all.begin(), all.end(), plan_.first_sum[part_.channel_begin]);
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
            const int32_t columns = plan_.columns_of(of_column);
            if (columns <= 0) continue;
            for_each_tile(columns, columns_at_once<F>(one_other), [&](int32_t first, int32_t count) {
                tiles_.push_back({of_row * g_.stride + of_column, count, int64_t(of_column + first * g_.stride) * lanes, {}});
                for (int32_t kernel_column = 0; kernel_column < g_.kernel; ++kernel_column) {
                    if (plan_.class_of(kernel_column) == of_column) find_taps(met, kernel_column, first, tiles_.back());
                }
            });
        }
        for (int32_t tap = 0; tap < plan_.taps; ++tap) is_met_[tap] = met[tap / g_.kernel].is_met;
    }

    void find_taps(const MetRow* met, int32_t kernel_column, int32_t first, RowTile& tile) {
        const int32_t column = first + plan_.shift_of(kernel_column);
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
        const bool wants_gradient = is_own && c_.to != nullptr && !plan_.is_unreached(channel);
        const bool has_sums = plan_.first_sum[channel + 1] > plan_.first_sum[channel];
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
            const ChannelEntries<F> &all = plan_.by_class[tile.of_class], &alone = plan_.sums_by_class[tile.of_class];
            if (wants_gradient) {
                with_sums ? add<true, true>(tile, all, channel) : add<true, false>(tile, all, channel);
            } else if (with_sums) {
                add<false, true>(tile, all, channel);
            }
            add<false, true>(tile, alone, channel);
        }
        if (plan_.is_near && c_.probes > 0) add_near_sketches(channel);
        if (wants_gradient) finish_row(channel, row, to);
    }

    void add_near_sketches(int32_t channel) {
        for (int32_t probe = 0; probe < c_.probes; ++probe) {
            const F* sketch[3];
            F* sums[3];
            int32_t count = 0;
            for (int32_t kernel_row = 0; kernel_row < 3; ++kernel_row) {
                if (counted_rows_[kernel_row] < 0) continue;
                const int32_t first = plan_.sketch_sums[channel] + (probe * 3 + kernel_row) * 3;
                sketch[count] = ring_.at(plan_.sketches + probe, counted_rows_[kernel_row]);
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
    void add(const RowTile& tile, const ChannelEntries<F>& list, int32_t channel) {
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
        if (plan_.has_producer()) activate(channel, row);
        stream_row(to, at_input_, g_.in_row());
    }

    // Takes the gradient back behind the activation, and adds to what batch norm needs of it.
    void activate(int32_t channel, int32_t row) {
        const Producer<T>& p = c_.producer;
        const int32_t rows = plan_.in_segments.most_rows();
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
        const int32_t segment = part_.group * (plan_.in_segments.count() / g_.groups()) + row / rows;
        F* arrived = arrived_ + (int64_t(segment) * g_.in_channels + channel) * 2;
        arrived[0] = sums.g.total(g_.images(part_.group));
        arrived[1] = sums.product.total(g_.images(part_.group));
    }

    // A row of the gradient at the output, of all channels that are read here.
    void load(int32_t row) {
        const int64_t at = part_.group * g_.out_image() + row * g_.out_row();
        for (int32_t channel = 0; channel < g_.out_channels; ++channel) {
            const int32_t place = plan_.places[channel];
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
        const int32_t few = plan_.few_places[channel];
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
            F *sums = line_ + (1 + probe) * count, *sketch = ring_.at(plan_.sketches + probe, row);
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

    const BackwardPlan<T>& plan_;
    const BackwardRows<T>& c_;
    const Geometry& g_;
    F *parts_, *arrived_;
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

}  // namespace east
