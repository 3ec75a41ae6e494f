// Copies between images, their channels and positions in any order, and planes with the batch innermost.

#include <cstring>
#include <type_traits>

#include "planes.h"
#include "vector.h"

namespace east {
namespace {

template <typename T>
struct ToBatchInnermost {
    const T* from;  // [batch, channels, positions] by the strides below
    T* to;          // [channels, positions, batch]
    int64_t batch, channels, positions;
    int64_t from_image_stride, from_channel_stride, from_position_stride;
};

template <typename T>
struct FromBatchInnermost {
    Planes<T> from;  // [channels, positions, batch]
    T* to;           // [batch, channels, positions] by the strides below
    int64_t batch, channels, positions;
    int64_t to_image_stride, to_channel_stride, to_position_stride;
};

// Four numbers side by side.
template <typename T>
struct Four {
    typedef T Register __attribute__((vector_size(4 * sizeof(T))));
    typedef T Unaligned __attribute__((vector_size(4 * sizeof(T)), aligned(sizeof(T)), may_alias));

    static inline Register load(const T* from) { return *reinterpret_cast<const Unaligned*>(from); }
    static inline void store(T* to, Register value) { *reinterpret_cast<Unaligned*>(to) = value; }
};

// The numbers i, j, k and l of the eight in two registers.
template <int i, int j, int k, int l, typename Register>
inline Register pick(Register left, Register right) {
#if defined(__clang__)
    return __builtin_shufflevector(left, right, i, j, k, l);
#else
    typedef decltype(left < right) Indices;
    return __builtin_shuffle(left, right, Indices{i, j, k, l});
#endif
}

// to[j * to_stride + i] = from[i * from_stride + j] for i, j < 4
template <typename T>
inline void transpose_four(const T* from, int64_t from_stride, T* to, int64_t to_stride) {
    if constexpr (sizeof(typename Four<T>::Register) > EAST_VECTOR_BYTES) {
        for (int64_t i = 0; i < 4; ++i) {
            for (int64_t j = 0; j < 4; ++j) to[j * to_stride + i] = from[i * from_stride + j];
        }
    } else {
        using F = Four<T>;
        const auto a = F::load(from), b = F::load(from + from_stride);
        const auto c = F::load(from + 2 * from_stride), d = F::load(from + 3 * from_stride);
        const auto ab_low = pick<0, 4, 1, 5>(a, b), ab_high = pick<2, 6, 3, 7>(a, b);
        const auto cd_low = pick<0, 4, 1, 5>(c, d), cd_high = pick<2, 6, 3, 7>(c, d);
        F::store(to, pick<0, 1, 4, 5>(ab_low, cd_low));
        F::store(to + to_stride, pick<2, 3, 6, 7>(ab_low, cd_low));
        F::store(to + 2 * to_stride, pick<0, 1, 4, 5>(ab_high, cd_high));
        F::store(to + 3 * to_stride, pick<2, 3, 6, 7>(ab_high, cd_high));
    }
}

// What is exchanged at once: some numbers of some images, in a buffer that stays in the second-level cache.
//
// Images and planes often lie a multiple of a large power of two apart, and a cache keeps only a few lines at such
// distances. So images are walked four at a time, planes one at a time, and only the buffer is accessed across.
template <typename T>
struct Part {
    static constexpr int64_t most_rows = 1024 / sizeof(T), most_images = 128;
    static constexpr int64_t stride = most_images + 64 / sizeof(T);  // not a power of two, for the same reason

    // One number of each image.
    struct Row {
        int64_t channel, position;
        int64_t offset;  // in an image
    };
    Row rows[most_rows];
    int64_t count;
    bool contiguous;  // the offsets are consecutive
    alignas(64) T buffer[most_rows * stride];  // [rows, images]
};

template <typename T>
inline int64_t count_parts(int64_t channels, int64_t positions) {
    return (channels * positions + Part<T>::most_rows - 1) / Part<T>::most_rows;
}

// The rows of part `index`, in the order in which an image holds them.
template <typename T>
inline void take_rows(Part<T>& part, int64_t index, int64_t channels, int64_t positions, int64_t channel_stride,
                      int64_t position_stride) {
    const bool channels_last = channel_stride < position_stride;
    const int64_t inner = channels_last ? channels : positions;
    const int64_t begin = index * part.most_rows, left = channels * positions - begin;
    part.count = left < part.most_rows ? left : part.most_rows;
    part.contiguous = true;
    int64_t slow = begin / inner, fast = begin % inner;
    for (int64_t k = 0; k < part.count; ++k) {
        auto& row = part.rows[k];
        row.channel = channels_last ? fast : slow;
        row.position = channels_last ? slow : fast;
        row.offset = row.channel * channel_stride + row.position * position_stride;
        part.contiguous = part.contiguous && row.offset == part.rows[0].offset + k;
        if (++fast == inner) {
            fast = 0;
            ++slow;
        }
    }
}

// Asks for the memory of four images, 64 bytes each.
template <bool write, typename T>
inline void prefetch_four(const T* at, int64_t stride) {
    for (int64_t image = 0; image < 4; ++image) __builtin_prefetch(at + image * stride, write, 3);
}

// Asks for the memory of one row.
template <bool write, typename T>
inline void prefetch_row(const T* at, int64_t images) {
    for (int64_t n = 0; n < images; n += 64 / sizeof(T)) __builtin_prefetch(at + n, write, 3);
}

constexpr int64_t rows_ahead = 4;

// Copies between images and the buffer: out of images that are const, into others.
template <typename T, typename Number>
inline void exchange(Part<T>& part, Number* images, int64_t stride, int64_t count) {
    constexpr bool reading = std::is_const_v<Number>;
    for (int64_t n = 0; n < count; n += 4, images += 4 * stride) {
        int64_t k = 0;
        if (part.contiguous && n + 4 <= count) {
            Number* image = images + part.rows[0].offset;
            for (; k + 4 <= part.count; k += 4) {
                T* buffer = part.buffer + k * part.stride + n;
                if (k * sizeof(T) % 64 == 0) prefetch_four<!reading>(image + 4 * stride + k, stride);
                if constexpr (reading) {
                    transpose_four(image + k, stride, buffer, part.stride);
                } else {
                    transpose_four(buffer, part.stride, image + k, stride);
                }
            }
        }
        for (; k < part.count; ++k) {
            T* buffer = part.buffer + k * part.stride + n;
            Number* image = images + part.rows[k].offset;
            for (int64_t i = 0; i < 4 && n + i < count; ++i) {
                if constexpr (reading) {
                    buffer[i] = image[i * stride];
                } else {
                    image[i * stride] = buffer[i];
                }
            }
        }
    }
}

template <typename T>
void to_batch_innermost(const ToBatchInnermost<T>& copy) {
    const int64_t parts = count_parts<T>(copy.channels, copy.positions);
#pragma omp parallel
    {
        Part<T>& part = *scratch<Part<T>, 0>(1);
#pragma omp for schedule(static)
        for (int64_t index = 0; index < parts; ++index) {
            take_rows(part, index, copy.channels, copy.positions, copy.from_channel_stride, copy.from_position_stride);
            const auto target = [&](int64_t k) {
                const auto& row = part.rows[k < part.count ? k : part.count - 1];
                return copy.to + (row.channel * copy.positions + row.position) * copy.batch;
            };
            for (int64_t n = 0; n < copy.batch; n += part.most_images) {
                const int64_t images = copy.batch - n < part.most_images ? copy.batch - n : part.most_images;
                exchange(part, copy.from + n * copy.from_image_stride, copy.from_image_stride, images);
                for (int64_t k = 0; k < part.count; ++k) {
                    prefetch_row<true>(target(k + rows_ahead) + n, images);
                    std::memcpy(target(k) + n, part.buffer + k * part.stride, images * sizeof(T));
                }
            }
        }
    }
}

template <typename T>
void from_batch_innermost(const FromBatchInnermost<T>& copy) {
    const int64_t parts = count_parts<T>(copy.channels, copy.positions);
#pragma omp parallel
    {
        Part<T>& part = *scratch<Part<T>, 0>(1);
#pragma omp for schedule(static)
        for (int64_t index = 0; index < parts; ++index) {
            take_rows(part, index, copy.channels, copy.positions, copy.to_channel_stride, copy.to_position_stride);
            const auto source = [&](int64_t k) {
                const auto& row = part.rows[k < part.count ? k : part.count - 1];
                return copy.from.data + (row.channel * copy.positions + row.position) * copy.batch;
            };
            for (int64_t n = 0; n < copy.batch; n += part.most_images) {
                const int64_t images = copy.batch - n < part.most_images ? copy.batch - n : part.most_images;
                for (int64_t k = 0; k < part.count; ++k) {
                    const int64_t channel = part.rows[k].channel;
                    T* to = part.buffer + k * part.stride;
                    if (copy.from.is_stored(channel)) {
                        prefetch_row<false>(source(k + rows_ahead) + n, images);
                        std::memcpy(to, source(k) + n, images * sizeof(T));
                    } else {
                        for (int64_t i = 0; i < images; ++i) to[i] = copy.from.constants[channel];
                    }
                }
                exchange(part, copy.to + n * copy.to_image_stride, copy.to_image_stride, images);
            }
        }
    }
}

}  // namespace
}  // namespace east

extern "C" {
void east_to_batch_innermost_f32(const east::ToBatchInnermost<float>* copy) { east::to_batch_innermost(*copy); }
void east_to_batch_innermost_f64(const east::ToBatchInnermost<double>* copy) { east::to_batch_innermost(*copy); }
void east_from_batch_innermost_f32(const east::FromBatchInnermost<float>* copy) { east::from_batch_innermost(*copy); }
void east_from_batch_innermost_f64(const east::FromBatchInnermost<double>* copy) { east::from_batch_innermost(*copy); }
}
