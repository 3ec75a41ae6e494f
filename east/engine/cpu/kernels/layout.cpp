// Images into the layout of activations, in which the 32 images of a group lie side by side.

#include "planes.h"

namespace east {
namespace {

template <typename T>
struct TakeImages {
    const Value<T>* from;  // [batch, channels, height * width] by the strides below
    T* to;          // [channels, groups, height, width, 32]; zero in lanes without an image
    int64_t batch, channels, height, width;
    int64_t image_stride, channel_stride, position_stride;
};

// Positions that are copied at once, into a buffer that stays in the first-level cache.
constexpr int64_t at_once = 64;

template <typename T>
void take_images(const TakeImages<T>& copy) {
    const int64_t groups = groups_of(int32_t(copy.batch)), positions = copy.height * copy.width;
    const int64_t plane = plane_stride(int32_t(groups), copy.height, copy.width);
    in_parallel([&](const Thread& thread) {
        thread.divide(copy.channels * groups, [&](int64_t task) {
            const int64_t channel = task / groups, group = task % groups;
            const Value<T>* from = copy.from + group * lanes * copy.image_stride + channel * copy.channel_stride;
            T* to = copy.to + channel * plane + group * positions * lanes;
            const int64_t images = std::min<int64_t>(lanes, copy.batch - group * lanes);
            for (int64_t begin = 0; begin < positions; begin += at_once) {
                const int64_t count = std::min(at_once, positions - begin);
                for (int64_t lane = 0; lane < lanes; ++lane) {
                    const Value<T>* image = from + lane * copy.image_stride + begin * copy.position_stride;
                    T* at = to + begin * lanes + lane;
                    for (int64_t p = 0; p < count; ++p) at[p * lanes] = kept_as<T>(lane < images ? image[p * copy.position_stride] : 0);
                }
            }
        });
    });
}

}  // namespace
}  // namespace east

EAST_KERNEL(take_images, TakeImages, take_images)
