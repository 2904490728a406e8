//! Declaration and cases of `embed`.

use half::bf16;

use super::{Embed, cpu, record};
use crate::kernel::{
    Access, Binding, Case, Check, Cost, Def, KernelSpec, Level, Needs, Params, Prepared, Random, Rule,
    Variant, defines, params, tier, unit,
};
use crate::tensor::DType;

params! {
    pub(super) struct EmbedParams { count: u32, units: u32, vocab: u32, scale: f32 }
}

pub static EMBED: KernelSpec = KernelSpec {
    name: "embed",
    family: "embed",
    replaces: &[],
    params: EmbedParams::FIELDS,
    bindings: &[
        Binding { name: "ids", access: Access::Read },
        Binding { name: "table", access: Access::Read },
        Binding { name: "out", access: Access::ReadWrite },
    ],
    tiers: &[tier!(Base, "embed/embed.wgsl", variants)],
    cases,
};

pub(super) const THREADS: u32 = 256;

/// Table dtypes; u32 stands for packed bf16.
const TABLES: [DType; 3] = [DType::F32, DType::F16, DType::U32];

fn name(table: DType) -> &'static str {
    if table == DType::U32 { "bf16" } else { table.wgsl() }
}

/// `wide`: four elements a thread, for rows that are a multiple of four.
pub(super) fn variant(table: DType, out: DType, wide: bool) -> Variant {
    let table_unit = match (table, wide) {
        (DType::U32, true) => "vec2<u32>",
        _ => unit(table, wide),
    };
    Variant {
        defines: defines![
            TABLE = Def::Word(name(table)),
            TABLE_UNIT = Def::Type(table_unit),
            OUT = Def::Word(out.wgsl()),
            OUT_UNIT = Def::Type(unit(out, wide)),
            VALUE = Def::Type(unit(DType::F32, wide)),
            WIDTH = Def::Num(if wide { 4 } else { 1 }),
            THREADS = Def::Num(THREADS),
        ],
        needs: Needs { f16: table == DType::F16 || out == DType::F16, threads: THREADS, ..Needs::default() },
    }
}

fn variants() -> Vec<Variant> {
    let mut all = Vec::new();
    for table in TABLES {
        for out in [DType::F32, DType::F16] {
            all.extend([false, true].map(|wide| variant(table, out, wide)));
        }
    }
    all
}

fn cases() -> Vec<Case> {
    use Level::{Full, Perf, Quick};
    // (tokens, vocabulary, columns); a workgroup takes 256 units of one or four columns.
    let shapes = [
        (Quick, 5, 7, 64),
        (Quick, 3, 7, 10),
        (Full, 1, 1, 2),
        (Full, 1, 3, 1022),
        (Full, 1, 3, 1024),
        (Full, 1, 3, 1028),
        (Full, 129, 1000, 576),
    ];
    let mut cases = Vec::new();
    for table in TABLES {
        for out in [DType::F32, DType::F16] {
            for (level, tokens, vocab, cols) in shapes {
                cases.push(case(level, table, out, tokens, vocab, cols));
            }
        }
    }
    for cols in [1, 3, 255, 257] {
        cases.push(case(Full, DType::F32, DType::F32, 2, 5, cols));
    }
    // More than 65535 workgroups.
    cases.push(case(Full, DType::F16, DType::F16, 65_537 * 256, 11, 1));
    cases.push(case(Perf, DType::F16, DType::F16, 4096, 16_384, 4096));
    cases.push(case(Perf, DType::U32, DType::F16, 1, 128_256, 2048));
    cases
}

fn case(level: Level, table: DType, out: DType, tokens: usize, vocab: usize, cols: usize) -> Case {
    let label = format!("{tokens} of {vocab}×{cols} to {}", out.wgsl());
    Case::new(level, name(table), label, move |gpu, copies| {
        let mut random = Random::new((tokens * 31 + vocab * 7 + cols) as u64);
        // One row more than the table has, so that a read past its end finds something.
        let mut values = random.values((vocab + 1) * cols, table);
        let table = if table == DType::U32 {
            let bits: Vec<u16> = values.iter().map(|&v| bf16::from_f32(v).to_bits()).collect();
            values = bits.iter().map(|&b| bf16::from_bits(b).to_f32()).collect();
            let words = bits.chunks(2).map(|b| u32::from(b[0]) | u32::from(b[1]) << 16);
            gpu.tensor(&[vocab + 1, cols / 2], &words.collect::<Vec<_>>())?
        } else {
            gpu.floats(table, &[vocab + 1, cols], &values)?
        }
        .rows_view(gpu, 0, vocab)?;
        values.truncate(vocab * cols);
        let element = table.bytes() / (vocab * cols) as u64;
        let cost = Cost {
            bytes: (tokens * cols) as u64 * (element + out.size() as u64) + 4 * tokens as u64,
            flops: (tokens * cols) as u64,
        };
        Prepared::sets(copies, cost, || {
            // Every ninth id is past the table; the greatest of all among them.
            let mut id = |t: usize| match t % 9 {
                4 if t.is_multiple_of(2) => u32::MAX,
                4 => vocab as u32,
                _ => random.below(vocab) as u32,
            };
            let ids: Vec<u32> = (0..tokens).map(&mut id).collect();
            let ids_gpu = gpu.tensor(&[tokens], &ids)?;
            let out = gpu.output(out, &[tokens, cols])?;
            let (values, table, scale) = (values.clone(), table.clone(), 1.75);
            let want = move || cpu::embed(&ids, &values, cols, scale);
            let check = Check::new("out", &out, Rule::stored_in(out.dtype()), want);
            let launch = move |r: &mut crate::Recorder<'_, '_>| {
                record(r, &Embed { ids: &ids_gpu, table: &table, out: &out, scale })
            };
            Ok((launch, vec![check]))
        })
    })
}
