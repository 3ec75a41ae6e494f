// Cross-entropy of a batch: its sum, and its gradient at the logits.

#include "elementary.h"
#include "planes.h"

namespace east {
namespace {

template <typename T>
struct CrossEntropy {
    int64_t classes, batch;
    const T* logits;        // [classes, groups, 32]
    const int64_t* labels;  // [batch]
    double* loss;           // the sum over images
    T* gradient;            // of the mean over images, as the logits; zero in lanes without an image
};

// In double, image by image, classes in ascending order.
template <typename T>
void cross_entropy(const CrossEntropy<T>& c) {
    const int64_t stride = int64_t(groups_of(int32_t(c.batch))) * lanes;
    double total = 0;
    for (int64_t image = 0; image < stride; ++image) {
        const T* logits = c.logits + image;
        T* gradient = c.gradient + image;
        if (image >= c.batch) {
            for (int64_t k = 0; k < c.classes; ++k) gradient[k * stride] = 0;
            continue;
        }
        T most = logits[0];
        for (int64_t k = 1; k < c.classes; ++k) most = logits[k * stride] <= most ? most : logits[k * stride];
        double sum = 0;
        for (int64_t k = 0; k < c.classes; ++k) sum += exponential(double(logits[k * stride]) - most);
        const int64_t label = c.labels[image];
        total += logarithm(sum) - (double(logits[label * stride]) - most);
        for (int64_t k = 0; k < c.classes; ++k) {
            const double share = exponential(double(logits[k * stride]) - most) / sum;
            gradient[k * stride] = T((share - (k == label ? 1 : 0)) / double(c.batch));
        }
    }
    *c.loss = total;
}

}  // namespace
}  // namespace east

EAST_KERNEL_OF_VALUES(cross_entropy, CrossEntropy, cross_entropy)
