// Which rows the backward pass through a convolution keeps in a ring, and which sums it takes of them.
#pragma once

#include <algorithm>
#include <vector>

#include "backward_rows.h"
#include "backward_tiles.h"

namespace east {

// Entries channel by channel.
template <typename F>
struct ChannelEntries {
    std::vector<Entry<F>> entries;
    std::vector<int32_t> start;

    int32_t count(int32_t channel) const { return start[channel + 1] - start[channel]; }
};

// An output channel with few non-zeros: where the sums for one of them are.
struct FewSums {
    int32_t value, output, sum;  // of x * g, of x * hat, and of x, one behind the other
};

template <typename T>
class BackwardPlan {
    using F = Value<T>;

  public:
    explicit BackwardPlan(const BackwardRows<T>& of)
        : call(of),
          geometry(of.geometry),
          taps(geometry.kernel * geometry.kernel),
          slots((geometry.kernel + geometry.stride - 1) / geometry.stride),
          is_near(geometry.kernel == 3 && geometry.stride == 1 && geometry.padding == 1),
          out_segments(east::out_segments(geometry)),
          in_segments(geometry.groups(), geometry.in_height, geometry.in_width) {
        find_margins();
        find_channels();
        find_entries();
    }

    bool has_producer() const { return call.producer.z != nullptr; }

    // Columns of the input of one class have the same remainder, so that the same kernel columns reach them.
    int32_t class_of(int32_t kernel_column) const {
        return ((kernel_column - geometry.padding) % geometry.stride + geometry.stride) % geometry.stride;
    }
    int32_t columns_of(int32_t of_class) const {
        return (geometry.in_width - of_class + geometry.stride - 1) / geometry.stride;
    }
    // From the place of a column in its class to the output's column that a kernel column connects it with.
    int32_t shift_of(int32_t kernel_column) const {
        return (class_of(kernel_column) + geometry.padding - kernel_column) / geometry.stride;
    }

    // Whether no gradient reaches an input channel: nothing reads it, or it is constant and the activation passes nothing.
    bool is_unreached(int32_t channel) const {
        const Producer<T>& p = call.producer;
        if (!has_producer()) return false;
        if (p.read != nullptr && !p.read[channel]) return true;
        return p.start[channel + 1] == p.start[channel] && p.activation == rectify_by_input && p.norm[channel].shift <= 0;
    }

    int32_t ring_columns() const { return left + geometry.out_width + right; }

    // Rows of the output that make whole segments of it, and of the input.
    int32_t rows_together() const {
        const int32_t rows = out_segments.most_rows();
        int32_t step = rows;
        while (step < geometry.out_height && step * geometry.stride % in_segments.most_rows() != 0) step += rows;
        return step;
    }

    const BackwardRows<T>& call;
    const Geometry& geometry;
    const int32_t taps, slots;
    const bool is_near;
    const Segments out_segments, in_segments;
    int32_t left = 0, right = 0;  // zeros at either end of a row of the ring
    std::vector<int32_t> places, few_places;  // in the ring, of output channels; negative for none
    int32_t ring_channels = 0, ones = 0, sketches = 0;
    bool has_few = false;
    std::vector<ChannelEntries<F>> by_class, sums_by_class;  // by row class and column class
    std::vector<std::vector<int32_t>> by_kernel_row;         // its sums, in order
    std::vector<int32_t> first_sum, sketch_sums;             // by input channel
    std::vector<int32_t> values;                             // by sum: the value whose gradient it is, or -1
    std::vector<FewSums> few_sums;
    int32_t sum_count = 0, most = 0;  // `most`: entries of a channel

  private:
    void find_margins() {
        for (int32_t column = 0; column < geometry.kernel; ++column) {
            left = std::max(left, -shift_of(column));
            right = std::max(right, columns_of(class_of(column)) - 1 + shift_of(column) - (geometry.out_width - 1));
        }
    }

    // The rows of the ring: of dz; of g and hat where a channel has few non-zeros, and of ones; of sketches.
    void find_channels() {
        places.assign(geometry.out_channels, -1);
        few_places.assign(geometry.out_channels, -1);
        for (int32_t j = 0; j < call.by_input.start[geometry.in_channels]; ++j) places[call.by_input.channel[j]] = 0;
        for (int32_t channel = 0; channel < geometry.out_channels; ++channel) {
            if (places[channel] == 0) places[channel] = ring_channels++;
        }
        if (call.value_gradient != nullptr) {
            for (int32_t channel = 0; channel < geometry.out_channels; ++channel) {
                if (places[channel] < 0 || call.by_output.count(channel) > call.few) continue;
                few_places[channel] = ring_channels;
                ring_channels += 2;
                has_few = true;
            }
        }
        ones = ring_channels;
        if (has_few) ++ring_channels;
        sketches = ring_channels;
        ring_channels += call.probes;
    }

    void find_entries() {
        const int32_t classes = geometry.stride * geometry.stride, stride = int32_t(Ring<F>::numbers(1, slots, ring_columns()));
        const auto class_of_tap = [&](int32_t tap) {
            return tap / geometry.kernel % geometry.stride * geometry.stride + class_of(tap % geometry.kernel);
        };
        by_class.resize(classes);
        sums_by_class.resize(classes);
        for (auto* lists : {&by_class, &sums_by_class}) {
            for (ChannelEntries<F>& list : *lists) list.start.assign(geometry.in_channels + 1, 0);
        }
        by_kernel_row.resize(geometry.kernel);
        first_sum.assign(geometry.in_channels + 1, 0);
        const auto new_sum = [&](int32_t tap) {
            by_kernel_row[tap / geometry.kernel].push_back(sum_count);
            values.push_back(-1);
            return sum_count++;
        };
        for (int32_t channel = 0; channel < geometry.in_channels; ++channel) {
            for (int32_t j = call.by_input.start[channel]; j < call.by_input.start[channel + 1]; ++j) {
                const int32_t output = call.by_input.channel[j], tap = call.by_input.tap[j], value = call.by_input.value[j];
                Entry<F> entry = {places[output] * stride, tap, call.values[value], 0};
                const int32_t few = few_places[output];
                if (call.value_gradient != nullptr) {
                    entry.sum = new_sum(tap);
                    if (few < 0) values.back() = value;
                }
                by_class[class_of_tap(tap)].entries.push_back(entry);
                if (few < 0) continue;
                few_sums.push_back({value, output, sum_count});
                for (const int32_t place : {few, few + 1, ones}) {
                    sums_by_class[class_of_tap(tap)].entries.push_back({place * stride, tap, F(0), new_sum(tap)});
                }
            }
            sketch_sums.push_back(sum_count);
            for (int32_t k = 0; k < call.probes * taps; ++k) {
                const int32_t tap = k % taps, sum = new_sum(tap);
                if (is_near) continue;
                sums_by_class[class_of_tap(tap)].entries.push_back({(sketches + k / taps) * stride, tap, F(0), sum});
            }
            for (auto* lists : {&by_class, &sums_by_class}) {
                for (ChannelEntries<F>& list : *lists) {
                    list.start[channel + 1] = int32_t(list.entries.size());
                    most = std::max(most, list.count(channel));
                }
            }
            first_sum[channel + 1] = sum_count;
        }
    }
};

}  // namespace east
