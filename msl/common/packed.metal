// A part of the rows of a weight: its buffers and loads. Needs weight.metal, and `params` with
//     packets       packets in a row
//     groups        scales in a row
//     group_shift   log2 of the group, 31 for one group a row
#if WEIGHT == f32
using WUnit = float4;
#elif PACKET_WORDS == 3
using WUnit = uint;
#elif PACKET_WORDS == 2
using WUnit = uint2;
#else
using WUnit = uint4;
#endif
#if SCALE_FORMAT == e8m0
using Scale = uchar;
using Zero = half;
#elif SCALE_FORMAT == e4m3
using Scale = uchar;
using Zero = float; // the scale of the tensor, for each row
#else
using Scale = half;
using Zero = half;
#endif

struct Weight {
    device const WUnit* w;
    device const Scale* scales;
    device const Zero* zeros;
};

inline Packet load_packet(Weight weight, constant Params& params, uint row, uint packet) {
    uint at = row * params.packets + packet;
#if WEIGHT == f32
    return Packet{weight.w[2u * at], weight.w[2u * at + 1u]};
#elif PACKET_WORDS == 3
    return uint4(weight.w[3u * at], weight.w[3u * at + 1u], weight.w[3u * at + 2u], 0u);
#elif PACKET_WORDS == 2
    return uint4(weight.w[at], 0u, 0u);
#else
    return weight.w[at];
#endif
}

inline float load_scale(Weight weight, constant Params& params, uint row, uint group) {
#if SCALE_FORMAT == none
    return 1.0f;
#else
    uint at = row * params.groups + group;
#if SCALE_FORMAT == f16
    return float(weight.scales[at]);
#elif SCALE_FORMAT == e8m0
    return as_type<float>(uint(weight.scales[at]) << 23u);
#else
    // E4M3 as a half is v·2⁻⁸; see weight/e4m3.metal.
    return halves(uint(weight.scales[at]) << 7u).x * 256.0f * weight.zeros[row];
#endif
#endif
}

inline float load_zero(Weight weight, constant Params& params, uint row, uint group) {
#if STORED_ZEROS
    return float(weight.zeros[row * params.groups + group]);
#else
    return FIXED_ZERO;
#endif
}

// The group of column `k`; past the row's end the last one.
inline uint scale_group(constant Params& params, uint k) {
    return min(k >> params.group_shift, max(params.groups, 1u) - 1u);
}
