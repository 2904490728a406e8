//! WGSL as SPIR-V with what WGSL cannot say: a half read from the bits of a word, at no cost.
//!
//! WGSL has `unpack2x16float`, which widens to f32, and no bitcast between a word and two halves. Narrowing the result
//! back gives the same bits, yet drivers compile both conversions (seen on NVIDIA, where they take a third of a
//! matrix product's time). [`without_round_trips`] makes them one `OpBitcast`.

use std::collections::HashMap;

const HEADER: usize = 5;
const OP_EXT_INST: u32 = 12;
const OP_F_CONVERT: u32 = 115;
const OP_BITCAST: u32 = 124;
/// Of the extended set GLSL.std.450, the only one that naga imports.
const UNPACK_HALF_2X16: u32 = 62;

/// Replaces each conversion to halves of an `unpack2x16float` by a bitcast of its word. Returns how many there were.
pub(super) fn without_round_trips(words: &mut [u32]) -> usize {
    let mut unpacked = HashMap::new();
    let mut count = 0;
    let mut at = HEADER;
    while at < words.len() {
        let len = (words[at] >> 16) as usize;
        match words[at] & 0xffff {
            OP_EXT_INST if words[at + 4] == UNPACK_HALF_2X16 => {
                unpacked.insert(words[at + 2], words[at + 5]);
            }
            OP_F_CONVERT => {
                if let Some(&word) = unpacked.get(&words[at + 3]) {
                    words[at] = (words[at] & 0xffff_0000) | OP_BITCAST;
                    words[at + 3] = word;
                    count += 1;
                }
            }
            _ => {}
        }
        at += len.max(1);
    }
    count
}

/// Peephole
#[cfg(feature = "audit")]
pub(super) fn translate(text: &str) -> Vec<u32> {
    use naga::back::spv;
    let module = naga::front::wgsl::parse_str(text).unwrap();
    let info = naga::valid::Validator::new(naga::valid::ValidationFlags::all(), naga::valid::Capabilities::all())
        .validate(&module)
        .unwrap();
    let policy = naga::proc::BoundsCheckPolicy::Unchecked;
    let options = spv::Options {
        lang_version: (1, 6),
        flags: spv::WriterFlags::empty(),
        bounds_check_policies: naga::proc::BoundsCheckPolicies {
            index: policy,
            buffer: policy,
            image_load: policy,
            binding_array: policy,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: false,
        ..Default::default()
    };
    let mut words = spv::write_vec(&module, &info, &options, None).unwrap();
    let n = without_round_trips(&mut words);
    log::info!("{n} bitcasts");
    words
}
