//! SPIR-V of the Spirv tier: WGSL that naga translates, and one thing that WGSL has no words for.
//!
//! A cooperative matrix is spread over a subgroup, and WGSL can fill one from memory only. Quantised weights that are decoded in
//! registers would have to pass through workgroup memory, which bounds a product with few rows. SPIR-V lets a thread name the
//! elements that it holds (`SPV_KHR_cooperative_matrix`: a matrix is a composite). So in a shader of this tier
//!
//! ```wgsl
//! var elements = array<f16, 8>(…);
//! return coopLoad<coop_mat16x16<f16, A>>(&elements[0], 8u);
//! ```
//!
//! means "the matrix of which this thread holds these elements", and [`fragments`] writes it so. Which elements a thread holds is the
//! driver's choice; the canary of the tier (`src/device/canary_spirv.rs`) reads it out before the tier is trusted.

use std::collections::HashMap;

use naga::back::spv;
use naga::proc::{BoundsCheckPolicies, BoundsCheckPolicy};
use naga::valid::{Capabilities, ValidationFlags, Validator};

use super::compose::Composed;

/// The entry point's SPIR-V, or what naga says against the text. `checked` keeps indices within arrays and loops bounded.
pub(crate) fn translate(composed: &Composed, checked: bool) -> Result<Vec<u32>, String> {
    let wgsl = composed.text.as_str();
    let options = naga::front::wgsl::Options { parse_doc_comments: false, capabilities: Capabilities::all() };
    let module = naga::front::wgsl::Frontend::new_with_options(options)
        .parse(wgsl)
        .map_err(|e| e.emit_to_string(wgsl))?;
    let info = Validator::new(ValidationFlags::all(), Capabilities::all())
        .validate(&module)
        .map_err(|e| e.emit_to_string(wgsl))?;
    let words = spv::write_vec(&module, &info, &options_for(checked), None).map_err(|e| e.to_string())?;
    fragments(&words).map_err(str::to_string)
}

/// What wgpu asks of naga for modules with and without checks.
fn options_for(checked: bool) -> spv::Options<'static> {
    let policy = if checked { BoundsCheckPolicy::Restrict } else { BoundsCheckPolicy::Unchecked };
    spv::Options {
        // Vulkan 1.3's; drivers with cooperative matrices have that.
        lang_version: (1, 6),
        flags: spv::WriterFlags::empty(),
        fake_missing_bindings: true,
        bounds_check_policies: BoundsCheckPolicies {
            index: policy,
            buffer: policy,
            image_load: policy,
            binding_array: BoundsCheckPolicy::Unchecked,
        },
        zero_initialize_workgroup_memory: spv::ZeroInitializeWorkgroupMemoryMode::None,
        force_loop_bounding: checked,
        emit_int_div_checks: checked,
        ..spv::Options::default()
    }
}

/// Words before the first instruction.
const HEADER: usize = 5;
/// The header's word that is one more than the largest id.
const BOUND: usize = 3;

// Opcodes and storage classes of the SPIR-V specification.
const UNDEF: u32 = 1;
const TYPE_ARRAY: u32 = 28;
const TYPE_POINTER: u32 = 32;
const CONSTANT: u32 = 43;
const VARIABLE: u32 = 59;
const LOAD: u32 = 61;
const ACCESS_CHAIN: u32 = 65;
const IN_BOUNDS_ACCESS_CHAIN: u32 = 66;
const COMPOSITE_EXTRACT: u32 = 81;
const COMPOSITE_INSERT: u32 = 82;
const COOPERATIVE_MATRIX_LOAD: u32 = 4457;
const FUNCTION: u32 = 7;

/// Replaces loads of matrices from private arrays by the making of these matrices of the arrays' elements.
///
/// # Errors
/// If the words are not well-formed, or no matrix is made so.
pub(crate) fn fragments(words: &[u32]) -> Result<Vec<u32>, &'static str> {
    match replace(words) {
        None => Err("naga wrote SPIR-V of another form"),
        Some((_, 0)) => Err("no matrix is made of a private array"),
        Some((out, _)) => Ok(out),
    }
}

/// The words with such loads replaced, and how many they were; `None` if the words are not well-formed.
fn replace(words: &[u32]) -> Option<(Vec<u32>, usize)> {
    let mut out = words.get(..HEADER)?.to_vec();
    let (mut next, mut replaced) = (words[BOUND], 0);
    // By id: the element type and length of arrays, what pointers point to, values of constants, pointer types of private variables,
    // the variable that an access goes into.
    let (mut arrays, mut pointees, mut constants) = (HashMap::new(), HashMap::new(), HashMap::new());
    let (mut variables, mut accesses) = (HashMap::new(), HashMap::new());
    let mut rest = &words[HEADER..];
    while let Some(&first) = rest.first() {
        let (length, opcode) = ((first >> 16) as usize, first & 0xffff);
        let instruction = rest.get(..length).filter(|_| length > 0)?;
        rest = &rest[length..];
        match (opcode, instruction) {
            (TYPE_ARRAY, &[_, id, element, count]) => {
                arrays.insert(id, (element, *constants.get(&count)?));
            }
            (TYPE_POINTER, &[_, id, _, pointee]) => {
                pointees.insert(id, pointee);
            }
            (CONSTANT, &[_, _, id, value]) => {
                constants.insert(id, value);
            }
            (VARIABLE, &[_, pointer, id, FUNCTION, ..]) => {
                variables.insert(id, pointer);
            }
            (ACCESS_CHAIN | IN_BOUNDS_ACCESS_CHAIN, &[_, _, id, base, ..]) => {
                accesses.insert(id, base);
            }
            _ => {}
        }
        let private = match (opcode, instruction) {
            (COOPERATIVE_MATRIX_LOAD, &[_, matrix, id, pointer, ..]) => accesses
                .get(&pointer)
                .and_then(|variable| Some((matrix, id, *variable, *variables.get(variable)?))),
            _ => None,
        };
        let Some((matrix, id, variable, pointer)) = private else {
            out.extend_from_slice(instruction);
            continue;
        };
        replaced += 1;
        let array = *pointees.get(&pointer)?;
        let (element, count) = *arrays.get(&array)?;
        let mut emit = |opcode: u32, operands: &[u32]| {
            out.push((operands.len() as u32 + 1) << 16 | opcode);
            out.extend_from_slice(operands);
        };
        let mut fresh = || {
            next += 1;
            next - 1
        };
        let all = fresh();
        emit(LOAD, &[array, all, variable]);
        let mut made = fresh();
        emit(UNDEF, &[matrix, made]);
        for i in 0..count {
            let (one, with) = (fresh(), if i + 1 == count { id } else { fresh() });
            emit(COMPOSITE_EXTRACT, &[element, one, all, i]);
            emit(COMPOSITE_INSERT, &[matrix, with, one, made, i]);
            made = with;
        }
    }
    out[BOUND] = next;
    Some((out, replaced))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::device::SPIRV_CANARY;
    use crate::kernel::compose;

    fn canary() -> Composed {
        let tier = &SPIRV_CANARY.tiers[0];
        compose(tier.path, tier.source, &(tier.variants)()[0].defines).expect("it composes")
    }

    fn opcodes(words: &[u32]) -> Vec<u32> {
        let (mut all, mut rest) = (Vec::new(), &words[HEADER..]);
        while let Some(&first) = rest.first() {
            all.push(first & 0xffff);
            rest = &rest[(first >> 16) as usize..];
        }
        all
    }

    #[test]
    fn matrices_are_made_of_eight_elements() {
        for checked in [false, true] {
            let words = translate(&canary(), checked).expect("it translates");
            let opcodes = opcodes(&words);
            let count = |opcode| opcodes.iter().filter(|&&o| o == opcode).count();
            assert_eq!(count(COOPERATIVE_MATRIX_LOAD), 0, "both loads are from private arrays");
            assert_eq!(count(COMPOSITE_INSERT), 16);
            assert_eq!(count(UNDEF), 2);
        }
    }

    #[test]
    fn what_is_not_as_expected_is_refused() {
        let plain = Composed { text: "@compute @workgroup_size(1) fn main() {}".into(), lines: Vec::new() };
        assert_eq!(translate(&plain, false), Err("no matrix is made of a private array".to_string()));
        let broken = Composed { text: "fn main( {".into(), lines: Vec::new() };
        assert!(translate(&broken, false).is_err());
        assert!(fragments(&[]).is_err());
        // An instruction that is longer than the rest.
        assert!(fragments(&[0x0723_0203, 0x0001_0600, 0, 1, 0, 3 << 16 | LOAD]).is_err());
    }
}
