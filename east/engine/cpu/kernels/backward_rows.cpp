// The backward pass through a convolution with many non-zeros a channel, row by row of its input: divides the work, and adds up
// what the sweeps over the rows leave: the gradients of its weights, and what the batch norm of the unit before it needs.

#include "backward_sweep.h"

namespace east {
namespace {

// Bytes of sums that a block of channels may take. Beyond the second-level cache they are as slow as the rows that each block
// would have to read again.
constexpr int64_t most_sum_bytes = 1 << 20;

template <typename T>
class BackwardPass {
    using F = Value<T>;

  public:
    explicit BackwardPass(const BackwardRows<T>& call) : c_(call), g_(call.geometry), plan_(call) {
        const int64_t bytes = int64_t(plan_.sum_count) * lanes * sizeof(F);
        const int32_t least = int32_t(std::min<int64_t>(g_.in_channels, (bytes + most_sum_bytes - 1) / most_sum_bytes));
        tasks_ = RowTasks(g_.groups(), g_.out_height, plan_.rows_together(), std::max(least, 1), g_.in_channels);
        parts_ = scratch<F, 0>(int64_t(plan_.out_segments.count()) * plan_.sum_count);
        totals_ = scratch<double, 8>(plan_.sum_count);
        if (plan_.has_producer()) arrived_ = scratch<F, 7>(int64_t(plan_.in_segments.count()) * g_.in_channels * 2);
    }

    void run() {
        if (c_.value_gradient != nullptr) fill(c_.value_gradient, F(0), c_.by_output.start[g_.out_channels]);
        in_parallel([&](const Thread& thread) {
            BackwardSweep<T> sweep(plan_, parts_, arrived_);
            thread.share(tasks_.count(), [&](int64_t task) { sweep.run(tasks_[int32_t(task)]); });
            finish_streaming();
            thread.share((plan_.sum_count + sums_of_task - 1) / sums_of_task, [&](int64_t task) { find_totals(int32_t(task)); });
            thread.share(g_.in_channels, [&](int64_t channel) { finish_channel(int32_t(channel)); });
        });
        if (c_.value_gradient == nullptr) return;
        for (const FewSums& one : plan_.few_sums) {
            const Slope& slope = c_.gradient.slopes[one.output];
            const double* sums = totals_ + one.sum;
            const double found = c_.gradient.norm[one.output].factor * sums[0] + slope.of_hat * sums[1] + slope.shared * sums[2];
            c_.value_gradient[one.value] = F(found);
        }
    }

  private:
    static constexpr int32_t sums_of_task = 512;

    void find_totals(int32_t task) {
        const int32_t begin = task * sums_of_task, end = std::min(begin + sums_of_task, plan_.sum_count);
        for (int32_t k = begin; k < end; ++k) totals_[k] = 0;
        for (int32_t index = 0; index < plan_.out_segments.count(); ++index) {
            const F* parts = parts_ + int64_t(index) * plan_.sum_count;
            for (int32_t k = begin; k < end; ++k) totals_[k] += parts[k];
        }
        for (int32_t k = begin; k < end; ++k) {
            if (plan_.values[k] >= 0) c_.value_gradient[plan_.values[k]] = F(totals_[k]);
        }
    }

    void finish_channel(int32_t channel) {
        for (int32_t k = 0; k < c_.probes * plan_.taps; ++k) {
            c_.products[int64_t(channel) * c_.probes * plan_.taps + k] = totals_[plan_.sketch_sums[channel] + k];
        }
        if (!plan_.has_producer()) return;
        const Producer<T>& p = c_.producer;
        double g = 0, product = 0;
        const bool is_reached = !plan_.is_unreached(channel);
        for (int32_t index = 0; index < (is_reached ? plan_.in_segments.count() : 0); ++index) {
            const F* arrived = arrived_ + (int64_t(index) * g_.in_channels + channel) * 2;
            g += arrived[0];
            product += arrived[1];
        }
        p.weight_gradient[channel] = F(product);
        p.bias_gradient[channel] = F(g);
        const double numbers = double(g_.batch) * g_.in_height * g_.in_width;
        p.slopes[channel] = is_reached ? Slope(p.norm[channel], g, product, numbers) : Slope{};
    }

    const BackwardRows<T>& c_;
    const Geometry& g_;
    const BackwardPlan<T> plan_;
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
