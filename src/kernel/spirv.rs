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
//! means "the matrix of which this thread holds these elements", and `coopStore(matrix, &elements[0], 8u)` likewise "the elements of
//! it that this thread holds"; [`fragments`] writes both so. Which elements a thread holds is the driver's choice; the canary of the
//! tier (`src/device/canary_spirv.rs`) reads it out before the tier is trusted.
//!
//! Two more things change on the way: `vec2<f16>(unpack2x16float(word))` becomes the `bitcast` that naga lacks, and no loop may be
//! unrolled. NVIDIA's compiler writes loops out eight times, and what a warp runs once or twice is then mostly read from memory. A
//! shader may be of this tier for that alone.

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
const EXT_INST: u32 = 12;
const TYPE_ARRAY: u32 = 28;
const TYPE_POINTER: u32 = 32;
const CONSTANT: u32 = 43;
const VARIABLE: u32 = 59;
const LOAD: u32 = 61;
const STORE: u32 = 62;
const ACCESS_CHAIN: u32 = 65;
const IN_BOUNDS_ACCESS_CHAIN: u32 = 66;
const COMPOSITE_CONSTRUCT: u32 = 80;
const COMPOSITE_EXTRACT: u32 = 81;
const COMPOSITE_INSERT: u32 = 82;
const FCONVERT: u32 = 115;
const BITCAST: u32 = 124;
const LOOP_MERGE: u32 = 246;
const TYPE_COOPERATIVE_MATRIX: u32 = 4456;
const COOPERATIVE_MATRIX_LOAD: u32 = 4457;
const COOPERATIVE_MATRIX_STORE: u32 = 4458;
const FUNCTION: u32 = 7;
/// Of loops.
const DONT_UNROLL: u32 = 2;
/// Of the set GLSL.std.450, the only one that naga imports.
const UNPACK_HALF_2X16: u32 = 62;

/// Replaces loads of matrices from private arrays by the making of these matrices of the arrays' elements, and stores into such arrays
/// by the taking apart of the matrices.
///
/// # Errors
/// If the words are not well-formed, or have matrices of which none is made so.
pub(crate) fn fragments(words: &[u32]) -> Result<Vec<u32>, &'static str> {
    match replace(words) {
        None => Err("naga wrote SPIR-V of another form"),
        Some((_, false)) => Err("no matrix is made of a private array"),
        Some((out, true)) => Ok(out),
    }
}

/// What the words have declared so far that says what a pointer points to.
#[derive(Default)]
struct Declared {
    /// By id of an array type: its element type and length.
    arrays: HashMap<u32, (u32, u32)>,
    /// By id of a pointer type: what it points to.
    pointees: HashMap<u32, u32>,
    constants: HashMap<u32, u32>,
    /// By id of a private variable: its pointer type.
    variables: HashMap<u32, u32>,
    /// By id of a pointer into a variable: the variable.
    accesses: HashMap<u32, u32>,
    /// By id of two floats that are the halves of a word: the word.
    unpacked: HashMap<u32, u32>,
    matrices: bool,
}

/// An array that one thread alone sees.
struct Private {
    variable: u32,
    array: u32,
    element: u32,
    count: u32,
}

impl Declared {
    fn note(&mut self, opcode: u32, instruction: &[u32]) -> Option<()> {
        match (opcode, instruction) {
            (TYPE_ARRAY, &[_, id, element, count]) => {
                self.arrays.insert(id, (element, *self.constants.get(&count)?));
            }
            (TYPE_POINTER, &[_, id, _, pointee]) => {
                self.pointees.insert(id, pointee);
            }
            (CONSTANT, &[_, _, id, value]) => {
                self.constants.insert(id, value);
            }
            (VARIABLE, &[_, pointer, id, FUNCTION, ..]) => {
                self.variables.insert(id, pointer);
            }
            (ACCESS_CHAIN | IN_BOUNDS_ACCESS_CHAIN, &[_, _, id, base, ..]) => {
                self.accesses.insert(id, base);
            }
            (EXT_INST, &[_, _, id, _, UNPACK_HALF_2X16, word]) => {
                self.unpacked.insert(id, word);
            }
            (TYPE_COOPERATIVE_MATRIX, _) => self.matrices = true,
            _ => {}
        }
        Some(())
    }

    /// The private array that a pointer goes into, if it does.
    fn private(&self, pointer: u32) -> Option<Private> {
        let variable = *self.accesses.get(&pointer)?;
        let array = *self.pointees.get(self.variables.get(&variable)?)?;
        let &(element, count) = self.arrays.get(&array)?;
        Some(Private { variable, array, element, count })
    }
}

/// Instructions that replace others, and the ids that are left for their results.
struct Writer {
    out: Vec<u32>,
    next: u32,
}

impl Writer {
    fn emit(&mut self, opcode: u32, operands: &[u32]) {
        self.out.push((operands.len() as u32 + 1) << 16 | opcode);
        self.out.extend_from_slice(operands);
    }

    fn fresh(&mut self) -> u32 {
        self.next += 1;
        self.next - 1
    }

    /// `id`, a matrix of the type `matrix`, of the elements of an array.
    fn make(&mut self, matrix: u32, id: u32, from: &Private) {
        let all = self.fresh();
        self.emit(LOAD, &[from.array, all, from.variable]);
        let mut made = self.fresh();
        self.emit(UNDEF, &[matrix, made]);
        for i in 0..from.count {
            let (one, with) = (self.fresh(), if i + 1 == from.count { id } else { self.fresh() });
            self.emit(COMPOSITE_EXTRACT, &[from.element, one, all, i]);
            self.emit(COMPOSITE_INSERT, &[matrix, with, one, made, i]);
            made = with;
        }
    }

    /// The elements of a matrix into an array.
    fn take_apart(&mut self, matrix: u32, into: &Private) {
        let all = self.fresh();
        let mut construct = vec![into.array, all];
        for i in 0..into.count {
            let one = self.fresh();
            self.emit(COMPOSITE_EXTRACT, &[into.element, one, matrix, i]);
            construct.push(one);
        }
        self.emit(COMPOSITE_CONSTRUCT, &construct);
        self.emit(STORE, &[into.variable, all]);
    }
}

/// The words with such loads and stores replaced, and whether there were any, or no matrices; `None` if the words are not well-formed.
fn replace(words: &[u32]) -> Option<(Vec<u32>, bool)> {
    let mut writer = Writer { out: words.get(..HEADER)?.to_vec(), next: words[BOUND] };
    let (mut declared, mut replaced) = (Declared::default(), false);
    let mut rest = &words[HEADER..];
    while let Some(&first) = rest.first() {
        let (length, opcode) = ((first >> 16) as usize, first & 0xffff);
        let instruction = rest.get(..length).filter(|_| length > 0)?;
        rest = &rest[length..];
        declared.note(opcode, instruction)?;
        // A shader has no f64, so these are converted to halves again.
        if let (FCONVERT, &[_, halves, id, floats]) = (opcode, instruction)
            && let Some(&word) = declared.unpacked.get(&floats)
        {
            writer.emit(BITCAST, &[halves, id, word]);
            continue;
        }
        if let (LOOP_MERGE, &[_, merge, next, control]) = (opcode, instruction) {
            writer.emit(LOOP_MERGE, &[merge, next, control | DONT_UNROLL]);
            continue;
        }
        let (pointer, matrix) = match (opcode, instruction) {
            (COOPERATIVE_MATRIX_LOAD, &[_, _, _, pointer, ..]) => (pointer, None),
            (COOPERATIVE_MATRIX_STORE, &[_, pointer, matrix, ..]) => (pointer, Some(matrix)),
            _ => (0, None), // 0 is no id
        };
        match (declared.private(pointer), matrix) {
            (None, _) => {
                writer.out.extend_from_slice(instruction);
                continue;
            }
            (Some(array), None) => writer.make(instruction[1], instruction[2], &array),
            (Some(array), Some(matrix)) => writer.take_apart(matrix, &array),
        }
        replaced = true;
    }
    writer.out[BOUND] = writer.next;
    Some((writer.out, replaced || !declared.matrices))
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
            assert_eq!(count(COOPERATIVE_MATRIX_LOAD), 0, "all loads are from private arrays");
            assert_eq!(count(COMPOSITE_INSERT), 24);
            assert_eq!(count(UNDEF), 3);
            assert_eq!(count(COOPERATIVE_MATRIX_STORE), 0, "the store is into one");
        }
    }

    /// Not run by any device.
    fn translated(main: &str) -> Vec<u32> {
        let text = format!(
            "enable f16; enable wgpu_cooperative_matrix;
            @group(0) @binding(0) var<storage, read_write> x: array<u32>;
            @compute @workgroup_size(32) fn main() {{
                var e = array<f16, 8>();
                let m = coopLoad<coop_mat16x16<f16, A>>(&e[0], 8u);
                {main}
            }}"
        );
        translate(&Composed { text, lines: Vec::new() }, false).expect("it translates")
    }

    #[test]
    fn halves_of_a_word_are_its_bits() {
        let opcodes = opcodes(&translated("if vec2<f16>(unpack2x16float(x[0])).x > 1.0h { x[1] = 1u; }"));
        assert!(opcodes.contains(&BITCAST) && !opcodes.contains(&FCONVERT));
        // Not where the floats are wanted.
        let floats = translated("x[1] = u32(unpack2x16float(x[0]).x);");
        assert!(!self::opcodes(&floats).contains(&BITCAST));
    }

    /// What `wgsl/common/decode_join.wgsl` builds on; it is naga's choice, and WGSL's barrier asks for less.
    #[test]
    fn storage_barriers_reach_the_whole_device() {
        const CONTROL_BARRIER: u32 = 224;
        let (workgroup, device, acquire_release, uniform_memory) = (2, 1, 8, 64);
        let words = translated("storageBarrier();");
        let barrier = words.windows(4).find(|w| w[0] == 4 << 16 | CONTROL_BARRIER).expect("a barrier");
        let constant =
            |id: u32| words.windows(4).find(|w| w[0] == 4 << 16 | CONSTANT && w[2] == id).map(|w| w[3]);
        let of = [1, 2, 3].map(|i| constant(barrier[i]));
        assert_eq!(of, [workgroup, device, acquire_release | uniform_memory].map(Some));
    }

    #[test]
    fn loops_stay_loops() {
        let words = translated("for (var i = 0u; i < 8u; i++) { x[i] = i; }");
        let merge = words.windows(4).find(|w| w[0] == 4 << 16 | LOOP_MERGE).expect("a loop");
        assert_eq!(merge[3], DONT_UNROLL);
    }

    #[test]
    fn what_is_not_as_expected_is_refused() {
        let of = |text: &str| translate(&Composed { text: text.into(), lines: Vec::new() }, false);
        assert!(of("@compute @workgroup_size(1) fn main() {}").is_ok());
        let from_memory = "enable f16; enable wgpu_cooperative_matrix; var<workgroup> e: array<f16, 256>;
            @compute @workgroup_size(32) fn main() { let m = coopLoad<coop_mat16x16<f16, A>>(&e[0], 16u); }";
        assert_eq!(of(from_memory), Err("no matrix is made of a private array".to_string()));
        let broken = Composed { text: "fn main( {".into(), lines: Vec::new() };
        assert!(translate(&broken, false).is_err());
        assert!(fragments(&[]).is_err());
        // An instruction that is longer than the rest.
        assert!(fragments(&[0x0723_0203, 0x0001_0600, 0, 1, 0, 3 << 16 | LOAD]).is_err());
    }
}
