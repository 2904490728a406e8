//! The 37 Metal source files that this crate replaces, what each of them asks for, and how much of that is there.

use super::rows::{Row, State};
use super::stages::Stage;
use crate::kernel::KernelSpec;

/// A source file of the replaced project (metal-marlin at 97e53f4).
#[derive(Clone, Copy, Debug)]
pub struct UpstreamFile {
    /// Path below `src/`, without extension.
    pub name: &'static str,
    /// Kernel functions that the file really has, its tests included.
    pub entry_points: usize,
    /// What must be there before the file is replaced.
    pub needs: &'static [Need],
}

/// A kernel, and words that the dtype or the label of one of its cases must hold.
#[derive(Clone, Copy, Debug)]
pub struct Need(pub &'static str, pub &'static str);

/// How far a file's replacement has come on an adapter.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Service {
    Absent,
    Compiles,
    Runs,
    Correct,
    Measured,
}

impl std::fmt::Display for Service {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Service::Absent => "absent",
            Service::Compiles => "compiles",
            Service::Runs => "runs",
            Service::Correct => "correct",
            Service::Measured => "correct + measured",
        })
    }
}

/// One line of the inventory.
#[derive(Clone, Debug)]
pub struct Entry {
    pub file: &'static UpstreamFile,
    /// Kernels of the catalogue that serve it.
    pub kernels: Vec<&'static str>,
    /// Of what is there.
    pub state: Service,
    /// What is not there yet.
    pub missing: Vec<String>,
}

impl Entry {
    /// Whether some, but not all, of what the file asks for is there.
    pub fn in_part(&self) -> bool {
        !self.missing.is_empty() && self.missing.len() < self.file.needs.len()
    }

    /// Whether all of it is.
    pub fn whole(&self) -> bool {
        self.missing.is_empty()
    }

    /// The state as tables show it, never more than is there.
    pub fn state_text(&self) -> String {
        format!("{}{}", self.state, if self.in_part() { ", in part" } else { "" })
    }

    pub fn note(&self) -> String {
        match self.missing.join(", ") {
            none if none.is_empty() => none,
            list if self.in_part() => format!("partial: no {list}"),
            list => format!("needs {list}"),
        }
    }
}

macro_rules! files {
    ($($name:literal $count:literal: $($kernel:literal $words:literal),+;)*) => {
        &[$(UpstreamFile { name: $name, entry_points: $count, needs: &[$(Need($kernel, $words)),+] }),*]
    };
}

/// All 37 files.
pub static INVENTORY: &[UpstreamFile] = files! {
    "all_reduce" 10: "reduce_shards" "";
    "attention" 4: "attention" "", "attention" "bias", "attention_probs" "";
    "batched_gemm" 2: "gemm_batched" "", "qgemm" "fp4 batch";
    "bf16_compat" 6: "convert" "";
    "decode_gemv" 5: "qgemv" "fp4";
    "dense_gemm" 9: "qgemm" "fp4", "qgemv" "fp4", "gate_up" "fp4";
    "dequant" 22: "dequant" "fp4", "dequant" "int4", "dequant" "int4z";
    "dequant_fp8" 9: "dequant" "e4m3", "dequant" "e5m2";
    "dequant_int8" 7: "dequant" "int8", "dequant" "int8z";
    "dequant_sub4bit" 9: "dequant" "int2", "dequant" "int3", "dequant" "nf3";
    "diff_attention" 3: "diff_queries" "", "diff_combine" "attention causal", "diff_combine" "attention bias";
    "flash_attention" 5: "attention" "", "attention_paged" "fp4", "attention_paged" "int4";
    "flash_attention_v2" 7: "attention" "", "attention_decode" "", "attention_paged" "e4m3";
    "gemm_epilogue" 3: "qgemm" "fp4 bias", "qgemm" "fp4 gelutanh", "qgemm" "fp4 silu";
    "gemm_fp4_optimized" 4: "qgemm" "fp4", "qgemv" "fp4";
    "hadamard" 7: "hadamard" "";
    "kernels_autotune" 13: "qgemm" "fp4";
    "marlin_gemm" 14: "gemm" "f16", "qgemm" "fp4", "qgemm" "int4z";
    "mla_proj" 6: "mla" "";
    "moe_dispatch" 5: "moe_sort" "", "moe_gemm" "fp4", "moe_combine" "";
    "moe_dispatch_optimized" 6: "moe_gemm" "fp4", "moe_combine" "";
    "moe_expert_gemm" 3: "moe_gemm" "fp4";
    "moe_router" 7: "moe_route" "";
    "moe_shared_expert" 4: "moe_gemm" "", "moe_combine" "shared";
    "paged_attention" 7: "attention_decode" "blocks", "attention_decode" "e4m3", "attention_decode" "fp4",
        "attention_decode" "int4";
    "rope" 16: "rope" "", "rope_cache" "", "rope_cache" "yarn", "rope" "mla";
    "rwkv_wkv" 8: "wkv" "", "token_shift" "", "relu2" "";
    "sampling" 13: "softmax" "", "argmax" "", "sample" "", "logits" "penalty";
    "simdgroup_attention" 3: "attention" "", "attention_probs" "";
    "sliding_window_attention" 4: "attention" "window", "attention_decode" "window";
    "sparse" 13: "gemm_sparse" "";
    "sparse_gemm" 2: "gemm_sparse" "fp4";
    "tree_attention" 4: "attention" "tree", "attention_decode" "tree", "attention_paged" "tree", "tree_mask" "",
        "tree_accept" "", "tree_sampled" "";
    "vision_preprocess" 16: "image_resize" "", "image_normalize" "", "patchify" "";
    "fusion/attention_residual" 5: "qgemm" "fp4 residual", "qgemv" "fp4 residual", "qgemm" "fp4 norm";
    "fusion/gated_mlp" 5: "gate_up" "fp4", "norm_gate_up_gemv" "fp4", "qgemm" "fp4 residual";
    "fusion/norm_linear" 4: "qgemm" "fp4 norm", "norm_qgemv" "fp4", "qkv" "fp4", "norm_qkv_gemv" "fp4";
};

/// The state of every file after an audit that gave `rows`.
pub fn inventory(catalogue: &[&'static KernelSpec], rows: &[Row]) -> Vec<Entry> {
    let find = |name: &str| catalogue.iter().copied().find(|spec| spec.name == name);
    let entry = |file: &'static UpstreamFile| {
        let mut missing = Vec::new();
        let mut serving: Vec<&'static KernelSpec> =
            catalogue.iter().copied().filter(|spec| spec.replaces.contains(&file.name)).collect();
        for need in file.needs {
            match find(need.0).filter(|spec| need.met_by(spec)) {
                Some(spec) if !serving.iter().any(|s| s.name == spec.name) => serving.push(spec),
                Some(_) => {}
                None => missing.push(need.to_string()),
            }
        }
        let state = if missing.len() == file.needs.len() {
            Service::Absent
        } else {
            serving.iter().map(|spec| service(spec.name, rows)).min().unwrap_or(Service::Absent)
        };
        Entry { file, kernels: serving.iter().map(|spec| spec.name).collect(), state, missing }
    };
    INVENTORY.iter().map(entry).collect()
}

impl Need {
    fn met_by(&self, spec: &KernelSpec) -> bool {
        let Need(_, words) = self;
        (spec.cases)().iter().any(|case| {
            let text = format!("{} {}", case.dtype, case.label).to_lowercase();
            words.split_whitespace().all(|word| text.split([' ', ',', '+', '(', ')']).any(|w| w == word))
        })
    }
}

impl std::fmt::Display for Need {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Need(kernel, "") => f.write_str(kernel),
            Need(kernel, words) => write!(f, "{kernel} ({words})"),
        }
    }
}

/// How far a kernel has come: its worst row among those that this adapter can run.
fn service(kernel: &str, rows: &[Row]) -> Service {
    let rows = || rows.iter().filter(|row| row.kernel == kernel);
    let measured = rows().any(|row| !row.perf.is_empty());
    let of = |row: &Row| match row.state {
        State::Correct if measured => Service::Measured,
        State::Correct => Service::Correct,
        State::Wrong => Service::Runs,
        State::Failed(Stage::Perf) => Service::Correct,
        State::Failed(Stage::Compose | Stage::Validate | Stage::Translate) => Service::Absent,
        _ => Service::Compiles,
    };
    let able = rows().filter(|row| row.state != State::Unavailable).map(of).min();
    able.unwrap_or(if rows().next().is_some() { Service::Compiles } else { Service::Absent })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kernel::CATALOGUE;

    #[test]
    fn counts_are_those_of_the_replaced_project() {
        assert_eq!(INVENTORY.len(), 37);
        assert_eq!(INVENTORY.iter().map(|f| f.entry_points).sum::<usize>(), 270);
    }

    #[test]
    fn kernels_replace_files_that_exist() {
        for spec in CATALOGUE {
            for name in spec.replaces {
                assert!(INVENTORY.iter().any(|f| f.name == *name), "{}: {name}", spec.name);
            }
        }
    }

    #[test]
    fn nothing_is_claimed_without_rows() {
        assert!(inventory(CATALOGUE, &[]).iter().all(|entry| entry.state == Service::Absent));
    }
}
